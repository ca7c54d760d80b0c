"""The values and statements of a tile program, walked and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import assert_never

from einc.tile import Convert, Dot, Elem, Fill, Fold, Kernel, Let, Load, Loop, Scan, Statement, Store, TileAxis, Value


def values_of(v: Value) -> tuple[Value, ...]:
    """The values directly below."""
    match v:
        case Elem(args=args) | Fold(args=args) | Scan(args=args):
            return args
        case Convert(arg=arg):
            return (arg,)
        case Load(index=index, mask=mask):
            return index if mask is None else (*index, mask)
        case Dot(left=left, right=right, acc=acc, left_in=left_in, right_in=right_in):
            return (left, right, acc, *(p for p in (left_in, right_in) if p is not None))
        case Fill(value=value):
            return (value,)
        case _:
            return ()


def rebuild(v: Value, f: Callable[[Value], Value]) -> Value:
    """The same value over f of those directly below."""
    match v:
        case Elem(args=args) | Fold(args=args) | Scan(args=args):
            return replace(v, args=tuple(f(a) for a in args))
        case Convert(arg=arg):
            return replace(v, arg=f(arg))
        case Load(index=index, mask=mask):
            return replace(v, index=tuple(f(i) for i in index), mask=None if mask is None else f(mask))
        case Dot(left=left, right=right, acc=acc, left_in=left_in, right_in=right_in):
            x, y, z = f(left), f(right), f(acc)
            inside = (None if p is None else f(p) for p in (left_in, right_in))
            return Dot(x, y, z, v.row, v.column, v.inner, v.batch, *inside)
        case _:
            return v


def walk_values(*roots: Value) -> Iterator[Value]:
    """Every value in some expressions, parents first."""
    stack = [*reversed(roots)]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(values_of(node)))


def roots(body: tuple[Statement, ...]) -> Iterator[Value]:
    """Every whole expression of the statements, those of loops included."""
    for s in body:
        match s:
            case Let(value=value):
                yield value
            case Store(index=index, value=value, mask=mask):
                yield from (*index, value, *(() if mask is None else (mask,)))
            case Loop(carried=carried, body=inner):
                yield from (c.init for c in carried)
                yield from s.bounds
                yield from roots(inner)
            case _:
                assert_never(s)


def values_in(body: tuple[Statement, ...]) -> Iterator[Value]:
    """Every value in the statements, those of loops included."""
    return walk_values(*roots(body))


def tile_axes(kernel: Kernel) -> dict[str, TileAxis]:
    """Every tile axis of a kernel by name: the grid's, then the loops' in order."""
    found = {a.name: a for a in (*kernel.grid, *kernel.whole)}

    def visit(body: tuple[Statement, ...]) -> None:
        for s in body:
            if isinstance(s, Loop):
                found[s.axis.name] = s.axis
                visit(s.body)

    visit(kernel.body)
    return found


def repeated_axes(kernel: Kernel) -> frozenset[str]:
    """The blocked axes of the grid that a stored tensor lacks: every block writes it, at worst one of no positions."""
    stored = [{a for dim in b.dims for a in dim} for b in kernel.buffers if b.written]
    return frozenset(a.name for a in kernel.grid if a.block and any(axes.isdisjoint(a.axes) for axes in stored))
