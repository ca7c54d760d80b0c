"""Formulas over extents and scalars as Python expressions, as `einc.arithmetic` evaluates them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from einc.codegen.emit.text import ATOM, COMPARE, PRODUCT, SIGN, SUM, File, Text
from einc.ein import Apply, Cast, Const, Expr, Extent, Scalar

_INFIX = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT),
    "floordiv": ("//", PRODUCT), "mod": ("%", PRODUCT),
    "lt": ("<", COMPARE), "le": ("<=", COMPARE), "gt": (">", COMPARE), "ge": (">=", COMPARE),
    "eq": ("==", COMPARE), "ne": ("!=", COMPARE),
}  # fmt: skip
_MATH = ("exp", "exp2", "log", "log2", "tanh", "erf", "sin", "cos", "tan", "floor", "ceil")


def formula(e: Expr, names: Mapping[str, str], file: File) -> Text:
    """The Python expression; `names` holds what extents (`|d|`) and scalars are called."""

    def below(x: Expr, level: int = COMPARE) -> str:
        return formula(x, names, file).at(level)

    match e:
        case Const(value=value):
            return _constant(value)
        case Extent(axis=axis):
            return Text(names[f"|{axis}|"])
        case Scalar(name=name):
            return Text(names[name])
        case Cast(dtype=dtype, arg=arg):
            return Text(f"{'bool' if dtype.is_bool else 'int' if dtype.is_int else 'float'}({below(arg)})")
        case Apply(op=op, args=(a, b)) if op in _INFIX:
            sign, level = _INFIX[op]
            left = SUM if level == COMPARE else level
            return Text(f"{below(a, left)} {sign} {below(b, left if level == COMPARE else level + 1)}", level)
        case Apply(op="and" | "or" as op, args=(a, b)):
            return Text(f"({below(a)} {op} {below(b)})")
        case Apply(op="pow", args=(a, b)):
            return Text(f"{below(a, ATOM)}**{below(b, ATOM)}", PRODUCT)
        case Apply(op="neg", args=(a,)):
            return Text(f"-{below(a, ATOM)}", SIGN)
        case Apply(op="not", args=(a,)):
            return Text(f"(not {below(a)})")
        case Apply(op="where", args=(condition, a, b)):
            return Text(f"({below(a)} if {below(condition)} else {below(b)})")
        case Apply(op="exactdiv", args=(a, b)):
            return Text(f"{file.helper('exact_quotient')}({below(a)}, {below(b)})")
        case Apply(op="max" | "min" | "abs" | "round" as op, args=args):
            return Text(f"{op}({', '.join(below(a) for a in args)})")
        case Apply(op="sqrt" | "rsqrt" as op, args=(a,)):
            return Text(f"{below(a, ATOM)}**{'0.5' if op == 'sqrt' else '-0.5'}", PRODUCT)
        case Apply(op=op, args=(a,)) if op in _MATH:
            return Text(f"math.{op}({below(a)})")
        case _:
            raise AssertionError(f"{e} is no formula of a call")


def _constant(value: bool | int | float) -> Text:
    if isinstance(value, float) and not math.isfinite(value):
        return Text(f'float("{value}")')
    return Text(repr(value), ATOM if value >= 0 else SIGN)
