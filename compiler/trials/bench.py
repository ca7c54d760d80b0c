"""Programs timed against what a user would call instead: compare values, time both in turns, add the prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from einc.api import compile
from einc.binding import bind
from einc.explain.accounts import level
from einc.runtime.execution import place
from einc.runtime.timing import race
from einc.trials.contests import Contest
from einc.trials.machine import target
from einc.trials.peers import Way

if TYPE_CHECKING:
    import torch

_ULPS = {1: 4, 2: 4, 4: 128, 8: 128}  # by bytes of an element: how much sums in another order may differ, rounded to it


@dataclass(frozen=True, slots=True)
class Time:
    """A peer's time; `ratio` is how many times as fast einc is. `error` says why there is no time."""

    peer: str
    seconds: float = 0.0
    ratio: float = 0.0
    difference: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a contest. `predicted` is the model's time and `limit` what that is spent on, if there is a model
    of the machine; `bytes` are those of operands and results. `error` says why nothing was measured."""

    name: str
    seconds: float = 0.0
    flops: float = 0.0
    bytes: int = 0
    predicted: float | None = None
    limit: str = ""
    kernels: int = 0
    times: tuple[Time, ...] = ()
    error: str = ""

    @property
    def tflops(self) -> float:
        return self.flops / self.seconds * 1e-12 if self.seconds else 0.0

    @property
    def gbps(self) -> float:
        return self.bytes / self.seconds * 1e-9 if self.seconds else 0.0

    def data(self) -> dict[str, Any]:
        """The row as data for JSON."""
        return asdict(self) | {"tflops": self.tflops, "gbps": self.gbps}


def bench(contests: Iterable[Contest], device: torch.device, budget: float = 0.3) -> Iterator[Row]:
    """A row for each contest, as soon as it is measured; one that fails says why, and the others go on."""
    import torch

    for contest in contests:
        try:
            row = measured(contest, device, budget)
        except Exception as error:  # a peer, a driver or the compiler may raise anything
            row = Row(contest.name, error=_reason(error))
        yield row
        if device.type == "cuda":
            torch.cuda.empty_cache()


def measured(contest: Contest, device: torch.device, budget: float) -> Row:
    """The row of a contest; raises what the program raises, and notes what peers raise."""
    operands = contest.operands()
    program = compile(contest.text, contest.level)

    given: dict[str, Any] = dict(operands) | dict(contest.scalars)

    def own() -> Any:
        return program(**given)

    value = own()
    ways: dict[str, Callable[[], object]] = {}
    times = {}
    for name, peer in contest.peers.items():
        try:
            difference, ways[name] = matched(value, peer(operands))
            times[name] = Time(name, difference=difference)
        except Exception as error:  # a peer may raise anything
            times[name] = Time(name, error=_reason(error))
    taken = race({"einc": own} | ways, device, budget)
    seconds = taken.pop("einc")
    for name, theirs in taken.items():
        times[name] = replace(times[name], seconds=theirs, ratio=theirs / seconds)
    row = Row(contest.name, seconds, 0.0, _bytes(*operands.values(), *_several(value)), times=tuple(times.values()))
    meant = program.compiled(**given).program
    shapes = {name: tuple(x.shape) for name, x in operands.items()}
    bindings = bind(meant, shapes, contest.scalars)
    ran = program.options.compile(meant, bindings.extents, place(device))
    found = level(ran.on(target(device)), bindings.extents, bindings.scalars)
    longest = max(found.kernels, key=lambda k: k.predicted_us)
    return replace(
        row,
        flops=float(found.flops) if contest.flops is None else contest.flops,
        predicted=1e-6 * found.predicted_us,
        limit=longest.limit,
        kernels=len(found.kernels),
    )


def matched(value: Any, ways: Sequence[Way]) -> tuple[float, Way]:
    """The first of several ways that gives the value, and its difference; raises the first error if none does."""
    errors: list[Exception] = []
    for way in ways:
        try:
            return agreed(value, way()), way
        except Exception as error:  # a way that does not take these operands may raise anything
            errors.append(error)
    raise errors[0]


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def agreed(ours: Any, theirs: Any) -> float:
    """The greatest difference over the greatest magnitude; raises `ValueError` if it is more than rounding."""
    import torch

    worst = 0.0
    for x, y in zip(_several(ours), _several(theirs), strict=True):
        if tuple(x.shape) != tuple(y.shape):
            raise ValueError(f"its shape is {tuple(y.shape)}, einc's {tuple(x.shape)}")
        scale = float(y.abs().max()) or 1.0
        difference = float((x.double() - y.double()).abs().max()) / scale
        allowed = _ULPS[x.element_size()] * torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
        if not difference <= allowed:
            raise ValueError(f"its values differ by {difference:.1e} of the greatest, more than {allowed:.1e}")
        worst = max(worst, difference)
    return worst
