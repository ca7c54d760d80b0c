"""Like terms of an expression collected for readers: x·x as x², a + 2·a as 3·a."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from einc.ein import Apply, Const, Expr, rebuild


def tidied(e: Expr) -> Expr:
    """The expression with equal factors of a product as a power, and equal terms of a sum as a multiple."""
    e = rebuild(e, tidied)
    match e:
        case Apply("mul"):
            return _powers(_chain("mul", e))
        case Apply("add"):
            return _counted(_chain("add", e))
        case _:
            return e


def _chain(op: str, e: Expr) -> list[Expr]:
    match e:
        case Apply(name, (x, y)) if name == op:
            return _chain(op, x) + _chain(op, y)
        case _:
            return [e]


def _powers(factors: Sequence[Expr]) -> Expr:
    counts: dict[Expr, int] = {}
    for f in factors:
        match f:
            case Apply("pow", (base, Const(value=int() as n))) if not isinstance(n, bool) and n > 0:
                counts[base] = counts.get(base, 0) + n
            case _:
                counts[f] = counts.get(f, 0) + 1
    return _folded("mul", [f if n == 1 else Apply("pow", (f, Const(n))) for f, n in counts.items()])


def _counted(terms: Sequence[Expr]) -> Expr:
    counts: dict[Expr, int] = {}
    for t in terms:
        n, rest = 1, t
        match t:
            case Apply("mul"):
                first, *others = _chain("mul", t)
                if isinstance(first, Const) and first.kind == "int":
                    n, rest = int(first.value), _folded("mul", others)
        counts[rest] = counts.get(rest, 0) + n
    return _folded("add", [t if n == 1 else _folded("mul", [Const(n), *_chain("mul", t)]) for t, n in counts.items()])


def _folded(op: str, parts: Sequence[Expr]) -> Expr:
    return reduce(lambda a, b: Apply(op, (a, b)), parts)
