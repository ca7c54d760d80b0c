"""Where a loop over a walked axis starts and stops: the part that its reductions need for the rows of this tile.

    loop j: state = ...   -->   loop j from min[rows](e) to max[rows](e'): state = ...      domain: e <= j < e'

The bounds are computed once, before the loop, from the rows of the tile, and so may read data: a length, an offset. Of
several walked axes the outermost is bounded, and so is the position along all of them as one; where their order is
free, one with bounds is outermost. Between max[rows](e) and
min[rows](e') the domain holds for every row, so that no mask need be computed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

from einc import ein, tile
from einc.base.types import BOOL, I64, INT
from einc.ein import AxisValue, Expr, reads
from einc.ein.domains import fails
from einc.ein.guards import composite
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import replaced
from einc.passes.algebra.bounds import Bounds, bounds
from einc.passes.algebra.domain import Domain, either, ordered
from einc.passes.algebra.folding import call
from einc.passes.algebra.products import multiplied
from einc.passes.estimate.sides import steps
from einc.passes.lowering.kernel import Kernel
from einc.passes.lowering.operations import fits_index
from einc.passes.streaming.sweep import Accumulator, Link
from einc.passes.streaming.walks import Walk, needed, walks
from einc.pipeline import positions
from einc.tile import Elem, ExtentOf, Lit, Value
from einc.tile.masks import extent

# A start is rounded down to a multiple of this, so that loads along the axis stay vectors; it is the least block too.
_ALIGNED = 16
_OTHER = {"min": "max", "max": "min"}

Limit = Value | None


@dataclass(frozen=True, slots=True)
class Limits:
    """The first position that a loop has to visit and the one it may stop before; None where nothing bounds it.

    `full` is where every row needs every position: from the greatest of its first values to the least of its second
    ones, all of `holds` are true. It is None where that is at most one position. If `free`, positions may be taken in
    any order.
    """

    start: Limit = None
    stop: Limit = None
    full: tuple[tuple[Value, ...], tuple[Value, ...]] | None = ((), ())
    holds: tuple[Expr, ...] = ()
    free: bool = False


def limits(kernel: Kernel, walk: Walk) -> Limits:
    """The limits of a walk."""
    walked = kernel.plan.walked
    few = not steps(kernel.plan, kernel.context) and positions(walked, kernel.context) <= _ALIGNED
    if few or not walk.links:
        return Limits()
    needed = reduce(either, (_needed(kernel, link, a) for link in walk.links for a in link.accumulators))
    start = stop = None
    counting = any(_counts(r.value, walked) for link in walk.links for r in link.references)
    whole = not (walk.stores or walk.scans or counting)
    if whole:
        start, stop = _span(kernel, needed)
    free = whole and not any(_is_ordered(a) for link in walk.links for a in link.accumulators)
    return replace(_full(kernel, needed), start=start, stop=stop, free=free)


def outermost_bounded(kernel: Kernel) -> tuple[str, ...]:
    """The walked axes, of which one that the domain of reductions bounds comes first, where their order is free."""
    walked = kernel.plan.walked
    links = [link for walk in walks(kernel.plan) for link in walk.links]
    if len(walked) == 1 or kernel.plan.scanned or any(_is_ordered(a) for link in links for a in link.accumulators):
        return walked
    needs = [_needed(kernel, link, a) for link in links for a in link.accumulators]
    known, dtypes = _known(kernel), kernel.b.dtypes

    def bounded(axis: str) -> bool:
        return all((b := bounds(n, axis, ein.Extent(axis), known, dtypes)).lowest or b.beyond for n in needs)

    return tuple(sorted(walked, key=lambda a: not bounded(a)))


def _is_ordered(a: Accumulator) -> bool:
    return not a.monoid.commutative or len(a.bodies) > 1


def _counts(e: Expr, walked: tuple[str, ...]) -> bool:
    """Does a value depend on how many positions have been seen, and not only on whether there are any?"""
    match e:
        case ein.Extent(axis=axis):
            return axis in walked
        case ein.Read():
            return False
        case ein.Apply(op="eq" | "ne", args=(ein.Extent(), ein.Const(0))):
            return False
        case _:
            return any(_counts(below, walked) for below in ein.children(e))


def _span(kernel: Kernel, needed: Domain) -> tuple[Limit, Limit]:
    """The first position that any row needs, and the one after the last."""
    start = stop = None
    for found, inner in _solved(kernel, needed):
        for e in found.lowest:
            start = _met("max", start, _times(_over_rows(kernel, e, "min"), inner))
        for e in found.beyond:
            stop = _met("min", stop, _times(_over_rows(kernel, e, "max"), inner))
    name = kernel.b.tile_of[kernel.plan.walked[0]]
    if start is not None:
        clipped = Elem("max", (start, Lit(0, INT)))
        aligned = Elem("mul", (Elem("floordiv", (clipped, Lit(_ALIGNED, INT))), Lit(_ALIGNED, INT)))
        start = kernel.b.bind(f"{name}_start", clipped if kernel.b.roles[name] == "batch" else aligned, ())
    if stop is not None:
        stop = kernel.b.bind(f"{name}_stop", Elem("min", (stop, extent(kernel.plan.walked))), ())
    return start, stop


def _full(kernel: Kernel, needed: Domain) -> Limits:
    """Where the predicates that become bounds hold for all rows."""
    lowest: list[Value] = []
    beyond: list[Value] = []
    holds: list[Expr] = []
    for p, bounding in _deciding(needed):
        for found, inner in _solved(kernel, bounding):
            if {call("add", e, ein.ONE) for e in found.lowest} & set(found.beyond) and not inner:
                return Limits(full=None)
            if len(found.decided) == len(bounding) and p not in holds:
                lowest += [_times(_over_rows(kernel, e, "max"), inner) for e in found.lowest]
                beyond += [_times(_over_rows(kernel, e, "min"), inner) for e in found.beyond]
                holds.append(p)
    return Limits(full=(tuple(lowest), tuple(beyond)), holds=tuple(holds))


def _deciding(needed: Domain) -> Iterator[tuple[Expr, Domain]]:
    """Each predicate with those whose bounds are where it holds: itself, or, of `a or p`, what a denies."""
    for p in sorted(needed, key=repr):
        match p:
            case ein.Apply(op="or", args=(other, q)) if q in needed:
                yield q, frozenset(fails(other))
            case _:
                yield p, frozenset((p,))


def _solved(kernel: Kernel, needed: Domain) -> Iterator[tuple[Bounds, tuple[str, ...]]]:
    """The bounds of the walked axes as one, then of the outermost one, each with the axes inside one of its steps."""
    walked = kernel.plan.walked
    known, dtypes = _known(kernel), kernel.b.dtypes
    if len(walked) > 1:
        flat = " ".join(walked)
        whole = {composite(walked): AxisValue(flat)}
        extent = multiplied(ein.Extent(a) for a in walked)
        yield bounds((replaced(p, whole) for p in needed), flat, extent, known, dtypes), ()
    yield bounds(needed, walked[0], ein.Extent(walked[0]), known, dtypes), walked[1:]


def _needed(kernel: Kernel, link: Link, a: Accumulator) -> Domain:
    """Predicates that must hold for an accumulator to change; those that read references tell nothing of positions."""
    found = needed(a.monoid, a.bodies, (a.domain, link.equation.within), kernel.definitions)
    placed = (p for p in found if all(r.tensor in kernel.b.shapes for r in reads(p)))
    return frozenset(ordered(p, lambda e: kernel.b.dtype(e).is_int) for p in placed)


def _known(kernel: Kernel) -> Callable[[Expr], bool]:
    """Tells whether an expression is an integer or truth value that is free of what this kernel computes or walks."""
    walked = kernel.plan.along

    def known(e: Expr) -> bool:
        made = (r.tensor in kernel.definitions or r.tensor not in kernel.b.shapes for r in reads(e))
        if any(made) or walked.intersection(ein.axes_of(e)):
            return False
        t = kernel.b.dtype(e)
        return t.is_int or t.is_bool

    return known


def _over_rows(kernel: Kernel, e: Expr, monoid: str) -> Value:
    """The least or greatest value over the positions of the tile. Values that are read are compared in 64 bits."""
    b = kernel.b
    chosen = _chosen(kernel, e, monoid)
    if chosen is not None:
        return chosen
    wide = b.dtype(e).bits == I64.bits and not (isinstance(e, ein.Cast) and fits_index(b.dtype(e.arg)))
    value = _folded(kernel, b.typed(e, kernel.order, I64) if wide else b.place(e, kernel.order), monoid)
    if not wide:
        return value
    length = b.convert(extent(kernel.plan.walked), I64)
    return b.convert(Elem("max", (Elem("min", (value, length)), Lit(0, I64))), INT)


def _folded(kernel: Kernel, value: Value, monoid: str) -> Value:
    """A value folded over the axes of the tile; sums and differences of positions along different ones by parts."""
    axes = kernel.b.axes_of
    match value:
        case Elem(op="add" | "sub" as op, args=(x, y)) if (
            monoid in _OTHER
            and kernel.b.type_of(value) == INT
            and axes(x)
            and axes(y)
            and {*axes(x)}.isdisjoint(axes(y))
        ):
            behind = monoid if op == "add" else _OTHER[monoid]
            return Elem(op, (_folded(kernel, x, monoid), _folded(kernel, y, behind)))
    for axis in kernel.order:
        if axis in axes(value):
            value = tile.Fold(MONOIDS[monoid], axis, (value,))
    return value


def _chosen(kernel: Kernel, e: Expr, monoid: str) -> Value | None:
    """The least or greatest over a tile of all positions of a walk or none, as a predicate along several axes of the
    tile says, if whether that holds anywhere, or everywhere, is told without computing all of it."""
    match e:
        case ein.Apply(op="where", args=(p, x, y)) if ein.ZERO in (x, y) and not {*ein.axes_of(x), *ein.axes_of(y)}:
            b, order = kernel.b, kernel.order
            value = b.typed(p, order, BOOL)
            if len(b.axes_of(value)) > 1:
                holds = _holds(kernel, value, some=(monoid == "max") == (y == ein.ZERO))
                return None if holds is None else Elem("where", (holds, b.place(x, order), b.place(y, order)))
    return None


def _holds(kernel: Kernel, p: Value, *, some: bool) -> Value | None:
    """Whether a predicate may hold somewhere in a tile, or is known to hold everywhere: of comparisons of what goes
    along one axis with what goes along others, by the least and greatest values of both sides."""
    axes = kernel.b.axes_of
    if len(axes(p)) < 2:
        return _folded(kernel, p, "any" if some else "all")
    match p:
        case Elem(op="and" | "or" as op, args=(x, y)):
            a, b = _holds(kernel, x, some=some), _holds(kernel, y, some=some)
            return None if a is None or b is None else Elem(op, (a, b))
        case Elem(op="not", args=(x,)):
            a = _holds(kernel, x, some=not some)
            return None if a is None else Elem("not", (a,))
        case Elem(op="lt" | "le" | "gt" | "ge" | "eq" | "ne" as op, args=(x, y)) if set(axes(x)).isdisjoint(axes(y)):
            near, far = ("min", "max") if some == (op != "ne") else ("max", "min")
            below, above = (_folded(kernel, v, near) for v in (x, y)), (_folded(kernel, v, far) for v in (x, y))
            (x_near, y_near), (x_far, y_far) = below, above
            if op in ("lt", "le"):
                return Elem(op, (x_near, y_far))
            if op in ("gt", "ge"):
                return Elem(op, (x_far, y_near))
            meets = Elem("and", (Elem("le", (x_near, y_far)), Elem("le", (y_near, x_far))))
            return meets if op == "eq" else Elem("not", (meets,))
    return None


def _times(v: Value, axes: tuple[str, ...]) -> Value:
    for axis in axes:
        v = Elem("mul", (v, ExtentOf(axis)))
    return v


def _met(op: str, a: Limit, b: Value) -> Value:
    return b if a is None else Elem(op, (a, b))
