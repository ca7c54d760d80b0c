"""A complex expression as its real and imaginary parts, by the rules of complex arithmetic.

    re(x * y)  -->  re(x) * re(y) - im(x) * im(y)        im(x * y)  -->  re(x) * im(y) + im(x) * re(y)

Leaves are `re` and `im` of reads; a real expression is its own real part and has no imaginary one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import assert_never

from einc.base.errors import DTypeError
from einc.base.types import DType
from einc.ein import ONE, ZERO, Apply, AxisValue, Cast, Const, Expr, Extent, Read, Scalar, rebuild
from einc.ein.components import Parts, call, product
from einc.ein.inference import dtype_of

_INFINITE = Const(math.inf)


def parts(e: Expr, dtypes: Mapping[str, DType]) -> Parts:
    """(re, im) of an expression; `im` is the constant 0 for a real one."""
    if not dtype_of(e, dtypes).is_complex:
        return real(e, dtypes), ZERO
    match e:
        case Read():
            read = _at(e, dtypes)
            return Apply("re", (read,)), Apply("im", (read,))
        case Apply(op="complex", args=(x, y)):
            return real(x, dtypes), real(y, dtypes)
        case Cast(dtype=dtype, arg=arg):
            re, im = parts(arg, dtypes)
            return Cast(dtype.part, re), ZERO if im == ZERO else Cast(dtype.part, im)
        case Apply(op="conj", args=(x,)):
            re, im = parts(x, dtypes)
            return re, call("neg", im)
        case Apply(op="neg", args=(x,)):
            re, im = parts(x, dtypes)
            return call("neg", re), call("neg", im)
        case Apply(op="add" | "sub" as op, args=(x, y)):
            (a, b), (c, d) = parts(x, dtypes), parts(y, dtypes)
            return call(op, a, c), call(op, b, d)
        case Apply(op="mul", args=(x, y)):
            return product(parts(x, dtypes), parts(y, dtypes))
        case Apply(op="div", args=(x, y)):
            return _quotient(parts(x, dtypes), parts(y, dtypes))
        case Apply(op="where", args=(p, x, y)):
            (a, b), (c, d) = parts(x, dtypes), parts(y, dtypes)
            holds = real(p, dtypes)
            return Apply("where", (holds, a, c)), Apply("where", (holds, b, d))
        case Apply(op="pow", args=(x, Const(value=int() as n))) if 0 < n <= 8:
            power = base = parts(x, dtypes)
            for _ in range(n - 1):
                power = product(power, base)
            return power
        case Apply(op=op):
            raise DTypeError(f"'{op}' does not take complex numbers", e.span, hint="split the operand by re() and im()")
        case _:
            raise AssertionError(f"a complex expression without parts: {e}")


def _at(read: Read, dtypes: Mapping[str, DType]) -> Expr:
    """A read whose subscripts and guard are made real."""
    return rebuild(read, lambda below: real(below, dtypes))


def _quotient(x: Parts, y: Parts) -> Parts:
    if y[1] == ZERO:
        return call("div", x[0], y[0]), call("div", x[1], y[0])
    re, im = product(x, (y[0], call("neg", y[1])))
    size = call("add", call("mul", y[0], y[0]), call("mul", y[1], y[1]))
    return call("div", re, size), call("div", im, size)


def _size(x: Parts) -> Expr:
    """The absolute value, from the quotient of the parts, which does not overflow where their squares would."""
    a, b = (Apply("abs", (p,)) for p in x)
    if x[1] == ZERO:
        return a
    large, small = Apply("max", (a, b)), Apply("min", (a, b))
    r = Apply("div", (small, large))
    size = Apply("mul", (large, Apply("sqrt", (Apply("add", (ONE, Apply("mul", (r, r)))),))))
    infinite = Apply("or", (Apply("eq", (a, _INFINITE)), Apply("eq", (b, _INFINITE))))
    return Apply("where", (infinite, _INFINITE, Apply("where", (Apply("eq", (large, ZERO)), ZERO, size))))


def real(e: Expr, dtypes: Mapping[str, DType]) -> Expr:
    """A real expression, with the parts and comparisons of the complex ones inside it written out."""
    match e:
        case Apply(op="re" | "im", args=(Read(tensor=name) as read,)) if dtypes[name].is_complex:
            return rebuild(e, lambda _: _at(read, dtypes))
        case Apply(op="re" | "im" as op, args=(x,)):
            return parts(x, dtypes)[0 if op == "re" else 1]
        case Apply(op="conj", args=(x,)):
            return real(x, dtypes)
        case Apply(op="abs", args=(x,)) if dtype_of(x, dtypes).is_complex:
            return _size(parts(x, dtypes))
        case Apply(op="eq" | "ne" as op, args=(x, y)) if any(dtype_of(a, dtypes).is_complex for a in (x, y)):
            (a, b), (c, d) = parts(x, dtypes), parts(y, dtypes)
            return Apply("and" if op == "eq" else "or", (Apply(op, (a, c)), Apply(op, (b, d))))
        case Apply() | Read():
            return rebuild(e, lambda below: real(below, dtypes))
        case Cast(dtype=dtype, arg=arg):
            part = parts(arg, dtypes)[0]
            return e if part is arg else Cast(dtype, part)
        case Const() | AxisValue() | Extent() | Scalar():
            return e
        case _:
            assert_never(e)
