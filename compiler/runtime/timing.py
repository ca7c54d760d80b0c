"""Times of several ways to compute one thing, measured in turns in one process.

In a round each way has a turn, and then each another in the reverse order, ABBA, so that what drifts falls on all
alike. A ratio is taken round by round. The median over rounds counts, with the interval that it is in with 95%
confidence whatever the times' distribution (order statistics, by the binomial law: David and Nagaraja, *Order
Statistics*, 7.1).

A turn is several runs one after the other, each on the next of several sets of buffers, which together are more than
the caches hold: every run finds them cold. The device's time is that between two events around them, which a GPU
reaches after the host has enqueued all of them; the host's time is what enqueueing takes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, comb
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

Way = Callable[[int], object]  # a run on the set of buffers of that number

ROUNDS = 7  # at least
_MOST_ROUNDS = 31
_MOST_RUNS = 32  # in a turn
_COLD = 3  # times what the cache holds, sets of buffers are together
_MOST_SETS = 64
_SURE = 0.95
_CYCLES = 2e9  # about those of a GPU in a second
_HOST = 2e-3  # seconds that the host may take for a run before it is known
_START = 5e-5  # seconds that a GPU waits at least before the first run of a turn


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of one run: of the device, and of the host."""

    device: float
    host: float


class Clock(Protocol):
    """How a turn is timed."""

    def turn(self, way: Way, first: int, runs: int, ahead: float) -> Turn:
        """The mean time of so many runs from a set of buffers on; `ahead` are the seconds that the host may take."""
        ...


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the interval that it is in."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Race:
    """The times of ways by name, a turn for each round."""

    turns: Mapping[str, Sequence[Turn]]

    def device(self, name: str) -> float:
        """The seconds of a way on the device: the median over rounds."""
        return statistics.median(t.device for t in self.turns[name])

    def least(self, name: str) -> float:
        """The seconds of a way on the device in its fastest round: what else runs on a machine only adds to it."""
        return min(t.device for t in self.turns[name])

    def host(self, name: str) -> float:
        """The seconds of a way on the host: the median over rounds."""
        return statistics.median(t.host for t in self.turns[name])

    def ratio(self, name: str, over: str) -> Spread:
        """A way's time on the device over another's, by rounds."""
        pairs = zip(self.turns[name], self.turns[over], strict=True)
        return spread([x.device / y.device for x, y in pairs])


def spread(values: Sequence[float]) -> Spread:
    """The median of some values, and the narrowest pair of them, alike from both ends, that is sure to enclose it."""
    found, n = sorted(values), len(values)
    outside, k = 0.0, 0
    while k < (n - 1) // 2 and outside + 2 * comb(n, k) / 2**n <= 1 - _SURE:
        outside += 2 * comb(n, k) / 2**n
        k += 1
    at = max(k - 1, 0)
    return Spread(statistics.median(found), found[at], found[n - 1 - at])


def sets_of_buffers(size: int, cache: int) -> int:
    """The number of sets of so many bytes that are three times what a cache holds, as far as that is worth making."""
    return max(1, min(_MOST_SETS, ceil(_COLD * cache / max(size, 1))))


def race(ways: Mapping[str, Way], clock: Clock, budget: float, rounds: int | None = None) -> Race:
    """The turns of ways, in about so many seconds each, after two runs of each to warm up.

    Without a number of rounds there are as many as the budget allows, 7 at least.
    """
    for way in ways.values():
        way(0)
    once = {name: clock.turn(way, 1, 1, _HOST) for name, way in ways.items()}
    longest = max((max(t.device, t.host) for t in once.values()), default=0.0)
    count = rounds or max(ROUNDS, min(_MOST_ROUNDS, int(budget / (2 * longest + 1e-4))))
    each = budget / (2 * count)
    runs = {name: max(1, min(_MOST_RUNS, int(each / max(t.device, t.host, 1e-7)))) for name, t in once.items()}
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    at = 0
    for _ in range(count):
        there: dict[str, Turn] = {}
        for name in (*ways, *reversed(list(ways))):
            turn = clock.turn(ways[name], at, runs[name], once[name].host)
            at += runs[name]
            if name in there:
                before = there[name]
                turns[name].append(Turn((before.device + turn.device) / 2, (before.host + turn.host) / 2))
            there[name] = turn
    return Race(turns)


def seconds_of(ways: Mapping[str, Callable[[], object]], device: torch.device, budget: float) -> dict[str, float]:
    """The seconds of ways that have their buffers already, in about so many seconds each: the median on a GPU, the
    least on a processor."""
    if not ways:
        return {}
    found = race({name: partial(_on_its_own, way) for name, way in ways.items()}, clock_of(device), budget)
    return {name: found.device(name) if device.type == "cuda" else found.least(name) for name in ways}


def _on_its_own(way: Callable[[], object], _: int) -> object:
    return way()


@dataclass(frozen=True, slots=True)
class HostClock:
    """Times what the host does itself: both times are that of the call."""

    now: Callable[[], float] = time.perf_counter

    def turn(self, way: Way, first: int, runs: int, ahead: float) -> Turn:  # noqa: ARG002 - nothing runs behind
        start = self.now()
        for k in range(runs):
            way(first + k)
        taken = (self.now() - start) / runs
        return Turn(taken, taken)


class GpuClock:
    """Times a GPU by events, with its cache full of something else when the first run of a turn begins."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self.cold = torch.empty(_COLD * cache_of(device), dtype=torch.int8, device=device)

    def turn(self, way: Way, first: int, runs: int, ahead: float) -> Turn:
        import torch

        cuda: Any = torch.cuda  # partly untyped
        start, end = (cuda.Event(enable_timing=True) for _ in range(2))
        self.cold.zero_()
        cuda._sleep(int(_CYCLES * (_START + 1.5 * runs * ahead)))
        start.record()
        begun = time.perf_counter()
        for k in range(runs):
            way(first + k)
        host = time.perf_counter() - begun
        end.record()
        end.synchronize()
        return Turn(float(start.elapsed_time(end)) * 1e-3 / runs, host / runs)


def clock_of(device: torch.device) -> Clock:
    """The clock of a device."""
    return GpuClock(device) if device.type == "cuda" else HostClock()


def cache_of(device: torch.device) -> int:
    """Bytes of the last cache before memory."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [_kilobytes(f"/sys/devices/system/cpu/cpu0/cache/index{k}/size") for k in range(5)]
    return max(sizes) * 1024 or _SOME


_SOME = 32 << 20  # bytes of a last cache, where it is not known


def _kilobytes(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().strip().removesuffix("K"))
    except (OSError, ValueError):
        return 0
