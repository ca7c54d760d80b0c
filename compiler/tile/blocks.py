"""Sizes that decisions and blocks are made of: powers of two."""

from __future__ import annotations


def size_class(extent: int) -> int:
    """What decisions see of an extent: the next power of two, 0 and 1 apart from the rest."""
    return extent if extent < 2 else 1 << (extent - 1).bit_length()
