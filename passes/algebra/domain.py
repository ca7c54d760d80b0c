"""Which positions a reduction needs: predicates without which a position contributes nothing.

    monoid[j](f)   -->   monoid[j : p](f)      where f is the monoid's identity wherever p is false

The domain is p for `where(p, x, -inf)` or `x + where(p, 0, -inf)` under a maximum, and for `where(p, x, 0)` or the exp
of the former under a sum. A product has the domain of each factor, as the others do not count elsewhere
(`ein.exclusion`); a sum needs what any of its terms needs. Forms that `ein.domains` does not list keep their mask, such
as a minimum of `where(p, x, -inf)`, or a tanh of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce

from einc import ein
from einc.base.ops import DENIED
from einc.ein import Apply, Const, Expr, Monoid
from einc.ein.domains import EVERYWHERE, Domain, Domains, conjunction, either, fails, holds, is_positive

__all__ = [
    "Domain", "conjunction", "domain", "domain_of", "either", "fails", "holds", "is_nothing", "is_positive",
    "ordered",
]  # fmt: skip


def domain_of(monoid: Monoid, bodies: Iterable[Expr]) -> Domain:
    """Where any of the bodies changes a reduction: everywhere for an argmax, which may give a masked position."""
    identity = monoid.unit
    return EVERYWHERE if identity is None else reduce(either, (domain(b, identity.value) for b in bodies))


def domain(e: Expr, nothing: float) -> Domain:
    """Predicates, each of which must hold for the expression to differ from `nothing`: 0, 1 or an infinity."""
    return Domains().of(e, nothing)


def is_nothing(e: Expr, nothing: float) -> bool:
    """Is the expression that constant?"""
    return isinstance(e, Const) and e.kind != "bool" and e.value == nothing


def ordered(e: Expr, is_int: Callable[[Expr], bool]) -> Expr:
    """The expression with negated comparisons of integers replaced by their opposites: not (a > b) --> a <= b."""
    e = ein.rebuild(e, lambda below: ordered(below, is_int))
    match e:
        case Apply(op="not", args=(Apply(op=op, args=(a, b)),)) if op in DENIED and is_int(a) and is_int(b):
            return Apply(DENIED[op], (a, b))
        case _:
            return e
