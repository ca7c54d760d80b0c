"""Give every blocked tile axis its range of sizes.

    axis t[?]   -->   axis t[least .. cap]

The launcher takes the next power of two of the extent within that range, so that a small extent wastes little and a
change of length seldom needs another compilation. Contractions take the target's tile for its matrix units, at least 16
a side; everything else fills the target's tile from the innermost axis outwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product as choices
from math import prod

from einc import tile
from einc.base.targets import Target
from einc.codegen.triton.contracted import LEAST, least_inner
from einc.codegen.triton.occupancy import largest, products, registers, results, shared
from einc.pipeline import Context
from einc.tile import UNSIZED, WHOLE, Block, TileAxis
from einc.tile.blocks import power
from einc.tile.typing import multiplied
from einc.tile.walk import Scope, lets, rewritten, tile_axes, values_in

_HALF = 64  # rows and columns where dots follow each other; two bytes each are a swizzled row
_CHAINED = ((64, 4), (32, 8), (16, 8))  # rows and warps where dots follow each other: Hopper's, then earlier ones
_EXACT = ((64, 8), (32, 8), (16, 8))  # the same where all of them go through vector units
_MOST_PRODUCTS = 512  # of a thread in a dot on vector units, before CUDA 12.8's assembler spills
_MOST_ALONE = 2048  # the same where no other dot follows
_CROSSED = 1 << 13  # elements of the largest value that is computed beside the dots, where those have a batch axis
_COMPUTED = 1 << 15  # elements of the largest value computed beside dots in a loop; more take minutes to assemble
_PRODUCTS = ((128, 256, 8), (128, 128, 8), (64, 128, 4), (64, 64, 4))  # rows, columns, warps; fastest first
_TILE = 4096  # elements of a tile value where nothing is multiplied
_DOT = (128, 128, 64)  # rows, columns and inner length of a dot on matrix units
_SHORT = ("sm_80", "gfx942")  # targets with half the inner length, whose shared memory is smaller
_INTERPRETED = (1 << 18, (256, 256, 256))  # the same two where each operation costs, however large its tile
_FILLED = 256  # programs that keep a machine busy to the end
_WIDEST = {"column": 1024, "reduced": 1024}


@dataclass(frozen=True, slots=True)
class _Tiles:
    """The sizes of a kernel's axes by role, its warps, and the blocks in flight."""

    blocks: dict[str, Block]
    warps: int
    stages: int = 3


