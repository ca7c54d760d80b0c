"""What the meaning of a kernel leaves open: how much a program takes at a time, in which order, by which way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

WHOLE = 1 << 30
WARPS, STAGES = 4, 3  # where nothing else is chosen
POINTER = "pointer"  # the way to memory that any strides allow
WAYS = (POINTER,)


@dataclass(frozen=True, slots=True)
class Block:
    """A tile size chosen at launch: the next power of two of the extent, at least `least` and at most `cap`.

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
    in flight. Where a `section` is more than 1, so many blocks of the last grid axis but one are taken together, for
    one block of the last after another. `tiles` are sizes by blocked tile axis, `ways` those to memory by tensor, both
    in the order of names; what has no entry is not chosen yet.
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
        """How loads of a tensor reach memory, if it is chosen."""
        return next((way for name, way in self.ways if name == tensor), None)

    def counted(self, counts: Mapping[str, int]) -> Choices:
        """The same with these of `parts`, `warps`, `stages` and `section`."""
        return replace(self, **counts)  # type: ignore[arg-type]  # names of integers

    def sized(self, tiles: Mapping[str, Block]) -> Choices:
        """The same with these sizes too."""
        return replace(self, tiles=tuple(sorted(({**dict(self.tiles), **tiles}).items())))

    def reached(self, ways: Mapping[str, str]) -> Choices:
        """The same with these ways to memory too."""
        return replace(self, ways=tuple(sorted(({**dict(self.ways), **ways}).items())))
