"""The conditions under which a reduction counts a position, taken out of its domain and body, and the ends they set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from einc.base.types import DType
from einc.ein import (
    TRUE,
    ZERO,
    Apply,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Program,
    Read,
    Scalar,
    axes_of,
    reads,
)
from einc.ein.guards import argument_guard, composite, conjoin
from einc.ein.inference import dtype_of
from einc.ein.rewriting import bottom_up
from einc.passes.algebra.bounds import bounds
from einc.passes.algebra.domain import conjunction, fails, holds
from einc.passes.algebra.scope import is_unit
from einc.passes.equations.ends import moved
from einc.passes.streaming.prefix import is_alike


def restricted(
    eq: Equation, program: Program, whole: Program, shapes: Mapping[str, tuple[tuple[str, ...], ...]]
) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """The conditions under which a position counts, and what is reduced there, without guards that they imply.

    The equation is one of `program`; `whole` is the program as rewritten so far, `shapes` are those of all tensors.
    """
    assert eq.monoid is not None
    terms = () if eq.domain is None else holds(eq.domain)
    bodies = eq.bodies
    unit = eq.monoid.unit
    if len(bodies) == 1 and unit is not None:
        more, body = _peeled(bodies[0], unit.value)
        terms, bodies = (*terms, *more), (body,)
    terms = tuple(dict.fromkeys(terms))
    holding = _needed(eq, program).union(terms)
    return terms, tuple(_freed(b, holding, whole, shapes) for b in bodies)


def _needed(eq: Equation, program: Program) -> frozenset[Expr]:
    """Conditions that hold wherever the equation's value is read."""
    if len(eq.outputs) > 1 or eq.name in program.results:
        return frozenset()
    own = Read(eq.name, tuple(composite(dim) for dim in eq.dims))
    places = [
        frozenset() if context is None else frozenset(holds(context))
        for e in program.equations
        for x, outer in (*((b, e.domain) for b in e.bodies), *(() if e.domain is None else ((e.domain, None),)))
        for context in _contexts(x, own, outer)
    ]
    return frozenset.intersection(*places) if places else frozenset()


def _peeled(e: Expr, unit: float) -> tuple[tuple[Expr, ...], Expr]:
    """The conditions without which an expression is the unit, and the expression where they hold."""
    match e:
        case Apply("where", (p, x, y)) if is_unit(y, unit):
            terms, inner = _peeled(x, unit)
            return (*holds(p), *terms), inner
        case Apply("where", (p, x, y)) if is_unit(x, unit):
            terms, inner = _peeled(y, unit)
            return (*fails(p), *terms), inner
        case Apply("neg", (x,)) if unit == 0 and unit is not False:
            terms, inner = _peeled(x, unit)
            return terms, Apply("neg", (inner,))
        case Apply("mul", (x, y)) if unit == 0 and unit is not False:
            (some, left), (more, right) = _peeled(x, unit), _peeled(y, unit)
            return (*some, *more), Apply("mul", (left, right))
        case Apply("div", (x, y)) if unit == 0 and unit is not False:
            terms, inner = _peeled(x, unit)
            return terms, Apply("div", (inner, y))
        case Cast(dtype, x) if dtype.is_float:
            terms, inner = _peeled(x, unit)
            return terms, Cast(dtype, inner)
        case _:
            return (), e


def _freed(
    e: Expr, holding: frozenset[Expr], whole: Program, shapes: Mapping[str, tuple[tuple[str, ...], ...]]
) -> Expr:
    """The expression without guards that hold anyway."""

    def free(n: Expr) -> Expr:
        if not isinstance(n, Read) or n.guard is None:
            return n
        left = [p for p in holds(n.guard) if p not in holding]
        dims = shapes[n.tensor]
        certain = all(
            len(dim) == 1 and isinstance(at, AxisValue) and is_alike(whole, at.axis, dim[0])
            for at, dim in zip(n.index, dims, strict=True)
        )
        return replace(n, guard=conjunction(left) or (None if certain else TRUE))

    return bottom_up(e, free)


def end(p: Expr, axis: str, dtypes: Mapping[str, DType]) -> tuple[str, Expr] | None:
    """The side on which a condition bounds the axis, and the last position there."""
    if axis not in axes_of(p):
        return None
    found = bounds((p,), axis, Extent(axis), lambda e: dtype_of(e, dtypes).kind in "ib", dtypes)
    match found.lowest, found.beyond, found.decided:
        case (e,), (), (_,):
            return "ge", moved(_from_zero(e), 0)
        case (), (e,), (_,):
            return "le", moved(_from_zero(e), -1)
        case _:
            return None


def _contexts(e: Expr, own: Read, context: Expr | None) -> Iterator[Expr | None]:
    """What holds at each read of a tensor; None where nothing does, as at a read that is not at its own axes."""
    match e:
        case Read(tensor, index, guard):
            inner = conjoin(context, guard)
            if tensor == own.tensor:
                yield inner if index == own.index else None
            for x in index:
                yield from _contexts(x, own, inner)
            if guard is not None:
                yield from _contexts(guard, own, context)
        case Apply(op, args):
            for k, arg in enumerate(args):
                yield from _contexts(arg, own, argument_guard(op, args[:k], context))
        case Cast(arg=arg):
            yield from _contexts(arg, own, context)
        case Const() | AxisValue() | Extent() | Scalar():
            pass
        case _:
            assert_never(e)


def _from_zero(e: Expr) -> Expr:
    """An end clamped to the first position where it is read from data: no integer comes before the least one."""
    return Apply("max", (e, ZERO)) if reads(e) and not isinstance(e, Cast) else e
