"""Expressions and equations in mathematical notation: Σ for a sum, e^{x} for an exponential, [p] for an indicator.

`^{...}` and `_{...}` mark superscripts and subscripts, as in TeX; `markup` turns them into HTML.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import assert_never

from einc.base.ops import ATOM, COMPARE, DENIED, NOT, OPS, POWER, PRODUCT, SIGN, SUM
from einc.ein import (
    ONE,
    ZERO,
    Apply,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Monoid,
    Read,
    Scalar,
)
from einc.ein.printer import bracketed

Shapes = Mapping[str, tuple[tuple[str, ...], ...]]

BIG = {"sum": "Σ", "prod": "Π", "any": "⋁", "all": "⋀"}
_JOINED = {"sum": "+", "prod": "·", "any": "∨", "all": "∧"}
_INFIX = {
    "or": "∨", "and": "∧", "lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠",
    "add": "+", "sub": "−", "mul": "·", "div": "/", "exactdiv": "/", "floordiv": "÷", "mod": "mod",
}  # fmt: skip
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

Part = tuple[str, int]  # a text and how tightly it binds


def lowered(n: int) -> str:
    """A number as an index."""
    return str(n).translate(_LOWERED)


def expression(e: Expr, shapes: Shapes | None = None, least: int = 0) -> str:
    """An expression; reads of the tensors in `shapes` at their own axes are written by name alone."""
    return bracketed(*_part(e, shapes or {}), least)


def reduction(monoid: Monoid, over: Sequence[str], domain: Expr | None, body: str, shapes: Shapes | None = None) -> str:
    """A body under a reduction: `Σ_{j : j ≤ i} x`."""
    under = ", ".join(over) + ("" if domain is None else f" : {expression(domain, shapes)}")
    return f"{BIG.get(monoid.name, monoid.name)}_{{{under}}} {body}"


def combined(monoid: Monoid, a: str, b: str) -> str:
    """Two values combined."""
    sign = _JOINED.get(monoid.name)
    return f"{monoid.name}({a}, {b})" if sign is None else f"{a} {sign} {b}"


def body(e: Equation, shapes: Shapes | None = None) -> str:
    """The right side of an equation."""
    if e.monoid is None:
        return ", ".join(expression(b, shapes) for b in e.bodies)
    return reduction(e.monoid, e.over, e.domain, expression(e.body, shapes, PRODUCT), shapes)


def left(e: Equation) -> str:
    """The left side of an equation: `O[b, i, e]`."""
    dims = ", ".join(d[0] if len(d) == 1 else f"({' '.join(d)})" if d else "1" for d in e.dims)
    return ", ".join(f"{t.name}[{dims}]" if e.dims else t.name for t in e.outputs)


def _part(e: Expr, shapes: Shapes) -> Part:
    match e:
        case Const(value):
            return _literal(value)
        case AxisValue(name) | Scalar(name):
            return name, ATOM
        case Extent(axis):
            return f"|{axis}|", ATOM
        case Cast(dtype, arg):
            return f"{dtype}({expression(arg, shapes)})", ATOM
        case Read(tensor, index):
            return _read(tensor, index, shapes), ATOM
        case Apply(op, args):
            return _apply(op, args, shapes)
        case _:
            assert_never(e)


def _literal(value: bool | int | float) -> Part:
    if isinstance(value, bool):
        return ("true" if value else "false"), ATOM
    if math.isnan(value):
        return "NaN", ATOM
    text = "∞" if math.isinf(value) else f"{abs(value):g}" if abs(value) < 1e6 else repr(abs(value))
    return (f"−{text}", SIGN) if math.copysign(1, value) < 0 else (text, ATOM)


def _read(tensor: str, index: tuple[Expr, ...], shapes: Shapes) -> str:
    plain = tensor.rstrip("'")
    name = plain + "′″‴"[len(tensor) - len(plain) - 1 : len(tensor) - len(plain)]
    if not index or shapes.get(plain) == tuple((i.axis,) for i in index if isinstance(i, AxisValue)):
        return name
    return f"{name}[{', '.join(expression(i, shapes) for i in index)}]"


def _apply(op: str, args: tuple[Expr, ...], shapes: Shapes) -> Part:
    match op, args:
        case (("exp" | "exp2"), (x,)):
            return f"{'e' if op == 'exp' else '2'}^{{{expression(x, shapes)}}}", POWER
        case "pow", (x, n):
            return _power(expression(x, shapes, ATOM), n, shapes), POWER
        case "sqrt", (x,):
            return f"√{_tight(x, shapes)}", ATOM
        case "rsqrt", (x,):
            return f"1/√{_tight(x, shapes)}", PRODUCT
        case "abs", (x,):
            return f"|{expression(x, shapes)}|", ATOM
        case "neg", (x,):
            return f"−{expression(x, shapes, SIGN)}", SIGN
        case "not", (p,):
            return _negation(p, shapes)
        case "where", (p, x, y):
            return _choice(p, x, y, shapes)
        case _:
            return _operation(op, args, shapes)


def _operation(op: str, args: tuple[Expr, ...], shapes: Shapes) -> Part:
    sign, binding = _INFIX.get(op), OPS[op].binding
    if sign is None or len(args) != 2:
        return f"{op}({', '.join(expression(a, shapes) for a in args)})", ATOM
    loose = (SUM, SUM) if binding == COMPARE else (binding, binding + 1)
    a, b = (expression(x, shapes, least) for x, least in zip(args, loose, strict=True))
    tight = sign in "·/" and (sign == "·" or (" " not in a and " " not in b))
    return (f"{a}{sign}{b}" if tight else f"{a} {sign} {b}"), binding


def _tight(x: Expr, shapes: Shapes) -> str:
    return expression(x, shapes, ATOM)


def _power(base: str, n: Expr, shapes: Shapes) -> str:
    if isinstance(n, Const) and n.kind == "int" and n.value >= 0:
        return base + str(n.value).translate(_RAISED)
    return f"{base}^{{{expression(n, shapes)}}}"


def _negation(p: Expr, shapes: Shapes) -> Part:
    match p:
        case Apply(op, args) if op in DENIED:
            return _operation(DENIED[op], args, shapes)
        case Apply("not", (q,)):
            return _part(q, shapes)
        case Apply("or" | "and" as op, (q, r)):
            sides = Apply("not", (q,)), Apply("not", (r,))
            return _part(Apply("and" if op == "or" else "or", sides), shapes)
        case _:
            return f"¬{expression(p, shapes, ATOM)}", NOT


def _choice(p: Expr, x: Expr, y: Expr, shapes: Shapes) -> Part:
    """A choice; one whose other side is 0 is a product with an indicator."""
    for condition, value, other in ((p, x, y), (Apply("not", (p,)), y, x)):
        if _is_zero(other):
            indicator = f"[{expression(condition, shapes)}]"
            if value in (ONE, Const(1.0)):
                return indicator, ATOM
            return f"{indicator}·{expression(value, shapes, PRODUCT)}", PRODUCT
    return f"({expression(x, shapes)} if {expression(p, shapes)} else {expression(y, shapes)})", ATOM


def _is_zero(e: Expr) -> bool:
    return e in (ZERO, Const(0.0))


def markup(text: str) -> str:
    """The notation as HTML: superscripts in `sup`, subscripts in `sub`."""
    found: list[str] = []
    closing: list[str] = []
    position = 0
    while position < len(text):
        two, one = text[position : position + 2], text[position]
        if two in ("^{", "_{"):
            tag = "sup" if one == "^" else "sub"
            found.append(f"<{tag}>")
            closing.append(f"</{tag}>")
            position += 2
            continue
        if one == "}" and closing:
            found.append(closing.pop())
        else:
            found.append(html.escape(one))
        position += 1
    return "".join(found + closing[::-1])
