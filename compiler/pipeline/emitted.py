"""What a generator gives: a file of source, and its kernels as whoever launches them sees them."""

from __future__ import annotations

from dataclasses import dataclass

from einc import tile
from einc.tile import TileAxis


@dataclass(frozen=True, slots=True)
class Signature:
    """A kernel as its launcher sees it. Arguments in order: a pointer a buffer, the strides of all their dimensions,
    extents, scalars; then, by name, the tile sizes and `INT`."""

    name: str
    kernel: tile.Kernel
    pointers: tuple[str, ...]
    strides: tuple[tuple[str, ...], ...]
    extents: tuple[str, ...]
    scalars: tuple[str, ...]
    blocks: tuple[tuple[str, TileAxis], ...]


@dataclass(frozen=True, slots=True)
class Emitted:
    """A file, the name of its launcher, and its kernels' signatures."""

    source: str
    launcher: str
    kernels: tuple[Signature, ...]
