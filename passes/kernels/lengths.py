"""Which programs of a kernel walk furthest: the bounds of its loop, at the first and the last block of rows."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from einc import tile
from einc.pipeline import Context
from einc.tile import Kernel, Loop, Value
from einc.tile.walk import bindings

_OPS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "floordiv": np.floor_divide, "mod": np.mod,
    "exactdiv": np.floor_divide, "min": np.minimum, "max": np.maximum, "where": np.where, "neg": np.negative,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
}  # fmt: skip
_FOLDS: dict[str | None, Callable[..., np.ndarray]] = {"min": np.min, "max": np.max}
_SCALAR = 1024  # of a parameter whose value is not known
_BOUNDS = {"lowest": -(1 << 31), "highest": (1 << 31) - 1}


class _Unknown(Exception):
    """A bound that the extents do not decide."""


def grows(kernel: Kernel, loop: Loop, axis: tile.TileAxis, context: Context, rows: int) -> bool:
    """Do the last rows of a kernel, in blocks of so many, walk further than its first ones?"""
    row, total = axis.name, prod(context.size(a) for a in axis.axes)
    first, last = np.arange(min(rows, total)), np.arange(max(total - rows, 0), total)
    try:
        return _steps(kernel, loop, row, last, context) > _steps(kernel, loop, row, first, context)
    except _Unknown:
        return False


def _steps(kernel: Kernel, loop: Loop, row: str, positions: np.ndarray, context: Context) -> int:
    made = {s.names[0]: s.value for s in bindings(kernel)}

    def value(v: Value) -> np.ndarray:
        match v:
            case tile.Ref(name=name) if name == row:
                return positions
            case tile.Ref(name=name) if name in made:
                return value(made[name])
            case tile.Ref(name=name) if any(a.name == name and not a.blocked for a in kernel.grid):
                return np.asarray(0)
            case tile.Lit(value=x):
                return np.asarray(_BOUNDS[x] if isinstance(x, str) and x in _BOUNDS else x)
            case tile.ExtentOf(axis=axis):
                return np.asarray(context.size(axis))
            case tile.ScalarArg():
                return np.asarray(_SCALAR)
            case tile.Elem(op=op, args=args) if op in _OPS:
                return _OPS[op](*map(value, args))
            case tile.Fold(monoid=monoid, axis=axis, args=(x,)) if axis == row and monoid.op in _FOLDS:
                return _FOLDS[monoid.op](value(x))
            case _:
                raise _Unknown

    stop = prod(context.size(a) for a in loop.axis.axes) if loop.stop is None else int(value(loop.stop))
    return max(stop - (0 if loop.start is None else int(value(loop.start))), 0)
