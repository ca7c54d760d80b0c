"""Counts of operations in equations, and of the states that loops carry in kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import assert_never

from einc import tile
from einc.base.ops import COMPARISONS
from einc.base.types import DType
from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Read, Scalar, reads
from einc.tile.walk import loops, tile_axes, walk_values

Sizes = Mapping[str, int]


def flops(e: Equation, dtypes: Mapping[str, DType], sizes: Sizes) -> int:
    """Arithmetic on elements: the operations of the bodies and one combination, at each position that there is.

    A call of exp counts as one operation; comparisons, selections and arithmetic in subscripts count as none.
    """
    each = sum(_operations(b, dtypes) for b in e.bodies) + (0 if e.monoid is None else 1)
    return each * math.prod(sizes.get(a, 1) for a in e.space)


_FREE = ("where", "and", "or", "not", *COMPARISONS, "re", "im", "conj", "complex")


def _operations(e: Expr, dtypes: Mapping[str, DType]) -> int:
    match e:
        case Apply(op, args):
            own = op not in _FREE and any(reads(a) for a in args)
            return own + sum(_operations(a, dtypes) for a in args)
        case Cast(arg=arg):
            return _operations(arg, dtypes)
        case Read() | Const() | AxisValue() | Extent() | Scalar():
            return 0
        case _:
            assert_never(e)


# ---------------------------------------------------------------------------------------------------------------------
# States


def states(k: tile.Kernel) -> Iterator[tile.Carried]:
    """The states that loops carry from one block of a kernel's walk to the next, each name once."""
    yield from {c.name: c for loop in loops(k.body) if loop.axis.role != "inner" for c in loop.carried}.values()


def running_state(k: tile.Kernel) -> list[tile.Carried]:
    """The states of loops in which the next value of a state is computed from another state."""
    found: list[tile.Carried] = []
    for loop in loops(k.body):
        lets = {name: s.value for s in loop.body if isinstance(s, tile.Let) for name in s.names}
        carried = {c.name for c in loop.carried}
        if any(_behind(c.after, lets) & carried - {c.name} for c in loop.carried):
            found += loop.carried
    return found


def _behind(name: str, lets: Mapping[str, tile.Value]) -> set[str]:
    """Every name that a value is computed from, including its own."""
    found: set[str] = set()
    pending = [name]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            if name in lets:
                pending += [v.name for v in walk_values(lets[name]) if isinstance(v, tile.Ref)]
    return found


def each(k: tile.Kernel, c: tile.Carried, sizes: Sizes) -> int:
    """Bytes of a state for one position of the grid."""
    grid = {a.name for a in k.grid}
    axes = {name: t for name, t in tile_axes(k).items() if name not in grid}
    extent = math.prod(sizes.get(x, 1) for a in c.type.axes if a in axes for x in axes[a].axes)
    return c.type.dtype.size * extent
