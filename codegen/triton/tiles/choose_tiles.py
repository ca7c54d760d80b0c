"""Give every blocked tile axis its range of sizes.

    axis t[?]   -->   axis t[least .. cap]

The launcher takes the next power of two of the extent within that range, so that a small extent wastes little and a
change of length seldom needs another compilation. Contractions take the target's tile for its matrix units, at least 16
a side; everything else fills the target's tile from the innermost axis outwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from einc import tile
from einc.base.targets import Target
from einc.codegen.triton.contracted import LEAST, least_inner
from einc.codegen.triton.tiles.batched import batched
from einc.codegen.triton.tiles.occupancy import MOST_PRODUCTS, Extents, stages_needed
from einc.codegen.triton.tiles.plain import plain_tiles
from einc.codegen.triton.tiles.products import fastest
from einc.codegen.triton.tiles.sizing import Sizing, Tiles
from einc.codegen.triton.tiles.stepped import ahead, stepped
from einc.pipeline import Context
from einc.tile import WHOLE, Block, TileAxis
from einc.tile.asked import counts_asked, tiles_asked
from einc.tile.choices import FOLDS_EARLY
from einc.tile.typing import multiplied
from einc.tile.walk import tile_axes

_HALF = 64  # rows and columns where dots follow each other; two bytes each are a swizzled row
# rows, warps, and parts of the longest block where dots follow each other: Hopper's, then those of earlier ones
_CHAINED = ((64, 4, 1), (64, 4, 2), (32, 8, 1), (16, 8, 1))
# rows, walked, warps and stages where more than two follow, and the eighths of the registers that results may take
_SEVERAL = ((64, 64, 4, 3, 5), (128, 64, 8, 3, 5), (64, 64, 4, 2, 6), (64, 32, 4, 3, 5), (128, 64, 8, 2, 5))
_UNMASKED, _MASKED, _CLEARED = 8, 5, 4  # eighths that masks leave, and sides that go through registers to be cleared
_WARPS = 8  # that keep a multiprocessor's matrix units busy
_EXACT = ((64, 8, 1), (32, 8, 1), (16, 8, 1))  # the same where all of them go through vector units
_MOST_ALONE = 2048  # products of a thread where no other dot follows, and none computes its right side
_COMPUTED = 1 << 15  # elements of the largest value computed beside dots in a loop; more take minutes to assemble
_PRODUCTS = ((128, 256, 8), (128, 128, 8), (64, 128, 4), (64, 64, 4))  # rows, columns, warps; fastest first
_DOT = (128, 128, 64)  # rows, columns and inner length of a dot on matrix units
_INTERPRETED = (256, 256, 256)  # the same where each operation costs, however large its tile
_SHORT = ("sm_80", "gfx942")  # targets with half the inner length, whose shared memory is smaller
_FILLED = 256  # programs that keep a machine busy to the end


def choose_tiles(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its tile sizes: those that are asked for, and the others to suit them."""
    k = Sizing(_as_asked(kernel, context), context)
    tiles = _dot_tiles(k) if k.dots else plain_tiles(k)
    folds = tiles.folds or k.folds or FOLDS_EARLY if k.waiting else ""
    sizes = {a.name: _block(k, a, tiles) for a in k.axes if k.given(a) is None}
    counts = {"warps": tiles.warps, "stages": tiles.stages} | counts_asked(context.choices, kernel, "warps", "stages")
    if context.target.vendor == "cpu":
        counts |= counts_asked(context.choices, kernel, "box", "workers")  # of what torch computes of the tiles
    return kernel.choosing(replace(k.kernel.choices.sized(sizes).counted(counts), folds=folds))


