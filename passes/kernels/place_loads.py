"""Decide how each load reaches memory, and do once what does not change in a loop.

    loop t: x = e; ...   -->   x = e; loop t: ...        e free of t and of what the loop binds or carries
    load T[e]            -->   load T[e] by pointer

A load may leave a loop that no position is walked of: it is masked, or in bounds whenever its kernel runs (`lower`).
Pointers take any strides; descriptors will need unit strides and aligned bases.
"""

from __future__ import annotations

from dataclasses import replace

from einc import tile
from einc.pipeline import Context
from einc.tile.asked import ways_asked
from einc.tile.choices import POINTER
from einc.tile.walk import Scope, rewritten, values_in


def place_loads(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its loads placed."""
    body = rewritten(kernel.body, lambda s, _: _placed(s) if isinstance(s, tile.Loop) else (s,))
    loaded = {v.tensor for v in values_in(body) if isinstance(v, tile.Load)}
    ways = ways_asked(context.choices, kernel)
    chosen = kernel.choices.reached({tensor: ways.get(tensor, POINTER) for tensor in loaded})
    return replace(kernel, body=body, choices=chosen)


def _placed(s: tile.Loop) -> tuple[tile.Statement, ...]:
    """The bindings that can be made before a loop, and the loop without them."""
    moving = {s.axis.name} | {c.name for c in s.carried}
    before: list[tile.Statement] = []
    inside: list[tile.Statement] = []
    finals = {c.after for c in s.carried}
    for x in s.body:
        refs = {v.name for v in values_in((x,)) if isinstance(v, tile.Ref)}
        if isinstance(x, tile.Let) and not refs & moving and not finals & set(x.names):
            before.append(x)
            continue
        there = Scope()
        there.bind(x)
        moving |= there.names.keys()
        inside.append(x)
    return (*before, replace(s, body=tuple(inside)))
