"""Intervals of integers and truth values over a box, by which a whole block can skip a mask."""

from __future__ import annotations

from collections.abc import Sequence

from einc.base.intervals import applied, compared, within
from einc.base.ops import COMPARISONS
from einc.base.types import I64, DType
from einc.codegen.executor.frames import Affine, Bounds, Interval, Node, unknown

_ARITHMETIC = ("add", "sub", "neg", "mul", "floordiv", "exactdiv", "mod", "max", "min", "abs", "not", "where")


def interval(op: str, args: Sequence[Node]) -> Interval:
    """The interval of an operation, from those of its arguments; `unknown` where it is known in no box."""
    known = [a.bounds for a in args]
    if op in ("and", "or"):
        return lambda lo, hi: applied(op, [k(lo, hi) for k in known])
    if unknown in known:
        return unknown
    if op in COMPARISONS:
        return _compared(op, *args)
    if op in _ARITHMETIC and all(a.dtype.is_int or a.dtype.is_bool for a in args):
        return lambda lo, hi: applied(op, [k(lo, hi) for k in known])
    return unknown


def _compared(op: str, a: Node, b: Node) -> Interval:
    """A comparison of affine sides, by the interval of their difference, since both move together."""
    if a.affine is not None and b.affine is not None:
        difference = a.affine.plus(b.affine, -1).bounds
        return lambda lo, hi: compared(op, difference(lo, hi))
    if not all(n.dtype.is_int for n in (a, b)):
        return unknown
    return lambda lo, hi: applied(op, (a.bounds(lo, hi), b.bounds(lo, hi)))


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
    """Are these integers in the type as torch computes with it (u64 as i64)?"""
    return within(values, t.limits) and within(values, I64.limits)
