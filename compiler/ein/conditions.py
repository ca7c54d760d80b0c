"""Conjunctions of conditions, and the guards that reads need under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from einc.ein import ZERO, Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Read, Scalar, axes_of
from einc.ein.guards import argument_guard, conjoin, implied_guard

Shapes = Mapping[str, tuple[tuple[str, ...], ...]]


def conjuncts(e: Expr | None) -> list[Expr]:
    """The conditions of a conjunction; none for None, which always holds."""
    match e:
        case None:
            return []
        case Apply("and", (x, y)):
            return [*conjuncts(x), *conjuncts(y)]
        case _:
            return [e]


def added_at(e: Equation) -> dict[str, Expr]:
    """The places that terms of a sum are added at, by axis of its output; none where they are added up otherwise."""
    found: dict[str, Expr] = {}
    for c in conjuncts(e.domain) if e.added else ():
        if isinstance(c, Apply) and c.op == "eq":
            for x, place in (c.args, c.args[::-1]):
                if isinstance(x, AxisValue) and x.axis in e.added and set(e.added).isdisjoint(axes_of(place)):
                    found.setdefault(x.axis, place)
    return found if found.keys() == set(e.added) else {}


def counted_at(e: Equation) -> Expr | None:
    """Where terms are added: their places are in range, and what else is required of them holds."""
    at = added_at(e)
    equal = {Apply("eq", pair) for v, x in at.items() for pair in ((AxisValue(v), x), (x, AxisValue(v)))}
    inside = [p for v, x in at.items() for p in (Apply("le", (ZERO, x)), Apply("lt", (x, Extent(v))))]
    return all_of((*inside, *(c for c in conjuncts(e.domain) if c not in equal)))


def all_of(conditions: Iterable[Expr]) -> Expr | None:
    """Their conjunction, each once; None for none."""
    found: Expr | None = None
    for c in dict.fromkeys(conditions):
        found = conjoin(found, c)
    return found


def placed(e: Expr, context: Expr | None, shapes: Shapes) -> Expr:
    """The expression with every read that may leave its tensor under the guard that its place implies.

    `context` is what holds where the expression counts. A read that has a guard keeps it: it is 0 out of range.
    """
    match e:
        case Read(tensor, index, guard):
            at = tuple(placed(i, context, shapes) for i in index)
            under = implied_guard(at, shapes[tensor], context) if guard is None else placed(guard, context, shapes)
            return Read(tensor, at, under, e.span)
        case Apply(op, args):
            done: list[Expr] = []
            for a in args:
                done.append(placed(a, argument_guard(op, done, context), shapes))
            return Apply(op, tuple(done), e.span)
        case Cast(dtype, arg):
            return Cast(dtype, placed(arg, context, shapes))
        case AxisValue() | Const() | Extent() | Scalar():
            return e
        case _:
            assert_never(e)
