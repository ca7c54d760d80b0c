"""Make blocks that overhang an extent, and indices that may miss it, harmless.

    load T[e]                -->   load T[e] where t < |t| for its tile axes, and 0 <= e < |dim| where e is checked
    fold[t](x)               -->   fold[t](where t < |t| then x else identity), and so for prefixes
    dot[t](x, y)             -->   dot[t](x, y) with both 0 outside |t|
    store T[e] = x           -->   store T[e] = x where t < |t|

A load gives 0 where its mask is false, so a sum over loaded values needs no mask of its own. A value whose maximum is
taken is minus infinity outside, so that its exponential relative to a finite reference needs none either. Rows and
columns that overhang compute values that nobody stores. So it is wherever a value stands: in a binding, in a store, in
what a loop starts from or is bounded by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from einc import tile
from einc.base.types import BOOL, I64, INT, DType
from einc.ein.rewriting import unused
from einc.tile import Elem, ExtentOf, Lit, Ref, TileType, Value
from einc.tile.live import live
from einc.tile.masks import conjunction, conjuncts, extent, inside
from einc.tile.typing import axes_of, bound_names, dtype_of, scope
from einc.tile.walk import loop_position, loops, tile_axes


def mask_edges(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with its masks."""
    return _Masks(kernel).kernel_masked()


