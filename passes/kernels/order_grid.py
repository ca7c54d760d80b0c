"""Run programs that read the same blocks close together.

    grid ..., i, j   -->   grid ..., sections of i of so many blocks; j; i within its section

A row of programs reads one block of rows and all columns. Programs of several rows, taken column by column, read each
column's block once for all of them while it is in the cache. It pays where a contraction has more programs than run at
once.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from einc import tile
from einc.pipeline import Context
from einc.tile.asked import counts_asked
from einc.tile.walk import values_in

_SECTION = 8  # blocks of rows


def order_grid(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its grid in sections, if it has several blocks along both axes of a contraction."""
    if section := counts_asked(context.choices, kernel, "section"):
        possible = len(kernel.grid) > 1 and all(a.blocked for a in kernel.grid[-2:])
        return replace(kernel, choices=kernel.choices.counted(section)) if possible else kernel
    if len(kernel.grid) < 2 or not any(isinstance(v, tile.Dot) for v in values_in(kernel.body)):
        return kernel
    rows, columns = (_count(kernel, a, context) for a in kernel.grid[-2:])
    if min(rows, columns) < 2 or rows * columns <= context.target.rates.processors:
        return kernel
    return replace(kernel, choices=replace(kernel.choices, section=_SECTION))


def _count(kernel: tile.Kernel, axis: tile.TileAxis, context: Context) -> int:
    """The number of blocks of an axis; 0 of one that has a program for each position."""
    block = kernel.choices.tile(axis.name)
    return 0 if block is None else -(-prod(context.extent(a) for a in axis.axes) // block.cap)
