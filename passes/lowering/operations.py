"""Scalar operations in the types of tiles: the common type of the arguments, and the form of an operation in it."""

from __future__ import annotations

from dataclasses import replace

from einc import ein, tile
from einc.base.types import BOOL, FLOAT, I32, I64, INT, DType, compute, join
from einc.ein import Apply, Const, Expr, Monoid
from einc.ein.monoids import MONOIDS

_NARROW = 1 << 16  # integer factors below this keep products of positions within the index type


def arithmetic(op: str, args: tuple[tile.Value, ...], t: DType) -> tile.Value:
    """An operation on arguments of one type, written with operations that exist for that type."""
    match op:
        case "exactdiv":
            return tile.Elem("floordiv", args)
        case "floordiv" if t.is_float:
            return tile.Elem("floor", (tile.Elem("div", args),))
        case "mod" if t.is_float:
            below = tile.Elem("floor", (tile.Elem("div", args),))
            return tile.Elem("sub", (args[0], tile.Elem("mul", (below, args[1]))))
        case "floor" | "ceil" | "round" if not t.is_float:
            return args[0]
        case "abs" if t.kind in "bu":
            return args[0]
        case _:
            return tile.Elem(op, args)


def meeting(types: list[DType], real: DType) -> DType:
    """The common type of arguments: weak floats become `real`, narrow ones f32."""
    t = types[0]
    for other in types[1:]:
        t = join(t, other)
    return real if t == FLOAT else compute(t)


def may_be_long(e: Apply) -> bool:
    """May an integer product overflow the index type although every position fits it?"""
    if e.op == "pow" or all(ein.axes_of(a) for a in e.args):
        return True
    return any(isinstance(a, Const) and abs(a.value) >= _NARROW for a in e.args)


def fits_index(t: DType) -> bool:
    """Does the index type hold every value of a strong integer type, however narrow it is at a launch?"""
    return t.is_int and 0 < t.bits + (t.kind == "u") <= I32.bits


def is_place(e: Expr) -> bool:
    """Is it a position of an axis, or its quotient or remainder?"""
    match e:
        case ein.AxisValue():
            return True
        case Apply(op="floordiv" | "mod", args=(x, Const(value=n))):
            return n > 0 and is_place(x)
        case _:
            return False


def is_long(e: Expr) -> bool:
    """Is it a literal that only u64 holds?"""
    return isinstance(e, Const) and isinstance(e.value, int) and e.value > I64.limits[1]


def fits_position(e: Expr, t: DType) -> bool:
    """Does the index type hold every value of an integer expression?"""
    return abs(e.value) < 1 << 31 if isinstance(e, Const) else t == INT or fits_index(t)


def literal_type(value: bool | float, real: DType) -> DType:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return INT if -(1 << 31) <= value < 1 << 31 else I64
    return real


def literal(value: bool | float, t: DType) -> bool | int | float:
    if t.is_bool:
        return bool(value)
    if t.is_int and t.bits:
        lowest = t.limits[0]
        return (int(value) - lowest) % (1 << t.bits) + lowest
    return int(value) if t.is_int else float(value)


def of_states(m: Monoid) -> Monoid:
    """The monoid that combines tiles: it gives all components, whichever of them the reduction gives."""
    known = MONOIDS.get(m.name)
    return known if known is not None and replace(m, results=known.results) == known else m