def choose_tiles(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its tile sizes."""
    dots = [v for v in values_in(kernel.body) if isinstance(v, tile.Dot)]
    chosen = _dot_tiles(kernel, dots, context) if dots else _Tiles(_plain_blocks(kernel, context), 4)
    crossed = {x for d in dots for x in (d.row, d.column, d.inner)}
    wide = _columns_of_chains(kernel, dots) if context.target.vendor == "cuda" else frozenset()

    def axis(a: TileAxis) -> TileAxis:
        if a.block != UNSIZED:
            return a
        block = chosen.blocks[a.role]
        if dots and a.name not in crossed:
            block = replace(block, least=1)
        if a.name in wide:
            block = replace(block, least=min(max(block.least, _HALF), block.cap))
        return replace(a, block=block)

    def sized(s: tile.Statement, _: Scope) -> tuple[tile.Statement, ...]:
        return (replace(s, axis=axis(s.axis)) if isinstance(s, tile.Loop) else s,)

    grid, whole = tuple(axis(a) for a in kernel.grid), tuple(axis(a) for a in kernel.whole)
    made = replace(kernel, grid=grid, whole=whole, body=rewritten(kernel.body, sized))
    return replace(made, warps=chosen.warps, stages=chosen.stages)


def _dot_tiles(kernel: tile.Kernel, dots: list[tile.Dot], context: Context) -> _Tiles:
    """A tile for the target's matrix units.

    Where one dot's result is an operand of another along the walked axis, half the rows and columns keep both results
    in registers, and leave room for a second program that multiplies while this one takes exponentials.
    """
    axes = tile_axes(kernel)
    types = [t for _, t in multiplied(kernel)]
    least, widest = max(map(least_inner, types)), max(t.size for t in types)
    narrow = context.target.vendor == "cuda" and widest <= 2
    if any(d.batch for d in dots) and context.target.vendor != "cpu":
        return _batched(kernel, context, least)
    walked = {a.name for a in axes.values() if a.role == "reduced"}
    chained = walked & {d.inner for d in dots} and walked & {x for d in dots for x in (d.row, d.column)}
    if chained and context.target.vendor == "cuda" and widest <= 4:
        return _cut(_chained(kernel, context, least), kernel, context, least)
    blocks = _dot_blocks(kernel, context, least, widest)
    if not narrow or len(dots) > 1 or dots[0].inner not in walked or not _is_copied(kernel, dots[0]):
        return _fitted(_Tiles(blocks, 8), kernel, context, least)
    length = _largest_dot(context.target)[2]
    fitting = [t for t in _PRODUCTS if (t[0] + t[1]) * length * 2 * kernel.stages <= context.target.shared]
    filling = [t for t in fitting if _programs(kernel, context, {"row": t[0], "column": t[1]}) >= _FILLED]
    rows, columns, warps = (filling or fitting[-1:])[0]
    sizes = {"row": Block(LEAST, rows), "column": Block(LEAST, columns), "reduced": Block(least, length)}
    return _Tiles(blocks | sizes, warps)


def _chained(kernel: tile.Kernel, context: Context, least: int) -> _Tiles:
    """Tiles of dots that follow each other: the most rows that registers hold, then blocks that shared memory does.

    Four bytes go through vector registers, with half as long a block, and a step less in flight.
    """
    types = [t.size for _, t in multiplied(kernel)]
    inner, stages = (_HALF, 3) if max(types) <= 2 else (_HALF // 2, 2)
    whole = {"reduced": Block(least, max(inner, least)), "whole": Block(least, WHOLE)}
    for rows, warps in _CHAINED if min(types) <= 2 else _EXACT:
        blocks = {"row": Block(LEAST, rows), "column": Block(LEAST, inner)}
        tiles = _Tiles(blocks | whole, warps, stages)
        if _is_held(tiles, kernel, context):
            break
    widths = [power(prod(context.size(x) for x in a.axes)) for a in kernel.whole]
    held = rows * max(widths, default=_HALF)
    while (stages * inner * sum(widths) + held) * max(types) > context.target.shared and inner > least:
        inner, stages = (inner, 2) if stages > 2 else (inner // 2, 2)
    cut = {"reduced": Block(least, max(inner, least))}
    return replace(tiles, blocks=tiles.blocks | cut, stages=stages)


def _is_held(tiles: _Tiles, kernel: tile.Kernel, context: Context) -> bool:
    """Whether the registers of its warps, eight have all, hold what is live, and a quarter of them the rest."""
    sizes = _sizes(tiles, kernel, context)
    room = context.target.registers * tiles.warps // 8 * 3 // 4
    return registers(kernel, sizes) <= room and products(kernel, sizes, tiles.warps) <= _MOST_PRODUCTS


def _batched(kernel: tile.Kernel, context: Context, least: int) -> _Tiles:
    """Tiles of dots at every position of a tile axis: the most rows, and then the most of the walked axis, that leave
    what all dots make a quarter of the registers, and what they take an eighth of shared memory."""
    found = _Tiles({}, 8)
    for rows, stages, inner in choices((_HALF, _HALF // 2, LEAST), (2, 1), (_HALF, _HALF // 2, least)):
        blocks = {role: Block(LEAST, rows) for role in ("row", "column")}
        blocks |= {"reduced": Block(least, inner), "whole": Block(LEAST, WHOLE)}
        sizes = _sizes(_Tiles(blocks, 8), kernel, context)
        held = results(kernel, sizes)
        found = _Tiles(blocks, 4 if held <= context.target.registers // 8 else 8, stages)
        room = held <= context.target.registers * 3 // 4 and largest(kernel, sizes) <= _CROSSED
        if room and shared(kernel, sizes, stages, found.warps) <= context.target.shared * 7 // 8:
            break
    return found


def _fitted(tiles: _Tiles, kernel: tile.Kernel, context: Context, least: int) -> _Tiles:
    """Tiles cut to the room that what is held whole leaves; rows first, until states leave 3/8 of the registers."""
    row = tiles.blocks["row"]
    while row.cap > LEAST:
        sizes = _sizes(replace(tiles, blocks=tiles.blocks | {"row": row}), kernel, context)
        held = registers(kernel, sizes) <= context.target.registers * 5 // 8
        if held and (context.target.vendor != "cuda" or products(kernel, sizes, tiles.warps) <= _MOST_ALONE):
            break
        row = replace(row, cap=row.cap // 2)
    return _cut(replace(tiles, blocks=tiles.blocks | {"row": row}), kernel, context, least)


def _sizes(tiles: _Tiles, kernel: tile.Kernel, context: Context) -> dict[str, int]:
    """The positions of a tile along each of its axes, by the hints."""
    found = {}
    for a in tile_axes(kernel).values():
        cap = 1 if a.block is None else tiles.blocks[a.role].cap if a.block == UNSIZED else a.block.cap
        found[a.name] = min(cap, power(prod(context.size(x) for x in a.axes)))
    return found


def _cut(tiles: _Tiles, kernel: tile.Kernel, context: Context, least: int) -> _Tiles:
    """Stages, the inner length, rows and columns cut until what dots read fits in shared memory, and what is computed
    in registers."""
    narrow = context.target.vendor == "cuda" and _columns_of_chains(kernel, [d for d, _ in multiplied(kernel)])
    floors = {"reduced": least, "row": LEAST, "column": _HALF if narrow else LEAST}

    def is_wide() -> bool:
        sizes = _sizes(tiles, kernel, context)
        return context.target.vendor != "cpu" and largest(kernel, sizes, walked=True) > _COMPUTED

    def taken(t: _Tiles) -> int:
        return shared(kernel, _sizes(t, kernel, context), t.stages, t.warps)

    while (wide := is_wide()) or taken(tiles) > context.target.shared:
        fewer = replace(tiles, stages=tiles.stages - 1)
        smaller = {role: _halved(tiles, role) for role, floor in floors.items() if tiles.blocks[role].cap > floor}
        if tiles.stages > 2 and not wide:
            tiles = fewer
        elif "reduced" in smaller:
            tiles = smaller["reduced"]
        elif smaller:
            tiles = min(smaller.values(), key=taken)
        elif tiles.stages > 1 and not wide and taken(fewer) > context.target.shared:
            tiles = fewer  # with few rows, operands of one stage are in registers
        else:
            break
    return tiles


def _halved(tiles: _Tiles, role: str) -> _Tiles:
    """The tiles with half the positions along the axes of a role."""
    block = tiles.blocks[role]
    return replace(tiles, blocks=tiles.blocks | {role: replace(block, cap=block.cap // 2)})


def _columns_of_chains(kernel: tile.Kernel, dots: list[tile.Dot]) -> frozenset[str]:
    """The columns of what computed values of two bytes are multiplied with, after another dot.

    Their tile gets whole swizzled rows. With narrower ones, CUDA 12.8's assembler may address it by a register that
    nothing wrote, where the tile lies at the address of an earlier one with wider rows: results are then random.
    """
    if len(dots) < 2:
        return frozenset()
    return frozenset(d.column for d, t in multiplied(kernel) if t.size <= 2 and not _is_copied(kernel, d))


def _is_copied(kernel: tile.Kernel, dot: tile.Dot) -> bool:
    """Whether a dot's operands are as they lie in memory."""
    loaded = {name for s in lets(kernel.body) if isinstance(s.value, tile.Load) for name in s.names}
    return all(isinstance(x, tile.Ref) and x.name in loaded for x in (dot.left, dot.right))


def _programs(kernel: tile.Kernel, context: Context, blocks: dict[str, int]) -> int:
    """The programs of the grid with blocks of these sizes."""
    return prod(-(-prod(context.size(x) for x in a.axes) // blocks.get(a.role, 1)) for a in kernel.grid)


def _dot_blocks(kernel: tile.Kernel, context: Context, least: int, widest: int) -> dict[str, Block]:
    """The target's tile, its inner length cut until the operands of every stage fit in half of shared memory.

    On NVIDIA's vector units, where f32 and f64 are multiplied exactly, an inner length beyond 128 bytes spills.
    """
    rows, columns, inner = _largest_dot(context.target)
    if widest == 8:
        rows, columns = rows // 2, columns // 2
    if widest >= 4 and context.target.vendor == "cuda":
        inner = min(inner, 128 // widest)
    while inner > least and (rows + columns) * inner * widest * kernel.stages > context.target.shared // 2:
        inner //= 2
    return {
        "row": Block(LEAST, rows),
        "column": Block(LEAST, columns),
        "reduced": Block(least, max(inner, least)),
        "whole": Block(least, WHOLE),
    }


def _largest_dot(target: Target) -> tuple[int, int, int]:
    if target.vendor == "cpu":
        return _INTERPRETED[1]
    rows, columns, inner = _DOT
    return rows, columns, inner // 2 if target.name in _SHORT else inner


def _largest_tile(target: Target) -> int:
    return _INTERPRETED[0] if target.vendor == "cpu" else _TILE


def _plain_blocks(kernel: tile.Kernel, context: Context) -> dict[str, Block]:
    """The innermost axis gets what its size hint asks for; the rows what is left of the tile.

    Prefixes of several components are that many tiles at once.
    """
    carried = max((len(v.args) for v in values_in(kernel.body) if isinstance(v, tile.Scan)), default=1)
    room = _largest_tile(context.target) // power(carried)
    blocks: dict[str, Block] = {}
    axes = sorted(
        tile_axes(kernel).values(), key=lambda a: ("whole", "reduced", "column", "row", "batch").index(a.role)
    )
    for a in axes:
        if a.block != UNSIZED:
            room = max(1, room // (a.block.cap if a.block else 1))
            continue
        if a.role == "whole":
            blocks[a.role] = Block(1, WHOLE)
            room = max(1, room // power(context.size(a.axes[0])))
            continue
        hint = power(prod(context.size(x) for x in a.axes))
        widest = min(room, _WIDEST.get(a.role, room) if len(axes) > 1 else room)
        cap = max(1, min(hint, widest) if a is not axes[-1] else widest)
        blocks[a.role] = Block(1, cap)
        room = max(1, room // cap)
    return blocks
