"""Interval arithmetic on index expressions, and which reads need a check of their range at run time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product
from typing import assert_never

from einc.ein import Apply, AxisValue, Cast, Const, Expr, Extent, Program, Read, Scalar, walk
from einc.ein.guards import in_range_by_form

__all__ = ["Interval", "extent_of", "in_range_by_form", "interval", "is_closed", "is_simple", "needs_check"]

Interval = tuple[int, int]  # least and greatest value, both included

_EXACT = ("add", "sub", "mul", "floordiv", "mod", "neg", "exactdiv")


def is_closed(e: Expr) -> bool:
    """Does the value depend on extents, scalars and constants only?"""
    return not any(isinstance(n, AxisValue | Read) for n in walk(e))


def is_simple(e: Expr) -> bool:
    """Is interval arithmetic exact on this index? The range rule's condition, decided by form alone.

    Axis values, extents, integer scalars and constants under `+ - * // %`, where the right operands of `//` and `%` and
    one factor of `*` are free of axis values, and each axis occurs at most once.
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
    """The least and greatest value over all positions of the axes; of a predicate, (0, 0), (0, 1) or (1, 1).

    None where nothing is known: reads, floats, division by what may be 0, an axis without positions. Exact where the
    expression is simple, except that a remainder of what moves in steps greater than 1 may be given all of its period.
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
            return below if below is not None and _holds(dtype.kind, dtype.bits, below) else None
        case Apply(op, args):
            known = [interval(a, extents, scalars) for a in args]
            return _apply(op, known)
        case Read():
            return None
        case _:
            assert_never(e)


def _holds(kind: str, bits: int, values: Interval) -> bool:
    low, high = {"i": (-(1 << bits - 1), (1 << bits - 1) - 1), "u": (0, (1 << bits) - 1)}.get(kind, (1, 0))
    return low <= values[0] and values[1] <= high


def _apply(op: str, known: list[Interval | None]) -> Interval | None:
    if op == "where":
        return _where(*known)
    if op in ("and", "or"):
        return _logic(op, *known)
    args = [k for k in known if k is not None]
    if len(args) < len(known):
        return None
    match op, args:
        case "neg", [(low, high)]:
            return -high, -low
        case "not", [(low, high)]:
            return 1 - high, 1 - low
        case "abs", [(low, high)]:
            return (0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
        case "add", [a, b]:
            return a[0] + b[0], a[1] + b[1]
        case "sub", [a, b]:
            return a[0] - b[1], a[1] - b[0]
        case "mul", [a, b]:
            return _hull(x * y for x, y in product(a, b))
        case ("max" | "min") as which, [a, b]:
            pick = max if which == "max" else min
            return pick(a[0], b[0]), pick(a[1], b[1])
        case ("floordiv" | "exactdiv" | "mod") as which, [a, b]:
            return _divide(which, a, b)
        case ("lt" | "le" | "gt" | "ge" | "eq" | "ne") as which, [a, b]:
            return _compare(which, a, b)
        case _:
            return None


def _hull(values: Iterable[int]) -> Interval:
    found = tuple(values)
    return min(found), max(found)


def _divide(op: str, a: Interval, b: Interval) -> Interval | None:
    if b[0] <= 0 <= b[1]:
        return None
    if op != "mod":
        return _hull(x // y for x, y in product(a, b))
    if b[0] == b[1] and a[0] // b[0] == a[1] // b[0]:  # one period: the remainder moves with the dividend
        return _hull((a[0] % b[0], a[1] % b[0]))
    return (0, b[1] - 1) if b[0] > 0 else (b[0] + 1, 0)


def _compare(op: str, a: Interval, b: Interval) -> Interval:
    if op in ("gt", "ge"):
        op, a, b = {"gt": "lt", "ge": "le"}[op], b, a
    match op:
        case "lt":
            always, never = a[1] < b[0], a[0] >= b[1]
        case "le":
            always, never = a[1] <= b[0], a[0] > b[1]
        case _:
            always, never = a[0] == a[1] == b[0] == b[1], a[1] < b[0] or b[1] < a[0]
            if op == "ne":
                always, never = never, always
    return int(always), int(not never)


def _logic(op: str, a: Interval | None, b: Interval | None) -> Interval:
    """One side known to decide is enough."""
    p, q = a or (0, 1), b or (0, 1)
    pick = min if op == "and" else max
    return pick(p[0], q[0]), pick(p[1], q[1])


def _where(condition: Interval | None, a: Interval | None, b: Interval | None) -> Interval | None:
    if condition == (1, 1):
        return a
    if condition == (0, 0):
        return b
    return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))


def needs_check(program: Program, read: Read) -> tuple[bool, ...]:
    """Per dimension: must the index be compared with the extent at run time, the value being 0 out of range?

    Not where it is in range by form, nor where it is simple and unguarded: that one is checked at the call.
    """
    dims = program.shapes()[read.tensor]
    return tuple(
        not in_range_by_form(e, group) and (read.guard is not None or not is_simple(e))
        for e, group in zip(read.index, dims, strict=True)
    )


def extent_of(group: Iterable[str], extents: Mapping[str, int]) -> int:
    """The extent of a dimension: the product over its axes, 1 for none."""
    return math.prod(extents[axis] for axis in group)
