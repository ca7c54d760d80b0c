"""Operations written out with what is known of their arguments: 0, 1, equal terms, powers and logarithms."""

from __future__ import annotations

import math

from einc.ein import FALSE, ONE, TRUE, ZERO, Apply, Const, Expr

ZEROS = (ZERO, Const(0.0))


_LOGARITHMS = {  # of a power's base
    ("log", "exp"): 1,
    ("log", "exp2"): math.log(2),
    ("log2", "exp"): math.log2(math.e),
    ("log2", "exp2"): 1,
}


def call(op: str, *args: Expr) -> Expr:
    """The operation, or its value where an argument is 0 or 1, or where equal terms cancel."""
    match op, args:
        case "add", (x, y) if ZERO in (x, y):
            return y if x == ZERO else x
        case "add", (x, y) if x == y:
            return Apply("mul", (Const(2), x))
        case "sub", (x, y) if y == ZERO:
            return x
        case "sub", (x, y) if x == ZERO:
            return call("neg", y)
        case "sub", (x, y) if x == y:
            return ZERO
        case "sub", (Apply(op="add", args=(x, y)), z) if x == z:
            return y
        case "sub", (x, Apply(op="add", args=(y, z))) if x == y:
            return call("neg", z)
        case "mul", (x, y) if ZERO in (x, y):
            return ZERO
        case "mul", (x, y) if ONE in (x, y):
            return y if x == ONE else x
        case "div", (x, y) if y == ONE or x == ZERO:
            return x
        case "div", (x, y) if x == y:
            return ONE
        case "div", (x, Apply(op="div", args=(y, z))) if x == ONE:
            return Apply("div", (z, y))
        case "neg", (x,) if x == ZERO:
            return ZERO
        case "neg", (Apply(op="neg", args=(x,)),):
            return x
        case "neg", (Apply(op="sub", args=(x, y)),):
            return Apply("sub", (y, x))
        case "exp" | "exp2" | "cos", (x,) if x == ZERO:
            return ONE
        case "sin", (x,) if x == ZERO:
            return ZERO
        case "pow", (_, y) if y == ZERO:
            return ONE
        case "log" | "log2", (x,) if x == ONE:
            return ZERO
        case "log" | "log2", (Apply(op="exp" | "exp2" as power, args=(x,)),):
            return call("mul", Const(_LOGARITHMS[op, power]), x)
        case "log" | "log2", (Apply(op="mul" | "div" as joined, args=(x, y)),) if _is_power(x) or _is_power(y):
            return call("add" if joined == "mul" else "sub", call(op, x), call(op, y))
        case "pow", (x, y) if y == ONE or x == ONE:
            return x
        case "abs", (x,) if x == ONE:
            return ONE
        case "pow", (x, Const(value=n)) if x in ZEROS and n > 0:
            return ZERO
        case "eq" | "le" | "ge" | "ne" | "lt" | "gt", (x, y) if x in ZEROS and y in ZEROS:
            return TRUE if op in ("eq", "le", "ge") else FALSE
        case "and", (x, y) if FALSE in (x, y) or TRUE in (x, y):
            return FALSE if FALSE in (x, y) else y if x == TRUE else x
        case "or", (x, y) if FALSE in (x, y) or TRUE in (x, y):
            return TRUE if TRUE in (x, y) else y if x == FALSE else x
        case "where", (p, x, y) if p in (TRUE, FALSE):
            return x if p == TRUE else y
        case "where", (_, x, y) if x == y:
            return x
        case _:
            return Apply(op, args)


def _is_power(e: Expr) -> bool:
    """Is it a power that a logarithm undoes? The exponent is known even where the power underflows to 0."""
    return isinstance(e, Apply) and e.op in ("exp", "exp2")


def settled(e: Expr) -> Expr:
    """The expression with equal terms cancelled, from the leaves up."""
    match e:
        case Apply(op=op, args=args):
            return call(op, *(settled(a) for a in args))
        case _:
            return e


def indicator(p: Expr) -> Expr:
    """1 where p holds, else 0."""
    return Apply("where", (p, ONE, ZERO))
