"""What can be proved about the range of a value: that it is not negative, that it is finite."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import cache

from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Monoid, Read, Scalar, rebuild


def not_negative(e: Expr, tensors: Collection[str] = ()) -> bool:
    """Is the value provably at least 0, or NaN? `tensors` names the tensors whose elements are."""

    def all_of(args: Iterable[Expr]) -> bool:
        return all(not_negative(a, tensors) for a in args)

    match e:
        case Const(value):
            return value >= 0
        case AxisValue() | Extent():
            return True
        case Read(tensor):
            return tensor in tensors
        case Cast(arg=x):
            return not_negative(x, tensors)
        case Apply("exp" | "exp2" | "abs" | "sqrt"):
            return True
        case Apply("rsqrt", (x,)):
            return not_negative(x, tensors)
        case Apply("mul", (x, y)) if x == y:
            return True
        case Apply("pow", (x, n)):
            return not_negative(x, tensors) or (isinstance(n, Const) and n.value % 2 == 0)
        case Apply("add" | "mul" | "div" | "floordiv" | "exactdiv" | "mod" | "min", args) | Apply("where", (_, *args)):
            return all_of(args)
        case Apply("max", args):
            return any(not_negative(a, tensors) for a in args)
        case _:
            return False


def is_positive(e: Expr) -> bool:
    """Is a number that is the same everywhere provably more than 0, where the extents that it is made of are?"""
    match e:
        case Const(value):
            return not isinstance(value, bool) and 0 < value < math.inf
        case Extent():
            return True
        case Apply("sqrt" | "rsqrt", (x,)) | Cast(arg=x):
            return is_positive(x)
        case Apply("add" | "mul" | "div" | "min" | "max", args):
            return all(map(is_positive, args))
        case _:
            return False


def makes_no_negative(e: Equation, tensors: Collection[str]) -> bool:
    """Is each element of an equation's first output provably at least 0, or the identity of its monoid?"""
    if e.monoid is not None and not _keeps_signs(e.monoid):
        return False
    return e.outputs[0].dtype.is_float and not_negative(e.bodies[0], tensors)


@cache
def _keeps_signs(monoid: Monoid) -> bool:
    """Is its result the first component, and at least 0 when it combines two that are?"""

    def read(e: Expr) -> Expr:
        return Read(e.name, ()) if isinstance(e, Scalar) else rebuild(e, read)

    return monoid.results[0] == 0 and not_negative(read(monoid.combine[0]), ("a0", "b0"))


def is_finite(e: Expr) -> bool:
    """Is the value provably neither infinite nor NaN, whatever the operands are?"""
    match e:
        case Const(value):
            return math.isfinite(value)
        case AxisValue() | Extent():
            return True
        case Apply("sqrt", (x,)):
            return not_negative(x) and is_finite(x)
        case Apply("neg" | "abs" | "add" | "sub" | "mul" | "max" | "min" | "tanh" | "sin" | "cos" | "erf", args):
            return all(is_finite(a) for a in args)
        case _:
            return False
