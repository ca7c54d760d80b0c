"""Sizes of tiles where nothing is multiplied: from the innermost axis outwards, and whole lines of memory at least.

A thread has some thirty elements of a tile, so that rows held whole take as many warps as that needs. Where programs
are few, their tiles grow along what they reduce, until what is on its way to all of them keeps memory busy.
"""

from __future__ import annotations

from math import prod

from einc import tile
from einc.codegen.triton.sizing import Sizing, Tiles
from einc.tile import WHOLE, Block
from einc.tile.blocks import power
from einc.tile.walk import segments, tile_axes, values_in

_TILE = 4096  # elements of a tile value
_INTERPRETED = 1 << 18  # the same where each operation costs, however large its tile
_CROSS = 64  # rows and columns of a tile where two sides meet in a loop within the walk
_WIDEST = {"column": 1024, "inner": 1024}
_SEGMENT = 16  # positions of a walk over a segment
_LINE = 64  # positions of neighbours in memory that a block has at least, where there are as many
_WARPS = 4
_MOST_WARPS = 32
_HELD = 32  # elements of a tile that a thread holds
_WALKING = 16  # the most warps of a program that walks
_WHOLE = 1 << 14  # elements of a tile with an axis held whole whose neighbours in memory lie along another
_SECTOR = 32  # neighbours that it has at least: half a line
_BUSY = 16  # warps of a processor that keep memory busy


def plain_tiles(k: Sizing) -> Tiles:
    """Tiles, and the warps that hold them."""
    blocks = plain_blocks(k)
    if not k.on_cuda or k.crossed:
        return Tiles(blocks, _WARPS)
    blocks = _narrowed(k, blocks)
    sizes = k.sizes(blocks)
    held = prod(sizes[a.name] for a in k.axes if a.role not in ("reduced", "inner"))
    walked = prod(sizes[a.name] for a in k.axes if a.role == "reduced")
    beside = any(a.name in k.lines and a.role != "whole" for a in k.axes)
    each = 2 * _HELD if beside and "whole" in blocks else _HELD
    warps = min(max(power(held * walked // (32 * each)), _WARPS), _MOST_WARPS)
    if "reduced" not in blocks or any(k.given(a) for a in k.axes) or segments(k.kernel):
        return Tiles(blocks, warps)
    programs = k.programs({role: b.cap for role, b in blocks.items()})
    longest = max(k.hints[a.name] for a in k.axes if a.role == "reduced")
    cap = blocks["reduced"].cap
    while warps < _WALKING and programs * warps < _BUSY * k.target.rates.processors and 2 * cap <= longest:
        warps, cap = 2 * warps, 2 * cap
    return Tiles(blocks | {"reduced": Block(1, cap)}, warps)


def _narrowed(k: Sizing, blocks: dict[str, Block]) -> dict[str, Block]:
    """The blocks with fewer neighbours in memory beside an axis that is held whole, where the tile would be large."""
    sizes = k.sizes(blocks)
    if not any(a.role == "whole" for a in k.axes) or prod(sizes.values()) <= _WHOLE:
        return blocks
    lines = {a.role for a in k.axes if a.name in k.lines and a.role != "whole" and blocks[a.role].cap > _SECTOR}
    return blocks | {role: Block(1, _SECTOR) for role in lines}


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
