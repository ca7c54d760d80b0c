"""Programs timed against what a user would call instead: compare values, time all in turns, add the prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any

from einc.api import Program, compile
from einc.binding import bind
from einc.explain.accounts import level
from einc.runtime.execution import place
from einc.runtime.tensors import as_numpy
from einc.runtime.timing import Race, Spread, cache_of, clock_of, race, sets_of_buffers
from einc.runtime.timing import Way as Timed
from einc.trials.contests import Contest
from einc.trials.machine import clock_rate, target
from einc.trials.peers import Tensors, Way
from einc.tuning.agreement import allowed

if TYPE_CHECKING:
    import torch

OWN, ITSELF = "einc", "itself"
_LARGEST = 1 << 24  # positions that are evaluated in double precision by the meaning of a text
_SINGLE = Spread(1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Time:
    """A peer's times; `ratio` is how many times as fast einc is, with its interval.

    `difference` is of its values from einc's, `exact` from those in double precision; `peak` are bytes of a GPU's
    memory that it takes beyond its operands, results included. `error` says why there is no time.
    """

    peer: str
    seconds: float = 0.0
    host: float = 0.0
    ratio: Spread = _SINGLE
    difference: float = 0.0
    exact: float | None = None
    error: str = ""
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a contest.

    `seconds` are of the device, `least` those of its fastest round, and `host` of the host; `exact` is the error
    against double precision, and `noise` the ratio of einc's time to itself. `predicted` is the model's time and
    `limit` what that is spent on, if there is a model of the machine; `bytes` are those of operands and results, of
    which there were `sets`, and `peak` those beyond operands, as of peers. `clock` is the rate of the device's clock in
    Hz. `error` says why nothing was measured.
    """

    name: str
    seconds: float = 0.0
    flops: float = 0.0
    bytes: int = 0
    predicted: float | None = None
    limit: str = ""
    kernels: int = 0
    times: tuple[Time, ...] = ()
    error: str = ""
    kind: str = ""
    suite: str = ""
    host: float = 0.0
    least: float = 0.0
    noise: Spread = _SINGLE
    exact: float | None = None
    sets: int = 1
    rounds: int = 0
    clock: float | None = None
    peak: int | None = None

    @property
    def tflops(self) -> float:
        return self.flops / self.seconds * 1e-12 if self.seconds else 0.0

    @property
    def gbps(self) -> float:
        return self.bytes / self.seconds * 1e-9 if self.seconds else 0.0

    @property
    def best(self) -> Time | None:
        """The fastest peer."""
        return min((t for t in self.times if not t.error), key=lambda t: t.ratio.median, default=None)

    @property
    def model(self) -> float | None:
        """The predicted time over that of the fastest round."""
        return self.predicted / self.least if self.predicted and self.least else None

    def data(self) -> dict[str, Any]:
        """The row as data for JSON."""
        return asdict(self) | {"tflops": self.tflops, "gbps": self.gbps}


@dataclass(frozen=True, slots=True)
class Effort:
    """What measuring may take: seconds for each way of a row, and for all rows together; whether values are compared
    with those in double precision."""

    each: float = 0.3
    total: float | None = None
    exact: bool = True


def bench(
    contests: Iterable[Contest],
    device: torch.device,
    effort: Effort,
    foreseen: Mapping[int, Prediction | str | None] | None = None,
    now: Callable[[], float] = perf_counter,
) -> Iterator[Row]:
    """A row for each contest that is reached in time, as soon as it is measured.

    One that fails says why, and the others go on, unless the device is lost. `foreseen` are predictions that were made
    beforehand, by position, or what went wrong then.
    """
    import torch

    begun, known = now(), foreseen or {}
    for at, contest in enumerate(contests):
        if effort.total is not None and now() - begun >= effort.total:
            return
        torch.compiler.reset()
        ahead = known.get(at)
        failed = Row(
            contest.name, error=ahead if isinstance(ahead, str) else "", kind=contest.kind, suite=contest.suite
        )
        if isinstance(ahead, str):
            yield failed
            continue
        try:
            row = measured(contest, device, effort, ahead)
        except Exception as error:  # a peer, a driver or the compiler may raise anything
            row = replace(failed, error=reason(error))
        try:
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
        except RuntimeError as error:
            yield replace(failed, error=reason(error))
            return
        yield row


def measured(contest: Contest, device: torch.device, effort: Effort, foreseen: Prediction | None = None) -> Row:
    """The row of a contest, with a prediction that is there already or made now.

    Raises what the program raises, and notes what peers raise.
    """
    program = compile(contest.text, contest.level)
    own = contest.own(program)
    first = contest.operands()
    value = own(first)[0]()
    size = _bytes(*first.values(), *_several(value))
    count = sets_of_buffers(size, cache_of(device))
    sets = [first, *({name: t.clone() for name, t in first.items()} for _ in range(count - 1))]
    exact = _exact(contest, program, first) if effort.exact else None

    ways = {OWN: rotating([own(tensors)[0] for tensors in sets])}
    times: dict[str, Time] = {}
    for name, peer in contest.peers.items():
        try:
            taking = peer(first)
            difference, at, theirs = matched(value, taking)
            away = None if exact is None else distance(theirs, exact)
            times[name] = Time(name, difference=difference, exact=away, peak=peak(taking[at], device))
            ways[name] = rotating([taking[at], *(peer(tensors)[at] for tensors in sets[1:])])
        except Exception as error:  # a peer may raise anything
            times[name] = Time(name, error=reason(error))
    if contest.peers:
        ways[ITSELF] = ways[OWN]

    before = clock_rate(device)
    taken = race(ways, clock_of(device), effort.each)
    clocks = [rate for rate in (before, clock_rate(device)) if rate is not None]
    noise = taken.ratio(ITSELF, OWN) if contest.peers else _SINGLE
    row = Row(
        contest.name, taken.device(OWN), contest.flops or 0.0, size, kind=contest.kind, suite=contest.suite,
        times=tuple(t if t.error else _timed(t, taken) for t in times.values()), host=taken.host(OWN),
        least=taken.least(OWN), sets=count, rounds=len(taken.turns[OWN]), noise=noise,
        exact=None if exact is None else distance(value, exact), clock=min(clocks, default=None),
        peak=peak(own(first)[0], device),
    )  # fmt: skip
    if contest.gradient:
        return row
    found = predicted(contest, program, first, device) if foreseen is None else foreseen
    flops = found.flops if contest.flops is None else contest.flops
    return replace(row, flops=flops, predicted=found.seconds, limit=found.limit, kernels=found.kernels)


