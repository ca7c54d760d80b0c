"""What measurements hold for: a model of GPU, or a model of processor and the threads that torch has there."""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def machine(device: torch.device) -> str | None:
    """The name of a device's model; None where nothing is measured, as on the meta device."""
    import torch

    if device.type == "cuda":
        return _gpu(torch.cuda.current_device() if device.index is None else device.index)
    return f"{processor()}, {torch.get_num_threads()} threads" if device.type == "cpu" else None


@lru_cache(maxsize=64)
def _gpu(index: int) -> str:
    import torch

    return str(torch.cuda.get_device_name(index))


@lru_cache(maxsize=1)
def processor() -> str:
    """The model of this computer's processor."""
    return said("model name") or platform.processor() or platform.machine()


def said(what: str) -> str | None:
    """What the system says of its first processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith(what))
    except (OSError, StopIteration):
        return None
