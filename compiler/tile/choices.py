"""What the meaning of a kernel leaves open: the sizes of its blocks, their order, and the ways to memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

WHOLE = 1 << 30
WARPS, STAGES = 4, 3  # the defaults
MOST_SECTION = 1024  # blocks that run together
FOLDS_EARLY, FOLDS_LATE = "early", "late"  # folds of a walk at every step, and once after it
POINTER = "pointer"  # the way to memory that any strides allow
_DESCRIPTOR, _VECTORS = "descriptor", "vectors"
_MOST_DIMS = 5  # of a descriptor


def descriptor(order: Sequence[int]) -> str:
    """The way by a descriptor to a tensor whose dimensions have this order in memory, the fastest last.

    It is `descriptor` if that is their own order, else `descriptor_10` and the like.
    """
    return _named(_DESCRIPTOR, order)


def vectors(order: Sequence[int]) -> str:
    """The way by pointers to several neighbours at once, along the last dimension of this order."""
    return _named(_VECTORS, order)


def _named(kind: str, order: Sequence[int]) -> str:
    same = list(order) == list(range(len(order)))
    return kind if same else f"{kind}_{''.join(map(str, order))}"


def order_of(way: str | None, rank: int) -> tuple[int, ...] | None:
    """The order of a tensor's dimensions, if the way to it is by a descriptor; else None."""
    return _order(_DESCRIPTOR, way, rank)


def order_of_vectors(way: str | None, rank: int) -> tuple[int, ...] | None:
    """The order of a tensor's dimensions, if the way to it is by vectors; else None."""
    return _order(_VECTORS, way, rank)


def _order(kind: str, way: str | None, rank: int) -> tuple[int, ...] | None:
    name, _, digits = (way or "").partition("_")
    if name != kind:
        return None
    return tuple(map(int, digits)) if digits else tuple(range(rank))


def is_way(text: str) -> bool:
    """Is it the name of a way to memory?"""
    name, _, digits = text.partition("_")
    ordered = sorted(digits) == [str(n) for n in range(len(digits))] and len(digits) <= _MOST_DIMS
    known = name in (_DESCRIPTOR, _VECTORS)
    return text == POINTER or (known and ordered and text == name + "_" * bool(digits) + digits)


@dataclass(frozen=True, slots=True)
class Block:
    """A tile size chosen at launch: the least power of two that holds the extent, at least `least` and at most `cap`.

    A cap of `WHOLE` means that one block holds every position, whatever the extent.
    """

    least: int
    cap: int

    def __str__(self) -> str:
        most = "whole" if self.cap == WHOLE else str(self.cap)
        return most if self.least == self.cap else f"{self.least}..{most}"


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of a kernel.

    Its walk is in `parts`, one if it is not divided. `warps` run a program, and loops keep the loads of `stages` blocks
    in flight. If `section` is more than 1, that many blocks of the last but one grid axis run together, for one block
    of the last axis after another. Blocks of the grid axis `backwards`, if there is one, run from the last to the
    first. A generator that computes the grid in boxes lets the largest tensor of a box have
    `box` elements and shares boxes out over `workers`; it decides by itself where these are 0. Where `folds` of a walk
    may wait until it ends, they are `early` or `late`; it is empty where none can. `tiles` are sizes by
    blocked tile axis, `ways` the ways to memory by tensor, both in the order of names; whatever has no entry is not
    chosen yet.
    """

    parts: int = 1
    warps: int = WARPS
    stages: int = STAGES
    section: int = 1
    backwards: str = ""
    box: int = 0
    workers: int = 0
    folds: str = ""
    tiles: tuple[tuple[str, Block], ...] = ()
    ways: tuple[tuple[str, str], ...] = ()

    def tile(self, axis: str) -> Block | None:
        """The size along a tile axis, if it is chosen."""
        return next((block for name, block in self.tiles if name == axis), None)

    def way(self, tensor: str) -> str | None:
        """The way of a tensor's loads to memory, if it is chosen."""
        return next((way for name, way in self.ways if name == tensor), None)

    def counted(self, counts: Mapping[str, int]) -> Choices:
        """The same with these values of `parts`, `warps`, `stages`, `section`, `box` and `workers`."""
        return replace(self, **counts)  # type: ignore[arg-type]  # names of integers

    def sized(self, tiles: Mapping[str, Block]) -> Choices:
        """The same with these sizes too."""
        return replace(self, tiles=tuple(sorted(({**dict(self.tiles), **tiles}).items())))

    def reached(self, ways: Mapping[str, str]) -> Choices:
        """The same with these ways to memory too."""
        return replace(self, ways=tuple(sorted(({**dict(self.ways), **ways}).items())))
