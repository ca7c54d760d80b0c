"""What a kernel takes besides its buffers: extents, those of them that are compiled in, tensors accessed by parts."""

from __future__ import annotations

from einc import tile
from einc.tile.walk import each, every_value


def extents_of(kernel: tile.Kernel) -> tuple[str, ...]:
    """The extents that are arguments: those the kernel declares, and any other that it reads."""
    read = (v.axis for v in every_value(kernel) if isinstance(v, tile.ExtentOf))
    return tuple(dict.fromkeys((*kernel.extents, *read)))


def static_extents(kernel: tile.Kernel) -> frozenset[str]:
    """The extents that are compiled in: those of axes that lie within a tile of a contraction, such as a head's width.

    If the tile is full, its masks then vanish. Rows that are held whole without a contraction keep theirs, since they
    come in all lengths.
    """
    if not any(isinstance(v, tile.Dot) for v in every_value(kernel)):
        return frozenset()
    return frozenset(axis for a in kernel.whole for axis in a.axes)


def in_parts(kernel: tile.Kernel) -> frozenset[str]:
    """The tensors that are accessed by real and imaginary parts."""
    loads = [v for v in every_value(kernel) if isinstance(v, tile.Load)]
    found: list[tile.Load | tile.Store] = [*loads, *(s for s in each(kernel.body) if isinstance(s, tile.Store))]
    return frozenset(x.tensor for x in found if x.part is not None)
