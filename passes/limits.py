"""Where a loop over a walked axis starts and stops: the part of it that its reductions need, for this tile's rows.

    loop j: state = ...   -->   loop j from min[rows](e) to max[rows](e'): state = ...      domain: e <= j < e'

The bounds are computed once, before the loop, from the rows of the tile, so they may read data: a length, an offset.
"""

from __future__ import annotations

from einc import tile
from einc.ein import MONOIDS, Expr, reads
from einc.passes.domain import bounds, domain, holds
from einc.passes.kernel import Kernel
from einc.passes.walks import Walk, unfolded
from einc.sweep import Accumulator
from einc.tile import Elem, ExtentOf, Lit, Value
from einc.types import INT

_NOTHING = {"sum": 0.0, "max": float("-inf"), "argmax": float("-inf"), "min": float("inf"), "argmin": float("inf")}
_ALIGNED = 16  # positions that a start is rounded down to, so that loads along the axis stay vectors

Limit = Value | None


def limits(kernel: Kernel, walk: Walk) -> tuple[Limit, Limit]:
    """The first position a loop has to visit and the one it may stop before; None where nothing bounds it."""
    walked = kernel.plan.walked
    if len(walked) != 1 or walk.stores or any(r.seen for link in walk.links for r in link.references):
        return None, None
    needed = [_needed(kernel, a) for link in walk.links for a in link.accumulators]
    common = frozenset.intersection(*needed) if needed else frozenset()
    found = bounds(common, walked[0])
    start = stop = None
    for e in filter(lambda e: _is_known(kernel, e), found.lowest):
        start = _met("max", start, _over_rows(kernel, e, "min"))
    for e in filter(lambda e: _is_known(kernel, e), found.beyond):
        stop = _met("min", stop, _over_rows(kernel, e, "max"))
    if start is not None:
        clipped = Elem("max", (start, Lit(0, INT)))
        aligned = Elem("mul", (Elem("floordiv", (clipped, Lit(_ALIGNED, INT))), Lit(_ALIGNED, INT)))
        start = kernel.b.bind(f"{walked[0]}_start", aligned, ())
    if stop is not None:
        stop = kernel.b.bind(f"{walked[0]}_stop", Elem("min", (stop, ExtentOf(walked[0]))), ())
    return start, stop


def _needed(kernel: Kernel, a: Accumulator) -> frozenset[Expr]:
    nothing = _NOTHING.get(a.monoid.name)
    if nothing is None:
        return frozenset()
    bodies = a.bodies if a.monoid.name == "sum" else a.bodies[:1]
    found = [domain(unfolded(b, kernel.definitions), nothing) for b in bodies]
    extra = () if a.domain is None else holds(unfolded(a.domain, kernel.definitions))
    return frozenset.intersection(*found).union(extra)


def _is_known(kernel: Kernel, e: Expr) -> bool:
    """Whether it is an integer that does not depend on what this kernel computes."""
    return kernel.b.dtype(e).is_int and not any(r.tensor in kernel.definitions for r in reads(e))


def _over_rows(kernel: Kernel, e: Expr, monoid: str) -> Value:
    """The least or greatest value over the positions of the tile."""
    b = kernel.b
    value = b.typed(e, kernel.order, INT)
    for axis in kernel.order:
        if axis in b.axes_of(value):
            value = tile.Fold(MONOIDS[monoid], axis, (value,))
    return value


def _met(op: str, a: Limit, b: Value) -> Value:
    return b if a is None else Elem(op, (a, b))
