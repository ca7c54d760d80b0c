"""Tiles of dots at every position of a tile axis."""

from __future__ import annotations

from itertools import product as combinations

from einc.codegen.triton.contracted import LEAST
from einc.codegen.triton.tiles.sizing import Sizing, Tiles
from einc.tile import WHOLE, Block

_HALF = 64  # rows and columns
_CROSSED = 1 << 13  # elements of the largest value that is computed beside the dots, where those have a batch axis


def batched(k: Sizing) -> Tiles:
    """Tiles of dots at every position of a tile axis: the most rows, and then the most of the walked axis, that leave
    what all dots make a quarter of the registers, and what they take an eighth of shared memory."""
    found, least = Tiles({}, 8), k.least
    for rows, stages, inner in combinations((_HALF, _HALF // 2, LEAST), (2, 1), (_HALF, _HALF // 2, least)):
        blocks = {role: Block(LEAST, rows) for role in ("row", "column")}
        blocks |= {"reduced": Block(least, inner), "inner": Block(least, inner), "whole": Block(LEAST, WHOLE)}
        sizes = k.sizes(blocks)
        held = k.occupancy.results(sizes)
        found = Tiles(blocks, 4 if held <= k.target.registers // 8 else 8, stages)
        room = k.occupancy.operated(sizes) < k.target.registers * 3 // 4 and k.occupancy.largest(sizes) <= _CROSSED
        if room and k.occupancy.shared(sizes, stages, found.warps) <= k.target.shared * 7 // 8:
            break
    return found
