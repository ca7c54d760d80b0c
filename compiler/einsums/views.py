"""Einsums that compute nothing, as views: one operand, nothing summed, its dims split, reordered and merged.

"b (g r) d -> g r b d"      split (g r), transpose
"ii->i"                     the diagonal
"h w -> (w h)"              transpose, merge: a view where the strides allow it, else a copy
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from einc import ein
from einc.runtime.tensors import is_torch

Array = Any  # a NumPy array or a torch tensor; functions return the kind that they take


def is_view(program: ein.Program) -> bool:
    """Is the result of the program made of elements of its one operand, unchanged?"""
    (equation,) = program.equations
    return len(program.operands) == 1 and equation.monoid is None and isinstance(equation.body, ein.Read)


def as_view(program: ein.Program, extents: Mapping[str, int], array: Array) -> Array:
    """The result of such a program, which is writable if the operand is."""
    (operand,), (equation,) = program.operands, program.equations
    axes = [axis for dim in operand.dims for axis in dim]
    array = array.reshape([extents[a] for a in axes]) if any(len(d) != 1 for d in operand.dims) else array
    for axis in dict.fromkeys(axes):
        while axes.count(axis) > 1:
            first = axes.index(axis)
            second = axes.index(axis, first + 1)
            array = _diagonal(array, first, second)
            axes = [a for k, a in enumerate(axes) if k not in (first, second)] + [axis]
    new = [a for a in equation.axes if a not in axes]
    array = _stretched(array, [extents[a] for a in new])
    axes = new + axes
    array = _permuted(array, [axes.index(a) for a in equation.axes])
    if any(len(d) != 1 for d in equation.dims):
        array = array.reshape([prod(extents[a] for a in d) for d in equation.dims])
    return array


def _diagonal(array: Array, first: int, second: int) -> Array:
    """The diagonal of two dims, as a new last dim."""
    diagonal = array.diagonal(0, first, second)
    if not is_torch(array) and array.flags.writeable:
        diagonal.flags.writeable = True
    return diagonal


def _permuted(array: Array, order: list[int]) -> Array:
    return array.permute(order) if is_torch(array) else array.transpose(order)


def _stretched(array: Array, extents: list[int]) -> Array:
    """The array repeated along new leading dims."""
    if not extents:
        return array
    shape = (*extents, *array.shape)
    return array.expand(shape) if is_torch(array) else np.broadcast_to(array, shape)
