"""The story of a program, computed from its IR: what it is, what was added to it, and what that costs in memory.

Data first: `story` gives a `Story`, which turns into JSON as it is; `einc.render` makes tables of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from einc import tile
from einc.character import character
from einc.driver import Compiled
from einc.ein import Apply, AxisValue, Cast, Equation, Expr, Program, Read, axes_of, reads
from einc.ranges import extent_of
from einc.tile import Buffer
from einc.types import DType


@dataclass(frozen=True, slots=True)
class Step:
    """One equation in the data flow: what it gives, from what."""

    gives: tuple[str, ...]
    reads: tuple[str, ...]
    reduces: str
    over: tuple[str, ...]
    einsum: str


@dataclass(frozen=True, slots=True)
class Intermediate:
    """A tensor that lives in memory between two kernels."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Level:
    """The figures of one optimisation level.

    `bytes`: every kernel reads its inputs and writes its outputs once. `passes`: how often each reduced axis is walked.
    `state`: what is carried along a walk, where the update of one depends on another; `state_bytes` of it a row.
    """

    level: int
    equations: int
    kernels: int
    flops: int
    bytes: int
    passes: dict[str, int]
    state: tuple[str, ...]
    state_bytes: int
    intermediates: tuple[Intermediate, ...]

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def intermediate_bytes(self) -> int:
        return sum(t.bytes for t in self.intermediates)


@dataclass(frozen=True, slots=True)
class Story:
    """A program as a system: its boundary, its mathematics, its state, its parallelism, and figures by level."""

    name: str
    text: str
    boundary: str
    kind: str
    einsums: tuple[str, ...]
    dependences: int
    optimised: str
    parallel: str
    tested: str
    steps: tuple[Step, ...]
    reuse: dict[str, int]
    sizes: dict[str, int]
    levels: tuple[Level, ...]

    def data(self) -> dict[str, object]:
        """The story as JSON can hold it."""
        found = asdict(self)
        for level, figures in zip(self.levels, found["levels"], strict=True):
            figures |= {"intensity": level.intensity, "intermediate_bytes": level.intermediate_bytes}
        return found


def story(text: str, compiled: Sequence[Compiled], sizes: Mapping[str, int]) -> Story:
    """The story of a program compiled at one or more levels (in order), with figures for axes of these sizes."""
    program = compiled[-1].state.program
    kind = character(program)
    steps = tuple(_step(e) for e in program.equations)
    reuse = {
        p.name: math.prod(sizes[a] for a in _walked(program, p.name) if all(a not in d for d in p.dims))
        for p in program.operands
    }
    figures = tuple(_level(c, sizes) for c in compiled)
    pipeline = len(steps) > 1
    return Story(
        name=program.name,
        text=text,
        boundary=_boundary(program, steps),
        kind=kind.kind,
        einsums=tuple(s.einsum for s in steps if s.einsum),
        dependences=sum(1 for s in steps for name in s.reads if name not in {p.name for p in program.operands}),
        optimised=_optimised(pipeline, reuse),
        parallel=_parallel(program),
        tested="accuracy, throughput and latency" if pipeline else "numerical accuracy",
        steps=steps,
        reuse=reuse,
        sizes={a.name: sizes[a.name] for a in program.axes},
        levels=figures,
    )


# ---------------------------------------------------------------------------------------------------------------------
# What it is


def _step(e: Equation) -> Step:
    sources = dict.fromkeys(r.tensor for x in e.expressions() for r in reads(x))
    reduction = "" if e.monoid is None else e.monoid.name
    return Step(tuple(t.name for t in e.outputs), tuple(sources), reduction, e.over, _einsum(e))


def _einsum(e: Equation) -> str:
    """The equation's contraction as an einsum string, if its body is a product of two tensors or more.

    A factor that is computed on the way stands for a tensor with the axes it depends on; numbers do not count.
    """
    if e.monoid is None or e.monoid.name != "sum":
        return ""
    terms = [_term(f) for f in _factors(e.body) if reads(f)]
    if len(terms) < 2:
        return ""
    result = [f"({' '.join(d)})" if len(d) > 1 else "".join(d) or "1" for d in e.dims]
    if all(len(s) == 1 for term in (*terms, result) for s in term):
        return f"{','.join(map(''.join, terms))}->{''.join(result)}"
    return f"{', '.join(map(' '.join, terms))} -> {' '.join(result)}"


def _term(e: Expr) -> list[str]:
    """The subscripts of a factor; one that is no plain axis is shown by the axes it is made of."""
    if not isinstance(e, Read):
        return list(axes_of(e))
    return [i.axis if isinstance(i, AxisValue) else f"({' '.join(axes_of(i)) or '·'})" for i in e.index]


def _factors(e: Expr) -> list[Expr]:
    match e:
        case Apply("mul", (a, b)):
            return _factors(a) + _factors(b)
        case Apply("neg", (a,)) | Cast(arg=a):
            return _factors(a)
        case Apply("div", (a, b)) if not axes_of(b) and not reads(b):
            return _factors(a)
        case _:
            return [e]


def _boundary(program: Program, steps: Sequence[Step]) -> str:
    inputs, results = ", ".join(p.name for p in program.operands), ", ".join(program.results)
    if len(steps) <= 1:
        return f"one closed module: {inputs} → {results}"
    flow = " → ".join(", ".join(s.gives) for s in steps)
    return f"a pipeline of {len(steps)} equations: {inputs} → {flow}"


def _optimised(pipeline: bool, reuse: Mapping[str, int]) -> str:
    if pipeline:
        return "data movement and latency: what lies between the equations"
    if max(reuse.values(), default=1) > 1:
        most = ", ".join(f"{name} {n}×" for name, n in reuse.items() if n > 1)
        return f"FLOPs, reuse (each element is used: {most})"
    return "data movement: each element is used once"


