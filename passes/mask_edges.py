"""Make blocks that overhang an extent, and indices that may miss it, harmless.

    load T[e]                -->   load T[e] where t < |t| for its tile axes, and 0 <= e < |dim| where e is checked
    fold[t](x)               -->   fold[t](where t < |t| then x else identity)
    dot[t](x, y)             -->   dot[t](x, y) with both 0 outside |t|
    store T[e] = x           -->   store T[e] = x where t < |t|

A load gives 0 where its mask is false, so a sum over loaded values needs no mask of its own. Rows and columns that
overhang compute values that nobody stores.
"""

from __future__ import annotations

from dataclasses import replace

from einc import tile
from einc.passes.builder import live
from einc.tile import Elem, ExtentOf, Lit, Ref, TileType, Value
from einc.tiletypes import axes_of, dtype_of, loop_position, scope
from einc.types import BOOL, INT, DType


def mask_edges(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with its masks."""
    return _Masks(kernel).kernel_masked()


def edge(axis: str) -> str:
    """The name that says which positions of a tile axis exist."""
    return f"{axis}_in"


class _Masks:
    def __init__(self, kernel: tile.Kernel) -> None:
        self.kernel = kernel
        self.names = scope(kernel)
        self.ragged: set[str] = set()
        self.dims = {b.name: b.dims for b in kernel.buffers}
        self.loads: dict[str, tile.Load] = {}

    def kernel_masked(self) -> tile.Kernel:
        edges = [s for axis in (*self.kernel.grid, *self.kernel.whole) for s in self.edge_of(axis)]
        return replace(self.kernel, body=live((*edges, *self.body(self.kernel.body))))

    def edge_of(self, axis: tile.TileAxis) -> list[tile.Statement]:
        """Bind which positions of a blocked axis exist."""
        if axis.block is None:
            return []
        self.ragged.add(axis.name)
        type_ = TileType(BOOL, (axis.name,))
        self.names[edge(axis.name)] = type_
        inside = Elem("lt", (Ref(axis.name), _extent(axis.axes)))
        return [tile.Let((edge(axis.name),), (type_,), inside)]

    def body(self, statements: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
        return tuple(self.statement(s) for s in statements)

    def statement(self, s: tile.Statement) -> tile.Statement:
        match s:
            case tile.Let(names=names, types=types, value=value):
                self.names.update(zip(names, types, strict=True))
                masked = self.value(value)
                if isinstance(masked, tile.Load):
                    self.loads[names[0]] = masked
                return replace(s, value=masked)
            case tile.Store(type=type_, mask=mask):
                terms: list[Value] = [Ref(edge(a)) for a in type_.axes if a in self.ragged]
                return replace(s, mask=conjunction(terms if mask is None else [mask, *terms]))
            case tile.Loop(axis=axis, carried=carried, body=body):
                self.names[axis.name] = loop_position(axis)
                self.names.update({c.name: c.type for c in carried})
                edges = self.edge_of(axis)
                return replace(s, body=(*edges, *self.body(body)))

    def value(self, v: Value) -> Value:
        """The value with the loads, folds and dots in it masked."""
        match v:
            case tile.Load():
                return self.load(v)
            case tile.Elem(args=args):
                return replace(v, args=tuple(self.value(a) for a in args))
            case tile.Convert(arg=arg):
                return replace(v, arg=self.value(arg))
            case tile.Fold(monoid=monoid, axis=axis, args=args):
                units = [Lit(u, self.dtype(a)) for u, a in zip(monoid.identity, args, strict=True)]
                inside = (self.value(a) for a in args)
                return replace(v, args=tuple(self.within(axis, a, u) for a, u in zip(inside, units, strict=True)))
            case tile.Dot(left=left, right=right, inner=inner):
                x, y = self.value(left), self.value(right)
                return replace(
                    v,
                    left=self.within(inner, x, Lit(0, self.dtype(x))),
                    right=self.within(inner, y, Lit(0, self.dtype(y))),
                )
            case _:
                return v

    def dtype(self, v: Value) -> DType:
        return dtype_of(v, self.names)

    def load(self, v: tile.Load) -> tile.Load:
        index = tuple(self.value(i) for i in v.index)
        terms = [] if v.mask is None else [self.value(v.mask)]
        extends = frozenset().union(*(axes_of(x, self.names) for x in (*index, *terms)))
        terms = [*(Ref(edge(a)) for a in self.kernel_order(extends)), *terms]
        for i, dim, checked in zip(index, self.dims[v.tensor], v.checked, strict=True):
            if checked:
                t = self.dtype(i)
                bound = _extent(dim)
                above = Elem("ge", (i, Lit(0, t)))
                terms += [above, Elem("lt", (i, bound if t == INT else tile.Convert(t, bound)))]
        return replace(v, index=index, mask=conjunction(terms))

    def kernel_order(self, axes: frozenset[str]) -> list[str]:
        return [a for a in self.names if a in axes and a in self.ragged]

    def within(self, axis: str, v: Value, unit: Lit) -> Value:
        """The value, and the unit at positions of the axis that do not exist."""
        if axis not in self.ragged or (unit.value == 0 and self.vanishes(v, axis)):
            return v
        return Elem("where", (Ref(edge(axis)), v, unit))

    def vanishes(self, v: Value, axis: str) -> bool:
        """Whether the value is 0 at positions of the axis that do not exist, by the masks of its loads."""
        match v:
            case Ref(name=name) if name in self.loads:
                mask = self.loads[name].mask
                return mask is not None and Ref(edge(axis)) in _terms(mask)
            case tile.Convert(arg=arg) | Elem(op="neg", args=(arg,)):
                return self.vanishes(arg, axis)
            case Elem(op="mul" | "add" | "sub", args=(x, y)):
                return self.vanishes(x, axis) and self.vanishes(y, axis)
            case Elem(op="where", args=(_, x, Lit(value=0))):
                return self.vanishes(x, axis)
            case _:
                return False


def conjunction(terms: list[Value]) -> Value | None:
    """All of the terms hold; None when there are none."""
    whole: Value | None = None
    for term in terms:
        whole = term if whole is None else Elem("and", (whole, term))
    return whole


def _terms(mask: Value) -> list[Value]:
    match mask:
        case Elem(op="and", args=(x, y)):
            return _terms(x) + _terms(y)
        case _:
            return [mask]


def _extent(axes: tuple[str, ...]) -> Value:
    """The number of positions of a group of axes."""
    whole: Value = Lit(1, INT)
    for axis in axes:
        whole = ExtentOf(axis) if whole == Lit(1, INT) else Elem("mul", (whole, ExtentOf(axis)))
    return whole
