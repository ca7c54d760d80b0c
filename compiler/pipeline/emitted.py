"""What a generator gives: a file of source, and its kernels as whoever launches them sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from einc import ein, tile
from einc.pipeline.parts import Parts
from einc.tile import TileAxis
from einc.tile.windows import Rows

Source = tuple[Literal["operand", "output", "cotangent"], int]


@dataclass(frozen=True, slots=True)
class Signature:
    """A kernel as its launcher sees it. Arguments in order: a pointer a buffer, one to a number that begins as zero if
    the kernel counts, the strides of all dimensions, extents, scalars; then, by name, the tile sizes, how many
    neighbours are reached at once, by tensor, and `INT`."""

    name: str
    kernel: tile.Kernel
    pointers: tuple[str, ...]
    strides: tuple[tuple[str, ...], ...]
    extents: tuple[str, ...]
    scalars: tuple[str, ...]
    blocks: tuple[tuple[str, TileAxis], ...]
    units: tuple[tuple[str, Rows], ...] = ()
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Emitted:
    """A file, the name of its launcher, and its kernels' signatures."""

    source: str
    launcher: str
    kernels: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Half:
    """A program after the last pass, and its kernels."""

    program: ein.Program
    schedule: tile.Schedule


@dataclass(frozen=True, slots=True)
class Both:
    """A program `whole` and its gradients, as two halves with kernels, the second of which may be in parts.

    `ahead` gives the results of the program, and behind them what is saved; `fixed` are those without a derivative.
    `sources` says what each operand of `behind` is to a call that ran ahead, `gradients` which result of it is the
    gradient of each operand of `ahead`, None where there is none.
    """

    whole: ein.Program
    ahead: Half
    behind: Parts[Half]
    fixed: tuple[int, ...]
    sources: tuple[Source, ...]
    gradients: tuple[int | None, ...]

    @property
    def saved(self) -> tuple[Source, ...]:
        """The sources that are there before the cotangents are."""
        return tuple(s for s in self.sources if s[0] != "cotangent")
