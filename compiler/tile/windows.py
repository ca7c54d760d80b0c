"""The blocks of tensors that a descriptor finds: what a kernel reads of each, if it is the same everywhere.

    load T[b, i, k] where i < |i|, k < |k|   -->   a window of T: one position of b, a block of i, a block of k

A descriptor knows where a tensor ends, and gives 0 beyond. So a load may go by one if nothing else masks it, and if its
tensor ends where the axes of its tile do. A walk may stop earlier, at a multiple of every block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import gcd

from einc import tile
from einc.tile import Dot, Elem, Kernel, Lit, Load, Ref, Statement, Value
from einc.tile.choices import order_of
from einc.tile.masks import conjuncts, extent
from einc.tile.walk import lets, loops, tile_axes, values_in

Window = tuple[str | None, ...]  # by dimension, the tile axis of which it is a block; None for a single position


def windows(kernel: Kernel) -> dict[str, Window]:
    """The window of each tensor that loads could find by a descriptor."""
    inside, dims = _Edges(kernel), {b.name: b.dims for b in kernel.buffers}
    found: dict[str, set[Window | None]] = {}
    for v in values_in(kernel.body):
        if isinstance(v, Load):
            found.setdefault(v.tensor, set()).add(inside.window(v, dims[v.tensor]))
    single = ((name, next(iter(seen))) for name, seen in found.items() if len(seen) == 1)
    return {name: window for name, window in single if window is not None}


class _Edges:
    """Which masks of a kernel are no more than where tensors end."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.axes = tile_axes(kernel)
        self.names: Mapping[str, Value] = {s.names[0]: s.value for s in lets(kernel.body) if len(s.names) == 1}
        self.walks = {loop.axis.name: (loop.start, loop.stop) for loop in loops(kernel.body)}

    def window(self, v: Load, dims: tuple[tuple[str, ...], ...]) -> Window | None:
        """What a load reads, if a descriptor finds that."""
        if v.part is not None or v.apart or any(v.checked):
            return None
        found = tuple(self.block(i, dim) for i, dim in zip(v.index, dims, strict=True))
        blocked = [a for a in found if a]
        if "" in found or len(set(blocked)) < len(blocked) or len(blocked) < 2:
            return None
        if not all(self.is_edge(term, blocked) for term in conjuncts(v.mask)):
            return None
        return found

    def block(self, index: Value, dim: tuple[str, ...]) -> str | None:
        """The tile axis that a dimension is read in blocks of; None for one position, nothing for anything else."""
        match index:
            case Ref(name=name) if name in self.axes and self.axes[name].blocked:
                return name if self.axes[name].axes == dim else ""
            case _:
                return None if self.is_single(index) else ""

    def is_single(self, v: Value) -> bool:
        """Is it a number that no tile axis decides, and no data?"""
        match v:
            case Ref(name=name) if name in self.axes:
                return not self.axes[name].blocked
            case Ref(name=name):
                return name in self.names and self.is_single(self.names[name])
            case Load() | tile.Fold() | tile.Scan() | tile.Dot() | tile.Fill():
                return False
            case Elem(args=args):
                return all(map(self.is_single, args))
            case tile.Convert(arg=arg):
                return self.is_single(arg)
            case _:
                return True

    def is_edge(self, term: Value, axes: list[str]) -> bool:
        """Is the term of a mask where one of these axes ends, or where its walk stops at a multiple of every block?"""
        match term:
            case Ref(name=name) if name in self.names:
                return self.is_edge(self.names[name], axes)
            case Elem(op="lt", args=(Ref(name=name), stop)) if name in axes:
                return stop == extent(self.axes[name].axes) or self.is_whole(stop, name)
            case _:
                return False

    def is_whole(self, stop: Value, axis: str) -> bool:
        """Does a walk stop where the axis ends, or after whole blocks?"""
        block = self.kernel.choices.tile(axis)
        start, last = self.walks.get(axis, (None, None))
        if block is None or last != stop:
            return False
        return all(x is None or self.multiple(x, axis) % block.cap == 0 for x in (start, last))

    def multiple(self, v: Value, axis: str) -> int:
        """A number that a value is a multiple of, unless it is where the axis ends."""
        match v:
            case Ref(name=name) if name in self.names:
                return self.multiple(self.names[name], axis)
            case Lit(value=int(value)):
                return int(value)
            case Elem(op="mul", args=(x, y)):
                return self.multiple(x, axis) * self.multiple(y, axis)
            case Elem(op="min", args=(x, y)) if y == extent(self.axes[axis].axes):
                return self.multiple(x, axis)
            case Elem(op="add" | "sub" | "max" | "min", args=(x, y)):
                return gcd(self.multiple(x, axis), self.multiple(y, axis))
            case _:
                return 1


def by_descriptor(kernel: Kernel) -> dict[str, tuple[Window, tuple[int, ...]]]:
    """The windows of the tensors that are loaded by descriptors, and the order of their dimensions in memory."""
    found: dict[str, tuple[Window, tuple[int, ...]]] = {}
    orders = {b.name: order_of(kernel.choices.way(b.name), len(b.dims)) for b in kernel.buffers}
    if any(order is not None for order in orders.values()):
        seen = windows(kernel)
        found = {name: (seen[name], order) for name, order in orders.items() if order is not None}
    return found


def read_by_dots(body: tuple[Statement, ...]) -> set[str]:
    """The names of loads that dots alone read."""
    loads = {let.names[0] for let in lets(body) if isinstance(let.value, Load)}
    values = list(values_in(body))
    sides = Counter(x.name for v in values if isinstance(v, Dot) for x in (v.left, v.right) if isinstance(x, Ref))
    uses = Counter(v.name for v in values if isinstance(v, Ref))
    return {n for n in loads if sides[n] == uses[n]}
