"""A complex expression as its real and imaginary parts, by the rules of complex arithmetic.

    re(x * y)  -->  re(x) * re(y) - im(x) * im(y)        im(x * y)  -->  re(x) * im(y) + im(x) * re(y)

Leaves are `re` and `im` of reads; a real expression is its own real part and has no imaginary one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from einc.base.errors import DTypeError
from einc.base.types import DType
from einc.ein import ONE, ZERO, Apply, Cast, Const, Equation, Expr, Monoid, Read, Scalar, rebuild
from einc.ein.inference import dtype_of
from einc.ein.monoids import MONOIDS

Parts = tuple[Expr, Expr]
_INFINITE = Const(math.inf)


def call(op: str, *args: Expr) -> Expr:
    """An operation, with 0 and 1 folded away where a part is missing."""
    if op == "add" and ZERO in args:
        return args[1] if args[0] == ZERO else args[0]
    if op == "sub" and args[1] == ZERO:
        return args[0]
    if op == "sub" and args[0] == ZERO:
        return call("neg", args[1])
    if (op == "mul" and ZERO in args) or (op in ("neg", "div") and args[0] == ZERO):
        return ZERO
    return Apply(op, args)


def parts(e: Expr, dtypes: Mapping[str, DType]) -> Parts:
    """(re, im) of an expression; `im` is the constant 0 for a real one."""
    if not dtype_of(e, dtypes).is_complex:
        return _unwrapped(e, dtypes), ZERO
    match e:
        case Read():
            return Apply("re", (e,)), Apply("im", (e,))
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
            return Apply("where", (p, a, c)), Apply("where", (p, b, d))
        case Apply(op="pow", args=(x, Const(value=int() as n))) if 0 < n <= 8:
            power = base = parts(x, dtypes)
            for _ in range(n - 1):
                power = product(power, base)
            return power
        case Apply(op=op):
            raise DTypeError(f"'{op}' does not take complex numbers", e.span, hint="split the operand by re() and im()")
        case _:
            raise AssertionError(f"a complex expression without parts: {e}")


def product(x: Parts, y: Parts) -> Parts:
    """(a + bi)(c + di)."""
    (a, b), (c, d) = x, y
    re = call("sub", call("mul", a, c), call("mul", b, d))
    im = call("add", call("mul", a, d), call("mul", b, c))
    return re, im


def _quotient(x: Parts, y: Parts) -> Parts:
    if y[1] == ZERO:
        return call("div", x[0], y[0]), call("div", x[1], y[0])
    re, im = product(x, (y[0], call("neg", y[1])))
    size = call("add", call("mul", y[0], y[0]), call("mul", y[1], y[1]))
    return call("div", re, size), call("div", im, size)


def _size(x: Parts) -> Expr:
    """The absolute value, by way of the quotient of the parts, which does not overflow where their squares would."""
    a, b = (Apply("abs", (p,)) for p in x)
    if x[1] == ZERO:
        return a
    large, small = Apply("max", (a, b)), Apply("min", (a, b))
    r = Apply("div", (small, large))
    size = Apply("mul", (large, Apply("sqrt", (Apply("add", (ONE, Apply("mul", (r, r)))),))))
    infinite = Apply("or", (Apply("eq", (a, _INFINITE)), Apply("eq", (b, _INFINITE))))
    return Apply("where", (infinite, _INFINITE, Apply("where", (Apply("eq", (large, ZERO)), ZERO, size))))


def _unwrapped(e: Expr, dtypes: Mapping[str, DType]) -> Expr:
    """A real expression with the parts and comparisons of complex ones inside it written out."""
    match e:
        case Apply(op="re" | "im" as op, args=(x,)) if not isinstance(x, Read):
            return parts(x, dtypes)[0 if op == "re" else 1]
        case Apply(op="re" | "im"):
            return e
        case Apply(op="conj", args=(x,)):
            return _unwrapped(x, dtypes)
        case Apply(op="abs", args=(x,)) if dtype_of(x, dtypes).is_complex:
            return _size(parts(x, dtypes))
        case Apply(op="eq" | "ne" as op, args=(x, y)) if any(dtype_of(a, dtypes).is_complex for a in (x, y)):
            (a, b), (c, d) = parts(x, dtypes), parts(y, dtypes)
            return Apply("and" if op == "eq" else "or", (Apply(op, (a, c)), Apply(op, (b, d))))
        case Apply():
            return rebuild(e, lambda below: _unwrapped(below, dtypes))
        case Cast(dtype=dtype, arg=arg):
            part = parts(arg, dtypes)[0]
            return e if part is arg else Cast(dtype, part)
        case _:
            return e


_A, _B = (Scalar("a0"), Scalar("a1")), (Scalar("b0"), Scalar("b1"))
_COMPLEX = {
    "add": Monoid("sum", (0, 0), (MONOIDS["sum"].combine[0], Apply("add", (_A[1], _B[1]))), results=(0, 1)),
    "mul": Monoid("prod", (1, 0), product(_A, _B), results=(0, 1)),
}


def split(eq: Equation, dtypes: Mapping[str, DType]) -> Equation:
    """An equation whose bodies are real: the real body, and the imaginary one where the output is complex.

    A complex reduction becomes one over two components. Raises `DTypeError` for a reduction without an order on
    complex numbers (max, argmin, ...).
    """
    if not any(dtype_of(e, dtypes).is_complex for e in eq.bodies):
        done = eq.map(lambda e: _unwrapped(e, dtypes))
        if not eq.outputs[0].dtype.is_complex:
            return done
        bodies: tuple[Expr, ...] = (*done.bodies, ZERO)
    else:
        bodies = parts(eq.body, dtypes)
    monoid = eq.monoid
    if monoid is not None:
        if monoid.op not in _COMPLEX:
            raise DTypeError(
                f"'{monoid.name}' does not take complex numbers",
                eq.span,
                fact=f"'{eq.name}' is {eq.outputs[0].dtype}",
                hint="reduce abs(x), re(x) or im(x)",
            )
        monoid = replace(_COMPLEX[monoid.op], name=monoid.name)
    domain = None if eq.domain is None else _unwrapped(eq.domain, dtypes)
    return replace(eq, bodies=bodies, monoid=monoid, domain=domain)
