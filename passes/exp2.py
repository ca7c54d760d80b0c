"""Take powers of two, which the hardware knows, in place of those of e.

    exp(x)   -->   exp2(x * log2(e))      f32, over a tile

`exp` is made of the same product and the same power, with care for results below the normal range added to every
element; here those are 0.
"""

from __future__ import annotations

import math
from dataclasses import replace

from einc import tile
from einc.tile import Elem, Lit, TileType, Value
from einc.tiletypes import axes_of, dtype_of, loop_position, scope
from einc.types import F32

_LOG2_E = Lit(1 / math.log(2), F32)


def exp2(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with its exponentials taken to base 2."""
    if not any(isinstance(v, Elem) and v.op == "exp" for v in tile.values_in(kernel.body)):
        return kernel
    return replace(kernel, body=_body(kernel.body, scope(kernel)))


def _body(body: tuple[tile.Statement, ...], names: dict[str, TileType]) -> tuple[tile.Statement, ...]:
    made: list[tile.Statement] = []
    for s in body:
        match s:
            case tile.Let(value=value):
                made.append(replace(s, value=_value(value, names)))
                names.update(zip(s.names, s.types, strict=True))
            case tile.Store(value=value):
                made.append(replace(s, value=_value(value, names)))
            case tile.Loop(axis=axis, carried=carried):
                states = {c.name: c.type for c in carried}
                made.append(replace(s, body=_body(s.body, {**names, axis.name: loop_position(axis), **states})))
                names.update(states)
    return tuple(made)


def _value(v: Value, names: dict[str, TileType]) -> Value:
    made = tile.rebuild(v, lambda below: _value(below, names))
    match made:
        case Elem(op="exp", args=(x,)) if dtype_of(x, names) == F32 and axes_of(x, names):
            return Elem("exp2", (Elem("mul", (x, _LOG2_E)),))
        case _:
            return made
