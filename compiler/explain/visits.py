"""How much of a walked axis a kernel visits: the bounds of its loops, evaluated for every program of its grid.

A loop from `start` to `stop` visits ceil((stop - start) / block) blocks in each program; without bounds, all of them.
Bounds may read data. One that reads a tensor which is not given bounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einc import ein, tile
from einc.base.types import INT, DType
from einc.binding import Bindings, completed
from einc.ein.arithmetic import ScalarValue
from einc.evaluate import evaluate
from einc.evaluate.elementwise import Value, apply, convert
from einc.tile.typing import axes_of, dtype_of, loop_position, scope
from einc.tile.walk import walk_values

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Scalars = Mapping[str, ScalarValue]

EMPTY, MIXED, FULL = 0, 1, 2
_FOLDS: dict[str, np.ufunc] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
    "any": np.logical_or, "all": np.logical_and,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Visits:
    """Blocks of a walked axis, over all programs of a grid: there are `total`; `mixed` are visited and masked, `full`
    visited without a mask."""

    total: int = 0
    mixed: int = 0
    full: int = 0

    @property
    def visited(self) -> int:
        return self.mixed + self.full

    @property
    def share(self) -> float:
        """The part of all blocks that is visited; 1 where there are none."""
        return self.visited / self.total if self.total else 1.0


def visited(
    kernel: tile.Kernel, extents: Mapping[str, int], scalars: Scalars | None = None, tensors: Tensors | None = None
) -> dict[str, Visits]:
    """By walked tile axis: the blocks that a masked kernel with tile sizes visits at these extents.

    `tensors` are what bounds may read, by name, in the shapes of the kernel's buffers.
    """
    grid = _Grid(kernel, extents, scalars or {}, tensors or {})
    found: dict[str, Visits] = {}
    for w in grid.walks():
        block = grid.block(w.loop.axis)
        blocks = int(np.sum(np.maximum(-(-(w.stop - w.start) // block), 0)))
        full = int(np.sum((w.full_stop - w.full_start) // block))
        before = found.get(w.loop.axis.name, Visits())
        total = grid.programs * -(-grid.extent(w.loop.axis) // block)
        found[w.loop.axis.name] = Visits(before.total + total, before.mixed + blocks - full, before.full + full)
    return found


def domain_picture(
    kernel: tile.Kernel,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    tensors: Tensors | None = None,
    at: Mapping[str, int] | None = None,
    parts: str = "",
) -> dict[str, Array]:
    """By walked tile axis: `EMPTY`, `MIXED` or `FULL` for each (row block, walked block), as a matrix.

    `at` is the position on the other axes of the grid, 0 where it says nothing. A walk starts where its bounds say, so
    its blocks need not be those of the matrix: what they touch counts as visited. `parts` is the axis of the grid that
    counts the parts of walks: what one of them visits is visited.
    """
    grid = _Grid(kernel, extents, scalars or {}, tensors or {})
    found: dict[str, Array] = {}
    for name, picture in grid.pictures(at or {}, parts):
        found[name] = np.maximum(found.get(name, EMPTY), picture.max(axis=0))
    return found


def part_starts(
    kernel: tile.Kernel,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    tensors: Tensors | None = None,
    parts: str = "",
) -> dict[str, Array]:
    """By walked tile axis: for each (row block, walked block), whether a part of the walk starts in it."""
    grid = _Grid(kernel, extents, scalars or {}, tensors or {})
    found: dict[str, Array] = {}
    for name, picture in grid.pictures({}, parts):
        visited = picture != EMPTY
        found[name] = np.any(visited & (np.cumsum(visited, axis=2) == 1), axis=0)
    return found


def visits(
    program: ein.Program,
    schedule: tile.Schedule,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    operands: Tensors | None = None,
) -> dict[str, dict[str, Visits]]:
    """By kernel, then by walked tile axis. Tensors between kernels that bounds read are computed from the operands."""
    whole = completed(program, Bindings(dict(extents), dict(scalars or {}))).extents
    tensors = bound_tensors(program, schedule, whole, scalars, operands)
    return {k.name: visited(k, whole, scalars, tensors) for k in schedule.kernels}


def bound_tensors(
    program: ein.Program,
    schedule: tile.Schedule,
    extents: Mapping[str, int],
    scalars: Scalars | None = None,
    operands: Tensors | None = None,
) -> dict[str, Array]:
    """What the loop bounds of a schedule read: of the operands, and of tensors between kernels, as far as those that
    are given tell."""
    given = dict(operands or {})
    wanted = {v.tensor for k in schedule.kernels for v in _bounding(k) if isinstance(v, tile.Load)}
    known = {name: x for name, x in given.items() if name in wanted}
    inner = tuple(sorted(wanted - set(given)))
    made = {t.name for eq in program.equations for t in eq.outputs}
    needed = _only(program, inner, extents)
    if not inner or not made.issuperset(inner) or any(p.name not in given for p in needed.operands):
        return known
    read = {p.name: given[p.name] for p in needed.operands}
    return known | dict(zip(inner, evaluate(needed, read, scalars or {}), strict=True))


def _only(program: ein.Program, results: tuple[str, ...], extents: Mapping[str, int]) -> ein.Program:
    """The part of a program that gives these tensors, for axes of these extents."""
    live = set(results)
    kept: list[ein.Equation] = []
    for e in reversed(program.equations):
        if live & {t.name for t in e.outputs}:
            live |= {name for x in e.expressions() for name in ein.tensors_of(x)}
            kept.append(e)
    params = tuple(p for p in program.params if not isinstance(p, ein.Operand) or p.name in live)
    axes = tuple(replace(a, extent=ein.Const(extents[a.name])) if a.name in extents else a for a in program.axes)
    return replace(program, params=params, axes=axes, equations=tuple(reversed(kept)), results=results)


def _bounding(kernel: tile.Kernel) -> Iterator[tile.Value]:
    """Every value that a loop's bounds are made of."""
    bound = {n: s.value for s in kernel.body if isinstance(s, tile.Let) for n in s.names}
    stack = [v for s in kernel.body if isinstance(s, tile.Loop) for v in (s.start, s.stop) if v is not None]
    seen: set[str] = set()
    while stack:
        for v in walk_values(stack.pop()):
            yield v
            if isinstance(v, tile.Ref) and v.name in bound and v.name not in seen:
                seen.add(v.name)
                stack.append(bound[v.name])


