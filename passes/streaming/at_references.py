"""The bodies of accumulators at the moved references, without guards that these make needless, since they are finite.

where(p or x == -inf, 0, exp(x - d))   -->   exp(where(not p, x, -inf) - d')      d' finite
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from einc import ein
from einc.ein import Apply, Const, Expr, Read
from einc.ein.rewriting import reading
from einc.passes.algebra.domain import fails, is_nothing
from einc.passes.streaming.movement import prime
from einc.passes.streaming.sweep import Reference

LOWEST = Const(float("-inf"))


def at_moved(e: Expr, references: Iterable[Reference]) -> Expr:
    """The expression at the moved references."""
    names = {r.name: prime(r.name) for r in references}
    return _sunk(reading(e, names), frozenset(names.values()))


def is_bare(e: Expr, name: str) -> bool:
    """Does the expression read the tensor outside the branches of any `where`?"""
    match e:
        case Read(tensor=tensor) if tensor == name:
            return True
        case Apply(op="where", args=(p, _, _)):
            return is_bare(p, name)
        case _:
            return any(is_bare(below, name) for below in ein.children(e))


def _sunk(e: Expr, finite: frozenset[str]) -> Expr:
    """Without guards against minus infinity that a finite reference makes needless; a mask beside one moves inside."""
    e = ein.rebuild(e, lambda below: _sunk(below, finite))
    match e:
        case Apply(op="where", args=(p, zero, Apply(op="exp" | "exp2" as op, args=(Apply(op="sub", args=(x, d)),)))):
            empty = Apply("ne", (x, LOWEST))
            rest = [q for q in fails(p) if q != empty]
            if not is_nothing(zero, 0) or not isinstance(d, Read) or d.tensor not in finite:
                return e
            if len(rest) == len(fails(p)):
                return e
            if rest:
                x = Apply("where", (reduce(lambda a, b: Apply("and", (a, b)), rest), x, LOWEST))
            return Apply(op, (Apply("sub", (x, d)),))
        case _:
            return e
