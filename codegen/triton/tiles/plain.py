"""Tiles of kernels that multiply nothing.

Neighbours in memory are read together: a line of them at least, where there are as many. Folds along one axis are of
rows, which one warp folds by itself if it holds them, or of columns, along which several warps walk, and exchange what
each has folded at every step: one would read too little of a row at once. Rows that no vector fits take a register for
each address and mask beside each element, so that a thread holds half as many, and a program two of them, for as many
loads on their way. While many processors would have no program, each has fewer positions.
"""

from __future__ import annotations

from math import prod

from einc import tile
from einc.codegen.triton.tiles.occupancy import WORD
from einc.codegen.triton.tiles.sizing import Sizing, Tiles
from einc.codegen.triton.tiles.walks import late_tiles
from einc.tile import WHOLE, Block, TileAxis
from einc.tile.blocks import power
from einc.tile.walk import every_value, segments, tile_axes

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
_ACROSS = 8  # the same of columns, if these leave a walk so many steps
_FEWEST = 4
_SCANNING = 8  # the same where it makes prefixes, whose tiles before and after take all registers of a thread
_WHOLE = 1 << 14  # elements of a tile with an axis held whole whose neighbours in memory lie along another
_SECTOR = 32  # neighbours that it has at least: half a line
_BUSY = 16  # warps of a processor that keep memory busy


def plain_tiles(k: Sizing) -> Tiles:
    """Tiles, the warps that hold them, and when walks fold."""
    early = _early_tiles(k)
    return late_tiles(k, early) or early


