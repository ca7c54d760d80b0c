"""What does not change in a loop, before it.

loop t: x = e; ...        -->   x = e; loop t: ...        e free of t and of what the loop binds or carries
x = e; loop; y = e; f(y)  -->   x = e; loop; f(x)         x a number a row
"""

from __future__ import annotations

from dataclasses import replace

from einc import tile
from einc.base.types import INT
from einc.tile import Value
from einc.tile.live import live
from einc.tile.walk import Scope, over_values, renaming, rewritten, values_in

Body = tuple[tile.Statement, ...]


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
    load, (own, *_) = let.value, let.types
    if loop.axis.blocked or loop.stop is None or not isinstance(load, tile.Load) or len(own.axes) < 2:
        return let
    start = tile.Lit(0, INT) if loop.start is None else loop.start
    walked: Value = tile.Elem("lt", (start, loop.stop))
    mask = walked if load.mask is None else tile.Elem("and", (load.mask, walked))
    return replace(let, value=replace(load, mask=mask))


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
