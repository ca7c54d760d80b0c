"""Sizes that decisions and blocks are made of: powers of two."""

from __future__ import annotations

from einc.tile.choices import Block


def power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def size_class(extent: int) -> int:
    """What decisions see of an extent: the next power of two, 0 and 1 apart from the rest."""
    return power(extent) if extent else 0


def block_size(block: Block, positions: int) -> int:
    """The tile size that a launch chooses along an axis: what holds its positions, within the block's range."""
    return min(max(power(positions), block.least), block.cap)
