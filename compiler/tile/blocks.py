"""Powers of two: the sizes of blocks, and the sizes that decisions depend on."""

from __future__ import annotations

from einc.tile.choices import Block


def power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def size_class(extent: int) -> int:
    """The size that decisions depend on: the extent rounded up to a power of two, with 0 and 1 as they are."""
    return power(extent) if extent else 0


def fine_class(extent: int) -> int:
    """The extent rounded up to four binary digits, which decides how evenly blocks fill a machine."""
    unit = 1 << max(extent.bit_length() - 4, 0)
    return -(-extent // unit) * unit


def block_size(block: Block, positions: int) -> int:
    """The tile size that a launch chooses along an axis: large enough for its positions, within the block's range."""
    return min(max(power(positions), block.least), block.cap)
