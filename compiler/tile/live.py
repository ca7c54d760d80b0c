"""Statements without bindings that nothing reads, and with what does not change in a loop before it.

    loop t: x = e; ...        -->   x = e; loop t: ...        e free of t and of what the loop binds or carries
    x = e; loop; y = e; f(y)  -->   x = e; loop; f(x)         x a number a row

What a walk of single positions reads of a tile is not read where a mask leaves none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from operator import is_

from einc import tile
from einc.base.types import INT
from einc.tile import Value
from einc.tile.walk import Scope, names_in, over_values, own_values, renaming, rewritten, values_in

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


# ---------------------------------------------------------------------------------------------------------------------
# Before loops


def before_loops(body: Body) -> Body:
    """The statements with what each loop computes once before it; the same ones if there is nothing of that."""
    found = rewritten(body, lambda s, _: _placed(s) if isinstance(s, tile.Loop) else (s,))
    return body if found is body else live(_bound_once(found))


def _placed(s: tile.Loop) -> Body:
    """The bindings that can be made before a loop, and the loop without them."""
    moving = {s.axis.name} | {c.name for c in s.carried}
    before: list[tile.Statement] = []
    inside: list[tile.Statement] = []
    finals = {c.after for c in s.carried}
    for x in s.body:
        refs = {v.name for v in values_in((x,)) if isinstance(v, tile.Ref)}
        if isinstance(x, tile.Let) and not refs & moving and not finals & set(x.names):
            before.append(_if_walked(x, s))
            continue
        there = Scope()
        there.bind(x)
        moving |= there.names.keys()
        inside.append(x)
    return (*before, replace(s, body=tuple(inside)))


def _if_walked(let: tile.Let, loop: tile.Loop) -> tile.Let:
    """A load of a tile that a loop of single positions needs, which may have none: then nothing is read."""
    load, (own, *_), walked = let.value, let.types, is_walked(loop)
    if loop.axis.blocked or walked is None or not isinstance(load, tile.Load) or len(own.axes) < 2:
        return let
    mask = walked if load.mask is None else tile.Elem("and", (load.mask, walked))
    return replace(let, value=replace(load, mask=mask))


def is_walked(loop: tile.Loop) -> Value | None:
    """The condition that a loop has any position, where that is not all of its axis."""
    start = tile.Lit(0, INT) if loop.start is None else loop.start
    return None if loop.stop is None else tile.Elem("lt", (start, loop.stop))


def _bound_once(body: Body) -> Body:
    """The statements with one name for equal numbers, or rows of numbers. Larger tiles would be held over a loop."""
    first: dict[Value, str] = {}
    same: dict[str, str] = {}  # every name, by the first one of what is equal
    known: dict[str, str] = {}  # those that are used in place of others
    made: list[tile.Statement] = []
    for s in body:
        if isinstance(s, tile.Let) and len(s.names) == 1:
            (name,), (own,) = s.names, s.types
            same[name] = first.setdefault(renaming(same)(s.value), name)
            if same[name] != name and len(own.axes) < 2:
                known[name] = same[name]
        made.append(over_values(s, renaming(known)) if known else s)
    return tuple(made)