class _Masks:
    def __init__(self, kernel: tile.Kernel) -> None:
        self.kernel = kernel
        self.names = scope(kernel)
        self.ragged: set[str] = set()
        self.axes = tile_axes(kernel).keys()
        self.edges = _edges(kernel)
        self.dims = {b.name: b.dims for b in kernel.buffers}
        self.values: dict[str, Value] = {}  # what names are bound to, masked
        self.ranked = dict(_ranked(kernel.body))

    def kernel_masked(self) -> tile.Kernel:
        edges = [s for axis in (*self.kernel.grid, *self.kernel.whole) for s in self.edge_of(axis)]
        return replace(self.kernel, body=live((*edges, *self.body(self.kernel.body))))

    def edge_of(self, axis: tile.TileAxis, stop: Value | None = None) -> list[tile.Statement]:
        """Bind which positions of a blocked axis exist, or come before a stop."""
        if not axis.blocked:
            return []
        self.ragged.add(axis.name)
        type_ = TileType(BOOL, (axis.name,))
        self.names[self.edges[axis.name]] = type_
        return [tile.Let((self.edges[axis.name],), (type_,), inside(axis, stop))]

    def body(self, statements: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
        return tuple(self.statement(s) for s in statements)

    def statement(self, s: tile.Statement) -> tile.Statement:
        match s:
            case tile.Let(names=names, types=types, value=value):
                self.names.update(zip(names, types, strict=True))
                masked = self.value(value)
                axis, unit = self.ranked.get(names[0], ("", 0))
                if axis in self.ragged:
                    masked = self.sunk(masked, axis, Lit(unit, types[0].dtype))
                self.values[names[0]] = masked
                return replace(s, value=masked)
            case tile.Store(index=index, value=value, type=type_, mask=mask):
                terms = [] if mask is None else [self.value(mask)]
                terms += [Ref(self.edges[a]) for a in type_.axes if a in self.ragged]
                at = tuple(self.value(i) for i in index)
                return replace(s, index=at, value=self.value(value), mask=conjunction(terms))
            case tile.Loop():
                return self.loop(s)
            case _:
                assert_never(s)

    def loop(self, s: tile.Loop) -> tile.Loop:
        """The loop with what it starts from, its bounds and its body masked."""
        carried = tuple(replace(c, init=self.value(c.init)) for c in s.carried)
        start, stop = (None if v is None else self.value(v) for v in (s.start, s.stop))
        full = s.full
        if full is not None:
            first = None if full.start is None else self.value(full.start)
            full = replace(full, start=first, stop=self.value(full.stop))
        self.names[s.axis.name] = loop_position(s.axis)
        self.names.update({c.name: c.type for c in carried})
        edges = self.edge_of(s.axis, stop if s.exact else None)
        body = (*edges, *self.body(s.body))
        if full is not None:
            full = replace(full, holds=tuple(self.value(p) for p in full.holds))
        return replace(s, carried=carried, body=body, start=start, stop=stop, full=full)

    def value(self, v: Value) -> Value:
        """The value with the loads, folds, prefixes and dots in it masked."""
        match v:
            case tile.Load():
                return self.load(v)
            case tile.Elem(args=args):
                return replace(v, args=tuple(self.value(a) for a in args))
            case tile.Convert(arg=arg):
                return replace(v, arg=self.value(arg))
            case tile.Fold(monoid=monoid, axis=axis, args=args) | tile.Scan(monoid=monoid, axis=axis, args=args):
                units = [Lit(u, self.dtype(a)) for u, a in zip(monoid.identity, args, strict=True)]
                found = (self.value(a) for a in args)
                return replace(v, args=tuple(self.within(axis, a, u) for a, u in zip(found, units, strict=True)))
            case tile.Dot(left=left, right=right, inner=inner, left_in=left_in, right_in=right_in):
                x, y = self.value(left), self.value(right)
                return replace(
                    v,
                    left_in=None if left_in is None else self.counting(left_in, v.row),
                    right_in=None if right_in is None else self.counting(right_in, v.column),
                    left=self.within(inner, x, Lit(0, self.dtype(x))),
                    right=self.within(inner, y, Lit(0, self.dtype(y))),
                    acc=self.value(v.acc),
                )
            case Ref() | Lit() | ExtentOf() | tile.ScalarArg() | tile.Fill():
                return v
            case _:
                assert_never(v)

    def dtype(self, v: Value) -> DType:
        return dtype_of(v, self.names)

    def load(self, v: tile.Load) -> tile.Load:
        index = tuple(self.value(i) for i in v.index)
        terms = [] if v.mask is None else [self.value(v.mask)]
        extends = frozenset().union(*(axes_of(x, self.names) for x in (*index, *terms)))
        terms = [*(Ref(self.edges[a]) for a in self.kernel_order(extends)), *terms]
        certain = {term for mask in terms for term in conjuncts(mask)}
        for i, dim, checked in zip(index, self.dims[v.tensor], v.checked, strict=True):
            if checked:
                terms += [
                    term for term in self.range_of(i, dim) if term not in certain and _compared(term) not in certain
                ]
        return replace(v, index=index, mask=conjunction(terms))

    def range_of(self, i: Value, dim: tuple[str, ...]) -> list[Value]:
        """The conditions that an index is in range, but those that hold by its form."""
        t, bound = self.dtype(i), extent(dim)
        assert t in (INT, I64), "an index is as wide as an extent"
        upper = Elem("lt", (i, bound if t == INT else tile.Convert(t, bound)))
        return [upper] if self.is_natural(i) else [Elem("ge", (i, Lit(0, t))), upper]

    def is_natural(self, v: Value) -> bool:
        """Whether a position is at least 0 by its form."""
        match v:
            case Ref(name=name):
                return name in self.axes or (name in self.values and self.is_natural(self.values[name]))
            case ExtentOf():
                return True
            case Lit(value=value):
                return float(value) >= 0
            case tile.Convert(dtype=t, arg=arg) if t == INT:
                return self.dtype(arg).kind == "u"
            case Elem(op="add" | "mul" | "floordiv" | "mod", args=args):
                return all(self.is_natural(a) for a in args)
            case _:
                return False

    def kernel_order(self, axes: frozenset[str]) -> list[str]:
        return [a for a in self.names if a in axes and a in self.ragged]

    def counting(self, mask: Value, axis: str) -> Value:
        """What counts for rows, or columns, of a dot, as far as these exist."""
        found = self.value(mask)
        return Elem("and", (Ref(self.edges[axis]), found)) if axis in self.ragged else found

    def within(self, axis: str, v: Value, unit: Lit) -> Value:
        """The value, and the unit at positions of the axis that do not exist."""
        if axis not in self.ragged or (unit.value == 0 and self.vanishes(v, axis)) or self.is_sunk(v, axis, unit):
            return v
        return Elem("where", (Ref(self.edges[axis]), v, unit))

    def sunk(self, v: Value, axis: str, unit: Lit) -> Value:
        """The value with the unit at positions of the axis that do not exist, in the mask that it has."""
        infinite = Lit(float("-inf") if unit.value == "lowest" else float("inf"), unit.dtype)
        match v:
            case Elem(op="where", args=(mask, x, other)) if other == infinite:
                return Elem("where", (Elem("and", (Ref(self.edges[axis]), mask)), x, other))
            case _:
                return Elem("where", (Ref(self.edges[axis]), v, infinite))

    def is_sunk(self, v: Value, axis: str, unit: Lit) -> bool:
        """Whether the value is bound to one that is already the unit outside the axis."""
        return isinstance(v, Ref) and self.ranked.get(v.name) == (axis, unit.value)

    def vanishes(self, v: Value, axis: str) -> bool:
        """Whether the value is 0 at positions of the axis that do not exist, by the masks of its loads."""
        match v:
            case Ref(name=name) if name in self.values:
                return self.vanishes(self.values[name], axis)
            case tile.Load(mask=mask):
                return Ref(self.edges[axis]) in conjuncts(mask)
            case Elem(op="exp" | "exp2", args=(x,)):
                return self.is_lowest(x, axis)
            case tile.Convert(arg=arg) | Elem(op="neg", args=(arg,)):
                return self.vanishes(arg, axis)
            case Elem(op="mul" | "add" | "sub", args=(x, y)):
                return self.vanishes(x, axis) and self.vanishes(y, axis)
            case Elem(op="where", args=(_, x, Lit(value=0))):
                return self.vanishes(x, axis)
            case _:
                return False

    def is_lowest(self, v: Value, axis: str) -> bool:
        """Whether the value is minus infinity at positions of the axis that do not exist."""
        match v:
            case Ref(name=name) if self.ranked.get(name) == (axis, "lowest"):
                return True
            case Ref(name=name) if name in self.values:
                return self.is_lowest(self.values[name], axis)
            case Elem(op="sub", args=(x, y)):
                return self.is_lowest(x, axis) and self.is_reference(y)
            case Elem(op="mul", args=(x, Lit(value=float() | int() as scale))):
                return scale > 0 and self.is_lowest(x, axis)
            case _:
                return False

    def is_reference(self, v: Value) -> bool:
        """Whether the value is one that is replaced where it is minus infinity."""
        match v:
            case Ref(name=name) if name in self.values:
                return self.is_reference(self.values[name])
            case Elem(op="where", args=(Elem(op="lt", args=(Elem(op="abs", args=(x,)), Lit(value=bound))), y, Lit())):
                return x == y and bound == float("inf")
            case Elem(op="where", args=(Elem(op="ne", args=(x, Lit(value=bound))), y, Lit())):
                return x == y and bound == float("-inf")
            case _:
                return False


def _compared(term: Value) -> Value:
    """A comparison of a difference with 0 as one of the two."""
    match term:
        case Elem(op=op, args=(Elem(op="sub", args=(a, b)), Lit(value=0))):
            return Elem(op, (a, b))
        case _:
            return term


def _edges(kernel: tile.Kernel) -> dict[str, str]:
    """By tile axis, the name of what says which of its positions exist; none that the kernel has."""
    taken, found = bound_names(kernel), dict[str, str]()
    for axis in tile_axes(kernel):
        found[axis] = unused(f"{axis}_in", taken)
        taken.add(found[axis])
    return found


def _ranked(body: tuple[tile.Statement, ...]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names of floats that a maximum or minimum over an axis is taken of beside them: the axis, and the unit."""
    for beside in (body, *(loop.body for loop in loops(body))):
        made = [s for s in beside if isinstance(s, tile.Let)]
        types = {n: t for s in made for n, t in zip(s.names, s.types, strict=True)}
        for s in made:
            match s.value:
                case tile.Fold(monoid=monoid, axis=axis, args=(Ref(name=name),)) if name in types:
                    unit, t = monoid.identity[0], types[name]
                    if isinstance(unit, str) and t.dtype.is_float and axis in t.axes:
                        yield name, (axis, unit)
