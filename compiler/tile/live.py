"""Statements without bindings that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

from einc import tile
from einc.tile.walk import loops, values_in, walk_values


def live(body: tuple[tile.Statement, ...], wanted: AbstractSet[str] = frozenset()) -> tuple[tile.Statement, ...]:
    """The statements without bindings that nothing reads, except those of wanted names."""
    while True:
        read = {v.name for v in values_in(body) if isinstance(v, tile.Ref)} | wanted
        read |= {c.after for loop in loops(body) for c in loop.carried}
        kept = _without(body, read)
        if kept == body:
            return body
        body = kept


def _without(body: tuple[tile.Statement, ...], read: set[str]) -> tuple[tile.Statement, ...]:
    kept: list[tile.Statement] = []
    for s in body:
        if isinstance(s, tile.Let) and not read & set(s.names):
            continue
        kept.append(_loop_without(s, read) if isinstance(s, tile.Loop) else s)
    return tuple(kept)


def _loop_without(s: tile.Loop, read: set[str]) -> tile.Loop:
    """The loop without bindings that nothing reads, and without predicates about them that are known to hold."""
    body = _without(s.body, read)
    if s.full is None or body == s.body:
        return replace(s, body=body)
    gone = set(_bound(s.body)) - set(_bound(body))
    names = ({v.name for v in walk_values(p) if isinstance(v, tile.Ref)} for p in s.full.holds)
    holds = tuple(p for p, named in zip(s.full.holds, names, strict=True) if gone.isdisjoint(named))
    return replace(s, body=body, full=replace(s.full, holds=holds))


def _bound(body: tuple[tile.Statement, ...]) -> Iterator[str]:
    return (name for s in body if isinstance(s, tile.Let) for name in s.names)
