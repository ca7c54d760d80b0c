"""Give every blocked tile axis its range of sizes.

    axis t[?]   -->   axis t[least .. cap]

The launcher takes the next power of two of the extent within that range, so that a small extent wastes little and a
change of length seldom needs another compilation. Contractions take the target's tile for its matrix units, at least 16
a side; everything else fills the target's tile from the innermost axis outwards.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from einc import tile
from einc.pipeline import Context
from einc.tile import WHOLE, Block, TileAxis

_LEAST_DOT = 16
_WIDEST = {"column": 1024, "reduced": 1024}


def choose_tiles(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its tile sizes."""
    dots = [v for v in tile.values_in(kernel.body) if isinstance(v, tile.Dot)]
    blocks = _dot_blocks(kernel, context) if dots else _plain_blocks(kernel, context)

    def axis(a: TileAxis) -> TileAxis:
        return a if a.block is None else replace(a, block=blocks[a.role])

    def body(statements: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
        return tuple(
            replace(s, axis=axis(s.axis), body=body(s.body)) if isinstance(s, tile.Loop) else s for s in statements
        )

    grid, whole = tuple(axis(a) for a in kernel.grid), tuple(axis(a) for a in kernel.whole)
    return replace(kernel, grid=grid, whole=whole, body=body(kernel.body), warps=8 if dots else 4)


def _dot_blocks(kernel: tile.Kernel, context: Context) -> dict[str, Block]:
    """The target's tile, its inner length cut until the operands of every stage fit in half of shared memory.

    On NVIDIA's vector units, where f32 and f64 are multiplied exactly, an inner length beyond 128 bytes spills.
    """
    rows, columns, inner = context.target.dot
    operands = [v.dtype for v in tile.values_in(kernel.body) if isinstance(v, tile.Load)]
    widest = max((t.size for t in operands), default=4)
    if widest == 8:
        rows, columns = rows // 2, columns // 2
    if widest >= 4 and context.target.vendor == "cuda":
        inner = min(inner, 128 // widest)
    least = max((context.target.least_inner(t) for t in operands), default=_LEAST_DOT)
    while inner > least and (rows + columns) * inner * widest * kernel.stages > context.target.shared // 2:
        inner //= 2
    return {
        "row": Block(_LEAST_DOT, rows),
        "column": Block(_LEAST_DOT, columns),
        "reduced": Block(least, max(inner, least)),
        "whole": Block(least, WHOLE),
    }


def _plain_blocks(kernel: tile.Kernel, context: Context) -> dict[str, Block]:
    """The innermost axis gets what its size hint asks for; the rows what is left of the tile."""
    room = context.target.tile
    blocks: dict[str, Block] = {}
    axes = sorted(
        tile.tile_axes(kernel).values(), key=lambda a: ("whole", "reduced", "column", "row", "batch").index(a.role)
    )
    for a in axes:
        if a.block is None:
            continue
        if a.role == "whole":
            blocks[a.role] = Block(1, WHOLE)
            room = max(1, room // _power(context.size(a.axes[0])))
            continue
        hint = _power(prod(context.size(x) for x in a.axes))
        widest = min(room, _WIDEST.get(a.role, room) if len(axes) > 1 else room)
        cap = max(1, min(hint, widest) if a is not axes[-1] else widest)
        blocks[a.role] = Block(1, cap)
        room = max(1, room // cap)
    return blocks


def _power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()
