"""Integer expressions that are linear in an axis, or in all that they are made of.

A **form** has a factor for each term, an axis or a formula over extents and scalars; its constant is that of `ONE`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from einc.ein import ONE, ZERO, Apply, AxisValue, Const, Equation, Expr, axes_of, reads
from einc.ein.printer import print_expr
from einc.ein.ranges import is_closed
from einc.passes.algebra.folding import call

Form: TypeAlias = dict[Expr, int]

_FAR = 16  # positions that two elements are apart, where a tile of those between is worth having


def linear(e: Expr, x: str) -> tuple[Expr, Expr] | None:
    """The factor and the rest of an integer expression that is linear in an axis; None where it is not."""
    if x not in axes_of(e):
        return ZERO, e
    match e:
        case AxisValue():
            return ONE, ZERO
        case Apply("neg", (a,)):
            found = linear(a, x)
            return None if found is None else (_negative(found[0]), call("neg", found[1]))
        case Apply("add" | "sub" as op, (a, b)):
            first, second = linear(a, x), linear(b, x)
            if first is None or second is None or ZERO not in (first[0], second[0]):
                return None
            right = second[0] if op == "add" else _negative(second[0])
            return right if first[0] == ZERO else first[0], call(op, first[1], second[1])
        case Apply("mul", (a, b)):
            factor, other = (a, b) if is_closed(a) else (b, a)
            found = linear(other, x)
            if found is None or not is_closed(factor):
                return None
            return call("mul", factor, found[0]), call("mul", factor, found[1])
        case _:
            return None


def form(e: Expr) -> Form | None:
    """The form of an integer expression; None where a factor is no number."""
    match e:
        case Const(bool() | float()):
            return None
        case Const(n):
            return {ONE: int(n)} if n else {}
        case AxisValue():
            return {e: 1}
        case Apply("neg", (x,)):
            found = form(x)
            return None if found is None else combined((-1, found))
        case Apply("add" | "sub" as op, (x, y)):
            first, second = form(x), form(y)
            if first is None or second is None:
                return None
            return combined((1, first), (1 if op == "add" else -1, second))
        case Apply("mul", (Const(int() as n), x)) | Apply("mul", (x, Const(int() as n))):
            found = form(x)
            return None if found is None else combined((n, found))
        case _:
            return {e: 1} if is_closed(e) else None


def less(p: Expr) -> Form | None:
    """The form that a comparison says is less than 0; None where it says no such thing."""
    match p:
        case Apply("lt" | "le" | "gt" | "ge" as op, (x, y)):
            a, b = form(x), form(y)
            if a is None or b is None:
                return None
            small, great = (a, b) if op in ("lt", "le") else (b, a)
            return combined((1, small), (-1, great), (-1 if op in ("le", "ge") else 0, {ONE: 1}))
        case _:
            return None


def combined(*parts: tuple[int, Form]) -> Form:
    """The sum of some forms, each times a number."""
    total: Form = {}
    for factor, part in parts:
        for term, n in part.items():
            total[term] = total.get(term, 0) + factor * n
    return {term: n for term, n in total.items() if n}


def written(f: Form) -> Expr:
    """The expression of a form: what is added first, then what is subtracted, the constant last."""

    def place(item: tuple[Expr, int]) -> tuple[object, ...]:
        term, n = item
        return term == ONE, n < 0, not isinstance(term, AxisValue), -abs(n), print_expr(term)

    total: Expr = ZERO
    for term, n in sorted(f.items(), key=place):
        size = Const(abs(n)) if term == ONE else call("mul", Const(abs(n)), term)
        total = call("sub" if n < 0 else "add", total, size)
    return total


@lru_cache(maxsize=4096)
def strided(eq: Equation) -> frozenset[str]:
    """The axes along which an equation reads blocks of other axes: `64 * b + r` steps over 64 positions of r with b."""
    far: set[str] = set()
    for found in (form(i) for e in eq.computed() for r in reads(e) for i in r.index if len(axes_of(i)) > 1):
        steps = {x.axis: abs(n) for x, n in (found or {}).items() if isinstance(x, AxisValue)}
        far |= {a for a, n in steps.items() if n >= _FAR * min(steps.values())}
    return frozenset(far)


def _negative(e: Expr) -> Expr:
    return Const(-e.value) if isinstance(e, Const) else call("neg", e)
