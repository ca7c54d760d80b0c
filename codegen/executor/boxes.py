"""The size of a box: as many positions of every dim as keep the largest tensor in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod

# Elements of the largest tensor in a box, 1 MiB of float32: with fewer, dispatching operations takes a visible share of
# the time; more do not fit the cache. Contractions do more work for an element, and so get twice as many.
LARGEST = 1 << 18
_OF_DOTS = 2

WORTH_SHARING = 1 << 16  # least number of elements of the largest tensor that makes a box a task for a worker
_BALANCED = 4  # boxes for each worker, so that all end at about the same time

_STREAMED = 512  # positions of a walked axis that amortise the work done once a block: rescaling, dispatch
_ROWS = 512  # rows that amortise the operands that every block of rows reads again
_PRUNED = 512  # positions where rows stop at different places, and several heads amortise the rest
_SEGMENT = 8  # positions of a walk over a segment
_ACROSS = 64  # positions of a walk across the memory of rows, which are read as far as they go
_SQUARE = 256  # rows and columns that make a matrix product run at full speed


@dataclass(frozen=True, slots=True)
class Dim:
    """An `ein` axis of a tile axis. `kind` is `batch`, `row`, `column`, `whole`, `reduced` or `inner`; `segment` where
    a walk is over a short part of it, or `single` where a box holds one position. Tensors lie in memory along one that
    is `fast`."""

    tile: str
    axis: str
    extent: int
    kind: str
    fast: bool = False


def box(
    dims: Sequence[Dim],
    shapes: Iterable[frozenset[int]],
    dots: bool,
    pruned: bool,
    grid: Sequence[int],
    workers: int,
    most: int = 0,
) -> tuple[int, ...]:
    """The most positions of each dim in a box, for tensors that vary over these sets of dims.

    The largest tensor has `most` elements, or as many as suit a cache.

    With contractions the batch is cut first, from the outermost axis inwards, then a walked axis, then rows, and then
    all below the sizes that are good for speed, if necessary. Without contractions rows stay whole as long as possible.
    At last the grid is cut until every worker has boxes. All rows of a box walk the positions that any of them needs,
    so that boxes of a `pruned` domain have fewer rows and more of the batch.
    """
    shapes = [s for s in shapes if s]
    most = most or (_OF_DOTS * LARGEST if dots else LARGEST)
    sizes = _fitted(dims, shapes, dots, pruned, most)
    if workers > 1:
        _share_out(sizes, dims, shapes, grid, workers)
        if _across(dims) and not dots:  # there is room for more of the walk
            shared = [replace(d, extent=sizes[n]) if n in grid else d for n, d in enumerate(dims)]
            sizes = _fitted(shared, shapes, dots, pruned, most)
    return tuple(sizes)


def _across(dims: Sequence[Dim]) -> bool:
    """Do walks go across memory, along which rows lie?"""
    return any(d.fast for d in dims if d.kind == "row") and not any(d.fast for d in dims if d.kind == "reduced")


def _fitted(dims: Sequence[Dim], shapes: Sequence[frozenset[int]], dots: bool, pruned: bool, most: int) -> list[int]:
    """The sizes of a box whose tensors have so many elements at most, cut in the order that costs least speed."""
    sizes = [1 if d.kind == "single" else max(d.extent, 1) for d in dims]
    if not dots:
        large = [("reduced", _ACROSS if _across(dims) else LARGEST), ("row", _SQUARE), ("batch", 1)]
    elif pruned:
        large = [("row", _SQUARE), ("reduced", _PRUNED), ("batch", 1)]
    else:
        large = [("batch", 1), ("reduced", _STREAMED)]
    stages = (
        ("segment", _SEGMENT), *large,
        ("inner", _STREAMED), ("row", _SQUARE if pruned else _ROWS), ("row", _SQUARE), ("reduced", 512),
        ("column", _SQUARE), ("inner", 512), ("row", 16), ("reduced", 64), ("column", 16), ("inner", 64),
        ("row", 1), ("column", 1), ("reduced", 1), ("inner", 1), ("segment", 1),
    )  # fmt: skip
    for kind, least in stages:
        for group in _groups(dims, kind):
            while True:
                over = [s for s in shapes if prod(sizes[d] for d in s) > most]
                cut = [d for d in group if sizes[d] > 1 and any(d in s for s in over)]
                if not cut or prod(sizes[d] for d in group) <= least:
                    break
                sizes[cut[0]] = (sizes[cut[0]] + 1) // 2
    return sizes


def _share_out(
    sizes: list[int], dims: Sequence[Dim], shapes: Sequence[frozenset[int]], grid: Sequence[int], workers: int
) -> None:
    """Cut the grid further until every worker has boxes, as long as these are worth sharing."""
    while largest(sizes, shapes) >= 2 * WORTH_SHARING and _boxes(dims, sizes, grid) < _BALANCED * workers:
        cut = [d for d in grid if sizes[d] > 1]
        if not cut:
            break
        d = min(cut, key=lambda d: _repeated(d, sizes, shapes))
        sizes[d] = (sizes[d] + 1) // 2


def _repeated(d: int, sizes: Sequence[int], shapes: Iterable[frozenset[int]]) -> int:
    """The elements that both boxes compute if a dim is cut in two."""
    return sum(prod(sizes[n] for n in s) for s in shapes if d not in s)


def largest(sizes: Sequence[int], shapes: Iterable[frozenset[int]]) -> int:
    """The elements of the largest tensor in a box."""
    return max((prod(sizes[d] for d in s) for s in shapes), default=0)


def _boxes(dims: Sequence[Dim], sizes: Sequence[int], grid: Sequence[int]) -> int:
    return prod(-(-dims[d].extent // sizes[d]) for d in grid)


def _groups(dims: Sequence[Dim], kind: str) -> list[list[int]]:
    """The dims of each tile axis of a kind, outermost first."""
    names = dict.fromkeys(d.tile for d in dims if d.kind == kind)
    return [[n for n, d in enumerate(dims) if d.tile == name] for name in names]


def blocks(sizes: Sequence[int], spans: Sequence[range]) -> Iterator[tuple[range, ...]]:
    """The boxes that cover these spans, the last dim fastest; an empty span is one empty range."""
    return product(
        *(
            [range(k, min(k + n, s.stop)) for k in range(s.start, s.stop, n)] or [s]
            for n, s in zip(sizes, spans, strict=True)
        )
    )


def parts(spans: list[range], cuts: list[int]) -> list[list[range]]:
    """The spans in parts that meet at the cuts, of which there are none but in a single span."""
    if not cuts:
        return [spans]
    (span,) = spans
    ends = [span.start, *sorted(k for k in cuts if k in span[1:]), span.stop]
    return [[range(a, b)] for a, b in pairwise(ends) if a < b]
