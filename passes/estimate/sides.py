"""The tile axes of a plan's kernel, and which of them are the sides of a dot.

    sum[k] x[b, r, k] * y[b, k, c]   -->   at each b: dot(x[r, k], y[k, c])      at most one of b, r, c is two tile axes
    sum[h, k] x[r, h, k] * y[h, k, c]   -->   sum[h](dot(x[r, k], y[k, c]) at each h)

A dot may have one tile axis beside its row, column and inner one. That is a batch axis; or the outer one of two rows or
columns, over which the other side then does not vary, where operands lie in a cache the shorter one; or the shorter one
of two inner axes, over which its results are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import prod

from einc.ein import AxisValue, Equation, Expr, axes_of, reads
from einc.ein.dealing import Shape
from einc.passes.algebra.contraction import contraction
from einc.passes.streaming.walks import above
from einc.pipeline import Context, once
from einc.pipeline.plan import Planned
from einc.tile import Sides
from einc.tile.blocks import power

_LINE = 64  # positions of neighbours in memory
_MOST = 8  # times as many elements at most has what is read most
_FEWEST = 16  # positions along an axis that a block is worth
_BLOCK = 64  # positions of a walked axis in a block
_WORTH_FILLING = 8  # positions of an inner axis that is filled up to the 16 which a dot takes


def sides(shape: Shape, tiles: Callable[[Iterable[str]], list[str]], fills: bool, context: Context) -> Sides | None:
    """The tile axes of a dot for a contraction, or None.

    `tiles` gives those that a group of axes extends over, outermost first; `fills` says whether the inner axis may be
    filled up to what a dot takes.
    """

    def longest_last(axes: tuple[str, ...]) -> list[str]:
        """The tile axes of a group, the last of the longest at the end."""
        return sorted(tiles(axes), key=lambda t: prod(context.size(a) for a in axes if tiles((a,)) == [t]))

    ordered = longest_last if context.target.cache else tiles
    rows, columns, batch = ordered(shape.rows), ordered(shape.columns), tiles(shape.batch)
    inner = longest_last(shape.inner)
    several = [*rows, *columns, *inner, *batch]
    if not rows or not columns or not inner or not len(set(several)) == len(several) <= 4:
        return None
    further = (*batch, *rows[:-1], *columns[:-1], *inner[:-1])
    return None if further and not fills else Sides(rows[-1], columns[-1], inner[-1], *further)


def fills(inner: tuple[str, ...], plan: Planned, context: Context) -> bool:
    """Whether an inner axis is long enough for a dot, or no result grows where it is filled up."""
    short = set(inner) <= set(plan.whole) and prod(map(context.size, inner)) < _WORTH_FILLING
    return not short or all(set(inner).isdisjoint(eq.axes) for eq in plan.equations if eq.monoid is not None)


def shapes_of(equations: Iterable[Equation], context: Context) -> dict[str, Shape]:
    """The shapes of the equations that are contractions."""
    return dict(_shapes(tuple(equations), context))


@once
def _shapes(equations: tuple[Equation, ...], context: Context) -> dict[str, Shape]:
    sums = [eq for eq in equations if eq.monoid is not None and eq.monoid.adds]
    found = {eq.name: contraction(eq, eq.body, context.size) for eq in sums}
    return {name: c.shape for name, c in found.items() if c is not None}


@once
def tile_axes(plan: Planned, context: Context) -> dict[str, tuple[str, ...]]:
    """The axes that each tile axis of a plan's kernel is made of, by the first of them; outermost first."""
    walked = () if steps(plan, context) else (*blocked(plan, context), *plan.scanned)
    groups = (plan.rows, plan.columns, *held(plan, context), walked, *plan.inner)
    return {g[0]: g for g in groups if g}


@once
def steps(plan: Planned, context: Context) -> bool:
    """Does a plan's walk take one position at a time, since it goes over batch axes of all its contractions?"""
    shapes = shapes_of(plan.equations, context).values()
    walked = set(plan.walked)
    return bool(shapes and walked) and not plan.scanned and all(walked <= set(s.batch) for s in shapes)