def _timed(t: Time, taken: Race) -> Time:
    return replace(t, seconds=taken.device(t.peer), host=taken.host(t.peer), ratio=taken.ratio(t.peer, OWN))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model of a machine says of a program: seconds, what most of them are spent on, kernels, and FLOPs."""

    seconds: float
    limit: str
    kernels: int
    flops: float


def predicted(contest: Contest, program: Program, tensors: Tensors, device: torch.device) -> Prediction:
    """The prediction for what runs for some operands on a device."""
    meant = program.compiled(**tensors, **contest.scalars).program
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    bindings = bind(meant, shapes, contest.scalars)
    where, lying = place(device), [tensors[p.name] for p in meant.operands]
    ran = program.options.compile(meant, bindings.extents, where, program.options.layouts(lying, where))
    found = level(ran.on(target(device)), bindings.extents, bindings.scalars, _integers(tensors))
    longest = max(found.kernels, key=lambda k: k.predicted_us)
    return Prediction(1e-6 * found.predicted_us, longest.limit, len(found.kernels), float(found.flops))


def _integers(tensors: Tensors) -> dict[str, Any]:
    """The operands that the bounds of loops may depend on, by their values."""
    return {name: as_numpy(t.cpu()) for name, t in tensors.items() if not t.is_floating_point() and not t.is_meta}


# ---------------------------------------------------------------------------------------------------------------------
# Ways


def rotating(ways: Sequence[Way]) -> Timed:
    """A way for each set of buffers as one, that keeps the results of the last run on each."""
    kept: list[object] = [None] * len(ways)

    def run(k: int) -> object:
        at = k % len(ways)
        kept[at] = ways[at]()
        return kept[at]

    return run


def peak(way: Way, device: torch.device) -> int | None:
    """Bytes of a GPU's memory that a way takes at most beyond what there is; None on any other device."""
    import torch

    if device.type != "cuda":
        return None
    way()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = way()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before


def matched(value: Any, ways: Sequence[Way]) -> tuple[float, int, Any]:
    """The first of several ways that gives a value: its difference, its place, and its own value.

    Raises the first error if none does.
    """
    errors: list[Exception] = []
    for at, way in enumerate(ways):
        try:
            theirs = way()
            return agreed(value, theirs), at, theirs
        except Exception as error:  # a way that does not take these operands may raise anything
            errors.append(error)
    raise errors[0]


# ---------------------------------------------------------------------------------------------------------------------
# Values


def _exact(contest: Contest, program: Program, tensors: Tensors) -> Any:
    """The values in double precision, of the operands as they are; None where that would take too long, or more memory
    than there is."""
    import torch

    if contest.exact is not None:
        try:
            doubled = {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}
            return contest.exact(doubled)[0]()
        except torch.OutOfMemoryError:
            return None
    compiled = program.compiled(**tensors, **contest.scalars)
    bindings = bind(compiled.program, {name: tuple(x.shape) for name, x in tensors.items()}, contest.scalars)
    if prod(bindings.extents.values()) > _LARGEST:
        return None
    found = program(**tensors, **contest.scalars, backend="evaluate")
    return tuple(torch.as_tensor(x) for x in _several(found))


def distance(value: Any, exact: Any) -> float:
    """The greatest difference over the greatest magnitude, of all results."""
    worst = 0.0
    for x, y in zip(_several(value), _several(exact), strict=True):
        if x is not None and y is not None and x.numel():
            wide = y.to(x.device)
            scale = float(wide.abs().max()) or 1.0
            worst = max(worst, float((x.to(wide.dtype) - wide).abs().max()) / scale)
    return worst


def reason(error: Exception) -> str:
    """An error in a line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def agreed(ours: Any, theirs: Any) -> float:
    """The greatest difference over the greatest magnitude; raises `ValueError` if it is more than rounding."""
    worst = 0.0
    for x, y in zip(_several(ours), _several(theirs), strict=True):
        if tuple(x.shape) != tuple(y.shape):
            raise ValueError(f"its shape is {tuple(y.shape)}, einc's {tuple(x.shape)}")
        if not x.numel():
            continue
        difference = distance(x, y.double() if y.is_floating_point() else y)
        if not difference <= allowed(x):
            raise ValueError(f"its values differ by {difference:.1e} of the greatest, more than {allowed(x):.1e}")
        worst = max(worst, difference)
    return worst
