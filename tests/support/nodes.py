"""Programs built from nodes in few characters, for tests that want no parser: axes are words of a string."""

from __future__ import annotations

from einc.base.source import Source
from einc.base.types import F32, DType
from einc.ein import (
    Apply,
    AxisDecl,
    AxisValue,
    Const,
    Equation,
    Expr,
    Extent,
    Monoid,
    Operand,
    Param,
    Program,
    Read,
    Scalar,
    Tensor,
)
from einc.ein.monoids import MONOIDS

Term = Expr | str | bool | int | float


def term(x: Term) -> Expr:
    """A number as a constant, `|d|` as an extent, `$s` as a scalar, any other word as the position along an axis."""
    if not isinstance(x, str):
        return Const(x) if isinstance(x, bool | int | float) else x
    if x.startswith("|"):
        return Extent(x.strip("|"))
    return Scalar(x[1:]) if x.startswith("$") else AxisValue(x)


def call(op: str, *args: Term) -> Expr:
    return Apply(op, tuple(map(term, args)))


def add(*args: Term) -> Expr:
    return _chain("add", args)


def mul(*args: Term) -> Expr:
    return _chain("mul", args)


def _chain(op: str, args: tuple[Term, ...]) -> Expr:
    first, *rest = map(term, args)
    for x in rest:
        first = Apply(op, (first, x))
    return first


def where(condition: Expr, a: Term, b: Term) -> Expr:
    return call("where", condition, a, b)


def read(tensor: str, *index: Term, guard: Expr | None = None) -> Read:
    """`read("A", "i k")` or `read("A", "i", add("k", 1))`."""
    words = [w for i in index for w in (i.split() if isinstance(i, str) else [i])]
    return Read(tensor, tuple(map(term, words)), guard)


def groups(text: str) -> tuple[tuple[str, ...], ...]:
    """`b (g r) 1` as dimensions."""
    found: list[tuple[str, ...]] = []
    for k, part in enumerate(text.replace(")", "(").split("(")):
        if k % 2:
            found.append(tuple(part.split()))
        else:
            found += [() if w == "1" else (w,) for w in part.split()]
    return tuple(found)


def operand(text: str, dtype: DType = F32) -> Operand:
    """`operand("Q b (g r) d")`; its span is a line that declares it."""
    name, _, dims = text.partition(" ")
    return Operand(name, groups(dims), dtype, Source("test", f"{name}[{dims}]").whole())


def pointwise(text: str, body: Term, dtype: DType = F32) -> Equation:
    name, _, dims = text.partition(" ")
    return Equation((Tensor(name, dtype),), groups(dims), (term(body),))


def reduce(
    text: str, monoid: str | Monoid, over: str, *bodies: Term, dtype: DType = F32, domain: Expr | None = None
) -> Equation:
    name, _, dims = text.partition(" ")
    m = MONOIDS[monoid] if isinstance(monoid, str) else monoid
    names = [name] if len(m.results) == 1 else [f"{name}{k}" for k in range(len(m.results))]
    outputs = tuple(Tensor(n, dtype) for n in names)
    return Equation(outputs, groups(dims), tuple(map(term, bodies)), m, tuple(over.split()), domain)


def program(*parts: Operand | Param | AxisDecl | Equation, results: str = "") -> Program:
    """The parts in order; axes of operands are declared, the last equation is the result unless others are named."""
    params = tuple(p for p in parts if isinstance(p, Operand | Param))
    equations = tuple(e for e in parts if isinstance(e, Equation))
    given = tuple(a for a in parts if isinstance(a, AxisDecl))
    known = {a.name for a in given}
    seen = dict.fromkeys(a for p in params if isinstance(p, Operand) for dim in p.dims for a in dim)
    axes = (*(AxisDecl(a) for a in seen if a not in known), *given)
    return Program("p", params, axes, equations, tuple(results.split()) or tuple(t.name for t in equations[-1].outputs))
