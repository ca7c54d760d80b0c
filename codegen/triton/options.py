"""Options of a launch that are not Triton's defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from einc import tile
from einc.base.types import DType
from einc.pipeline.emitted import Signature
from einc.tile.typing import multiplied

HOPPER = 64  # rows from which on a tile is multiplied by Hopper's dots, by four warps or more


def options(kernel: tile.Kernel, rows: int | None = None) -> dict[str, int]:
    """Launch options that are not Triton's defaults, where the chained dots of the kernel have so many rows."""
    if kernel.roles is not None:
        return {}  # each role has its warps, the first of them four
    chosen = kernel.choices
    warps = chosen.warps if rows is None else launched(chosen.warps, rows)
    wanted = {"num_warps": (warps, 4), "num_stages": (chosen.stages, 3)}
    return {name: value for name, (value, default) in wanted.items() if value != default}


def launched(warps: int, rows: int) -> int:
    """The warps that a launch has, of those that are chosen, where the chained dots have so many rows."""
    return warps if rows >= 16 * warps else min(warps, 4)


def rows_of_chains(kernel: tile.Kernel) -> frozenset[str]:
    """The row axes of a kernel's dots of narrow types, where there are several and tiles may have rows for Hopper's.

    Triton (3.6 and 3.7) gives every warp rows of its own where one dot follows another; a Hopper dot takes 16 a warp,
    and is wrong where the tile has fewer. Of dots with a batch axis every warp has some whole.
    """
    return rows_among(multiplied(kernel), {axis: block.cap for axis, block in kernel.choices.tiles})


def rows_among(multiplied: Sequence[tuple[tile.Dot, DType]], most: Mapping[str, int]) -> frozenset[str]:
    """The same of these dots and the types of what they multiply, where tiles have so many positions at most."""
    dots = [(d, t) for d, t in multiplied if not d.batch]
    rows = frozenset(d.row for d, t in dots if t.size <= 2 and most.get(d.row, 0) >= HOPPER)
    return rows if len(dots) > 1 else frozenset()


def written(s: Signature, block: Callable[[str], str]) -> dict[str, str]:
    """The options as a launcher writes them, with the variables in which it has its tile sizes."""
    found = {name: str(n) for name, n in options(s.kernel).items()}
    rows = [block(name) for name, axis in s.blocks if axis.name in rows_of_chains(s.kernel)]
    warps = s.kernel.choices.warps
    if rows and warps > 4 and s.kernel.roles is None:
        least = rows[0] if len(rows) == 1 else f"min({', '.join(rows)})"
        found["num_warps"] = f"{warps} if {least} >= {16 * warps} else 4"
    return found
