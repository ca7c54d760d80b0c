"""Laws of numbers and positions that make an expression smaller: neutral elements, signs, inverses, division."""

from __future__ import annotations

import math
from dataclasses import replace

from einc.ein import ONE, ZERO, Apply, AxisValue, Cast, Const, Expr, Extent
from einc.ein.ranges import is_closed
from einc.passes.algebra.scope import Rule, Scope
from einc.passes.algebra.signs import is_positive, not_negative

_INVERSE = {"log": "exp", "log2": "exp2"}


def is_number(e: Expr, value: int) -> bool:
    """Is it a literal of that value, of any type?"""
    while isinstance(e, Cast):
        e = e.arg
    return isinstance(e, Const) and not isinstance(e.value, bool) and e.value == value


def _add(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, y) if is_number(y, 0):
            return x
        case (x, y) if is_number(x, 0):
            return y
        case (x, Apply("neg", (y,))):
            return replace(e, op="sub", args=(x, y))
        case (Apply("mul", (Apply("floordiv", (x, n)), m)), Apply("mod", (y, k))) if n == m == k and x == y:
            return x if scope.exact(x) else None
        case _:
            return None


def _sub(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, zero) if is_number(zero, 0):
            return x
        case (zero, x) if is_number(zero, 0):
            return Apply("neg", (x,))
        case (x, Apply("neg", (y,))):
            return replace(e, op="add", args=(x, y))
        case (x, y) if x == y and scope.exact(x):
            return ZERO
        case _:
            return None


def _mul(scope: Scope, e: Apply) -> Expr | None:
    x, y = e.args
    for factor, other in ((x, y), (y, x)):
        if is_number(factor, 1):
            return other
        if is_number(factor, -1):
            return Apply("neg", (other,))
        if is_number(factor, 0) and scope.exact(e):
            return ZERO
    match x, y:
        case Apply("neg", (a,)), Apply("neg", (b,)):
            return replace(e, args=(a, b))
        case (a, Apply("div", (one, b))) | (Apply("div", (one, b)), a) if (
            is_number(one, 1) and is_closed(b) and scope.exact(b) and not is_closed(a)
        ):
            return Apply("div", (a, b))
        case c, Apply("mul", (k, a)) if is_closed(c) and is_closed(k) and not is_closed(a) and not scope.exact(y):
            return replace(e, args=(Apply("mul", (c, k)), a))
        case (c, Apply("where", (p, a, Const(float() as out) as other))) if math.isinf(out) and is_positive(c):
            return Apply("where", (p, Apply("mul", (c, a)), other))
        case (Apply("where", (p, a, Const(float() as out) as other)), c) if math.isinf(out) and is_positive(c):
            return Apply("where", (p, Apply("mul", (c, a)), other))
        case _:
            return None


def _divide(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, one) if is_number(one, 1):
            return x
        case (one, Apply("sqrt", (x,))) if is_number(one, 1):
            return Apply("rsqrt", (x,))
        case (one, Apply("rsqrt", (x,))) if is_number(one, 1):
            return Apply("sqrt", (x,))
        case (x, Apply("sqrt", (y,))):
            return Apply("mul", (x, Apply("rsqrt", (y,))))
        case (x, c) if is_closed(c) and not is_closed(x) and (inverse := _reciprocal(c, scope)) is not None:
            return Apply("mul", (x, inverse))
        case _:
            return None


def _reciprocal(c: Expr, scope: Scope) -> Expr | None:
    """1 / c for a number that is no count: by a count, as a mean is, a value is divided and rounded once."""
    match c:
        case Const(bool()):
            return None
        case Const(value) if value != 0 and math.isfinite(1 / value):
            return Const(1 / value)
        case Apply("sqrt", (x,)):
            return Apply("rsqrt", (x,))
        case Apply("rsqrt", (x,)):
            return Apply("sqrt", (x,))
        case _ if not scope.exact(c) and not isinstance(c, Const):
            return Apply("div", (ONE, c))
        case _:
            return None


def _power(_: Scope, e: Apply) -> Expr | None:
    return e.args[0] if is_number(e.args[1], 1) else None


def _neg(_: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply("neg", (x,)):
            return x
        case Apply("sub", (x, y)):
            return Apply("sub", (y, x))
        case _:
            return None


def _abs(_: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply("neg", (x,)):
            return replace(e, args=(x,))
        case x:
            return x if not_negative(x) else None


def _extreme(_: Scope, e: Apply) -> Expr | None:
    neutral = Const(-math.inf if e.op == "max" else math.inf)
    x, y = e.args
    if x in (y, neutral):
        return y
    return x if y == neutral else None


def _inverse(_: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply(op, (x,)) if _INVERSE.get(e.op) == op:
            return x
        case Apply(op, (x,)) if _INVERSE.get(op) == e.op and not_negative(x):
            return x
        case _:
            return None


def _part(scope: Scope, e: Apply) -> Expr | None:
    if scope.type(e.args[0]).is_complex:
        return None
    return e.args[0] if e.op == "re" else ZERO


def _floordiv(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, one) if is_number(one, 1):
            return x if scope.exact(x) else None
        case (Apply("add", (Apply("mul", (x, n)), r)), m) if n == m and is_below(r, n):
            return x
        case (r, n) if is_below(r, n):
            return ZERO
        case _:
            return None


def _mod(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, one) if is_number(one, 1) and scope.exact(x):
            return ZERO
        case (Apply("add", (Apply("mul", (_, n)), r)), m) if n == m and is_below(r, n):
            return r
        case (r, n) if is_below(r, n):
            return r
        case _:
            return None


def is_below(r: Expr, n: Expr) -> bool:
    """Is r certainly one of 0, 1, ..., n - 1?"""
    match r, n:
        case AxisValue(axis), Extent(whole):
            return axis == whole
        case Const(int() as a), Const(int() as b):
            return 0 <= a < b
        case _:
            return False


ARITHMETIC: dict[str, Rule] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _divide, "exactdiv": _divide, "floordiv": _floordiv, "mod": _mod,
    "pow": _power, "neg": _neg, "abs": _abs, "max": _extreme, "min": _extreme, "re": _part, "im": _part,
    **dict.fromkeys((*_INVERSE.keys(), *_INVERSE.values()), _inverse),
}  # fmt: skip
