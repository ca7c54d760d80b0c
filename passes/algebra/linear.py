"""Integer expressions that are linear in an axis: its factor, and the rest."""

from __future__ import annotations

from functools import lru_cache

from einc.ein import ONE, ZERO, Apply, AxisValue, Const, Equation, Expr, axes_of, reads
from einc.ein.ranges import is_closed
from einc.passes.algebra.folding import call

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
            return None if found is None else (negative(found[0]), call("neg", found[1]))
        case Apply("add" | "sub" as op, (a, b)):
            first, second = linear(a, x), linear(b, x)
            if first is None or second is None or ZERO not in (first[0], second[0]):
                return None
            right = second[0] if op == "add" else negative(second[0])
            return right if first[0] == ZERO else first[0], call(op, first[1], second[1])
        case Apply("mul", (a, b)):
            factor, other = (a, b) if is_closed(a) else (b, a)
            found = linear(other, x)
            if found is None or not is_closed(factor):
                return None
            return _product(factor, found[0]), call("mul", factor, found[1])
        case _:
            return None


def coefficients(e: Expr) -> dict[str, int] | None:
    """The factor of every axis in an expression that is linear in all of them; None where one is no number."""
    found: dict[str, int] = {}
    for x in axes_of(e):
        of = linear(e, x)
        if of is None:
            return None
        match of[0]:
            case Const(int() as n):
                found[x] = n
            case _:
                return None
    return found


@lru_cache(maxsize=4096)
def strided(eq: Equation) -> frozenset[str]:
    """The axes along which an equation reads blocks of other axes: `64 * b + r` steps over 64 positions of r with b."""
    far: set[str] = set()
    for r in (r for e in eq.computed() for r in reads(e)):
        for found in (coefficients(e) for e in r.index if len(axes_of(e)) > 1):
            least = min(map(abs, found.values()), default=0) if found else 0
            far |= {a for a, n in (found or {}).items() if abs(n) >= _FAR * least > 0}
    return frozenset(far)


def negative(e: Expr) -> Expr:
    """The opposite, of a number a number."""
    return Const(-e.value) if isinstance(e, Const) else call("neg", e)


def _product(a: Expr, b: Expr) -> Expr:
    match a, b:
        case Const(int() as n), Const(int() as m):
            return Const(n * m)
        case _:
            return call("mul", a, b)
