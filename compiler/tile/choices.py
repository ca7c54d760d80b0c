"""What the meaning of a kernel leaves open: the sizes of its blocks, their order, and the ways to memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

WHOLE = 1 << 30
WARPS, STAGES = 4, 3  # the defaults
POINTER = "pointer"  # the way to memory that any strides allow
WAYS = (POINTER,)


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
    of the last axis after another. `tiles` are sizes by blocked tile axis, `ways` the ways to memory by tensor, both in
    the order of names; whatever has no entry is not chosen yet.
    """

    parts: int = 1
    warps: int = WARPS
    stages: int = STAGES
    section: int = 1
    tiles: tuple[tuple[str, Block], ...] = ()
    ways: tuple[tuple[str, str], ...] = ()

    def tile(self, axis: str) -> Block | None:
        """The size along a tile axis, if it is chosen."""
        return next((block for name, block in self.tiles if name == axis), None)

    def way(self, tensor: str) -> str | None:
        """The way of a tensor's loads to memory, if it is chosen."""
        return next((way for name, way in self.ways if name == tensor), None)

    def counted(self, counts: Mapping[str, int]) -> Choices:
        """The same with these values of `parts`, `warps`, `stages` and `section`."""
        return replace(self, **counts)  # type: ignore[arg-type]  # names of integers

    def sized(self, tiles: Mapping[str, Block]) -> Choices:
        """The same with these sizes too."""
        return replace(self, tiles=tuple(sorted(({**dict(self.tiles), **tiles}).items())))

    def reached(self, ways: Mapping[str, str]) -> Choices:
        """The same with these ways to memory too."""
        return replace(self, ways=tuple(sorted(({**dict(self.ways), **ways}).items())))
