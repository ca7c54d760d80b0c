"""Intervals of integers and truth values over a box: what lets a whole block skip a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einc.base.types import DType
from einc.codegen.executor.frames import Affine, Bounds, Interval, Node, unknown

_SWAPPED = {"gt": "lt", "ge": "le"}


def interval(op: str, args: Sequence[Node]) -> Interval:
    """The interval of an operation, from those of its arguments; `unknown` where no box can tell."""
    if op in ("and", "or"):
        return _logic(op, args[0].bounds, args[1].bounds)
    if any(a.bounds is unknown for a in args):
        return unknown
    if op in _SWAPPED:
        return interval(_SWAPPED[op], (args[1], args[0]))
    if op in ("lt", "le", "eq", "ne"):
        return _compare(op, *args)
    if op in _RULES and all(a.dtype.is_int or a.dtype.is_bool for a in args):
        return _lifted(_RULES[op], [a.bounds for a in args])
    return unknown


def _lifted(rule: Callable[..., Bounds | None], known: Sequence[Interval]) -> Interval:
    def run(lo: Sequence[int], hi: Sequence[int]) -> Bounds | None:
        found = [k(lo, hi) for k in known]
        return None if any(f is None for f in found) else rule(*found)

    return run


def _compare(op: str, a: Node, b: Node) -> Interval:
    """Affine sides by their difference, which knows that both move together."""
    if a.affine is not None and b.affine is not None:
        difference = a.affine.plus(b.affine, -1).bounds
        return lambda lo, hi: _sign(op, difference(lo, hi))
    if not all(n.dtype.is_int for n in (a, b)):
        return unknown
    return _lifted(lambda x, y: _sign(op, (x[0] - y[1], x[1] - y[0])), (a.bounds, b.bounds))


def _sign(op: str, difference: Bounds) -> Bounds:
    low, high = difference
    match op:
        case "lt":
            return int(high < 0), int(low < 0)
        case "le":
            return int(high <= 0), int(low <= 0)
        case "eq":
            return int(low == high == 0), int(low <= 0 <= high)
        case _:
            return int(not low <= 0 <= high), int(not low == high == 0)


def _logic(op: str, a: Interval, b: Interval) -> Interval:
    """One side that is known to decide is enough."""
    pick = min if op == "and" else max

    def run(lo: Sequence[int], hi: Sequence[int]) -> Bounds | None:
        p, q = a(lo, hi) or (0, 1), b(lo, hi) or (0, 1)
        return pick(p[0], q[0]), pick(p[1], q[1])

    return run


def _multiply(a: Bounds, b: Bounds) -> Bounds:
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _quotient(a: Bounds, b: Bounds) -> Bounds | None:
    if b[0] <= 0:
        return None
    corners = [x // y for x in a for y in b]
    return min(corners), max(corners)


def _remainder(a: Bounds, b: Bounds) -> Bounds | None:
    if b[0] <= 0:
        return None
    if b[0] == b[1] and a[0] // b[0] == a[1] // b[0]:
        return a[0] % b[0], a[1] % b[0]
    return 0, b[1] - 1


def _hull(condition: Bounds, a: Bounds, b: Bounds) -> Bounds:
    if condition[0] == condition[1]:
        return a if condition[0] else b
    return min(a[0], b[0]), max(a[1], b[1])


_RULES: dict[str, Callable[..., Bounds | None]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "neg": lambda a: (-a[1], -a[0]),
    "mul": _multiply,
    "floordiv": _quotient,
    "exactdiv": _quotient,
    "mod": _remainder,
    "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "not": lambda a: (1 - a[1], 1 - a[0]),
    "where": _hull,
}


def affine_form(op: str, args: list[Node], lo: list[int], hi: tuple[int, ...]) -> Affine | None:
    """An operation on positions as an affine form, if it is one in this box."""
    forms = [a.affine for a in args]
    match op, forms:
        case "add" | "sub", [Affine() as a, Affine() as b]:
            return a.plus(b, 1 if op == "add" else -1)
        case "neg", [Affine() as a]:
            return a.times(-1)
        case "mul", [Affine() as a, Affine() as b] if not (a.coefs and b.coefs):
            return b.times(a.const) if not a.coefs else a.times(b.const)
        case "floordiv" | "mod" | "exactdiv", [Affine() as a, Affine(n, ())] if n > 0:
            parts = a.divided(n, lo, hi)
            return None if parts is None else parts[op == "mod"]
        case _:
            return None


def holds(t: DType, values: Bounds) -> bool:
    """Are all of these integers in the type?"""
    bits = t.bits or 64
    low, high = (0, 1 << bits) if t.kind == "u" else (-(1 << bits - 1), 1 << bits - 1)
    return low <= values[0] and values[1] < min(high, 1 << 63)
