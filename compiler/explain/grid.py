"""All programs of a kernel's grid at once: where each loop starts and stops in each program.

Bounds are evaluated only along the axes that they depend on. If that would still be more than `MOST` positions,
programs at equal distances stand for all, and counts are estimates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from einc import tile
from einc.base.types import DType
from einc.ein.arithmetic import ScalarValue
from einc.evaluate.elementwise import Value, apply, convert
from einc.tile.blocks import block_size
from einc.tile.typing import axes_of, dtype_of, scope
from einc.tile.walk import loop_position, walk_values

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Scalars = Mapping[str, ScalarValue]

MOST = 1 << 18
_FOLDS: dict[str, np.ufunc] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
    "or": np.logical_or, "and": np.logical_and,
}  # fmt: skip


def bounding(kernel: tile.Kernel) -> Iterator[tile.Value]:
    """Every value in the bounds of loops."""
    bound = {n: s.value for s in kernel.body if isinstance(s, tile.Let) for n in s.names}
    stack = [v for s in kernel.body if isinstance(s, tile.Loop) for v in (s.start, s.stop) if v is not None]
    seen: set[str] = set()
    while stack:
        for v in walk_values(stack.pop()):
            yield v
            if isinstance(v, tile.Ref) and v.name in bound and v.name not in seen:
                seen.add(v.name)
                stack.append(bound[v.name])


def extent_of(axis: tile.TileAxis, extents: Mapping[str, int]) -> int:
    return prod(extents[a] for a in axis.axes)


def block_of(kernel: tile.Kernel, axis: tile.TileAxis, extents: Mapping[str, int]) -> int:
    """The positions of a tile along an axis at a launch."""
    block = kernel.choices.tile(axis.name)
    return 1 if block is None else block_size(block, extent_of(axis, extents))


def blocks_of(kernel: tile.Kernel, axis: tile.TileAxis, extents: Mapping[str, int]) -> int:
    return -(-extent_of(axis, extents) // block_of(kernel, axis, extents))


def spaced(n: int, count: int) -> Array:
    """`count` of the first n integers, at equal distances: the middles of equal parts."""
    return (2 * np.arange(count) + 1) * n // (2 * max(count, 1))


def shortened(lengths: Sequence[int], most: int) -> list[int]:
    """The lengths, with the longest halved until the product is at most `most`."""
    found = list(lengths)
    while prod(found) > max(most, 1):
        longest = found.index(max(found))
        found[longest] //= 2
    return found


@dataclass(frozen=True, slots=True)
class Walk:
    """A loop, where it starts and stops in each program, and the range that it walks without masks."""

    loop: tile.Loop
    start: Array
    stop: Array
    full_start: Array
    full_stop: Array


class _UnknownError(Exception):
    """A value that reads a tensor that is not given, or a state of a loop."""


class Grid:
    """All programs of a kernel at once: arrays have a dimension for each axis of the grid, then one for the positions
    in a program's block along each blocked axis. A dimension that a value does not depend on has length 1."""

    def __init__(
        self,
        kernel: tile.Kernel,
        extents: Mapping[str, int],
        scalars: Scalars,
        tensors: Tensors,
        picked: Mapping[str, Array] | None = None,
    ) -> None:
        self.kernel, self.extents, self.scalars, self.tensors = kernel, extents, scalars, tensors
        self.types = scope(kernel)
        self.bound: dict[str, tile.Value] = {}
        self.known: dict[str, Array] = {}
        tiled = [a for a in (*kernel.grid, *kernel.whole) if a.blocked]
        self.dims = {a.name: len(kernel.grid) + k for k, a in enumerate(tiled)}
        self.rank = len(kernel.grid) + len(tiled)
        self.programs = prod(map(self.blocks, kernel.grid))
        self.sample = False
        self.programs_along = self.looked_at() if picked is None else picked
        for k, a in enumerate(kernel.grid):
            self.known[a.name] = self.along(k, self.programs_along[a.name]) * self.block(a)
        for a in tiled:
            inside = self.along(self.dims[a.name], np.arange(self.block(a)))
            self.known[a.name] = self.known.get(a.name, np.zeros((1,) * self.rank, np.int64)) + inside

    def looked_at(self) -> dict[str, Array]:
        """For each axis of the grid, the programs to evaluate bounds in; one if bounds do not depend on the axis."""
        used = {v.name for v in bounding(self.kernel) if isinstance(v, tile.Ref)}
        inside = prod(self.block(a) for a in (*self.kernel.grid, *self.kernel.whole) if a.name in used)
        lengths = [self.blocks(a) if a.name in used else min(self.blocks(a), 1) for a in self.kernel.grid]
        cut = shortened(lengths, MOST // inside)
        self.sample = cut != lengths
        return {a.name: spaced(n, m) for a, n, m in zip(self.kernel.grid, lengths, cut, strict=True)}

    def along(self, dim: int, values: Array) -> Array:
        """Values along one dimension, as an array over all."""
        return values.astype(np.int64).reshape([-1 if d == dim else 1 for d in range(self.rank)])

    def total(self, counts: Array) -> int:
        """The sum of counts over all programs, from those that are looked at."""
        return (2 * int(counts.sum()) * self.programs + counts.size) // (2 * counts.size) if counts.size else 0

    def blocks(self, axis: tile.TileAxis) -> int:
        return blocks_of(self.kernel, axis, self.extents)

    def extent(self, axis: tile.TileAxis) -> int:
        return extent_of(axis, self.extents)

    def block(self, axis: tile.TileAxis) -> int:
        return block_of(self.kernel, axis, self.extents)

    def walks(self) -> Iterator[Walk]:
        """The loops, with where each program's starts and stops."""
        for s in self.kernel.body:
            match s:
                case tile.Let(names=names, types=types, value=value):
                    self.types.update(zip(names, types, strict=True))
                    self.bound.update(dict.fromkeys(names, value))
                case tile.Loop():
                    yield self.walk(s)
                    self.types.update({c.name: c.type for c in s.carried})
                case tile.Store():
                    pass
                case _:
                    assert_never(s)

    def walk(self, s: tile.Loop) -> Walk:
        n, block = self.extent(s.axis), self.block(s.axis)
        start = np.maximum(self.limit(s.start, 0), 0)
        stop = np.minimum(self.limit(s.stop, n), n)
        if s.full is None or not s.full.body or self.is_masked(s, s.full.body):
            return Walk(s, start, stop, start, start)
        first = start
        if s.full.start is not None:
            first = start + -(-(self.limit(s.full.start, n) - start) // block) * block
        inside = np.maximum(self.limit(s.full.stop, 0) - first, 0) // block * block
        return Walk(s, start, stop, first, first + inside)

    def is_masked(self, loop: tile.Loop, body: tuple[tile.Statement, ...]) -> bool:
        """Is any value still selected position by position along the axis?"""
        axis = loop.axis
        types = {**self.types, axis.name: loop_position(axis), **{c.name: c.type for c in loop.carried}}
        for s in body:
            if isinstance(s, tile.Let):
                types.update(zip(s.names, s.types, strict=True))
                for v in walk_values(s.value):
                    if isinstance(v, tile.Elem) and v.op == "where" and axis.name in axes_of(v.args[0], types):
                        return True
        return False

    def limit(self, v: tile.Value | None, default: int) -> Array:
        """The value of a bound in every program that is looked at."""
        rank = len(self.kernel.grid)
        whole = np.full((1,) * rank, default, np.int64)
        if v is None:
            return whole
        try:
            found = self.value(v)
        except _UnknownError:
            return whole
        return found.reshape(found.shape[:rank])

    def value(self, v: tile.Value) -> Array:
        match v:
            case tile.Ref(name=name):
                return self.named(name)
            case tile.Lit(value=value) if not isinstance(value, str):
                return np.asarray(value).reshape((1,) * self.rank)
            case tile.Lit(value=value, dtype=dtype):
                return np.asarray(_extreme(str(value), dtype)).reshape((1,) * self.rank)
            case tile.Fill(value=value):
                return self.value(value)
            case tile.ExtentOf(axis=axis):
                return np.asarray(self.extents[axis]).reshape((1,) * self.rank)
            case tile.ScalarArg(name=name):
                return np.asarray(self.scalars[name]).reshape((1,) * self.rank)
            case tile.Elem(op=op, args=args):
                return apply(op, [self.typed(a) for a in args]).array
            case tile.Convert(dtype=dtype, arg=arg):
                return convert(self.typed(arg), dtype).array
            case tile.Load():
                return self.load(v)
            case tile.Fold(monoid=monoid, axis=axis, args=(arg,)) if monoid.op in _FOLDS and axis in self.dims:
                return np.asarray(_FOLDS[monoid.op].reduce(self.value(arg), axis=self.dims[axis], keepdims=True))
            case _:
                raise _UnknownError

    def typed(self, v: tile.Value) -> Value:
        return Value(self.value(v), dtype_of(v, self.types))

    def named(self, name: str) -> Array:
        if name not in self.known:
            if name not in self.bound:
                raise _UnknownError
            self.known[name] = self.value(self.bound[name])
        return self.known[name]

    def load(self, v: tile.Load) -> Array:
        """Elements of a given tensor; 0 where masked, or where a block overhangs and an index is out of range."""
        if v.tensor not in self.tensors or v.part is not None:
            raise _UnknownError
        whole = self.tensors[v.tensor]
        index = [self.value(i) for i in v.index]
        there = np.asarray(True) if v.mask is None else self.value(v.mask)
        for i, n in zip(index, whole.shape, strict=True):
            there = there & (i >= 0) & (i < n)
        if 0 in whole.shape:
            return np.zeros_like(there, whole.dtype)
        clipped = tuple(np.clip(i, 0, n - 1) for i, n in zip(index, whole.shape, strict=True))
        read = whole[clipped] if index else whole.reshape((1,) * self.rank)
        return np.where(there, read, np.zeros((), whole.dtype))


def _extreme(which: str, dtype: DType) -> int | float:
    """The value of `lowest` or `highest`."""
    if dtype.is_float:
        return -np.inf if which == "lowest" else np.inf
    return dtype.limits[which == "highest"]
