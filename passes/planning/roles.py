"""The roles of axes in a kernel that some equations share, or why they cannot share one.

Equations can share a kernel if each reads the others at the positions where they are computed, and every axis has a
role: an axis that no equation reduces is split over the grid, or held whole where it is short and some equation lacks
it; of the reduced axes, one group is walked, and the others are held whole. One that is too long to be held is walked
by the reductions over it, anew for every block of the other walk that needs them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from einc import ein
from einc.base.ops import COMPARISONS
from einc.base.types import DType
from einc.ein import AxisValue, Equation
from einc.ein.dealing import Shape
from einc.ein.domains import holds
from einc.passes.algebra.linear import strided
from einc.passes.estimate.fit import WHOLE_DOT, overflow
from einc.pipeline import Context, positions
from einc.pipeline.plan import Planned

_ALONE = 1024  # positions of an axis that are blocks enough
LONG = WHOLE_DOT  # positions of a group of reduced axes that may be walked within a walk, rather than held


class Hold(Enum):
    """Which of the short axes that no equation reduces are held whole."""

    LACKED = "those that some equation lacks"
    BESIDE = "of these, those that are neither row nor column of the largest contraction"
    UNSTORED = "those that a stored tensor lacks: it is written once, even where such an axis has no positions"


@dataclass(frozen=True, slots=True)
class Apart:
    """Why equations cannot share a kernel, and whether the reason is that tiles would be too large."""

    reason: str
    overflows: bool = False


def misread(equations: tuple[Equation, ...], along: Mapping[str, str]) -> str | None:
    """Why the equations cannot read each other in one kernel; None if all reads are at own axes, without a guard.

    `along` gives for an axis the one whose positions it shares.
    """

    def places(index: Iterable[ein.Expr]) -> list[ein.Expr | str]:
        return [along.get(e.axis, e.axis) if isinstance(e, AxisValue) else e for e in index]

    made = {t.name: eq for eq in equations for t in eq.outputs}
    for eq in equations:
        if eq.within is not None and ein.tensors_of(eq.within) & made.keys():
            return f"the bounds of {eq.name}'s walk must be known before its kernel starts"
        for r in (r for e in eq.computed() for r in ein.reads(e)):
            source = made.get(r.tensor)
            own = () if source is None else [along.get(a, a) for a in source.axes]
            if source is not None and (r.guard is not None or places(r.index) != own):
                return f"{eq.name} reads {r.tensor} at a position other than its own"
            if source is not None and any(len(d) != 1 for d in source.dims):
                return f"{r.tensor} has a composite dimension"
    return None


def crossing(equations: tuple[Equation, ...], along: Mapping[str, str], prefixes: Collection[str]) -> str | None:
    """Why an equation cannot share a kernel with prefixes: it has two axes that share positions. None if none has."""
    for eq in equations:
        places = [along.get(a, a) for a in (*eq.axes, *eq.over)]
        both = next((a for a in places if a in along.values() and places.count(a) > 1), None)
        if both is not None and eq.name not in prefixes:
            return f"{eq.name} pairs all positions of {both}, along which others have prefixes"
    return None


def walkable(equations: tuple[Equation, ...], context: Context) -> list[tuple[str, ...]]:
    """The groups of axes that may be walked: none, or the axes that some equation reduces."""
    groups = list(dict.fromkeys(eq.over for eq in equations if eq.over))
    groups.sort(key=lambda g: -positions(g, context))
    return [(), *groups]


def planned(
    equations: tuple[Equation, ...],
    stores: tuple[str, ...],
    walked: tuple[str, ...],
    along: Mapping[str, str],
    shapes: Mapping[str, Shape],
    context: Context,
    dtypes: Mapping[str, DType],
    hold: Hold = Hold.LACKED,
    within: bool = False,
) -> Planned | Apart:
    """The plan with these axes walked, and `within` this walk those that are long.

    `along` gives for an axis the walked one whose positions it shares.
    """
    shape = _main(equations, shapes, context)
    reduced = tuple(dict.fromkeys(along.get(a, a) for eq in equations for a in eq.over))
    if (reason := _unwalkable(equations, walked, along)) is not None:
        return Apart(reason)
    inner = _long(equations, {*walked, *along}, context) if within else ()
    within_walk = {a for group in inner for a in group}
    if (reason := _unwalkable_within(equations, inner, stores)) is not None:
        return Apart(reason)
    free = tuple(dict.fromkeys(a for eq in equations for a in eq.axes if a not in (*reduced, *along)))
    those = [eq for eq in equations if hold is not Hold.UNSTORED or any(t.name in stores for t in eq.outputs)]
    lacking = _lacking(those, free, shape, hold)
    held = (a for a in reduced if a not in walked and a not in within_walk)
    whole = (*held, *(a for a in lacking if context.size(a) <= WHOLE_DOT))
    anew = {*whole, *within_walk}
    if (
        segment := next((a for eq in equations for a in eq.over if a in anew and _is_segment(eq, a)), None)
    ) is not None:
        return Apart(f"data says how few positions of {segment} are needed")
    grid = tuple(a for a in free if a not in whole)
    if shape is not None:
        rows = tuple(a for a in shape.rows if a in grid)
        columns = tuple(a for a in shape.columns if a in grid)
        if set(shape.rows) & set(
            walked
        ):  # a walk goes over columns: the others are its rows, at one position of the rest
            rows, columns = columns, ()
    else:
        rows, columns = (grid, ()) if walked or whole else (grid[:-1], grid[-1:])
    rows, columns = (_within_blocks(g, equations) for g in (rows, columns))
    if sum(eq.name in shapes for eq in equations) > 1:
        rows = _alone(rows, context)
    batch = tuple(a for a in grid if a not in rows and a not in columns)
    for eq in equations:
        if any(t.name in stores for t in eq.outputs) and (without := _unwritten(eq, batch, (rows, columns))):
            return Apart(f"{eq.name} would be stored at each of {', '.join(without)}, or at none")
    plan = Planned(
        equations,
        stores=stores,
        batch=batch,
        rows=rows,
        columns=columns,
        walked=walked,
        whole=whole,
        inner=inner,
        scanned=tuple(along),
    )
    reason = overflow(plan, shapes, context, dtypes)
    return plan if reason is None else Apart(reason, overflows=True)


@lru_cache(maxsize=1024)
def _far(equations: tuple[Equation, ...]) -> frozenset[str]:
    return frozenset[str]().union(*map(strided, equations))


def _within_blocks(group: tuple[str, ...], equations: tuple[Equation, ...]) -> tuple[str, ...]:
    """The axes of a group without those that step over blocks of others: a tile over both would be in pieces."""
    far = _far(equations)
    return tuple(a for a in group if a not in far) or group


def _alone(rows: tuple[str, ...], context: Context) -> tuple[str, ...]:
    """The rows along the longest axis alone, where these are many blocks: along several there would be no more of them,
    and copy engines find only rows that follow each other."""
    longest = max(rows, key=context.size, default="")
    return (longest,) if len(rows) > 1 and context.size(longest) >= _ALONE else rows


def _unwalkable(equations: tuple[Equation, ...], walked: tuple[str, ...], along: Mapping[str, str]) -> str | None:
    """Why the equations cannot share a walk over these axes; None if they can."""
    for eq in equations:
        over = {along.get(a, a) for a in eq.over}
        if set(walked) & over and not set(walked) <= over:
            return f"{eq.name} is reduced over {', '.join(eq.over)}, not over all walked axes"
        if set(along) & set(eq.over) and len(eq.over) > 1:
            return f"{eq.name} is reduced over {', '.join(eq.over)}, and others have prefixes along one of these"
    return None


def _long(equations: tuple[Equation, ...], walked: set[str], context: Context) -> tuple[tuple[str, ...], ...]:
    """The groups of axes that are reduced, not walked, and longer than what tiles that others cross hold."""
    groups = dict.fromkeys(eq.over for eq in equations if eq.over and walked.isdisjoint(eq.over))
    return tuple(g for g in groups if positions(g, context) > LONG)


def _unwalkable_within(
    equations: tuple[Equation, ...], inner: tuple[tuple[str, ...], ...], stores: tuple[str, ...]
) -> str | None:
    """Why reductions cannot walk these groups of axes themselves; None if they can.

    Of what they walk nothing but blocks is there: no other reduction has a value at its positions, none is stored.
    """
    for group in inner:
        for eq in equations:
            lies = not set(group).isdisjoint(eq.axes)
            if eq.over != group and set(group) & set(eq.over):
                return f"{eq.name} is reduced over {', '.join(eq.over)}, not over {', '.join(group)}"
            if lies and eq.monoid is not None:
                return f"{eq.name} is reduced at each of {', '.join(group)}, which others are reduced over"
            if lies and any(t.name in stores for t in eq.outputs):
                return f"{eq.name} is stored at each of {', '.join(group)}, which others are reduced over"
    return None


@lru_cache(maxsize=4096)
def _is_segment(eq: Equation, axis: str) -> bool:
    """Does data bound a reduction along an axis, and decide whatever is read along it? Then few positions count."""
    bounds = [p.args for p in holds(eq.domain) if isinstance(p, ein.Apply) and p.op in COMPARISONS] if eq.domain else []
    bounded = any(AxisValue(axis) in sides and any(map(ein.reads, sides)) for sides in bounds)
    along = [r for b in eq.bodies for r in ein.reads(b) if axis in ein.axes_of(r)]
    return bounded and all(any(map(ein.reads, r.index)) for r in along)


def _lacking(equations: Iterable[Equation], free: tuple[str, ...], shape: Shape | None, hold: Hold) -> tuple[str, ...]:
    """The axes that some of the equations lack and that may be held whole."""
    kept: set[str] = set()
    if shape is not None:  # no tile of a contraction extends over its batch axes
        kept = {*shape.batch, *((*shape.rows, *shape.columns) if hold is Hold.BESIDE else ())}
    every = [set(eq.axes) for eq in equations]
    return tuple(a for a in free if a not in kept and any(a not in axes for axes in every))


def _unwritten(eq: Equation, batch: tuple[str, ...], groups: tuple[tuple[str, ...], ...]) -> list[str]:
    """The axes of the grid that an equation lacks: where one has no positions, nothing would be written.

    It may lack a whole group of blocked axes, since there is at least one block of them.
    """
    lost = [a for g in groups if set(g) & set(eq.axes) for a in g if a not in eq.axes]
    return [a for a in batch if a not in eq.axes] + lost


def _main(equations: Iterable[Equation], shapes: Mapping[str, Shape], context: Context) -> Shape | None:
    """The shape of the largest contraction."""
    found = [(positions((*eq.axes, *eq.over), context), shapes[eq.name]) for eq in equations if eq.name in shapes]
    return max(found, key=lambda f: f[0])[1] if found else None
