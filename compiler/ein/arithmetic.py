"""The value of a formula over extents, scalar parameters and constants: one Python number."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import assert_never

from einc.base.errors import DTypeError, ShapeError
from einc.base.ops import FUNCTIONS, OPS
from einc.ein import Apply, AxisValue, Cast, Const, Expr, Extent, Read, Scalar, walk
from einc.ein.printer import print_expr

ScalarValue = bool | int | float


def evaluate_formula(e: Expr, extents: Mapping[str, int], scalars: Mapping[str, ScalarValue]) -> ScalarValue:
    """The value of a formula; integers are exact, floats follow IEEE in double precision.

    Raises `ShapeError` at an integer division by zero and at a division of extents that is not exact.
    """
    match e:
        case Const(value):
            return value
        case Extent(axis):
            return extents[axis]
        case Scalar(name):
            return scalars[name]
        case Cast(dtype, arg):
            return _cast(dtype.kind, evaluate_formula(arg, extents, scalars))
        case Apply("where", (condition, a, b)):
            return evaluate_formula(a if evaluate_formula(condition, extents, scalars) else b, extents, scalars)
        case Apply(op, args):
            values = [evaluate_formula(a, extents, scalars) for a in args]
            return _apply(e, op, values, extents, scalars)
        case AxisValue() | Read():
            raise DTypeError(f"{print_expr(e)} is not known at the call", getattr(e, "span", None))
        case _:
            assert_never(e)


def values_of(e: Expr, extents: Mapping[str, int], scalars: Mapping[str, ScalarValue]) -> str:
    """`, with |w| = 3, window = 2`: the extents and scalars of an expression and their values, for an error's fact."""
    parts = []
    for n in walk(e):
        match n:
            case Extent(axis) if axis in extents:
                parts.append(f"|{axis}| = {extents[axis]}")
            case AxisValue(axis) if axis in extents:
                parts.append(f"|{axis}| = {extents[axis]}")
            case Scalar(name) if name in scalars:
                parts.append(f"{name} = {scalars[name]}")
    return f", with {', '.join(dict.fromkeys(parts))}" if parts else ""


def _cast(kind: str, x: ScalarValue) -> ScalarValue:
    match kind:
        case "b":
            return bool(x)
        case "f":
            return float(x)
        case _:
            return int(x) if math.isfinite(x) else 0


_COMPARE: dict[str, Callable[[ScalarValue, ScalarValue], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip
_REAL: dict[str, Callable[[float], float]] = {
    name: getattr(math, name, lambda x: 1 / math.sqrt(x))
    for name in FUNCTIONS  # `rsqrt` is not Python's
}


def _apply(
    e: Apply, op: str, values: list[ScalarValue], extents: Mapping[str, int], scalars: Mapping[str, ScalarValue]
) -> ScalarValue:
    if op in _REAL:
        return _real(op, float(values[0]))
    if op in _COMPARE:
        return _COMPARE[op](*values)
    match op, values:
        case "add", [a, b]:
            return a + b
        case "sub", [a, b]:
            return a - b
        case "mul", [a, b]:
            return a * b
        case "div", [a, b]:
            return _quotient(float(a), float(b))
        case (("floordiv" | "mod" | "exactdiv"), [a, b]):
            return _divide(e, op, a, b, lambda: values_of(e, extents, scalars))
        case "pow", [a, b]:
            return _power(a, b)
        case "neg", [a]:
            return -a
        case "atan2", [a, b]:
            return math.atan2(a, b)
        case "abs", [a]:
            return abs(a)
        case (("floor" | "ceil" | "round"), [a]):
            return a if isinstance(a, int) or not math.isfinite(a) else float(_ROUND[op](a))
        case (("max" | "min"), [a, b]):
            return a if a != a or (a > b if op == "max" else a < b) else b
        case "and", [a, b]:
            return bool(a and b)
        case "or", [a, b]:
            return bool(a or b)
        case "not", [a]:
            return not a
        case _:
            raise DTypeError(f"'{op}' does not take extents and scalars", e.span, fact=print_expr(e))


_ROUND: dict[str, Callable[[float], int]] = {"floor": math.floor, "ceil": math.ceil, "round": round}


def _real(op: str, x: float) -> float:
    try:
        return _REAL[op](x)
    except OverflowError:
        return math.inf
    except (ValueError, ZeroDivisionError):
        if x == 0 and op == "rsqrt":
            return math.copysign(math.inf, x)
        return dict(OPS[op].poles).get(x, math.nan)  # where Python raises and IEEE has a value


def _quotient(a: float, b: float) -> float:
    if b != 0:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b)


def _power(a: ScalarValue, b: ScalarValue) -> ScalarValue:
    """Integer powers of integers are integers; one with a negative exponent is rounded to zero, and so 1, -1 or 0."""
    if isinstance(a, int) and isinstance(b, int):
        if b >= 0:
            return int(a**b)
        return int(a) if a in (1, -1) and b % 2 else int(a in (1, -1))
    try:
        return math.pow(a, b)
    except (OverflowError, ValueError):
        if a < 0 and b != math.floor(b):
            return math.nan
        return math.copysign(math.inf, a) if b % 2 == 1 else math.inf


def _divide(e: Apply, op: str, a: ScalarValue, b: ScalarValue, context: Callable[[], str]) -> ScalarValue:
    if isinstance(a, float) or isinstance(b, float):
        if b == 0:
            return _quotient(float(a), float(b)) if op == "floordiv" else math.nan
        return float(a // b) if op == "floordiv" else float(a % b)
    if b == 0:
        raise ShapeError(
            f"{print_expr(e)} divides by zero", e.span, fact=f"{a} / {b}{context()}", hint="make the divisor at least 1"
        )
    if op == "exactdiv" and a % b:
        raise ShapeError(
            f"{print_expr(e)} is not exact",
            e.span,
            fact=f"{a} / {b}{context()}",
            hint="make the first a multiple of the second, or round down with '//'",
        )
    return a % b if op == "mod" else a // b
