"""Positions as sums, taken apart and put together."""

from __future__ import annotations

from einc.base.types import INT
from einc.tile import Elem, Lit, Value


def terms_of(v: Value) -> list[tuple[bool, Value]]:
    """The terms of a sum, and whether each is added."""
    match v:
        case Elem(op="add" | "sub" as op, args=(a, b)):
            return [*terms_of(a), *((plus == (op == "add"), x) for plus, x in terms_of(b))]
        case _:
            return [(True, v)]


def sum_of(terms: list[tuple[bool, Value]]) -> Value:
    """The sum of some terms, what is added first; 0 of none."""
    total: Value | None = None
    for plus, v in sorted(terms, key=lambda term: not term[0]):
        if total is None and plus:
            total = v
        else:
            total = Elem("add" if plus else "sub", (Lit(0, INT) if total is None else total, v))
    return Lit(0, INT) if total is None else total
