"""Computes the figures of a compiled program, by kernel and in total.

Times are the cost model's, for the machine that the kernels are made for, at the exact extents. Bytes count every
tensor from memory once for each walk that needs it; FLOPs include recomputation, and only the blocks that are visited.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from einc import ein, tile
from einc.base.targets import TARGETS, Target
from einc.driver import Compiled
from einc.ein.arithmetic import ScalarValue
from einc.explain.counts import Sizes, each, flops, running_state, states
from einc.explain.derivation import derivations
from einc.explain.figures import Decision, Formula, Intermediate, KernelFigures, Level, State
from einc.explain.notation import Shapes, body, left
from einc.explain.plans import plans_of
from einc.explain.sizes import extents
from einc.explain.visits import Visits, bound_tensors, domain_picture, part_starts, visited
from einc.passes.estimate.cost import Cost, Model
from einc.passes.estimate.parts import parts
from einc.passes.estimate.products import cost_of
from einc.passes.estimate.units import reached
from einc.passes.lowering.lower import lowered
from einc.passes.streaming.walks import tensors_read, walks
from einc.pipeline import Context, own_passes
from einc.pipeline.plan import Planned
from einc.tile.asked import written
from einc.tile.walk import loops, tile_axes

_T = TypeVar("_T")


def level(
    c: Compiled, sizes: Sizes, scalars: Mapping[str, ScalarValue], operands: Mapping[str, Any] | None = None
) -> Level:
    """The figures of a compiled program; `operands` are values that loop bounds may read, as far as they are known."""
    program, schedule = c.state.program, c.state.schedule
    assert schedule is not None
    sizes = extents(program, sizes, scalars)
    context = replace(c.context, sizes=sizes)
    plans = [p.of(program) for p in c.state.plans or plans_of(program, schedule)]
    figures = _Figures(
        program, Model(program, context), sizes, scalars, bound_tensors(program, schedule, sizes, scalars, operands)
    )
    of = {p.name: p for p in plans}
    told = c.context.backend.account
    kernels = tuple(
        replace(figures.kernel(k, *_roles(k, of.get(k.plan))), account=told(k, c.context)) for k in schedule.kernels
    )
    return Level(
        level=c.context.level,
        target=c.context.target.name,
        machine=_machine(c.context.target),
        equations=len(program.equations),
        kernels=kernels,
        sweeps=sweeps(plans),
        intermediates=tuple(_intermediate(b, sizes) for b in schedule.intermediates),
        not_closed=tuple({d.reduction: d.waited for k in kernels for d in k.derivations if d.waited}.values()),
        decisions=tuple(_decided(c, figures)),
        by_model=not c.request.choices and c.request.begin is None,
    )


def _machine(target: Target) -> str:
    """The machine whose rates predict times for a target: one without rates of its own borrows another's."""
    return next((t.name for t in TARGETS.values() if t.rates == target.rates and t.vendor != "cpu"), target.name)


def _decided(c: Compiled, figures: _Figures) -> Iterator[Decision]:
    """The comparisons of `partition`, by the model that decided them; only blocks that walks visit count."""
    context = c.context.knowing(c.state.program.axes)
    model = Model(c.state.program, context)

    @cache
    def seconds(plan: Planned) -> float:
        return parts(model, plan, figures.share(plan, context))[1]

    for join in c.state.joins:
        names = tuple(p.stores for p in join.kernels)
        apart = sum(map(seconds, join.kernels))
        if isinstance(join.made, str):
            yield Decision(names, join.taken, apart, None, join.made)
        else:
            stores = join.made.stores
            spared = tuple(name for stored in names for name in stored if name not in stores)
            yield Decision(names, join.taken, apart, seconds(join.made), "", spared)


def sweeps(plans: Sequence[Planned]) -> dict[str, int]:
    """How often each streamed axis is walked; an axis that is reduced without a walk counts once."""
    found: Counter[str] = Counter()
    for p in plans:
        if p.walked:
            found.update(dict.fromkeys(p.walked, max(len(walks(p)), 1)))
        else:
            found.update(dict.fromkeys((a for eq in p.equations for a in eq.over), 1))
    return dict(found)


def _walked(k: tile.Kernel, within: bool) -> tuple[str, ...]:
    """The axes that loops of a kernel walk, or that loops within these do."""
    own = (loop.axis for loop in loops(k.body) if (loop.axis.role == "inner") == within)
    return tuple(dict.fromkeys(a for axis in own for a in axis.axes))


def _roles(k: tile.Kernel, plan: Planned | None) -> tuple[Planned | None, Planned | None]:
    """The plan that a kernel walks for, and the plan whose parts it merges; a kernel that a pass added has neither."""
    return (None, plan) if k.merges else (plan, None)


