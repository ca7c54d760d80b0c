"""Complex tensors by their parts: an equation of one has a body, and its monoid a component, for each part.

T[i] = sum[k](complex(x, y))   is the sum of x and the sum of y, stored side by side
"""

from __future__ import annotations

from dataclasses import replace

from einc.base.errors import IllegalIR
from einc.ein import ZERO, Apply, Equation, Expr, Monoid, Scalar
from einc.ein.monoids import MONOIDS

Parts = tuple[Expr, Expr]

_A, _B = (Scalar("a0"), Scalar("a1")), (Scalar("b0"), Scalar("b1"))


def call(op: str, *args: Expr) -> Expr:
    """An operation, with 0 folded where a part is missing."""
    if op == "add" and ZERO in args:
        return args[1] if args[0] == ZERO else args[0]
    if op == "sub" and args[1] == ZERO:
        return args[0]
    if op == "sub" and args[0] == ZERO:
        return call("neg", args[1])
    if (op == "mul" and ZERO in args) or (op in ("neg", "div") and args[0] == ZERO):
        return ZERO
    return Apply(op, args)


def product(x: Parts, y: Parts) -> Parts:
    """(a + bi)(c + di)."""
    (a, b), (c, d) = x, y
    re = call("sub", call("mul", a, c), call("mul", b, d))
    im = call("add", call("mul", a, d), call("mul", b, c))
    return re, im


# The monoids of complex numbers over their parts, by the operation that combines two numbers.
COMPLEX = {
    "add": Monoid("sum", (0, 0), (MONOIDS["sum"].combine[0], Apply("add", (_A[1], _B[1]))), results=(0, 1)),
    "mul": Monoid("prod", (1, 0), product(_A, _B), results=(0, 1)),
}


def complexes(m: Monoid) -> Monoid:
    """The monoid over both parts of a number."""
    assert m.op is not None
    return replace(COMPLEX[m.op], name=m.name)


def parts_of(e: Expr) -> tuple[Expr, ...]:
    """The parts of `complex(x, y)` that are not 0; any other expression is its only part."""
    match e:
        case Apply("complex", parts):
            return tuple(p for p in parts if p != ZERO)
        case _:
            return (e,)


def components(eq: Equation) -> Equation:
    """The equation over real numbers; its body is `complex(x, y)` where its tensor is complex."""
    if not eq.outputs[0].dtype.is_complex:
        return eq
    match eq.body:
        case Apply("complex", parts):
            return replace(eq, bodies=parts, monoid=None if eq.monoid is None else complexes(eq.monoid))
        case _:
            raise IllegalIR(f"a complex value that is not in parts: {eq.name}")
