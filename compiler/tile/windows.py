"""The blocks of tensors that a descriptor finds: what a kernel reads of each, if it is the same everywhere.

    load T[b, i, k] where i < |i|, k < |k|   -->   a window of T: one position of b, a block of i, a block of k

A descriptor knows where a tensor ends, and gives 0 beyond. So a load may go by one if its tensor ends where the axes of
its tile do, and nothing else masks it but what masks all of a block, which then lies beyond. A walk may stop earlier,
at a multiple of every block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import gcd

from einc import tile
from einc.base.types import INT
from einc.tile import Dot, Elem, ExtentOf, Kernel, Lit, Load, Loop, Ref, Statement, Store, TileAxis, Value
from einc.tile.choices import order_of, order_of_vectors
from einc.tile.live import live
from einc.tile.masks import conjunction, conjuncts, extent
from einc.tile.walk import (
    bindings,
    each,
    every_value,
    lets,
    loops,
    once,
    over_values,
    rebuild,
    roots,
    tile_axes,
    values_in,
    values_of,
)  # fmt: skip

Place = tuple[str, int] | None  # a tile axis, and which of its axes; None for a single position
Window = tuple[Place, ...]  # by dimension
Box = tuple[tuple[str | None, tuple[int, ...]], ...]  # the sides of a block in memory: tile axes, and their dimensions


@once
def windows(kernel: Kernel) -> Mapping[str, Window]:
    """The window of each tensor that loads could find by a descriptor."""
    inside, dims = _Edges(kernel), {b.name: b.dims for b in kernel.buffers}
    found: dict[str, set[Window | None]] = {}
    for v in every_value(kernel):
        if isinstance(v, Load):
            found.setdefault(v.tensor, set()).add(inside.window(v, dims[v.tensor]))
    single = ((name, next(iter(seen))) for name, seen in found.items() if len(seen) == 1)
    return {name: window for name, window in single if window is not None}


def box(kernel: Kernel, window: Window, order: tuple[int, ...], joined: tuple[bool, ...] | None = None) -> Box | None:
    """The sides of a window's blocks, where its dimensions lie in memory in this order.

    Dimensions of one tile axis have to follow each other there, `joined` where that is known; None if they do not.
    """
    axes, sides = tile_axes(kernel), list[tuple[str | None, tuple[int, ...]]]()
    places = [window[k] for k in order]
    while places:
        at = len(order) - len(places)
        axis = None if places[0] is None else places[0][0]
        count = 1 if axis is None else len(axes[axis].axes)
        whole = [None] if axis is None else [(axis, n) for n in range(count)]
        links = range(at, at + count - 1)
        if places[:count] != whole or not (joined is None or all(joined[n] for n in links)):
            return None
        sides.append((axis, order[at : at + count]))
        places = places[count:]
    return tuple(sides)


class _Edges:
    """Which masks of a kernel are no more than where tensors end."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.axes = tile_axes(kernel)
        self.names: Mapping[str, Value] = {s.names[0]: s.value for s in bindings(kernel) if len(s.names) == 1}
        self.scalars = {s.names[0] for s in bindings(kernel) if len(s.names) == 1 and not s.types[0].axes}
        self.members = dict(m for a in self.axes.values() if a.blocked for m in _members(a))
        self.backwards = {loop.axis.name for loop in loops(kernel.body) if loop.reverse}
        self.walks = {loop.axis.name: (loop.start, loop.stop) for loop in loops(kernel.body)}

    def window(self, v: Load, dims: tuple[tuple[str, ...], ...]) -> Window | None:
        """What a load reads, if a descriptor finds that."""
        if v.part is not None or v.apart or any(v.checked):
            return None
        found = tuple(self.place(i, dim) for i, dim in zip(v.index, dims, strict=True))
        placed = [p for p in found if p is not None]
        blocked = list(dict.fromkeys(axis for axis, _ in placed))
        if ("", 0) in found or len({*placed}) < len(placed) or len(blocked) < 2:
            return None
        if not all(self.is_edge(term, blocked) or self.is_whole_mask(term) for term in conjuncts(v.mask)):
            return None
        return found

    def place(self, index: Value, dim: tuple[str, ...]) -> Place:
        """The tile axis that a dimension is read in blocks of, with no name for anything else that is no block."""
        match self.resolved(index):
            case Ref(name=name) if name in self.axes and self.axes[name].blocked:
                return (name, 0) if self.axes[name].axes == dim and name not in self.backwards else ("", 0)
            case found if found in self.members:
                axis, n = self.members[found]
                return (axis, n) if dim == (self.axes[axis].axes[n],) else ("", 0)
            case found:
                return None if self.is_single(found) else ("", 0)

    def resolved(self, v: Value) -> Value:
        """An index with names of positions replaced by what they are bound to."""
        match v:
            case Ref(name=name) if name in self.names and isinstance(self.names[name], Elem):
                return self.resolved(self.names[name])
            case Elem(args=args):
                return Elem(v.op, tuple(map(self.resolved, args)))
            case _:
                return v

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

    def is_whole_mask(self, term: Value) -> bool:
        """Does the term of a mask hold for all of a block or for none of it?"""
        return isinstance(term, Ref) and term.name in self.scalars

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


