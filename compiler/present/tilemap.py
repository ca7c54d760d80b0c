"""Which blocks of a walked axis a kernel visits, for every block of rows, as a picture: full, mixed or never."""

from __future__ import annotations

import html
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einc.explain.figures import KernelFigures
from einc.explain.visits import EMPTY, FULL, MIXED
from einc.present.lettering import svg_text

Cells = NDArray[Any]
_MOST = 64  # cells on each side; in a finer picture each cell shows the most that happens in it
_NAMES = {FULL: "full", MIXED: "mixed", EMPTY: "empty"}


def tile_map(k: KernelFigures, axis: str, ident: str) -> str:
    """The picture of one kernel and walked axis as an SVG element."""
    cells = coarse(np.atleast_2d(np.asarray(k.domains[axis])))
    rows, columns = cells.shape
    side = max(4.0, min(24.0, 320.0 / max(rows, columns, 1)))
    left, top = 24.0, 24.0
    width, height = max(left + columns * side, 150.0) + 8, top + rows * side + 8
    v = k.tiles[axis]
    title = f"blocks of {axis} that kernel {k.name} visits"
    about = "About " if v.sample else ""
    said = f"{about}{v.visited} of {v.total} blocks are visited: {v.full} full, {v.mixed} mixed."
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" class="tiles" '
        f'aria-labelledby="{ident}-t {ident}-d"><title id="{ident}-t">{html.escape(title)}</title>'
        f'<desc id="{ident}-d">{html.escape(said)}</desc><defs>{_hatch(ident)}</defs>'
        + svg_text([(f"{axis} →", 0)], left, 15, 12, "muted")
        + f'<g transform="translate(15 {top + rows * side:.1f}) rotate(-90)">'
        + svg_text([("rows", 0)], 0, 0, 12, "muted")
        + "</g>"
        + f'<rect class="empty" x="{left}" y="{top}" width="{columns * side:.1f}" height="{rows * side:.1f}"/>'
        + "".join(_runs(cells, left, top, side, ident))
        + _cuts(k.part_starts.get(axis), left, top, side)
        + "</svg>"
    )


def coarse(cells: Cells) -> Cells:
    """The picture with at most `_MOST` cells on each side: a cell is visited if any part of it is."""
    rows, columns = (-(-n // _MOST) for n in cells.shape)
    if (rows, columns) == (1, 1) or 0 in cells.shape:
        return cells
    padded = np.pad(cells, ((0, -cells.shape[0] % rows), (0, -cells.shape[1] % columns)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns).swapaxes(1, 2)
    low, high = blocks.min((2, 3)), blocks.max((2, 3))
    return np.where(low == high, low, MIXED)


def _runs(cells: Cells, left: float, top: float, side: float, ident: str) -> Iterator[str]:
    """A rectangle for each run of equal cells in a row, and grid lines if cells are large enough."""
    for n, row in enumerate(cells):
        x = 0
        for kind, same in groupby(int(c) for c in row):
            count = len(list(same))
            if kind != EMPTY:
                fill = f' fill="url(#{ident}-hatch)"' if kind == MIXED else ""
                yield (
                    f'<rect class="{_NAMES[kind]}" x="{left + x * side:.1f}" y="{top + n * side:.1f}" '
                    f'width="{count * side:.1f}" height="{side:.1f}"{fill}/>'
                )
            x += count
    if side >= 6:
        rows, columns = cells.shape
        lines = [f"M{left},{top + n * side:.1f}h{columns * side:.1f}" for n in range(rows + 1)]
        lines += [f"M{left + n * side:.1f},{top}v{rows * side:.1f}" for n in range(columns + 1)]
        yield f'<path class="grid" d="{"".join(lines)}"/>'


def _cuts(starts: Cells | None, left: float, top: float, side: float) -> str:
    """A line where a part of the walk starts."""
    if starts is None:
        return ""
    found = np.argwhere(coarse(np.atleast_2d(starts).astype(int)))
    lines = [f"M{left + column * side:.1f},{top + row * side:.1f}v{side:.1f}" for row, column in found if column]
    return f'<path class="cut" d="{"".join(lines)}"/>'


def _hatch(ident: str) -> str:
    return (
        f'<pattern id="{ident}-hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="hatch-back" width="5" height="5"/><rect class="hatch-line" width="2" height="5"/></pattern>'
    )
