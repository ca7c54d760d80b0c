"""Decide how each load reaches memory, and do once what does not change in a loop.

    loop t: x = e; ...   -->   x = e; loop t: ...        e free of t and of what the loop binds or carries
    load T[e]            -->   load T[e] by pointer

Pointers take any strides; descriptors will need unit strides and aligned bases.
"""

from __future__ import annotations

from dataclasses import replace

from einc import tile


def place_loads(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with its loads placed."""
    return replace(kernel, body=_pointers(_hoisted(kernel.body)))


def _hoisted(body: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
    placed: list[tile.Statement] = []
    for s in body:
        if isinstance(s, tile.Loop):
            before, loop = _split(s)
            placed += [*before, loop]
        else:
            placed.append(s)
    return tuple(placed)


def _split(loop: tile.Loop) -> tuple[list[tile.Statement], tile.Loop]:
    """The bindings that can be made before a loop, and the loop without them."""
    inner = _hoisted(loop.body)
    moving = {loop.axis.name} | {c.name for c in loop.carried}
    before: list[tile.Statement] = []
    inside: list[tile.Statement] = []
    finals = {c.after for c in loop.carried}
    for s in inner:
        refs = {v.name for v in tile.values_in((s,)) if isinstance(v, tile.Ref)}
        if isinstance(s, tile.Let) and not refs & moving and not finals & set(s.names):
            before.append(s)
            continue
        moving |= set(s.names) if isinstance(s, tile.Let) else set()
        moving |= {c.name for c in s.carried} if isinstance(s, tile.Loop) else set()
        inside.append(s)
    return before, replace(loop, body=tuple(inside))


def _pointers(body: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
    return tuple(
        replace(s, body=_pointers(s.body))
        if isinstance(s, tile.Loop)
        else replace(s, value=_by_pointer(s.value))
        if isinstance(s, tile.Let)
        else s
        for s in body
    )


def _by_pointer(v: tile.Value) -> tile.Value:
    match v:
        case tile.Load():
            return replace(v, via="pointer")
        case tile.Elem(args=args) | tile.Fold(args=args):
            return replace(v, args=tuple(_by_pointer(a) for a in args))
        case tile.Convert(arg=arg):
            return replace(v, arg=_by_pointer(arg))
        case tile.Dot(left=left, right=right):
            return replace(v, left=_by_pointer(left), right=_by_pointer(right))
        case _:
            return v