def _early_tiles(k: Sizing) -> Tiles:
    """Tiles where walks fold at every step."""
    blocks = plain_blocks(k)
    if not k.on_cuda or k.crossed:
        return Tiles(blocks, _WARPS)
    if (found := _of_folds(k, blocks)) is not None:
        return found
    blocks = _exchanged(k, _narrowed(k, blocks))
    sizes = k.sizes(blocks)
    walked = prod(sizes[a.name] for a in k.axes if a.role == "reduced")
    still = {a.name for a in k.axes if a.role not in ("reduced", "inner")}
    held = max((prod(sizes[a] for a in axes if a in still) for axes in k.occupancy.computed), default=1)
    beside = any(a.name in k.lines and a.role != "whole" for a in k.axes)
    each = 2 * _HELD if beside and "whole" in blocks else _HELD
    warps = min(max(power(held * walked // (32 * each)), _WARPS), _MOST_WARPS)
    if "reduced" not in blocks or any(k.given(a) for a in k.axes) or segments(k.kernel):
        return Tiles(blocks, warps)
    return _busied(k, blocks, warps)


def _busied(k: Sizing, blocks: dict[str, Block], warps: int) -> Tiles:
    """Tiles of a walk, with more warps and as much longer steps while few programs keep memory busy."""
    programs, cap = k.programs({role: b.cap for role, b in blocks.items()}), blocks["reduced"].cap
    most = _SCANNING if any(isinstance(v, tile.Scan) for v in every_value(k.kernel)) else _WALKING
    while warps < most and programs * warps < _BUSY * k.target.rates.processors and 2 * cap <= k.longest:
        warps, cap = 2 * warps, 2 * cap
    return Tiles(blocks | {"reduced": Block(1, cap)}, warps)


def _of_folds(k: Sizing, blocks: dict[str, Block]) -> Tiles | None:
    """Tiles of folds along one axis, at positions of one other: of rows, or of columns, as they lie in memory.

    What a warp folds by itself is not exchanged through shared memory, and what a thread reads one by one takes it a
    register for each address and mask as well.
    """
    folds = [v for v in every_value(k.kernel) if isinstance(v, tile.Fold)]
    beside = [a for a in k.axes if a.name not in {v.axis for v in folds}]
    along = [a for a in k.axes if a.name in {v.axis for v in folds}]
    scans = any(isinstance(v, tile.Scan) for v in every_value(k.kernel))
    if len(beside) != 1 or len(along) != 1 or scans or k.given(beside[0]) or segments(k.kernel):
        return None
    (axis,), (other,) = along, beside
    if other.role == "whole":
        return None
    if k.lines == {other.name}:
        wide = any(len(v.args) > 1 for v in folds) and axis.role == "reduced" and k.given(axis) is None
        many = k.programs({role: b.cap for role, b in blocks.items()}) >= k.target.rates.processors
        return None if wide and many else _of_columns(k, blocks, axis, other)
    return _of_rows(k, blocks, axis, other) if k.lines == {axis.name} and not k.given(axis) else None


def _of_rows(k: Sizing, blocks: dict[str, Block], axis: TileAxis, other: TileAxis) -> Tiles | None:
    """Tiles of rows that one step folds: as many as a warp holds; two at least where elements are read one by one."""
    width, rows = k.hints[axis.name], k.hints[other.name]
    if axis.role == "reduced" and width > min(blocks[axis.role].cap, 32 * _HELD):
        return None
    processors = k.target.rates.processors
    least = 2 if k.single and k.programs({other.role: 2}) >= processors else 1
    count = k.spread({other.role: min(max(32 * _HELD // width, least), rows)})
    few = k.programs({other.role: count}) < processors
    each = _HELD // 2 if k.single != few else _HELD
    warps = max(power(count * width // (32 * each)), _WARPS if k.single and few else 1)
    held = Block(1, WHOLE if axis.role == "whole" else width)
    return Tiles(blocks | {other.role: Block(1, count), axis.role: held}, min(warps, _MOST_WARPS))


def _of_columns(k: Sizing, blocks: dict[str, Block], axis: TileAxis, other: TileAxis) -> Tiles:
    """Tiles of columns: of those that are held whole as many as fit, of others those that are read well, wherever rows
    begin, walked by as many warps as leave it a few steps. One warp walks a part, of which there are many, along a
    sector: several exchange at every step what they have folded."""
    if axis.role == "whole":
        blocks = _narrowed(k, blocks)
        count = k.spread({other.role: blocks[other.role].cap})
        warps = min(max(power(count * k.hints[axis.name] // (64 * _HELD)), _WARPS), _MOST_WARPS)
        return Tiles(blocks | {other.role: Block(1, count)}, warps)
    part = bool(k.kernel.parts_of)
    each = _HELD // 2 if part and k.single else _HELD
    count = k.spread({other.role: min(k.hints[other.name], _SECTOR // 2 if part else _SECTOR)})
    if (given := k.given(axis)) is not None:
        steps = min(given.cap, k.hints[axis.name])
        return Tiles(blocks | {other.role: Block(1, count)}, max(power(count * steps // (32 * each)), 1))
    step, warps = 32 * each // count, 1
    while not part and warps < _ACROSS and 2 * warps * step * _FEWEST <= k.longest:
        warps *= 2
    steps = min(warps * step, power(k.longest))
    return _busied(k, blocks | {other.role: Block(1, count), "reduced": Block(1, steps)}, warps)


def _narrowed(k: Sizing, blocks: dict[str, Block]) -> dict[str, Block]:
    """The blocks with fewer neighbours in memory beside an axis that is held whole, where the tile would be large."""
    sizes = k.sizes(blocks)
    if not any(a.role == "whole" for a in k.axes) or prod(sizes.values()) <= _WHOLE:
        return blocks
    lines = {a.role for a in k.axes if a.name in k.lines and a.role != "whole" and k.given(a) is None}
    return blocks | {role: Block(1, _SECTOR) for role in lines if blocks[role].cap > _SECTOR}


def _exchanged(k: Sizing, blocks: dict[str, Block]) -> dict[str, Block]:
    """The blocks with fewer positions beside an axis that is held whole, until shared memory holds the largest tile:
    threads that computed it may store it in another order."""
    beside = {a.role for a in k.axes if a.role != "whole" and k.given(a) is None} if "whole" in blocks else set()
    while beside and WORD * k.occupancy.largest(k.sizes(blocks)) > k.target.shared:
        widest = max(beside, key=lambda role: blocks[role].cap)
        if blocks[widest].cap == 1:
            break
        blocks = blocks | {widest: Block(1, blocks[widest].cap // 2)}
    return blocks


def plain_blocks(k: Sizing) -> dict[str, Block]:
    """Sizes of tiles where nothing is multiplied: from the innermost axis outwards, and whole lines of memory at least.

    The innermost axis gets what its size hint asks for; the rows what is left of the tile. What is held whole takes
    room only from axes that one value extends over beside it.

    Neighbours in memory of anything that is read or written get a line of it first. Prefixes of several components are
    that many tiles at once.
    """
    carried = max((len(v.args) for v in every_value(k.kernel) if isinstance(v, tile.Scan)), default=1)
    room = (_INTERPRETED if k.target.vendor == "cpu" else _TILE) // power(carried)
    whole = {a.name: power(k.context.size(a.axes[0])) for a in k.kernel.whole if k.given(a) is None}
    blocks: dict[str, Block] = {}
    if k.crossed:  # what is read of one side at few positions is used for all of the other
        return {a.role: Block(1, max(1, room // _TILE) if a.role == "inner" else _CROSS) for a in k.axes}

    def beside(a: TileAxis) -> int:
        """The positions of what is held whole beside those of an axis."""
        return max(
            (prod([whole.get(x, 1) for x in axes]) for axes in k.occupancy.computed if a.name in axes), default=1
        )

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
            continue
        left = max(room // prod(lines.values()) // beside(a), line, 1)
        widest = min(left, _WIDEST.get(a.role, left) if len(axes) > 1 else left)
        widest = min(widest, _SEGMENT) if a.name in short else widest
        cap = max(1, min(k.hints[a.name], widest) if a is not axes[-1] else widest)
        blocks[a.role] = Block(1, cap)
        room = max(1, room // cap)
    return blocks