def _finishing(plan: Planned) -> tuple[ein.Equation, ...]:
    """The equations of a plan after its walk: no reduction over the walked axes depends on them."""
    found: list[ein.Equation] = []
    needed: set[str] = set()
    for eq in reversed(plan.equations):
        if eq.name in needed or set(plan.walked) & {*eq.over, *eq.axes}:
            needed |= tensors_read(eq.expressions())
        else:
            found.append(eq)
    return tuple(reversed(found))


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

    def kernel(self, k: tile.Kernel, plan: Planned | None, merged: Planned | None) -> KernelFigures:
        carried = list(states(k))
        splits, split = (1, "") if plan is None else (plan.splits, plan.split)
        tiles = self.tiles(k, splits)
        share = min((v.share for v in tiles.values()), default=1.0)
        moved = self.moved(k, plan, merged, share)
        cost, work = self.cost(sum(moved.values())), 0
        if plan is not None:
            masked = max((v.mixed / v.total for v in tiles.values() if v.total), default=0.0)
            cost, work = cost_of(plan, self.model, share, masked), self.flops(plan, share)
        return KernelFigures(
            name=k.name,
            equations=tuple(self.formulas(k, plan, merged)),
            moved=moved,
            reads=tuple(b.name for b in k.buffers if not b.written),
            writes=tuple(b.name for b in k.buffers if b.written),
            grid=tuple(a for t in k.grid for a in t.axes),
            streamed=_walked(k, within=False),
            within=_walked(k, within=True),
            held=tuple(a for t in k.whole for a in t.axes),
            derivations=() if plan is None else derivations(plan, self.shapes()),
            state=tuple(_state(k, c) for c in carried),
            state_bytes_per_row=sum(each(k, c, self.sizes) for c in carried),
            running=tuple(_state(k, c) for c in running_state(k)),
            tiles=tiles,
            domains=self.looked_at(k, domain_picture, split),
            part_starts=self.looked_at(k, part_starts, split) if split else {},
            choices=written(k),
            splits=splits,
            flops=work,
            bytes=sum(moved.values()),
            predicted_us=1e6 * cost.seconds,
            limit=cost.limit,
        )

    def formulas(self, k: tile.Kernel, plan: Planned | None, merged: Planned | None) -> Iterator[Formula]:
        if merged is not None:
            yield Formula(k.name, f"the states of {merged.splits} parts, merged", ())
        elif plan is None:
            yield Formula(k.name, "; ".join(k.title) or k.name, ())
        after = () if merged is None else _finishing(merged)
        if plan is not None:
            later = _finishing(plan) if plan.splits > 1 else ()
            after = tuple(eq for eq in plan.equations if eq not in later)
        for eq in after:
            yield Formula(
                eq.name, f"{left(eq)} = {body(eq, self.shapes())}", tuple(sorted(tensors_read(eq.expressions())))
            )

    def moved(self, k: tile.Kernel, plan: Planned | None, merged: Planned | None, share: float) -> dict[str, int]:
        """Bytes by tensor, in a walk that visits this share of its blocks."""
        written = {b.name: _intermediate(b, self.sizes).bytes for b in k.buffers if b.written}
        if plan is None:
            every = {b.name: _intermediate(b, self.sizes).bytes for b in k.buffers if not b.written}
            if merged is not None:
                later = self.model.traffic(replace(merged, equations=_finishing(merged)), 1)
                every |= {name: int(n) for name, n in later.items() if name in every}
            return every | written
        traffic = self.model.traffic(plan, max(len(walks(plan)), 1), share)
        return {name: int(n) for name, n in traffic.items() if name not in plan.stores} | written

    def cost(self, moved: int) -> Cost:
        """The cost of a kernel that only moves bytes."""
        rates = self.model.context.target.rates
        moving = moved / reached(rates)
        return Cost(moved, 0, 0, 0, rates.launch + moving, "memory" if moving >= rates.launch else "launch")

    def shapes(self) -> Shapes:
        return self.program.shapes()

    def flops(self, plan: Planned, share: float) -> int:
        times = self.model.repeats(plan, max(len(walks(plan)), 1), share)
        dtypes = self.program.dtypes()
        walked = (replace(eq, over=()) if plan.is_scan(eq) else eq for eq in plan.equations)
        return sum(int(times[eq.name] * flops(eq, dtypes, self.sizes)) for eq in walked)

    def share(self, plan: Planned, context: Context) -> float:
        """The share of the blocks of a plan's walk that its kernel visits."""
        if not plan.walked or context.level < 2:
            return 1.0
        kernel = own_passes(self.program, lowered(self.program, plan, context), context)
        return min((v.share for v in self.tiles(kernel).values()), default=1.0)

    def tiles(self, k: tile.Kernel, splits: int = 1) -> dict[str, Visits]:
        """The blocks that loops visit, if the values in their bounds are known; each part of a walk has its own."""
        found = self.looked_at(k, visited)
        return {a: replace(v, total=max(v.total // splits, v.visited)) for a, v in found.items()}

    def looked_at(self, k: tile.Kernel, look: Callable[..., dict[str, _T]], parts: str = "") -> dict[str, _T]:
        """The result of a function of `explain.visits`, empty where bounds are not known."""
        try:
            return look(k, self.sizes, self.scalars, self.tensors, **({"parts": parts} if parts else {}))
        except KeyError:  # a scalar without a value
            return {}


def _state(k: tile.Kernel, c: tile.Carried) -> State:
    known = tile_axes(k)
    return State(c.name, c.type.dtype.name, tuple(x for a in c.type.axes if a in known for x in known[a].axes))