def block_size(block: tile.Block, extent: int) -> int:
    """The tile size that a launch chooses: the next power of two of the extent within the block's range."""
    return min(max(1 << max(extent - 1, 0).bit_length(), block.least), block.cap)


@dataclass(frozen=True, slots=True)
class _Walk:
    """A loop, where it starts and stops in each program, and the part of that which it walks without masks."""

    loop: tile.Loop
    start: Array
    stop: Array
    full_start: Array
    full_stop: Array


class _UnknownError(Exception):
    """A value that reads what is not given, or that a loop carries."""


class _Grid:
    """Every program of a kernel at once: arrays have a dimension for each axis of the grid, which programs differ in,
    then one for each blocked axis, along which the positions of a program's block lie."""

    def __init__(self, kernel: tile.Kernel, extents: Mapping[str, int], scalars: Scalars, tensors: Tensors) -> None:
        self.kernel, self.extents, self.scalars, self.tensors = kernel, extents, scalars, tensors
        self.types = scope(kernel)
        self.bound: dict[str, tile.Value] = {}
        self.known: dict[str, Array] = {}
        tiled = [a for a in (*kernel.grid, *kernel.whole) if a.block is not None]
        self.dims = {a.name: len(kernel.grid) + k for k, a in enumerate(tiled)}
        self.rank = len(kernel.grid) + len(tiled)
        self.shape = tuple(-(-self.extent(a) // self.block(a)) for a in kernel.grid)
        self.programs = prod(self.shape)
        for k, a in enumerate(kernel.grid):
            self.known[a.name] = self.along(k, self.shape[k]) * self.block(a)
        for a in tiled:
            inside = self.along(self.dims[a.name], self.block(a))
            self.known[a.name] = self.known.get(a.name, np.zeros((1,) * self.rank, np.int64)) + inside

    def along(self, dim: int, n: int) -> Array:
        return np.arange(n, dtype=np.int64).reshape([n if d == dim else 1 for d in range(self.rank)])

    def extent(self, axis: tile.TileAxis) -> int:
        return prod(self.extents[a] for a in axis.axes)

    def block(self, axis: tile.TileAxis) -> int:
        return 1 if axis.block is None else block_size(axis.block, self.extent(axis))

    def walks(self) -> Iterator[_Walk]:
        """The loops, with where each program's starts and stops."""
        for s in self.kernel.body:
            match s:
                case tile.Let(names=names, types=types, value=value):
                    self.types.update(zip(names, types, strict=True))
                    self.bound.update(dict.fromkeys(names, value))
                case tile.Loop():
                    yield self.walk(s)
                    self.types.update({c.name: c.type for c in s.carried})

    def pictures(self, at: Mapping[str, int], parts: str) -> Iterator[tuple[str, Array]]:
        """What each loop visits, by part of its walk, row block and walked block."""
        dims = [k for k, a in enumerate(self.kernel.grid) if a.axes == (parts,)]
        count = self.shape[dims[0]] if dims else 1
        where = tuple(
            slice(None) if a.role == "row" or a.axes == (parts,) else at.get(a.name, 0) for a in self.kernel.grid
        )
        for w in self.walks():
            block, n = self.block(w.loop.axis), self.extent(w.loop.axis)
            start, stop, low, high = (
                np.moveaxis(x, dims, range(len(dims)))[_first(where, dims)].reshape(count, -1, 1)
                for x in (w.start, w.stop, w.full_start, w.full_stop)
            )
            first = np.arange(-(-n // block)) * block
            after = np.minimum(first + block, n)
            touched = (first < stop) & (after > start) & (start < stop)
            inside = (first >= low) & (after <= high)
            yield w.loop.axis.name, np.where(touched, np.where(inside, FULL, MIXED), EMPTY)

    def walk(self, s: tile.Loop) -> _Walk:
        n, block = self.extent(s.axis), self.block(s.axis)
        start = np.maximum(self.limit(s.start, 0), 0)
        stop = np.minimum(self.limit(s.stop, n), n)
        if s.full is None or not s.full.body or self.is_masked(s, s.full.body):
            return _Walk(s, start, stop, start, start)
        first = start
        if s.full.start is not None:
            first = start + -(-(self.limit(s.full.start, n) - start) // block) * block
        inside = np.maximum(self.limit(s.full.stop, 0) - first, 0) // block * block
        return _Walk(s, start, stop, first, first + inside)

    def is_masked(self, loop: tile.Loop, body: tuple[tile.Statement, ...]) -> bool:
        """Whether something is still chosen position by position along the axis."""
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
        """A bound in every program."""
        whole = np.full(self.shape, default, np.int64)
        if v is None:
            return whole
        try:
            found = np.broadcast_to(self.value(v), (*self.shape, *(1,) * (self.rank - len(self.shape))))
        except _UnknownError:
            return whole
        return found.reshape(self.shape)

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
            case tile.Fold(monoid=monoid, axis=axis, args=(arg,)) if monoid.name in _FOLDS and axis in self.dims:
                return np.asarray(_FOLDS[monoid.name].reduce(self.value(arg), axis=self.dims[axis], keepdims=True))
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
        """Elements of a given tensor; 0 where masked, and out of range, where a block overhangs."""
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


def _first(where: tuple[slice | int, ...], dims: list[int]) -> tuple[slice | int, ...]:
    """The subscripts, those of these dimensions first."""
    return (*(where[d] for d in dims), *(x for d, x in enumerate(where) if d not in dims))


def _extreme(which: str, dtype: DType) -> int | float:
    """The value of `lowest` or `highest`."""
    if dtype.is_float:
        return -np.inf if which == "lowest" else np.inf
    bits = dtype.bits or 64
    signed = dtype.kind == "i" or dtype == INT
    if which == "lowest":
        return -(1 << (bits - 1)) if signed else 0
    return (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
