"""Sums, taken apart and put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from einc.base.types import INT
from einc.tile import Elem, Lit, Ref, Value


def terms_of(v: Value) -> list[tuple[bool, Value]]:
    """The terms of a sum, and whether each is added."""
    match v:
        case Elem(op="add" | "sub" as op, args=(a, b)):
            return [*terms_of(a), *((plus == (op == "add"), x) for plus, x in terms_of(b))]
        case _:
            return [(True, v)]


def called_by_name(v: Value, values: Mapping[str, Value]) -> Iterator[tuple[bool, Value]]:
    """The terms of a sum, and of those sums that it calls by their names."""
    for plus, term in terms_of(v):
        own = values.get(term.name) if isinstance(term, Ref) else None
        if isinstance(own, Elem) and own.op in ("add", "sub"):
            yield from ((plus == also, inner) for also, inner in called_by_name(own, values))
        else:
            yield plus, term


def total(terms: Sequence[tuple[bool, Value]]) -> tuple[bool, Value]:
    """The sum of some terms in their order, up to a sign: that of the first."""
    (sign, found), *others = terms
    for plus, term in others:
        found = Elem("add" if plus == sign else "sub", (found, term))
    return sign, found


def sum_of(terms: list[tuple[bool, Value]]) -> Value:
    """The sum of some positions, what is added first; 0 of none."""
    total: Value | None = None
    for plus, v in sorted(terms, key=lambda term: not term[0]):
        if total is None and plus:
            total = v
        else:
            total = Elem("add" if plus else "sub", (Lit(0, INT) if total is None else total, v))
    return Lit(0, INT) if total is None else total
