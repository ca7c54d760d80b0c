"""One walk of a kernel as a loop: the states of its links, and the prefixes and stores of what lies along it."""

from __future__ import annotations

from einc import tile
from einc.passes.advance import step
from einc.passes.kernel import Kernel
from einc.passes.limits import Limit, limits
from einc.passes.prefixes import goes_backwards, prefixes
from einc.passes.states import States
from einc.passes.walks import Walk


def span(kernel: Kernel, walk: Walk) -> tuple[Limit, Limit]:
    """The first position that a walk visits and the one that it stops before."""
    return limits(kernel, walk) if kernel.context.level >= 2 else (None, None)


def loop(kernel: Kernel, axis: tile.TileAxis, walk: Walk) -> States:
    """The loop over all that the walk visits; its states, which hold their final values from here on."""
    start, stop = span(kernel, walk)
    return looped(kernel, axis, walk, start, stop)


def looped(kernel: Kernel, axis: tile.TileAxis, walk: Walk, start: Limit, stop: Limit, exact: bool = False) -> States:
    """The loop over some positions."""
    states = States(kernel, walk.links, axis.axes)
    known, order = dict(kernel.known), kernel.order
    with kernel.b.loop(axis, start, stop, exact, goes_backwards(kernel, walk)) as block:
        kernel.order = (*order, axis.name)
        for eq in walk.scans:
            prefixes(kernel, axis.name, eq, block)
        states.allocate(kernel.result_order)
        step(states, block)
        for eq in walk.stores:
            kernel.store(eq)
    kernel.known, kernel.order = known, order
    return states
