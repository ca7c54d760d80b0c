"""The guard that a read has by its place: what `where`, `and`, `or` and a domain imply for the reads inside.

    where(c, a, b)      reads in a get c, reads in b get `not c`
    p and q, p or q     reads in q get p, or `not p`
    op[r : p](f)        reads in f get p
    T[e : g]            reads in e get g

Nested guards are conjoined, the outer first. A guard that a read writes itself replaces the implied one, and `true`
removes it. No guard is implied for a read that cannot be out of range, because each index is the bare axis of its
dimension, or its composite expression. The elaborator adds guards by these laws, and the printer leaves out those that
they imply.
"""

from __future__ import annotations

from collections.abc import Sequence

from einc.ein import Apply, AxisValue, Const, Expr, Extent


def composite(group: Sequence[str]) -> Expr:
    """The position in a dimension of several axes, outermost first: `(g r)` is `g * |r| + r`; `()` is 0."""
    if not group:
        return Const(0)
    position: Expr = AxisValue(group[0])
    for axis in group[1:]:
        position = Apply("add", (Apply("mul", (position, Extent(axis))), AxisValue(axis)))
    return position


def in_range_by_form(index: Expr, group: Sequence[str]) -> bool:
    """Is the index the bare axis of a dimension, or the composite expression of it, whatever the extents are?"""
    if len(group) == 1:
        return isinstance(index, AxisValue) and index.axis == group[0]
    return index == composite(group)


def positions(dims: Sequence[tuple[str, ...]], index: Sequence[Expr]) -> dict[str, Expr]:
    """The position along each axis of a tensor's dimensions that an index gives."""
    at: dict[str, Expr] = {}
    for group, e in zip(dims, index, strict=True):
        if in_range_by_form(e, group):
            at |= {axis: AxisValue(axis) for axis in group}
            continue
        for axis in reversed(group[1:]):
            e, at[axis] = Apply("floordiv", (e, Extent(axis))), Apply("mod", (e, Extent(axis)))
        if group:
            at[group[0]] = e
    return at


def conjoin(outer: Expr | None, inner: Expr | None) -> Expr | None:
    """Both guards; None is no guard."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return Apply("and", (outer, inner))


def argument_guard(op: str, before: Sequence[Expr], guard: Expr | None) -> Expr | None:
    """The guard of reads in an argument of `op`, which follows the arguments `before`; `op` itself is under `guard`."""
    match op, len(before):
        case ("where", 1) | ("and", 1):
            return conjoin(guard, before[0])
        case ("where", 2) | ("or", 1):
            return conjoin(guard, Apply("not", (before[0],)))
        case _:
            return guard


def implied_guard(index: Sequence[Expr], dims: Sequence[tuple[str, ...]], guard: Expr | None) -> Expr | None:
    """The guard of a read under `guard`, of a tensor with these dimensions, if it writes none of its own."""
    certain = len(index) == len(dims) and all(in_range_by_form(e, g) for e, g in zip(index, dims, strict=True))
    return None if certain else guard
