"""What a compiled program comes to, in figures: by kernel, and in total at its optimisation level.

Times are the cost model's, for the machine the kernels are made for, at the exact extents. Bytes count every tensor
from outside once for each walk that needs it; FLOPs count what a kernel computes again as well, and only
the blocks that it visits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from einc import ein, tile
from einc.arithmetic import ScalarValue, evaluate_formula
from einc.counts import Sizes, each, flops, loops, running_state, states
from einc.derivation import derivations
from einc.driver import Compiled
from einc.errors import Error
from einc.notation import Shapes, body, left
from einc.passes.alone import alone
from einc.passes.cost import Cost, Model
from einc.passes.decisions import Decision, decisions
from einc.passes.walks import tensors_read, walks
from einc.plan import Plan
from einc.targets import TARGETS, Target
from einc.transition import Derivation, Open
from einc.visits import Visits, bound_tensors, domain_picture, visited

_MOST_PROGRAMS = 1 << 22  # of a grid whose loop bounds are looked at one by one


@dataclass(frozen=True, slots=True)
class State:
    """A value carried from block to block, after equal ones were joined; `axes` are those of one program's tile."""

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intermediate:
    """A tensor that lives in memory between two kernels."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Formula:
    """An equation that a kernel computes, as mathematics, and the tensors that it reads."""

    name: str
    text: str
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelFigures:
    """One kernel: what it computes, how it lies over the axes, what it carries, and what that costs.

    `moved` are the bytes of each tensor that it reads or writes in memory. `running` are the states of which one's
    update depends on another. `domains` are the blocks of walked axes by row: `EMPTY`, `MIXED` or `FULL` of
    `einc.visits`. `limit` is what the predicted time is spent on.
    """

    name: str
    equations: tuple[Formula, ...]
    moved: dict[str, int]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    grid: tuple[str, ...]
    streamed: tuple[str, ...]
    held: tuple[str, ...]
    derivations: tuple[Derivation, ...]
    state: tuple[State, ...]
    state_bytes_per_row: int
    running: tuple[State, ...]
    tiles: dict[str, Visits]
    domains: dict[str, Any]
    splits: int
    flops: int
    bytes: int
    predicted_us: float
    limit: str


@dataclass(frozen=True, slots=True)
class Level:
    """A program at one optimisation level, in figures for a `machine`.

    `decisions` are those of `partition`, for extents rounded up to powers of two.
    """

    level: int
    target: str
    machine: str
    equations: int
    kernels: tuple[KernelFigures, ...]
    sweeps: dict[str, int]
    intermediates: tuple[Intermediate, ...]
    not_closed: tuple[Open, ...]
    decisions: tuple[Decision, ...]

    @property
    def flops(self) -> int:
        return sum(k.flops for k in self.kernels)

    @property
    def bytes(self) -> int:
        return sum(k.bytes for k in self.kernels)

    @property
    def predicted_us(self) -> float:
        return sum(k.predicted_us for k in self.kernels)

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def intermediate_bytes(self) -> int:
        return sum(t.bytes for t in self.intermediates)


def level(
    c: Compiled, sizes: Sizes, scalars: Mapping[str, ScalarValue], operands: Mapping[str, Any] | None = None
) -> Level:
    """The figures of a compiled program; `operands` are the values that loop bounds may read, where they are known."""
    program, schedule = c.state.program, c.state.schedule
    assert schedule is not None
    sizes = extents(program, sizes, scalars)
    context = replace(c.context, sizes=sizes)
    plans = c.state.plans or tuple(alone(eq, program, context) for eq in program.equations)
    figures = _Figures(
        program, Model(program, context), sizes, scalars, bound_tensors(program, schedule, scalars, operands)
    )
    kernels = tuple(figures.kernel(k, plan) for k, plan in _paired(schedule.kernels, plans))
    return Level(
        level=c.context.level,
        target=c.context.target.name,
        machine=_machine(c.context.target),
        equations=len(program.equations),
        kernels=kernels,
        sweeps=sweeps(plans),
        intermediates=tuple(_intermediate(b, sizes) for b in schedule.intermediates),
        not_closed=tuple({d.reduction: d.waited for k in kernels for d in k.derivations if d.waited}.values()),
        decisions=tuple(_decided(c)),
    )


def _machine(target: Target) -> str:
    """The machine whose rates a target is predicted by: a target without rates of its own borrows another's."""
    return next((t.name for t in TARGETS.values() if t.rates == target.rates and t.vendor != "cpu"), target.name)


def _decided(c: Compiled) -> Iterator[Decision]:
    """What `partition` decided, if it ran."""
    stage = next((s for s in c.stages if s.name == "partition"), None)
    if stage is not None:
        yield from decisions(stage.state.program, c.context)


def extents(program: ein.Program, sizes: Sizes, scalars: Mapping[str, ScalarValue], usual: int = 1) -> dict[str, int]:
    """The extent of every axis, those included that passes made; the usual one where nothing says."""
    found = dict(sizes)
    for a in program.axes:
        if a.name not in found:
            try:
                found[a.name] = usual if a.extent is None else int(evaluate_formula(a.extent, found, scalars))
            except (Error, KeyError):
                found[a.name] = usual
    return found


