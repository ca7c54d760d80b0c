"""What is known of an operand before a call gives it, and how its elements lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from einc.base.types import DType

MOST_ALIGNED = 128  # bytes of a line of a cache
_REGULAR = 16  # bytes that steps are multiples of where copy engines go

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of an operand: its shape and element type."""

    shape: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory, as far as the ways to it depend on that.

    `order` are its dimensions from the slowest to the fastest, those of one position first. `packed` says whether
    neighbours along the last of them are neighbours in memory. `aligned` is the largest power of two, at most 128, that
    divides its address and the steps along all others, in bytes. `joined` says of each dimension in this order whether
    the next one goes on where it ends, so that both are one.
    """

    order: tuple[int, ...]
    packed: bool
    aligned: int
    joined: tuple[bool, ...] = ()

    @property
    def is_regular(self) -> bool:
        """Can the copy engines of a GPU find its blocks?"""
        return self.packed and self.aligned >= _REGULAR

    def fastest(self, index: Sequence[T]) -> T | None:
        """Of an index, what goes over neighbours in memory; None for a single value, which has none."""
        return index[self.order[-1]] if self.order else None


def row_major(rank: int) -> Layout:
    """The layout of a tensor whose last dimension is the fastest, and whose rows begin at multiples of 16 bytes."""
    return Layout(tuple(range(rank)), True, _REGULAR, (True,) * max(rank - 2, 0) + (False,) * (rank > 1))
