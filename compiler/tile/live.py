"""Statements without bindings that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from operator import is_

from einc import tile
from einc.tile.walk import names_in, own_values

Body = tuple[tile.Statement, ...]


def live(body: Body, wanted: AbstractSet[str] = frozenset()) -> Body:
    """The statements without bindings that nothing reads, except those of wanted names."""
    return _live(body, {*wanted})


def _live(body: Body, read: set[str]) -> Body:
    """The statements that what is `read` behind them needs, from the last to the first; adds what these read."""
    kept: list[tile.Statement] = []
    for s in reversed(body):
        if isinstance(s, tile.Let) and read.isdisjoint(s.names):
            continue
        if isinstance(s, tile.Loop):
            read.update(c.after for c in s.carried)
            s = _with(s, _live(s.body, read))
        read |= names_in(*own_values(s))
        kept.append(s)
    return body if len(kept) == len(body) and all(map(is_, reversed(kept), body)) else tuple(kept[::-1])


def _with(s: tile.Loop, body: Body) -> tile.Loop:
    """The loop with what is left of its body, and without predicates about the rest that are known to hold."""
    if body is s.body:
        return s
    if s.full is None:
        return replace(s, body=body)
    gone = set(_bound(s.body)) - set(_bound(body))
    holds = tuple(p for p in s.full.holds if gone.isdisjoint(names_in(p)))
    return replace(s, body=body, full=replace(s.full, holds=holds))


def _bound(body: Body) -> Iterator[str]:
    return (name for s in body if isinstance(s, tile.Let) for name in s.names)
