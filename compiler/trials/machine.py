"""The machine that measurements are made on: what it is, and the rates of its processor."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from einc.base.errors import CallError
from einc.base.targets import TARGETS, Rates, Target
from einc.runtime.execution import target_of
from einc.tuning.machines import machine, said

if TYPE_CHECKING:
    import torch


def device_called(name: str | None) -> torch.device:
    """The device of that name, by default a GPU if there is one; raises `CallError` if it does not exist."""
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise CallError(f"there is no device '{name}'", fact="devices are cpu and cuda", hint="--device cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise CallError("there is no GPU here", fact="torch.cuda.is_available() is False", hint="--device cpu")
    return torch.device(name)


def facts(device: torch.device) -> dict[str, str]:
    """The facts that measurements depend on: the device, versions, the date."""
    import torch

    found = {
        "device": str(machine(device)),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
    }
    for name in ("einc", "torch", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda or torch.version.hip)
    else:
        found["load"] = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return found


_CYCLES = 1 << 17  # about a tenth of a millisecond


def clock_rate(device: torch.device) -> float | None:
    """The rate of a device's clock in Hz: a GPU's by the time of some cycles; None where it is not known."""
    import torch

    if device.type == "cuda":
        cuda: Any = torch.cuda  # partly untyped
        start, end = (cuda.Event(enable_timing=True) for _ in range(2))
        cuda._sleep(_CYCLES)
        start.record()
        cuda._sleep(_CYCLES)
        end.record()
        end.synchronize()
        return _CYCLES / (1e-3 * float(start.elapsed_time(end)))
    mega = said("cpu MHz")
    return None if mega is None else 1e6 * float(mega)


# Bytes a second of boards whose memory is not that of their kind's first; data sheets.
_MEMORY = {"H200": 4.8e12, "GH200": 4.0e12, "H100 PCIe": 2.0e12, "H100 NVL": 3.9e12, "A100-PCIE-40GB": 1.55e12}


def target(device: torch.device) -> Target:
    """The machine for the cost model: a GPU by its data sheet, a processor by measured rates."""
    if device.type == "cpu":
        return _host()
    import torch

    found, name = target_of(device), torch.cuda.get_device_name(device)
    known = [memory for board, memory in _MEMORY.items() if board in name.split(" ", 1)[-1]]
    return replace(found, rates=replace(found.rates, memory=known[-1])) if known else found


@lru_cache(maxsize=1)
def _host() -> Target:
    return replace(TARGETS["cpu"], rates=_rates())


def _rates() -> Rates:
    """Rates of float32 on all threads: matrix products, elements in the cache, and bytes of a copy in memory."""
    import torch

    n, few, many = 1024, 1 << 18, 1 << 24
    a, b, c = (torch.randn(n, n) for _ in range(3))
    x, y, z = (torch.rand(few) for _ in range(3))
    long, other = torch.zeros(many), torch.zeros(many)
    return Rates(
        matrix=2 * n**3 / _least(lambda: torch.mm(a, b, out=c)),
        vector=few / _least(lambda: torch.add(x, y, out=z)),
        special=few / _least(lambda: torch.exp(x, out=z)),
        memory=2 * 4 * many / _least(lambda: other.copy_(long)),
        processors=1,
        launch=TARGETS["cpu"].rates.launch,
        in_turn=True,
    )


def _least(f: Callable[[], object]) -> float:
    """The least time of several runs, in seconds."""
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - start)
    return best
