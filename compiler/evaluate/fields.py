"""Scalar expressions as arrays over a box of positions, with extent 1 along axes that they do not depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import numpy as np

from einc.base.types import BOOL, FLOAT, INT, DType
from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Read, Scalar
from einc.ein.exclusion import guarded
from einc.ein.guards import in_range_by_form
from einc.evaluate.elementwise import Array, Value, apply, as_stored, convert, storage

_RING = ("add", "sub", "mul", "neg")  # of integers: equal in every wider type, up to wrapping


@dataclass(frozen=True, slots=True)
class Box:
    """Positions [start, stop) along each of the axes, in order: the dimensions of the arrays over it."""

    axes: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in self.ranges)

    def size(self, axes: tuple[str, ...]) -> int:
        """The number of positions along these axes."""
        return math.prod(n for axis, n in zip(self.axes, self.shape, strict=True) if axis in axes)

    def halves(self, axis: str) -> tuple[Box, Box]:
        k = self.axes.index(axis)
        start, stop = self.ranges[k]
        middle = (start + stop) // 2
        before, after = self.ranges[:k], self.ranges[k + 1 :]
        return (
            replace(self, ranges=(*before, (start, middle), *after)),
            replace(self, ranges=(*before, (middle, stop), *after)),
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """The values of names: tensors, their dimensions and types, extents, and scalars (arrays, inside a monoid).

    `equations` are those that define the tensors; `finite` says that all operands are finite.
    """

    tensors: dict[str, Array]
    dims: Mapping[str, tuple[tuple[str, ...], ...]]
    dtypes: Mapping[str, DType]
    extents: Mapping[str, int]
    scalars: Mapping[str, Value]
    equations: Mapping[str, Equation] = field(default_factory=dict)
    finite: bool = True
    guards: dict[Equation, Equation] = field(default_factory=dict)

    def guarded(self, e: Equation) -> Equation:
        """The equation guarded by what its masks exclude, found once."""
        if e not in self.guards:
            self.guards[e] = guarded(e, self.equations, self.dtypes)
        return self.guards[e]


def scalar(value: bool | int | float) -> Value:
    """A number as a value of a weak type."""
    if isinstance(value, bool):
        return Value(np.asarray(value), BOOL)
    if isinstance(value, float):
        return Value(np.asarray(value), FLOAT)
    wide: type[Any] = np.int64 if value < 1 << 63 else np.uint64
    return Value(np.asarray(value, wide), INT)


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of expressions over one box; guards are computed once, since many reads share them."""

    box: Box
    scope: Scope
    guards: dict[Expr, Array] = field(default_factory=dict)

    def value(self, e: Expr, wide: DType | None = None) -> Value:
        """The expression's values; `wide` is the type of the sum around it, if that is a sum of integers."""
        match e:
            case Const(value):
                return self._constant(scalar(value))
            case Extent(axis):
                return self._constant(scalar(self.scope.extents[axis]))
            case Scalar(name):
                return self._constant(self.scope.scalars[name])
            case AxisValue(axis):
                k = self.box.axes.index(axis)
                return Value(self._along(np.arange(*self.box.ranges[k]), (k,)), INT)
            case Cast(dtype, arg):
                return convert(self.value(arg), dtype)
            case Read():
                return self._read(e)
            case Apply(op, args):
                below = wide if op in _RING else None
                return apply(op, [self.value(a, below) for a in args], below)
            case _:
                assert_never(e)

    def truth(self, e: Expr) -> Array:
        """A predicate's values."""
        if e not in self.guards:
            self.guards[e] = self.value(e).array
        return self.guards[e]

    def _constant(self, v: Value) -> Value:
        return v if v.array.ndim else Value(v.array.reshape((1,) * len(self.box.axes)), v.dtype)

    def _along(self, x: Array, dims: tuple[int, ...]) -> Array:
        """The array with its dimensions placed among the box's, in increasing order."""
        shape = [1] * len(self.box.axes)
        for n, k in zip(x.shape, dims, strict=True):
            shape[k] = n
        return x.reshape(shape)

    def _read(self, e: Read) -> Value:
        dtype = self.scope.dtypes[e.tensor]
        whole = self._aligned(e)
        found = self._gathered(e) if whole is None else whole
        if e.guard is not None:
            found = np.where(self.truth(e.guard), found, np.zeros((), storage(dtype)))
        return Value(found, dtype)

    def _aligned(self, e: Read) -> Array | None:
        """The tensor itself, if every index is in range by form and no axis occurs twice; else None."""
        dims, box = self.scope.dims[e.tensor], self.box
        axes = tuple(axis for group in dims for axis in group)
        if len(set(axes)) < len(axes) or not all(map(in_range_by_form, e.index, dims)):
            return None
        x = self.scope.tensors[e.tensor].reshape([self.scope.extents[a] for a in axes])
        at = [box.axes.index(a) for a in axes]
        x = x[tuple(slice(*box.ranges[k]) for k in at)]
        order = sorted(range(len(at)), key=at.__getitem__)
        return self._along(x.transpose(order), tuple(at[k] for k in order))

    def _gathered(self, e: Read) -> Array:
        """Element by element; an index out of range, also a negative one, gives 0."""
        x = self.scope.tensors[e.tensor]
        inside: Array = np.ones((1,) * len(self.box.axes), bool)
        index = []
        for i, group, n in zip(e.index, self.scope.dims[e.tensor], x.shape, strict=True):
            at = as_stored(self.value(i).array, INT)
            if not in_range_by_form(i, group):
                inside = inside & (at >= 0) & (at < n)
                at = np.clip(at, 0, max(n - 1, 0))
            index.append(at)
        if x.size == 0:
            return np.zeros(np.broadcast_shapes(inside.shape, *(i.shape for i in index)), x.dtype)
        found = x[tuple(index)] if index else x.reshape(inside.shape)
        return found if inside.all() else np.where(inside, found, np.zeros((), x.dtype))
