"""Formulas over extents and scalars as Python expressions with the values that `ein.arithmetic` gives them.

Floats follow IEEE: where Python would raise, functions of the library give the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from einc.base.ops import FUNCTIONS, OPS
from einc.codegen.emit.text import ATOM, COMPARE, PRODUCT, SIGN, SUM, File, Text
from einc.ein import Apply, Cast, Const, Expr, Extent, Scalar, walk

_INFIX = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "floordiv": ("//", PRODUCT), "mod": ("%", PRODUCT),
    "lt": ("<", COMPARE), "le": ("<=", COMPARE), "gt": (">", COMPARE), "ge": (">=", COMPARE),
    "eq": ("==", COMPARE), "ne": ("!=", COMPARE),
}  # fmt: skip
_TOTAL = ("tanh", "erf", "atan2")  # functions for which Python has a value everywhere
_HELPERS = {
    "div": "quotient", "floordiv": "floor_quotient", "mod": "remainder", "pow": "power", "exactdiv": "exact_quotient",
    "max": "larger", "min": "smaller", "rsqrt": "inverse_root",
}  # fmt: skip
_REAL = tuple(name for name in FUNCTIONS if name not in (*_TOTAL, *_HELPERS))


def formula(e: Expr, names: Mapping[str, str], file: File) -> Text:
    """The Python expression; `names` gives the names of extents (`|d|`) and scalars."""

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
            to = "bool" if dtype.is_bool else file.helper("truncated") if dtype.is_int else "float"
            return Text(f"{to}({below(arg)})")
        case Apply(op=op, args=(a, b)) if op in _INFIX and (op not in ("floordiv", "mod") or _divides(a, b)):
            sign, level = _INFIX[op]
            left = SUM if level == COMPARE else level
            return Text(f"{below(a, left)} {sign} {below(b, left if level == COMPARE else level + 1)}", level)
        case Apply(op="and" | "or" as op, args=(a, b)):
            return Text(f"({below(a)} {op} {below(b)})")
        case Apply(op="neg", args=(a,)):
            return Text(f"-{below(a, ATOM)}", SIGN)
        case Apply(op="not", args=(a,)):
            return Text(f"(not {below(a)})")
        case Apply(op="where", args=(condition, a, b)):
            return Text(f"({below(a)} if {below(condition)} else {below(b)})")
        case Apply(op="abs", args=(a,)):
            return Text(f"abs({below(a)})")
        case Apply(op="floor" | "ceil" | "round" as op, args=(a,)):
            return Text(f"{file.helper('rounded')}({op if op == 'round' else f'math.{op}'}, {below(a)})")
        case Apply(op=op, args=args) if op in _HELPERS:
            return Text(f"{file.helper(_HELPERS[op])}({', '.join(below(a) for a in args)})")
        case Apply(op=op, args=args) if op in _TOTAL:
            return Text(f"math.{op}({', '.join(below(a) for a in args)})")
        case Apply(op=op, args=(a,)) if op in _REAL:
            poles = ", ".join(f"{at:g}: {_constant(value).code}" for at, value in OPS[op].poles)
            return Text(f"{file.helper('real')}(math.{op}, {below(a)}{poles and f', {{{poles}}}'})")
        case _:
            raise AssertionError(f"{e} is not a formula of a call")


def _divides(a: Expr, b: Expr) -> bool:
    """Are both made of extents and integers, for which Python's division is right?"""
    inexact = ("div", "pow", "sqrt", "rsqrt", *_TOTAL, *_REAL)
    nodes = (n for e in (a, b) for n in walk(e))
    return not any(
        isinstance(n, Scalar | Cast) or getattr(n, "op", "") in inexact or isinstance(getattr(n, "value", 0), float)
        for n in nodes
    )


def _constant(value: bool | int | float) -> Text:
    if isinstance(value, float) and not math.isfinite(value):
        return Text(f'float("{value}")')
    return Text(repr(value), ATOM if value >= 0 else SIGN)
