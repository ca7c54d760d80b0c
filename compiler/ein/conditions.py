"""Conjunctions of conditions, and the guards that reads need under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from einc.ein import Apply, AxisValue, Cast, Const, Expr, Extent, Read, Scalar
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
