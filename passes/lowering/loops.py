"""One walk of a kernel as a loop: the states of its links, its prefixes, and the stores of tensors along it."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from einc import tile
from einc.base.types import BOOL, INT
from einc.passes.estimate.sides import blocked, stepped
from einc.passes.lowering.advance import step
from einc.passes.lowering.kernel import Kernel
from einc.passes.lowering.limits import Limits, limits
from einc.passes.lowering.prefixes import goes_backwards, prefixes
from einc.passes.lowering.statements import Axes
from einc.passes.lowering.states import States
from einc.passes.streaming.walks import Walk, above, upstream
from einc.tile import Elem, Lit, Value
from einc.tile.masks import extent


def walked(kernel: Kernel) -> Axes:
    """The tile axes of a kernel's walk: one that takes a position at a time, one in blocks, or both, that first."""
    plan, context = kernel.plan, kernel.context
    groups = ((stepped(plan, context), "batch"), (blocked(plan, context), "reduced"))
    return tuple(kernel.b.axis(axes, role) for axes, role in groups if axes)


def span(kernel: Kernel, walk: Walk, axes: Axes) -> Limits:
    """The limits of a walk: at levels that prune, those of the domain of its reductions; none of a loop in steps."""
    return limits(kernel, walk) if kernel.context.level >= 2 and len(axes) == 1 else Limits(full=None)


def loop(kernel: Kernel, axes: Axes, walk: Walk) -> States:
    """The loop over all positions of the walk; returns its states, which hold their final values after it."""
    return looped(kernel, axes, walk, span(kernel, walk, axes))


def looped(kernel: Kernel, axes: Axes, walk: Walk, found: Limits, exact: bool = False) -> States:
    """The loop over some positions; where it is a loop within steps of another, these are the other's."""
    kernel.settle(_before(kernel, walk))
    states = States(kernel, walk.links, kernel.plan.walked, kernel.plan.scanned)
    known, order = dict(kernel.known), kernel.order
    backwards = goes_backwards(kernel, walk)
    *steps, axis = axes
    full = None if backwards else _full(kernel, axis, found)
    bounds = (found.start, found.stop, exact)
    with kernel.b.nest(steps[0], axis, *bounds) if steps else kernel.b.loop(axis, *bounds, backwards) as block:
        kernel.order = (*order, axis.name) if axis.blocked else order
        for eq in walk.scans:
            prefixes(kernel, axis.name, eq, block)
        states.allocate(kernel.result_order)
        step(states, block)
        for eq in walk.stores:
            kernel.store(eq)
        if full is not None:
            block.full = replace(full, holds=tuple(kernel.b.typed(p, kernel.order, BOOL) for p in found.holds))
    kernel.known, kernel.order = known, order
    return states


def _before(kernel: Kernel, walk: Walk) -> set[str]:
    """The reductions that walk their axes themselves, and that a walk needs but does not change."""
    plan, named, known = kernel.plan, kernel.definitions, above(kernel.plan.equations)
    needed = {n for eq in (*walk.stores, *(link.equation for link in walk.links)) for n in upstream(eq, known)}

    def is_still(name: str) -> bool:
        eq = named[name]
        return name in kernel.known or plan.along.isdisjoint((*eq.axes, *eq.over))

    own = {n: {n, *known[n]} for n in needed if plan.walks_within(named[n])}
    return {n for n, those in own.items() if all(map(is_still, those))}


def _full(kernel: Kernel, axis: tile.TileAxis, found: Limits) -> tile.Full | None:
    """The range of a loop in which its domain holds for all rows."""
    if found.full is None:
        return None
    lowest, beyond = found.full
    start, stop = found.start or Lit(0, INT), found.stop or extent(axis.axes)
    if not lowest and not beyond:
        return tile.Full(stop)
    first: Value | None = None
    if lowest:
        first = reduce(_greater, (*(Elem("min", (e, stop)) for e in lowest), start))
        first = kernel.b.bind(f"{axis.name}_full_start", first, ())
    last = stop
    if beyond:
        last = reduce(lambda x, y: Elem("min", (x, y)), (*beyond, stop))
        last = kernel.b.bind(f"{axis.name}_full_stop", _greater(last, Lit(0, INT)), ())
    return tile.Full(last, first, free=found.free and first is not None)


def _greater(x: Value, y: Value) -> Value:
    return Elem("max", (x, y))
