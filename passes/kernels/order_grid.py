"""Run programs that read the same blocks close together.

    grid ..., i, j   -->   grid ..., sections of i of so many blocks; j; i within its section

A row of programs reads one block of rows and all columns. Programs of several rows, taken column by column, read each
column's block once for all of them while it is in the cache. It pays where a contraction has more programs than run at
once.

    grid b, i; loop j: load T[i, j]   -->   grid i, b

Programs that differ only in a batch axis that a tensor of scores lacks read the same blocks of it one after another.

    grid h, i; loop j to i   -->   grid h, i backwards in sections of so many of h

Programs that walk furthest run first, so that none of them is left alone at the end. As many positions of the axis
before run together as the cache holds walks of.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from einc import tile
from einc.passes.kernels.lengths import grows
from einc.pipeline import Context
from einc.tile.asked import counts_asked
from einc.tile.choices import MOST_SECTION
from einc.tile.walk import every_value, loops, values_in, walk_values

_SECTION = 8  # blocks of rows, or positions of a batch axis
_CACHED = 3  # what programs that run together walk over takes this part of the cache


def order_grid(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its grid in the order that keeps blocks in the cache and long walks from being the last ones."""
    asked = counts_asked(context.choices, kernel, "section")
    multiplies = any(isinstance(v, tile.Dot) for v in every_value(kernel))
    if len(kernel.grid) < 2 or not (asked or multiplies):
        return kernel
    if multiplies:
        kernel = _longest_first(replace(kernel, grid=_together(kernel, context)), context)
    if asked:
        possible = kernel.choices.backwards or all(a.blocked for a in kernel.grid[-2:])
        return kernel.choosing(kernel.choices.counted(asked)) if possible else kernel
    rows, columns = (_count(kernel, a, context) for a in kernel.grid[-2:])
    if min(rows, columns) < 2 or rows * columns <= context.target.rates.processors:
        return kernel
    return kernel.choosing(replace(kernel.choices, section=_SECTION))


def _together(kernel: tile.Kernel, context: Context) -> tuple[tile.TileAxis, ...]:
    """The grid with those few positions of a batch axis last for which the same scores are read."""
    rows = {a.name for a in kernel.grid if a.blocked}
    if len(rows) != 1 or kernel.choices.parts > 1 or context.target.cache:
        return kernel.grid
    scores = [
        v
        for loop in loops(kernel.body)
        for v in values_in(loop.body)
        if isinstance(v, tile.Load) and {*rows, loop.axis.name} <= {i.name for i in v.index if isinstance(i, tile.Ref)}
    ]
    along = [{r.name for r in walk_values(*v.index) if isinstance(r, tile.Ref)} for v in scores]
    few = [a for a in kernel.grid if not a.blocked and 1 < prod(context.extent(x) for x in a.axes) <= _SECTION]
    last = tuple(a for a in few if any(a.name not in names for names in along))
    return (*(a for a in kernel.grid if a not in last), *last)


def _longest_first(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with the last blocks of its rows first, where these walk further."""
    walks = [s for s in kernel.body if isinstance(s, tile.Loop)]
    rows = [a for a in kernel.grid if a.blocked]
    if len(walks) != 1 or len(rows) != 1 or kernel.choices.parts > 1 or context.target.cache:
        return kernel
    (walk,), (row,) = walks, rows
    block = kernel.choices.tile(row.name)
    if block is None or not grows(kernel, walk, row, context, block.cap):
        return kernel
    section = _walked_together(kernel, walk, context) if row == kernel.grid[-1] else 1
    return kernel.choosing(replace(kernel.choices, backwards=row.name, section=section))


def _walked_together(kernel: tile.Kernel, walk: tile.Loop, context: Context) -> int:
    """How many positions of the last but one grid axis run together: those whose walks the cache holds."""
    buffers = {b.name: b for b in kernel.buffers}
    loaded = {v.tensor for v in values_in(walk.body) if isinstance(v, tile.Load)}
    along = {a for x in (walk.axis, *kernel.whole) for a in x.axes}
    taken = sum(
        prod(context.extent(a) for dim in buffers[name].dims for a in dim if a in along) * buffers[name].dtype.size
        for name in loaded
    )
    there = prod(map(context.size, kernel.grid[-2].axes))
    most = min(context.target.rates.last_cache // _CACHED // max(taken, 1), there, MOST_SECTION)
    return 1 << max(most, 1).bit_length() - 1


def _count(kernel: tile.Kernel, axis: tile.TileAxis, context: Context) -> int:
    """The number of blocks of an axis; 0 of one that has a program for each position."""
    block = kernel.choices.tile(axis.name)
    return 0 if block is None else -(-prod(context.extent(a) for a in axis.axes) // block.cap)