def _members(axis: TileAxis) -> Iterator[tuple[Value, tuple[str, int]]]:
    """The positions of the axes that a tile axis is flattened from, as lowering writes them."""
    rest: Value = Ref(axis.name)
    for n, member in reversed(list(enumerate(axis.axes))[1:]):
        yield Elem("mod", (rest, ExtentOf(member))), (axis.name, n)
        rest = Elem("floordiv", (rest, ExtentOf(member)))
    if len(axis.axes) > 1:
        yield rest, (axis.name, 0)


@once
def by_descriptor(kernel: Kernel) -> Mapping[str, Box]:
    """The sides of the blocks of the tensors that are loaded by descriptors."""
    orders = {b.name: order_of(kernel.choices.way(b.name), len(b.dims)) for b in kernel.buffers}
    if all(order is None for order in orders.values()):
        return {}
    seen = windows(kernel)
    boxes = {name: box(kernel, seen[name], order) for name, order in orders.items() if order is not None}
    return {name: found for name, found in boxes.items() if found is not None}


def read_by_dots(body: tuple[Statement, ...], loads: Collection[str] | None = None) -> set[str]:
    """The names of loads that dots alone read there: of these, or of those that are made there."""
    if loads is None:
        loads = {let.names[0] for let in lets(body) if isinstance(let.value, Load)}
    values = list(values_in(body))
    sides = Counter(x.name for v in values if isinstance(v, Dot) for x in (v.left, v.right) if isinstance(x, Ref))
    uses = Counter(v.name for v in values if isinstance(v, Ref))
    return {n for n in loads if sides[n] == uses[n]}


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor that is reached by several neighbours at once: the order of its dimensions in memory, and the axis along
    the last of them. If `padded`, rows begin at whole lines of a cache wherever they end."""

    tensor: str
    order: tuple[int, ...]
    axis: str
    padded: bool = False


def in_rows(kernel: Kernel, lined: Collection[str] = ()) -> tuple[Rows, ...]:
    """The tensors of a kernel that are reached by several neighbours at once, if their extent and steps are multiples
    of so many: what is loaded by vectors, and where all is loaded by these or by descriptors, the one result.

    So are those with `lined` rows, which are padded: of their steps alone a generator would take each thread to have
    several neighbours, though a mask of any extent lets it reach one at a time, far from the next thread's.
    """
    dims = {b.name: b.dims for b in kernel.buffers}
    orders = {name: order_of_vectors(kernel.choices.way(name), len(own)) for name, own in dims.items()}
    found = {name: order for name, order in orders.items() if order is not None}
    windows_of = by_descriptor(kernel)
    found |= {name: tuple(range(len(own))) for name, own in dims.items() if name in lined and name not in windows_of}
    stores = [s for s in each(kernel.body) if isinstance(s, Store)]
    if len(stores) == 1 and stores[0].part is None and (found or windows_of):
        found[stores[0].tensor] = tuple(range(len(stores[0].index)))
    rows = ((name, order, dims[name][order[-1]]) for name, order in found.items() if len(order) > 1)
    return tuple(Rows(name, order, last[0], name in lined) for name, order, last in rows if len(last) == 1)


def by_corners(kernel: Kernel, windows: Mapping[str, Box]) -> Kernel:
    """The kernel with where blocks begin for indices of what descriptors load, and without masks, which they know, but
    those of whole blocks. What only those needed is gone.
    """
    if not windows:
        return kernel
    edges = _Edges(kernel)

    def cornered(v: Value) -> Value:
        if isinstance(v, Load) and v.tensor in windows:
            sides = {dims[0]: axis for axis, dims in windows[v.tensor]}
            singles = {k: v.index[k] for k, axis in sides.items() if axis is None}
            corners = {k: Ref(axis) for k, axis in sides.items() if axis is not None}
            index = tuple(({**singles, **corners}).get(k, Lit(0, INT)) for k in range(len(v.index)))
            mask = conjunction([term for term in conjuncts(v.mask) if edges.is_whole_mask(term)])
            return replace(v, mask=mask, index=index)
        return rebuild(v, cornered)

    return replace(kernel, body=_live_in_full(live(tuple(over_values(s, cornered) for s in kernel.body))))


def _live_in_full(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements without bindings that nothing reads in the unmasked bodies of loops."""

    def within(s: Statement) -> Statement:
        if not isinstance(s, Loop):
            return s
        full, after = s.full, {c.after for c in s.carried}
        if full is not None:
            full = replace(full, body=_live_in_full(live(full.body, after)))
        return replace(s, body=_live_in_full(s.body), full=full)

    return tuple(map(within, body))


def names_beside(kernel: Kernel, windows: frozenset[str]) -> set[str]:
    """The names that a kernel reads beside the indices of what descriptors load."""
    found, stack = set[str](), list(roots(kernel.body))
    while stack:
        match stack.pop():
            case Load(tensor=tensor, index=index, mask=mask) if tensor in windows:
                stack += [i for i in index if not isinstance(i, Ref)] + ([] if mask is None else [mask])
            case Ref(name=name):
                found.add(name)
            case v:
                stack += values_of(v)
    return found
