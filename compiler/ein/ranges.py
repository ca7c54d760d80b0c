"""Interval arithmetic on index expressions, and which reads need a range check at run time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import assert_never

from einc.base.intervals import Interval, applied, within
from einc.ein import Apply, AxisValue, Cast, Const, Expr, Extent, Program, Read, Scalar, walk
from einc.ein.guards import in_range_by_form

__all__ = ["extent_of", "in_range_by_form", "interval", "is_closed", "is_simple", "needs_check"]

_EXACT = ("add", "sub", "mul", "floordiv", "mod", "neg", "exactdiv")


def is_closed(e: Expr) -> bool:
    """Does the value depend on extents, scalars and constants only?"""
    return not any(isinstance(n, AxisValue | Read) for n in walk(e))


def is_simple(e: Expr) -> bool:
    """Is interval arithmetic exact on this index? The condition of the range rule, decided by form alone.

    It is made of axis values, extents, integer scalars and constants by `+ - * // %`, where the right operands of `//`
    and `%` and one factor of `*` are free of axis values, and each axis occurs at most once.
    """
    seen: list[str] = []
    for n in walk(e):
        match n:
            case AxisValue(axis):
                seen.append(axis)
            case Extent() | Scalar():
                pass
            case Const(value):
                if isinstance(value, bool | float):
                    return False
            case Apply("mul", (a, b)):
                if not (is_closed(a) or is_closed(b)):
                    return False
            case Apply("floordiv" | "mod" | "exactdiv", (_, b)):
                if not is_closed(b):
                    return False
            case Apply(op):
                if op not in _EXACT:
                    return False
            case _:
                return False
    return len(seen) == len(set(seen))


def interval(e: Expr, extents: Mapping[str, int], scalars: Mapping[str, int | float | bool]) -> Interval | None:
    """The least and greatest value over all positions of the axes; for a predicate, (0, 0), (0, 1) or (1, 1).

    None where nothing is known: reads, floats, division by a value that may be 0, an axis without positions. Exact if
    the expression is simple, except that the remainder of a value with steps greater than 1 may get its whole period.
    """
    match e:
        case Const(value):
            return None if isinstance(value, float) else (int(value), int(value))
        case Scalar(name):
            given = scalars.get(name)
            return None if given is None or isinstance(given, float) else (int(given), int(given))
        case Extent(axis):
            return (extents[axis], extents[axis]) if axis in extents else None
        case AxisValue(axis):
            return (0, extents[axis] - 1) if extents.get(axis, 0) > 0 else None
        case Cast(dtype, arg):
            below = interval(arg, extents, scalars)
            return below if below is not None and dtype.is_int and within(below, dtype.limits) else None
        case Apply(op, args):
            return applied(op, [interval(a, extents, scalars) for a in args])
        case Read():
            return None
        case _:
            assert_never(e)


def needs_check(program: Program, read: Read) -> tuple[bool, ...]:
    """For each dimension: must the index be compared with the extent at run time, since the value is 0 out of range?

    Not where it is in range by form, nor where it is simple and unguarded, since that is checked at the call.
    """
    dims = program.shapes()[read.tensor]
    return tuple(
        not in_range_by_form(e, group) and (read.guard is not None or not is_simple(e))
        for e, group in zip(read.index, dims, strict=True)
    )


def extent_of(group: Iterable[str], extents: Mapping[str, int]) -> int:
    """The extent of a dimension: the product over its axes, 1 for none."""
    return math.prod(extents[axis] for axis in group)