def _walked(program: Program, operand: str) -> tuple[str, ...]:
    """The axes of the equations that read an operand."""
    found = [a for e in program.equations if operand in _step(e).reads for a in (*e.axes, *e.over)]
    return tuple(dict.fromkeys(found))


def _parallel(program: Program) -> str:
    """Axes that every equation has on its left run in parallel throughout; reduced ones tie positions together."""
    everywhere = [a for a in program.equations[0].axes if all(a in e.axes for e in program.equations)]
    reduced = [a for a in dict.fromkeys(a for e in program.equations for a in e.over) if a not in everywhere]
    free = f"data parallel over {', '.join(everywhere)}" if everywhere else "nothing parallel throughout"
    if not reduced:
        return free
    uses = "; ".join(f"{a} reduced by {', '.join(_reductions(program, a))}" for a in reduced)
    return f"{free}; {uses}"


def _reductions(program: Program, axis: str) -> list[str]:
    return [e.monoid.name for e in program.equations if e.monoid is not None and axis in e.over]


# ---------------------------------------------------------------------------------------------------------------------
# What it costs


def _level(c: Compiled, sizes: Mapping[str, int]) -> Level:
    schedule, program = c.state.schedule, c.state.program
    assert schedule is not None
    dtypes = program.dtypes()
    coupled = [(k, n) for k in schedule.kernels for n in running_state(k)]
    return Level(
        level=c.context.level,
        equations=len(program.equations),
        kernels=len(schedule.kernels),
        flops=sum(flops(e, dtypes, sizes) for e in program.equations),
        bytes=sum(_bytes(b, sizes) for k in schedule.kernels for b in k.buffers),
        passes=passes(schedule),
        state=tuple(n.name + (f"[{', '.join(n.type.axes)}]" if n.type.axes else "") for _, n in coupled),
        state_bytes=sum(_each(k, n, sizes) for k, n in coupled),
        intermediates=tuple(
            Intermediate(b.name, tuple(extent_of(d, sizes) for d in b.dims), b.dtype.name, _bytes(b, sizes))
            for b in schedule.intermediates
        ),
    )


def _bytes(b: Buffer, sizes: Mapping[str, int]) -> int:
    return math.prod(extent_of(d, sizes) for d in b.dims) * b.dtype.size


def flops(e: Equation, dtypes: Mapping[str, DType], sizes: Mapping[str, int]) -> int:
    """Arithmetic on tensors' elements: operations of the body and one combine, at each position of all axes.

    A call of exp counts as one; comparisons, selections and the arithmetic of subscripts as none.
    """
    each = sum(_operations(b, dtypes) for b in e.bodies) + (0 if e.monoid is None else 1)
    return each * math.prod(sizes[a] for a in (*e.axes, *e.over))


_FREE = ("where", "and", "or", "not", "lt", "le", "gt", "ge", "eq", "ne", "re", "im")


def _operations(e: Expr, dtypes: Mapping[str, DType]) -> int:
    match e:
        case Apply(op, args):
            own = op not in _FREE and any(reads(a) for a in args)
            return own + sum(_operations(a, dtypes) for a in args)
        case Cast(arg=arg):
            return _operations(arg, dtypes)
        case _:
            return 0


def _loops(body: Sequence[tile.Statement]) -> Iterator[tile.Loop]:
    for s in body:
        if isinstance(s, tile.Loop):
            yield s
            yield from _loops(s.body)


def passes(schedule: tile.Schedule) -> dict[str, int]:
    """How often each reduced axis is walked: by a loop, or held whole in a kernel that folds it away."""
    found: Counter[str] = Counter()
    for k in schedule.kernels:
        found.update(a for loop in _loops(k.body) for a in loop.axis.axes)
        looped = {a for loop in _loops(k.body) for a in loop.axis.axes}
        found.update({a for t in k.whole for a in t.axes if t.name in _folded(k)} - looped)
    return dict(found)


def _folded(k: tile.Kernel) -> set[str]:
    """The tile axes that contractions and folds of a kernel do away with."""
    bodies = [k.body, *(loop.body for loop in _loops(k.body))]
    values = [v for body in bodies for s in body if isinstance(s, tile.Let) for v in tile.walk_values(s.value)]
    return {v.inner if isinstance(v, tile.Dot) else v.axis for v in values if isinstance(v, tile.Dot | tile.Fold)}


def running_state(k: tile.Kernel) -> list[tile.Carried]:
    """The states of loops in which the new value of one is computed from the new or old value of another."""
    found: list[tile.Carried] = []
    for loop in _loops(k.body):
        lets = {name: s.value for s in loop.body if isinstance(s, tile.Let) for name in s.names}
        carried = {c.name for c in loop.carried}
        if any(_behind(c.after, lets) & carried - {c.name} for c in loop.carried):
            found += loop.carried
    return found


def _behind(name: str, lets: Mapping[str, tile.Value]) -> set[str]:
    """Every name that a value is computed from, itself included."""
    found: set[str] = set()
    pending = [name]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            if name in lets:
                pending += [v.name for v in tile.walk_values(lets[name]) if isinstance(v, tile.Ref)]
    return found


def _each(k: tile.Kernel, c: tile.Carried, sizes: Mapping[str, int]) -> int:
    """Bytes of a state for one position of the grid."""
    grid = {a.name for a in k.grid}
    axes = {name: t for name, t in tile.tile_axes(k).items() if name not in grid}
    return c.type.dtype.size * math.prod(extent_of(axes[a].axes, sizes) for a in c.type.axes if a in axes)