@once
def stepped(plan: Planned, context: Context) -> tuple[str, ...]:
    """The walked axes that a walk takes one position of at a time; blocks lie along the others.

    They are all of them where it goes over batch axes; and where a contraction reads an operand at sums of them and of
    axes of its result, as a convolution does, all but one. Then a block is one of the operand at a place that is known
    for the whole of it, and not positions that are found one by one.
    """
    if steps(plan, context):
        return plan.walked
    if context.target.cache or context.level < 2 or len(plan.walked) < 2 or plan.scanned or plan.inner:
        return ()
    walked = set(plan.walked)
    own = [eq for eq in plan.equations if walked & set(eq.over)]
    shapes = shapes_of(own, context)
    if len(shapes) < len(own) or not all(walked <= set(s.inner) for s in shapes.values()):
        return ()
    shifted = {a for eq in own for e in eq.bodies for r in reads(e) for i in r.index for a in _shifted(i, walked)}
    if not shifted:
        return ()
    best = max(plan.walked, key=lambda a: (_each(context.size(a)), a not in shifted, context.size(a)))
    return tuple(a for a in plan.walked if a != best) if context.size(best) >= _FEWEST else ()


def _shifted(index: Expr, walked: set[str]) -> set[str]:
    """The walked axes of an index that others are added to."""
    axes = set(axes_of(index))
    return axes & walked if axes - walked else set()


def _each(n: int) -> float:
    """The positions of an axis in a block, on average over its blocks."""
    return n / max(-(-n // _BLOCK), 1)


def blocked(plan: Planned, context: Context) -> tuple[str, ...]:
    """The walked axes that blocks of the walk lie along."""
    found = stepped(plan, context)
    return tuple(a for a in plan.walked if a not in found)


@once
def held(plan: Planned, context: Context) -> tuple[tuple[str, ...], ...]:
    """The axes held whole, in the groups that contractions take as one: inner axes, rows, columns, batch axes."""
    groups: list[tuple[str, ...]] = []
    for eq in plan.equations:
        found = contraction(eq, eq.body, context.size) if eq.monoid is not None and eq.monoid.adds else None
        shape = None if found is None else found.shape
        for group in () if shape is None else (shape.rows, shape.columns, shape.inner, shape.batch):
            apart = set(group).isdisjoint(a for g in groups for a in g)
            if len(group) > 1 and set(group) <= set(plan.whole) and apart and _together(group, plan):
                groups.append(group)
    grouped = {a: g for g in groups for a in g}
    return tuple(dict.fromkeys(grouped.get(a, (a,)) for a in plan.whole))


def _together(group: tuple[str, ...], plan: Planned) -> bool:
    """Whether every reduction and every stored tensor has all of these axes, in one place, or none."""
    for eq in plan.equations:
        parts = [eq.over, eq.axes] if eq.monoid is not None or plan.writes(eq) else []
        if any(0 < len(set(part) & set(group)) < len(group) for part in parts):
            return False
    return True


def line(plan: Planned, group: Iterable[str], context: Context) -> int:
    """The positions of a blocked group of axes that a block has at least, so that it reads whole lines of memory.

    They are those of neighbours in memory, of what a kernel reads most.
    """
    if context.target.cache:
        return 1
    last = _neighbours(plan.equations, context)
    along = [context.size(a) for a in group if a in last and a in (*plan.rows, *plan.columns)]
    return min(_LINE, power(prod(along))) if along else 1


@once
def _neighbours(equations: tuple[Equation, ...], context: Context) -> frozenset[str]:
    """The axes of neighbours in memory, of what some equations read most."""
    read = {r for eq in equations for e in eq.expressions() for r in reads(e) if r.index}
    sizes = {r: prod(context.size(a) for e in r.index for a in axes_of(e)) for r in read}
    most = max(sizes.values(), default=0)
    last = (r.index[-1] for r, size in sizes.items() if size * _MOST >= most)
    return frozenset(e.axis for e in last if isinstance(e, AxisValue))


@lru_cache(maxsize=1024)
def follow_each_other(equations: tuple[Equation, ...], dots: frozenset[str]) -> bool:
    """Whether one dot is computed from another."""
    known = above(equations)
    return any(not dots.isdisjoint(known[name]) for name in dots)
