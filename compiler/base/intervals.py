"""Intervals of integers and truth values: the bounds of an operation's result, given those of its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from einc.base.ops import COMPARISONS

Interval = tuple[int, int]  # least and greatest value, both included; for a predicate (0, 0), (0, 1) or (1, 1)


def within(values: Interval, limits: Interval) -> bool:
    """Do all values of one interval lie in another?"""
    return limits[0] <= values[0] and values[1] <= limits[1]


def applied(op: str, known: Sequence[Interval | None]) -> Interval | None:
    """The interval of an operation on integers and truth values, given those of its arguments; None is unknown."""
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
        case _, [a, b] if op in COMPARISONS:
            return compared(op, (a[0] - b[1], a[1] - b[0]))
        case _:
            return None


def compared(op: str, difference: Interval) -> Interval:
    """The interval of a comparison, given the interval of the difference of its sides."""
    low, high = difference
    match op:
        case "lt" | "le":
            always, never = (high < 0, low >= 0) if op == "lt" else (high <= 0, low > 0)
        case "gt" | "ge":
            always, never = (low > 0, high <= 0) if op == "gt" else (low >= 0, high < 0)
        case _:
            always, never = low == high == 0, not low <= 0 <= high
            if op == "ne":
                always, never = never, always
    return int(always), int(not never)


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


def _logic(op: str, a: Interval | None, b: Interval | None) -> Interval:
    """The interval of `and` or `or`: one side that decides is enough."""
    p, q = a or (0, 1), b or (0, 1)
    pick = min if op == "and" else max
    return pick(p[0], q[0]), pick(p[1], q[1])


def _where(condition: Interval | None, a: Interval | None, b: Interval | None) -> Interval | None:
    if condition == (1, 1):
        return a
    if condition == (0, 0):
        return b
    return None if a is None or b is None else _hull((*a, *b))