def _as_asked(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with those sizes that are asked for, as far as dots can have them; what is held whole has none."""
    floors: dict[str, int] = {}
    for d, t in multiplied(kernel):
        floors |= {a: max(floors.get(a, LEAST), LEAST) for a in (d.row, d.column)}
        floors[d.inner] = max(floors.get(d.inner, LEAST), least_inner(t))
    roles = {name: a.role for name, a in tile_axes(kernel).items()}
    sizes = {
        a: Block(max(b.least, floors.get(a, 1)), max(b.cap, floors.get(a, 1)))
        for a, b in tiles_asked(context.choices, kernel).items()
        if roles[a] != "whole"
    }
    return kernel.choosing(kernel.choices.sized(sizes))


def _block(k: Sizing, a: TileAxis, tiles: Tiles) -> Block:
    """The size along an axis."""
    block = tiles.blocks[a.role]
    if k.dots and a.name not in {x for d in k.dots for x in (d.row, d.column, d.inner)}:
        block = replace(block, least=1)
    if a.name in k.columns_of_chains:
        block = replace(block, least=min(max(block.least, _HALF), block.cap))
    return block


def _floor(k: Sizing, role: str) -> int:
    """The fewest positions that tiles are cut to along the axes of a role; matrix units find those of a walk by
    descriptors from Hopper on."""
    across = role in ("row", "column")
    if (across or k.target.has_descriptors) and any(a.role == role and a.name in k.columns_of_chains for a in k.axes):
        return _HALF
    return LEAST if across else k.least


# ---------------------------------------------------------------------------------------------------------------------
# Contractions


def _dot_tiles(k: Sizing) -> Tiles:
    """A tile for the target's matrix units.

    Where one dot's result is an operand of another along the walked axis, half the rows and columns keep both results
    in registers, and leave room for a second program that multiplies while this one takes exponentials.
    """
    widest = max(t.size for _, t in k.multiplied)
    if any(d.batch for d in k.dots) and k.target.vendor != "cpu":
        return batched(k)
    if k.on_cuda and widest <= 2 and k.steps and (busy := _busy(k)) is not None:
        return ahead(busy, k)
    if k.steps and k.target.vendor != "cpu":
        return ahead(stepped(k), k)
    if k.is_ranked:
        return _ranked(k)
    walked = {a.name for a in k.axes if a.role == "reduced"}
    return _streaming(_of_dots(k, widest, walked, k.is_product), k)


def _of_dots(k: Sizing, widest: int, walked: set[str], is_product: bool) -> Tiles:
    """Tiles of any dots: of a single product of tensors, of dots that follow each other, and of all others."""
    chained = walked & {d.inner for d in k.dots} and walked & {x for d in k.dots for x in (d.row, d.column)}
    if chained and k.on_cuda and widest <= 4:
        return _two(_cut(_chained(k), k), k)
    blocks = _dot_blocks(k, widest)
    if k.within & {d.inner for d in k.dots}:
        return _nested(k, blocks, widest)
    found = _product(k, blocks) if is_product and widest <= 2 else None
    return found or _fitted(Tiles(blocks, 8), k)


def _nested(k: Sizing, blocks: dict[str, Block], widest: int) -> Tiles:
    """Tiles of dots that a loop within the walk sums up: along the walked axis they have columns, no inner length.

    The widest tile of a single product comes first: what is read of both sides is least for each result, which then
    stays in registers while what the walk makes of it takes its place.
    """
    walked = {a.name for a in k.axes if a.role == "reduced"}
    if walked & {d.inner for d in k.dots}:
        return _fitted(Tiles(blocks, 8), k)
    blocks = blocks | {"reduced": Block(LEAST, blocks["column"].cap)}
    if k.on_cuda and widest <= 2 and len(k.dots) == 1 and k.is_copied(k.dots[0]):
        rows, columns, warps = _PRODUCTS[0]
        wide = Tiles(blocks | {"row": Block(LEAST, rows), "reduced": Block(LEAST, columns)}, warps)
        if _fitted(wide, k) == wide:
            return wide
    return _fitted(Tiles(blocks, 8), k)


def _product(k: Sizing, blocks: dict[str, Block]) -> Tiles | None:
    """The fastest tile of a single product of two tensors that fills the machine, and fits in shared memory, if any."""
    length, stages = _largest_dot(k.target)[2], k.kernel.choices.stages
    fitting = [t for t in _PRODUCTS if (t[0] + t[1]) * length * 2 * stages <= k.target.shared]
    if not fitting:
        return None
    filling = [t for t in fitting if k.programs({"row": t[0], "column": t[1]}) >= _FILLED]
    rows, columns, warps = (filling or fitting[-1:])[0]
    sizes = {"row": Block(LEAST, rows), "column": Block(LEAST, columns), "reduced": Block(k.least, length)}
    return Tiles(blocks | sizes, warps)


def _ranked(k: Sizing) -> Tiles:
    """The tiles of a single product that take the least time."""
    found = fastest(k.product, k.target, k.kernel.choices.parts if k.kernel.parts_of else 1)
    blocks = {"row": Block(LEAST, found.rows), "column": Block(LEAST, found.columns)}
    return Tiles(blocks | {"reduced": Block(k.least, max(found.inner, k.least))}, found.warps, found.stages)


def _chained(k: Sizing) -> Tiles:
    """Tiles of dots that follow each other: the most rows that registers hold, then blocks that shared memory does.

    Four bytes go through vector registers, with half as long a block, and a step less in flight.
    """
    types, least = [t.size for _, t in k.multiplied], k.least
    if max(types) <= 2 and len(k.dots) > 2 and (busy := _busy(k)) is not None:
        return busy
    longest, stages = (_HALF, 3) if max(types) <= 2 else (_HALF // 2, 2)
    shortest = max(_floor(k, "reduced"), _floor(k, "inner"))
    for rows, warps, parts in _EXACT if min(types) > 2 and k.occupancy.exact else _CHAINED:
        inner = max(longest // parts, shortest)
        blocks = {"row": Block(LEAST, rows), "column": Block(LEAST, longest)}
        whole = {role: Block(least, max(inner, least)) for role in ("reduced", "inner")}
        tiles = Tiles(blocks | whole | {"whole": Block(least, WHOLE)}, warps, stages)
        if _is_held(tiles, k):
            break
    widths = [k.hints[a.name] for a in k.kernel.whole]
    held = rows * max(widths, default=_HALF)
    while (stages * inner * sum(widths) + held) * max(types) > k.target.shared and inner > shortest:
        inner, stages = (inner, 2) if _is_cut_later(k, inner, stages) else (inner // 2, stages)
    cut = {role: Block(least, max(inner, least)) for role in ("reduced", "inner")}
    return replace(tiles, blocks=tiles.blocks | cut, stages=stages)


def _busy(k: Sizing) -> Tiles | None:
    """Tiles of three dots or more, with which a multiprocessor has enough warps and each its registers; None for none.

    Results and states of so many dots leave room for few programs, and a single one of four warps waits for itself.
    """
    crowded = _several(k, k.occupancy.crowded, _CLEARED) if k.occupancy.clears else None
    return crowded or _several(k, k.occupancy.results, _MASKED if k.masked else _UNMASKED)


def _several(k: Sizing, taken: Callable[[Extents], int], most: int) -> Tiles | None:
    """The first of such tiles that leave registers enough, of which so many eighths may be taken at most."""
    target = k.target
    for rows, inner, warps, stages, share in _SEVERAL:
        blocks = {"row": Block(LEAST, rows), "column": Block(LEAST, _HALF)}
        blocks |= {role: Block(k.least, max(inner, k.least)) for role in ("reduced", "inner")}
        blocks |= {"whole": Block(k.least, WHOLE)}
        sizes = k.sizes(blocks)
        tiles = Tiles(blocks, warps, stages)
        room = target.registers * warps // 8
        fits = taken(sizes) <= room * min(share, most) // 8 and k.at_once(tiles) * warps >= _WARPS
        if fits and k.warps(tiles) == warps and inner >= max(_floor(k, "reduced"), _floor(k, "inner")):
            return tiles
    return None


def _two(tiles: Tiles, k: Sizing) -> Tiles:
    """The tiles with a stage less where that lets two programs run at once, and one has too few warps to be alone."""
    fewer = replace(tiles, stages=tiles.stages - 1)
    alone = tiles.warps < _WARPS and tiles.stages > 2 and k.at_once(tiles) == 1
    return fewer if alone and k.at_once(fewer) > 1 else tiles


def _is_held(tiles: Tiles, k: Sizing) -> bool:
    """Whether the registers of its warps, eight have all, hold what is live, and a quarter of them the rest."""
    sizes = k.sizes(tiles.blocks)
    room = k.target.registers * k.warps(tiles) // 8 * 3 // 4
    return k.occupancy.registers(sizes) <= room and k.occupancy.products(sizes, tiles.warps) <= MOST_PRODUCTS


def _fitted(tiles: Tiles, k: Sizing) -> Tiles:
    """Tiles cut to the room that what is held whole leaves; rows first, until states leave 3/8 of the registers."""
    row, most = tiles.blocks["row"], MOST_PRODUCTS if k.computes else _MOST_ALONE
    while row.cap > LEAST:
        sizes = k.sizes(tiles.blocks | {"row": row})
        held = k.occupancy.registers(sizes) <= k.target.registers * 5 // 8
        if held and (not k.on_cuda or k.occupancy.products(sizes, tiles.warps) <= most):
            break
        row = replace(row, cap=row.cap // 2)
    return _spread(_cut(replace(tiles, blocks=tiles.blocks | {"row": row}), k), k)


def _spread(tiles: Tiles, k: Sizing) -> Tiles:
    """Tiles of fewer rows and columns, the more there are the sooner, while most processors have no program."""
    count = {role: prod(k.hints[a.name] for a in k.axes if a.role == role) for role in ("row", "column")}
    for role in sorted(count, key=lambda r: -count[r]):
        while k.on_cuda and role in tiles.blocks and tiles.blocks[role].cap > _HALF:
            programs = k.programs({r: b.cap for r, b in tiles.blocks.items()}) * k.kernel.choices.parts
            if 2 * programs > k.target.rates.processors:
                break
            tiles = _halved(tiles, role)
    return tiles


def _cut(tiles: Tiles, k: Sizing) -> Tiles:
    """Stages, the inner length, rows and columns cut until what dots read fits in shared memory, and what is computed
    in registers."""
    floors = {role: _floor(k, role) for role in ("reduced", "inner", "row", "column")}

    def is_wide() -> bool:
        return k.target.vendor != "cpu" and k.occupancy.largest(k.sizes(tiles.blocks), walked=True) > _COMPUTED

    def taken(t: Tiles) -> int:
        return k.occupancy.shared(k.sizes(t.blocks), t.stages, t.warps)

    while (wide := is_wide()) or taken(tiles) > k.target.shared:
        fewer = replace(tiles, stages=tiles.stages - 1)
        smaller = {role: _halved(tiles, role) for role, floor in floors.items() if tiles.blocks[role].cap > floor}
        if not wide and _is_cut_later(k, tiles.blocks["reduced"].cap, tiles.stages):
            tiles = fewer
        elif (length := "inner" if k.within and not wide else "reduced") in smaller:
            tiles = smaller[length]
        elif smaller:
            tiles = min(smaller.values(), key=taken)
        elif tiles.stages > 1 and not wide and taken(fewer) > k.target.shared:
            tiles = fewer  # with few rows, operands of one stage are in registers
        else:
            break
    return tiles


def _is_cut_later(k: Sizing, inner: int, stages: int) -> bool:
    """Are blocks of this length cut after stages? With two stages three dots are slower than with half of it."""
    return stages > 2 and not (len(k.dots) > 2 and inner == _HALF)


def _halved(tiles: Tiles, role: str) -> Tiles:
    """The tiles with half the positions along the axes of a role."""
    block = tiles.blocks[role]
    return replace(tiles, blocks=tiles.blocks | {role: replace(block, cap=block.cap // 2)})


def _dot_blocks(k: Sizing, widest: int) -> dict[str, Block]:
    """The target's tile, its inner length cut until the operands of every stage fit in half of shared memory.

    On NVIDIA's vector units, where f32 and f64 are multiplied exactly, an inner length beyond 128 bytes spills, and one
    beyond half of that where the right side is computed.
    """
    rows, columns, inner = _largest_dot(k.target)
    if widest == 8:
        rows, columns = rows // 2, columns // 2
    if widest >= 4 and k.on_cuda:
        inner = min(inner, (64 if k.computes else 128) // widest)
    while inner > k.least and (rows + columns) * inner * widest * k.kernel.choices.stages > k.target.shared // 2:
        inner //= 2
    return {
        "row": Block(LEAST, rows),
        "column": Block(LEAST, columns),
        "reduced": Block(k.least, max(inner, k.least)),
        "inner": Block(k.least, max(inner, k.least)),
        "whole": Block(k.least, WHOLE),
    }


def _largest_dot(target: Target) -> tuple[int, int, int]:
    if target.vendor == "cpu":
        return _INTERPRETED
    rows, columns, inner = _DOT
    return rows, columns, inner // 2 if target.name in _SHORT else inner


def _streaming(tiles: Tiles, k: Sizing) -> Tiles:
    """Tiles with as many stages as memory needs, where few rows are all there are: each program has its own bytes."""
    sizes = k.sizes(tiles.blocks)
    rows = [a.name for a in k.kernel.grid if a.role == "row"]
    is_thin = all(k.hints[a] <= sizes[a] for a in rows) and all(sizes[d.row] <= LEAST for d in k.dots)
    if not (is_thin and k.on_cuda):
        return tiles
    rate = min(k.target.dot_rate(t) for _, t in k.multiplied)
    programs = k.programs({role: b.cap for role, b in tiles.blocks.items()})
    needed = stages_needed(k.occupancy, sizes, tiles.warps, tiles.stages, k.target, rate, programs)
    return replace(tiles, stages=needed)
