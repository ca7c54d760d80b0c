"""Sizes of tiles where nothing is multiplied: from the innermost axis outwards, and whole lines of memory at least."""

from __future__ import annotations

from math import prod

from einc import tile
from einc.codegen.triton.sizing import Sizing
from einc.tile import WHOLE, Block
from einc.tile.blocks import power
from einc.tile.walk import segments, tile_axes, values_in

_TILE = 4096  # elements of a tile value
_INTERPRETED = 1 << 18  # the same where each operation costs, however large its tile
_CROSS = 64  # rows and columns of a tile where two sides meet in a loop within the walk
_WIDEST = {"column": 1024, "reduced": 1024, "inner": 1024}
_SEGMENT = 16  # positions of a walk over a segment
_LINE = 64  # positions of neighbours in memory that a block has at least, where there are as many


def plain_blocks(k: Sizing) -> dict[str, Block]:
    """The innermost axis gets what its size hint asks for; the rows what is left of the tile.

    Neighbours in memory of anything that is read or written get a line of it first. Prefixes of several components are
    that many tiles at once.
    """
    carried = max((len(v.args) for v in values_in(k.kernel.body) if isinstance(v, tile.Scan)), default=1)
    room = (_INTERPRETED if k.target.vendor == "cpu" else _TILE) // power(carried)
    blocks: dict[str, Block] = {}
    if k.crossed:  # what is read of one side at few positions is used for all of the other
        return {a.role: Block(1, max(1, room // _TILE) if a.role == "inner" else _CROSS) for a in k.axes}
    short = segments(k.kernel)
    every = tile_axes(k.kernel).values()
    axes = sorted(every, key=lambda a: ("whole", "inner", "reduced", "column", "row", "batch").index(a.role))
    lines = {a.name: min(_LINE, k.hints[a.name]) for a in axes if a.name in k.lines and k.on_cuda}
    for a in axes:
        given, line = k.given(a), lines.pop(a.name, 1)
        if given is not None or not a.blocked:
            room = max(1, room // (given.cap if given else 1))
            continue
        if a.role == "whole":
            blocks[a.role] = Block(1, WHOLE)
            room = max(1, room // power(k.context.size(a.axes[0])))
            continue
        left = max(room // prod(lines.values()), line, 1)
        widest = min(left, _WIDEST.get(a.role, left) if len(axes) > 1 else left)
        widest = min(widest, _SEGMENT) if a.name in short else widest
        cap = max(1, min(k.hints[a.name], widest) if a is not axes[-1] else widest)
        blocks[a.role] = Block(1, cap)
        room = max(1, room // cap)
    return blocks
