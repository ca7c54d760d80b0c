"""Tiles of dots at each position of a walk, none of whose operands stay from one to the next."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as combinations
from math import prod

from einc.codegen.triton.contracted import LEAST
from einc.codegen.triton.tiles.occupancy import MOST_PRODUCTS
from einc.codegen.triton.tiles.sizing import Sizing, Tiles
from einc.tile import WHOLE, Block
from einc.tile.walk import loops

_STEPPED = ((128, 64, 8), (64, 64, 4), (64, 32, 4), (32, 32, 4), (16, 16, 4))  # rows, columns, warps; fastest first
_WARPS = 8  # of dots on vector units


def stepped(k: Sizing) -> Tiles:
    """Tiles of dots at each position of a walk, none of whose operands stay from one to the next: the most rows and
    columns for which all of them fit in shared memory, since each is read so much less often, and then the most stages.
    """
    exact = bool(k.occupancy.exact) and k.on_cuda
    for (rows, columns, warps), stages in combinations(_STEPPED, (3, 2, 1)):
        blocks = {"row": Block(LEAST, rows), "column": Block(LEAST, columns)}
        blocks |= {"reduced": Block(1, 1), "whole": Block(k.least, WHOLE)}
        tiles = Tiles(blocks, _WARPS if exact else warps, stages)
        sizes = k.sizes(blocks)
        held = k.occupancy.registers(sizes) <= k.target.registers * tiles.warps // 8 * 3 // 4
        held = held and not (exact and k.occupancy.products(sizes, tiles.warps) > MOST_PRODUCTS)
        if held and k.occupancy.shared(sizes, stages, tiles.warps) <= k.target.shared:
            break
    return tiles


def ahead(tiles: Tiles, k: Sizing) -> Tiles:
    """The tiles with stages for half of the steps, if these are few: others take the room of further programs.

    With a single stage loads go through registers, which further dots than two have no room for.
    """
    walks = [s for s in loops(k.kernel.body) if not s.axis.blocked]
    longest = max(prod(k.context.size(a) for a in s.axis.axes) for s in walks)
    return replace(tiles, stages=min(tiles.stages, max(longest // 2, 1 if len(k.dots) <= 2 else 2)))