def sweeps(plans: Sequence[Plan]) -> dict[str, int]:
    """How often each streamed axis is passed over; one that is reduced where nothing is walked is passed once."""
    found: Counter[str] = Counter()
    for p in plans:
        if p.walked:
            found.update(dict.fromkeys(p.walked, max(len(walks(p)), 1)))
        else:
            found.update(dict.fromkeys((a for eq in p.equations for a in eq.over), 1))
    return dict(found)


def _paired(kernels: Sequence[tile.Kernel], plans: Sequence[Plan]) -> Iterator[tuple[tile.Kernel, Plan | None]]:
    """Every kernel with the plan whose results it writes; a kernel that a pass added has none."""
    left = list(plans)
    for k in kernels:
        written = {b.name for b in k.buffers if b.written}
        plan = next((p for p in left if written & set(p.stores)), None)
        if plan is not None:
            left.remove(plan)
        yield k, plan


def _intermediate(b: tile.Buffer, sizes: Sizes) -> Intermediate:
    axes = tuple(a for d in b.dims for a in d)
    shape = tuple(math.prod(sizes.get(a, 1) for a in d) for d in b.dims)
    return Intermediate(b.name, axes, shape, b.dtype.name, math.prod(shape) * b.dtype.size)


@dataclass(frozen=True, slots=True)
class _Figures:
    program: ein.Program
    model: Model
    sizes: Sizes
    scalars: Mapping[str, ScalarValue]
    tensors: Mapping[str, Any]

    def kernel(self, k: tile.Kernel, plan: Plan | None) -> KernelFigures:
        carried = list(states(k))
        moved = self.moved(k, plan)
        tiles, domains = self.tiles(k)
        cost, work = self.cost(sum(moved.values())), 0
        if plan is not None:
            share = min((v.share for v in tiles.values()), default=1.0)
            cost, work = self.model.cost(plan, share), self.flops(plan, share)
        return KernelFigures(
            name=k.name,
            equations=tuple(self.formulas(k, plan)),
            moved=moved,
            reads=tuple(b.name for b in k.buffers if not b.written),
            writes=tuple(b.name for b in k.buffers if b.written),
            grid=tuple(a for t in k.grid for a in t.axes),
            streamed=tuple(dict.fromkeys(a for loop in loops(k.body) for a in loop.axis.axes)),
            held=tuple(a for t in k.whole for a in t.axes),
            derivations=() if plan is None else derivations(plan, self.shapes()),
            state=tuple(_state(k, c) for c in carried),
            state_bytes_per_row=sum(each(k, c, self.sizes) for c in carried),
            running=tuple(_state(k, c) for c in running_state(k)),
            tiles=tiles,
            domains=domains,
            splits=1,
            flops=work,
            bytes=int(cost.bytes),
            predicted_us=1e6 * cost.seconds,
            limit=cost.limit,
        )

    def formulas(self, k: tile.Kernel, plan: Plan | None) -> Iterator[Formula]:
        if plan is None:
            yield Formula(k.name, "; ".join(k.title) or k.name, ())
            return
        for eq in plan.equations:
            yield Formula(
                eq.name, f"{left(eq)} = {body(eq, self.shapes())}", tuple(sorted(tensors_read(eq.expressions())))
            )

    def moved(self, k: tile.Kernel, plan: Plan | None) -> dict[str, int]:
        """Bytes by tensor."""
        if plan is None:
            return {b.name: _intermediate(b, self.sizes).bytes for b in k.buffers}
        traffic = self.model.traffic(plan, max(len(walks(plan)), 1))
        return {name: int(n) for name, n in traffic.items()}

    def cost(self, moved: int) -> Cost:
        """The cost of a kernel that only moves bytes."""
        rates = self.model.context.target.rates
        limit = "memory" if moved / rates.memory >= rates.launch else "launch"
        return Cost(moved, 0, 0, 0, rates.launch + moved / rates.memory, limit)

    def shapes(self) -> Shapes:
        return self.program.shapes()

    def flops(self, plan: Plan, share: float) -> int:
        times = self.model.repeats(plan, max(len(walks(plan)), 1), share)
        dtypes = self.program.dtypes()
        return sum(int(times[eq.name] * flops(eq, dtypes, self.sizes)) for eq in plan.equations)

    def tiles(self, k: tile.Kernel) -> tuple[dict[str, Visits], dict[str, Any]]:
        """The blocks that loops visit, in number and as pictures, where what their bounds are made of is known."""
        programs = math.prod(self.sizes.get(a, 1) for t in k.grid for a in t.axes)
        if programs > _MOST_PROGRAMS and not any(loop.start or loop.stop for loop in loops(k.body)):
            return {}, {}
        try:
            domains = domain_picture(k, self.sizes, self.scalars, self.tensors)
            return visited(k, self.sizes, self.scalars, self.tensors), domains
        except (KeyError, MemoryError):  # a scalar without a value; a grid too large to look at
            return {}, {}


def _state(k: tile.Kernel, c: tile.Carried) -> State:
    known = tile.tile_axes(k)
    return State(c.name, c.type.dtype.name, tuple(x for a in c.type.axes if a in known for x in known[a].axes))
