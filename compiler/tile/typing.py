"""The type and the axes of tile values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from einc import tile
from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, INT, DType
from einc.tile import TileType
from einc.tile.walk import Scope, every_value, once_for_all, own_values, tile_axes, values_of, walk, walk_values

Types = Mapping[str, TileType]


def dtype_of(v: tile.Value, names: Types) -> DType:
    """The element type of a value; `INT` is the type of positions and extents, i32 or i64 as the launch needs."""
    match v:
        case tile.Ref(name=name):
            return names[name].dtype
        case tile.Lit(dtype=dtype) | tile.Load(dtype=dtype) | tile.Convert(dtype=dtype):
            return dtype
        case tile.ExtentOf():
            return INT
        case tile.ScalarArg(name=name):
            return names[name].dtype
        case tile.Elem(op=op, args=args):
            return _element(op, args, names)
        case tile.Dot(acc=acc):
            return dtype_of(acc, names)
        case tile.Fold(args=args) | tile.Scan(args=args):
            return dtype_of(args[0], names)
        case tile.Fill(value=value):
            return value.dtype
        case _:
            assert_never(v)


def _element(op: str, args: tuple[tile.Value, ...], names: Types) -> DType:
    if op == "rand":
        return F32
    if op == "where":
        return dtype_of(args[1], names)
    if OPS[op].rule in (Rule.TRUTH, Rule.LOGIC):
        return BOOL
    return dtype_of(args[0], names)


def axes_of(v: tile.Value, names: Types) -> frozenset[str]:
    """The tile axes a value extends over."""
    match v:
        case tile.Ref(name=name):
            return frozenset(names[name].axes)
        case tile.Dot():
            return frozenset(v.sides.result)
        case tile.Fold(axis=axis, args=args):
            return frozenset().union(*(axes_of(a, names) for a in args)) - {axis}
        case tile.Scan(axis=axis, args=args):
            return frozenset((axis,)).union(*(axes_of(a, names) for a in args))
        case _:
            return frozenset().union(*(axes_of(below, names) for below in values_of(v)))


def scope(kernel: tile.Kernel) -> dict[str, TileType]:
    """The names that hold throughout a kernel: its grid's positions and its scalars."""
    names = {a.name: TileType(INT, (a.name,) if a.blocked else ()) for a in (*kernel.grid, *kernel.whole)}
    return names | {name: TileType(dtype) for name, dtype in kernel.scalars}


def bound_names(kernel: tile.Kernel) -> set[str]:
    """Every name of a kernel: those of `scope`, of loops' axes and states, and what statements bind."""
    there = Scope()
    for s, _ in walk(kernel.body, full=True):
        there.bind(s)
    return {*scope(kernel), *tile_axes(kernel), *there.names}


def is_narrow(kernel: tile.Kernel) -> bool:
    """Does a kernel read or write floats of fewer digits than f32?"""
    return any(b.dtype.is_float and b.dtype.bits < F32.bits for b in kernel.buffers)


@once_for_all
def multiplied(kernel: tile.Kernel) -> tuple[tuple[tile.Dot, DType], ...]:
    """The dots of a kernel in order, each with the type that it multiplies in."""
    if not any(isinstance(v, tile.Dot) for v in every_value(kernel)):
        return ()
    return tuple(
        (v, v.product or dtype_of(v.left, here.names))
        for s, here in walk(kernel.body, Scope(scope(kernel)))
        for v in walk_values(*own_values(s))
        if isinstance(v, tile.Dot)
    )
