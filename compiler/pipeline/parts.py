"""How a program is computed by others: over sorted segments of positions, or slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from einc import ein

T = TypeVar("T")  # a program that is called itself: compiled, or with its kernels
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Segments:
    """What has to be sorted: `index`, a tensor of integers, along all but its `kept` first dimensions as one.

    `order`, `start` and `count` are the names of the results. The first has the positions in ascending order of their
    index, the others where each number from 0 to the product of the extents of `places` begins in it, and how often
    there is one.
    """

    index: str
    kept: int
    places: tuple[str, ...]
    order: str
    start: str
    count: str


@dataclass(frozen=True, slots=True)
class Sliced:
    """A program over a slice of an axis, which begins at its scalar `first`, if it reads that.

    `along` says of operands and results which of their dimensions is sliced. `sums` are operands by result: what the
    slices before add up to, 0 for the first one.
    """

    program: ein.Program
    first: str | None
    along: Mapping[str, int]
    sums: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InSlices(Generic[T]):
    """A program that is computed by `one`, which is that of a slice, for each slice of an axis.

    Slices have so many positions that there are at most `most` of them, a multiple of `unit`.
    """

    program: ein.Program
    sliced: Sliced
    axis: str
    most: int
    unit: int
    one: T

    @property
    def parts(self) -> tuple[T, ...]:
        """What it is computed by."""
        return (self.one,)


@dataclass(frozen=True, slots=True)
class InOrder(Generic[T]):
    """A program that is computed by `main`, which takes positions in the order that sorting `segments` gives them.

    What is sorted is an operand, or one of the results of `indices`, in the order of the segments.
    """

    program: ein.Program
    segments: tuple[Segments, ...]
    indices: T | None
    main: T | InSlices[T]

    @property
    def parts(self) -> tuple[T | InSlices[T], ...]:
        """What it is computed by, in order."""
        return (self.main,) if self.indices is None else (self.indices, self.main)

    @property
    def computed(self) -> tuple[str, ...]:
        """What is sorted and no operand."""
        operands = {p.name for p in self.program.operands}
        return tuple(s.index for s in self.segments if s.index not in operands)


Parts: TypeAlias = T | InSlices[T] | InOrder[T]


def each(parts: Parts[T]) -> Iterator[T]:
    """The programs that are called, in order."""
    if isinstance(parts, InSlices | InOrder):
        for part in parts.parts:
            yield from each(part)
    else:
        yield parts


def mapped(parts: Parts[T], f: Callable[[T], U]) -> Parts[U]:
    """The same parts of what a function makes of each program that is called."""
    own: Any = parts
    match own:
        case InOrder():
            indices = None if own.indices is None else f(own.indices)
            return replace(own, indices=indices, main=mapped(own.main, f))
        case InSlices():
            return replace(own, one=f(own.one))
        case _:
            return f(own)
