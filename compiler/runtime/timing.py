"""Times of several ways to compute one thing, measured in turns in one process.

On a GPU every run starts with an idle host and a cold L2 cache, is timed by events on the device, and the median
counts. On a CPU the least time counts, since whatever else runs there only adds to it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Way = Callable[[], object]

_COLD = 1 << 28  # bytes, more than any L2 cache
_HEAD_START = 1_500_000  # cycles, somewhat less than a millisecond, in which the host enqueues the timed work
_ROUNDS = (3, 100)


def race(ways: Mapping[str, Way], device: torch.device, budget: float) -> dict[str, float]:
    """The seconds that each way takes; `budget` is the seconds to spend on each, after one run to warm up."""
    if not ways:
        return {}
    return _on_gpu(ways, budget) if device.type == "cuda" else _on_cpu(ways, budget)


def _rounds(budget: float, slowest: float) -> int:
    least, most = _ROUNDS
    return max(least, min(most, int(budget / max(slowest, 1e-9))))


def _on_cpu(ways: Mapping[str, Way], budget: float) -> dict[str, float]:
    first = {name: _seconds(way, 1) for name, way in ways.items()}
    first = {name: _seconds(way, 1) for name, way in ways.items()}
    again = {name: max(1, min(1000, int(1e-3 / seconds))) for name, seconds in first.items()}
    best = dict(first)
    for _ in range(_rounds(budget, max(first.values()))):
        for name, way in ways.items():
            best[name] = min(best[name], _seconds(way, again[name]))
    return best


def _seconds(way: Way, runs: int) -> float:
    """The mean time of several runs, for runs too short for the clock."""
    start = time.perf_counter()
    for _ in range(runs):
        way()
    return (time.perf_counter() - start) / runs


def _on_gpu(ways: Mapping[str, Way], budget: float) -> dict[str, float]:
    import torch

    cold = torch.empty(_COLD, dtype=torch.int8, device="cuda")
    for way in ways.values():
        way()
    first = {name: _device_seconds(way, cold) for name, way in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_rounds(budget, max(first.values()) + 1.5e-3)):
        for name, way in ways.items():
            taken[name].append(_device_seconds(way, cold))
    return {name: statistics.median(times) for name, times in taken.items()}


def _device_seconds(way: Way, cold: torch.Tensor) -> float:
    import torch

    cuda: Any = torch.cuda  # partly untyped
    start, end = (cuda.Event(enable_timing=True) for _ in range(2))
    cold.zero_()
    cuda._sleep(_HEAD_START)
    start.record()
    way()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e-3
