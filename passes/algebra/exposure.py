"""Whether reads in an expression rely on a check at the call (exposed) or stand under a guard (sheltered), and
expressions moved to other positions, where their reads are guarded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import assert_never

from einc.ein import ONE, ZERO, Apply, AxisValue, Cast, Const, Expr, Extent, Read, Scalar
from einc.ein.guards import argument_guard, conjoin, implied_guard, in_range_by_form
from einc.ein.ranges import is_simple
from einc.ein.rewriting import bottom_up

Dims = tuple[tuple[str, ...], ...]


def inside(e: Expr, group: tuple[str, ...]) -> tuple[Expr, Expr]:
    """The conditions that an index is within a dimension of these axes."""
    extents: list[Expr] = [Extent(axis) for axis in group] or [ONE]
    return Apply("le", (ZERO, e)), Apply("lt", (e, reduce(lambda a, b: Apply("mul", (a, b)), extents)))


def within(index: Sequence[Expr], dims: Dims) -> Expr | None:
    """The condition that simple subscripts are in range; None where their form makes that certain."""
    unsure = [(at, dim) for at, dim in zip(index, dims, strict=True) if not in_range_by_form(at, dim) and is_simple(at)]
    return reduce(conjoin, [t for at, dim in unsure for t in inside(at, dim)], None)


def is_exposed(e: Read, shapes: Mapping[str, Dims]) -> bool:
    """Does the read rely on a check at the call? That is made only where the equation around it has positions."""
    pairs = zip(e.index, shapes[e.tensor], strict=True)
    return e.guard is None and any(is_simple(at) and not in_range_by_form(at, dim) for at, dim in pairs)


def sheltered(e: Expr, context: Expr | None, shapes: Mapping[str, Dims]) -> Expr:
    """The expression with exposed reads put under the guard that their place, in this context, implies."""
    match e:
        case Apply(op, args):
            new: list[Expr] = []
            for k, arg in enumerate(args):
                new.append(sheltered(arg, argument_guard(op, args[:k], context), shapes))
            return e if all(a is b for a, b in zip(new, args, strict=True)) else replace(e, args=tuple(new))
        case Cast(arg=arg):
            below = sheltered(arg, context, shapes)
            return e if below is arg else replace(e, arg=below)
        case Read(index=index, guard=guard):
            inner = context if guard is None else guard
            at = tuple(sheltered(i, inner, shapes) for i in index)
            under = context if is_exposed(e, shapes) else guard
            return replace(e, index=at, guard=under)
        case Const() | AxisValue() | Extent() | Scalar():
            return e
        case _:
            assert_never(e)


def moved(e: Expr, at: Mapping[str, Expr], guard: Expr | None, shapes: Mapping[str, Dims]) -> Expr:
    """The expression with its axes at these positions, and with its own reads under a guard too."""
    return bottom_up(e, _mover(at, guard, shapes), into_reads=False)


def _mover(at: Mapping[str, Expr], guard: Expr | None, shapes: Mapping[str, Dims]) -> Callable[[Expr], Expr]:
    """Moves a node to these positions, and guards reads."""

    def move(e: Expr) -> Expr:
        match e:
            case AxisValue(axis):
                return at[axis]
            case Read(tensor, index, own):
                there = tuple(moved(i, at, guard, shapes) for i in index)
                both = conjoin(guard, None if own is None else bottom_up(own, move, into_reads=False))
                return Read(tensor, there, implied_guard(there, shapes[tensor], both))
            case _:
                return e

    return move
