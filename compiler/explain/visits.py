"""How much of a walked axis a kernel visits: the bounds of its loops, evaluated for all programs of its grid.

A loop from `start` to `stop` visits ceil((stop - start) / block) blocks in each program; without bounds, all of them.
Bounds may read data. A bound that reads a tensor that is not given bounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from einc import ein, tile
from einc.binding import Bindings, completed
from einc.evaluate import evaluate
from einc.explain.grid import Array, Grid, Scalars, Tensors, block_of, blocks_of, bounding, extent_of, shortened, spaced

EMPTY, MIXED, FULL = 0, 1, 2
_MOST_CELLS = 256  # on each side of a picture


@dataclass(frozen=True, slots=True)
class Visits:
    """Blocks of a walked axis, over all programs of a grid: `total` in all, `mixed` visited and masked, `full` visited
    without a mask. For a `sample` they are estimates from some of the programs."""

    total: int = 0
    mixed: int = 0
    full: int = 0
    sample: bool = False

    @property
    def visited(self) -> int:
        return self.mixed + self.full

    @property
    def share(self) -> float:
        """The share of all blocks that is visited; 1 if there are none."""
        return self.visited / self.total if self.total else 1.0


def visited(
    kernel: tile.Kernel, extents: Mapping[str, int], scalars: Scalars | None = None, tensors: Tensors | None = None
) -> dict[str, Visits]:
    """For each walked tile axis, the blocks that a masked kernel with tile sizes visits at these extents.

    `tensors` are those that bounds may read, by name, in the shapes of the kernel's buffers.
    """
    grid = Grid(kernel, extents, scalars or {}, tensors or {})
    found: dict[str, Visits] = {}
    for w in grid.walks():
        block = grid.block(w.loop.axis)
        blocks = grid.total(np.maximum(-(-(w.stop - w.start) // block), 0))
        full = grid.total((w.full_stop - w.full_start) // block)
        before = found.get(w.loop.axis.name, Visits())
        total = grid.programs * -(-grid.extent(w.loop.axis) // block)
        mixed = before.mixed + blocks - full
        found[w.loop.axis.name] = Visits(before.total + total, mixed, before.full + full, grid.sample)
    return found


def domain_picture(
    kernel: tile.Kernel,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    tensors: Tensors | None = None,
    at: Mapping[str, int] | None = None,
    parts: str = "",
) -> dict[str, Array]:
    """For each walked tile axis, a matrix with `EMPTY`, `MIXED` or `FULL` for each (row block, walked block).

    `at` gives positions on other axes of the grid, 0 by default. A walk starts where its bounds say, so that its blocks
    need not be those of the matrix: a block that they touch counts as visited. `parts` is the axis of the grid that
    counts the parts of walks; a block that any part visits is visited. A large matrix has fewer cells: rows at equal
    distances, and several blocks in one.
    """
    found: dict[str, Array] = {}
    for name, picture in _pictures(kernel, extents, scalars, tensors, at, parts):
        found[name] = np.maximum(found.get(name, EMPTY), picture.max(axis=0))
    return found


def part_starts(
    kernel: tile.Kernel,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    tensors: Tensors | None = None,
    parts: str = "",
) -> dict[str, Array]:
    """For each walked tile axis and cell of the `domain_picture`, whether a part of the walk starts in it."""
    found: dict[str, Array] = {}
    for name, picture in _pictures(kernel, extents, scalars, tensors, None, parts):
        visited = picture != EMPTY
        found[name] = np.any(visited & (np.cumsum(visited, axis=2) == 1), axis=0)
    return found


def _pictures(
    kernel: tile.Kernel,
    extents: Mapping[str, int],
    scalars: Scalars | None,
    tensors: Tensors | None,
    at: Mapping[str, int] | None,
    parts: str,
) -> Iterator[tuple[str, Array]]:
    """The blocks that each loop visits, by part of its walk, row block and walked block."""
    rows = [a for a in kernel.grid if a.role == "row"]
    lengths = [blocks_of(kernel, a, extents) for a in rows]
    cut = shortened(lengths, _MOST_CELLS)
    picked = {a.name: np.array([(at or {}).get(a.name, 0)]) for a in kernel.grid}
    picked |= {a.name: spaced(n, m) for a, n, m in zip(rows, lengths, cut, strict=True)}
    picked |= {a.name: np.arange(blocks_of(kernel, a, extents)) for a in kernel.grid if a.axes == (parts,)}
    dims = [k for k, a in enumerate(kernel.grid) if a.axes == (parts,)]
    shape = [picked[a.name].size for a in kernel.grid]
    for w in Grid(kernel, extents, scalars or {}, tensors or {}, picked).walks():
        start, stop, low, high = (
            np.moveaxis(np.broadcast_to(x, shape), dims, range(len(dims))).reshape(prod(shape[k] for k in dims), -1, 1)
            for x in (w.start, w.stop, w.full_start, w.full_stop)
        )
        n = extent_of(w.loop.axis, extents)
        cell = block_of(kernel, w.loop.axis, extents) * max(
            -(-blocks_of(kernel, w.loop.axis, extents) // _MOST_CELLS), 1
        )
        first = np.arange(-(-n // cell)) * cell
        after = np.minimum(first + cell, n)
        touched = (first < stop) & (after > start) & (start < stop)
        inside = (first >= low) & (after <= high)
        yield w.loop.axis.name, np.where(touched, np.where(inside, FULL, MIXED), EMPTY)


def visits(
    program: ein.Program,
    schedule: tile.Schedule,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    operands: Tensors | None = None,
) -> dict[str, dict[str, Visits]]:
    """Visits by kernel and walked tile axis. Intermediate tensors that bounds read are computed from the operands."""
    whole = completed(program, Bindings(dict(extents), dict(scalars or {}))).extents
    tensors = bound_tensors(program, schedule, whole, scalars, operands)
    return {k.name: visited(k, whole, scalars, tensors) for k in schedule.kernels}


def bound_tensors(
    program: ein.Program,
    schedule: tile.Schedule,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    operands: Tensors | None = None,
) -> dict[str, Array]:
    """The tensors that the loop bounds of a schedule read: operands, and intermediates as far as the given operands
    decide them."""
    given = dict(operands or {})
    wanted = {v.tensor for k in schedule.kernels for v in bounding(k) if isinstance(v, tile.Load)}
    known = {name: x for name, x in given.items() if name in wanted}
    inner = tuple(sorted(wanted - set(given)))
    made = {t.name for eq in program.equations for t in eq.outputs}
    needed = _only(program, inner, extents)
    if not inner or not made.issuperset(inner) or any(p.name not in given for p in needed.operands):
        return known
    read = {p.name: given[p.name] for p in needed.operands}
    return known | dict(zip(inner, evaluate(needed, read, scalars or {}), strict=True))


def _only(program: ein.Program, results: tuple[str, ...], extents: Mapping[str, int]) -> ein.Program:
    """The part of a program that gives these tensors, for axes of these extents."""
    live = set(results)
    kept: list[ein.Equation] = []
    for e in reversed(program.equations):
        if live & {t.name for t in e.outputs}:
            live |= {name for x in e.expressions() for name in ein.tensors_of(x)}
            kept.append(e)
    params = tuple(p for p in program.params if not isinstance(p, ein.Operand) or p.name in live)
    axes = tuple(replace(a, extent=ein.Const(extents[a.name])) if a.name in extents else a for a in program.axes)
    return replace(program, params=params, axes=axes, equations=tuple(reversed(kept)), results=results)
