"""Tile values as Gluon expressions: Triton's, with a layout for every tile.

A tile of rows and columns is laid out as a warpgroup multiplies it, and one along an axis as a row, or a column, of
such a tile: its **home**. What is spread along the other axis of another tile becomes a row, or a column, of that.

    max[j](c * x)   -->   c * max[j](x), or c * min[j](x)      by the sign of c, which is free of j

What a dot gives is scaled once a row and not at every position, where nothing else needs the product as it is.
"""

from __future__ import annotations

from einc import tile
from einc.codegen.emit.text import ATOM, Axes, Text, literal
from einc.codegen.triton import contractions
from einc.codegen.triton.expressions import Expressions
from einc.codegen.triton.writer import TYPES
from einc.tile import Value
from einc.tile.walk import rebuild, walk_values

_NARROW = 2  # bytes of a result that a reciprocal is exact enough for


class Layouts(Expressions):
    """Writes values with their layouts: `tiles` are the names of those of tiles by both axes, `homes` those by one."""

    tiles: dict[Axes, str]
    homes: dict[str, str]
    bound: dict[str, Value]  # what names of the body are bound to

    def layout(self, axes: Axes) -> str:
        """The layout of a tile over these axes."""
        return self.homes[axes[0]] if len(axes) == 1 else self.tiles[axes]

    def value(self, v: Value, order: Axes) -> Text:
        if isinstance(v, tile.Fold):
            return self.fold(v, order)
        return super().value(v, order)

    def fold(self, v: tile.Fold, order: Axes) -> Text:
        """A fold, in the home of the axis that is left."""
        if self.is_scaled(v):
            inside = (*order, v.axis)
            text = self.scaled(v, inside)
        else:
            inside = contractions.operand_order(self, v, order)
            text = contractions.fold(self, v, order)
        if not order:
            return text
        return self.at_home(text, f"gl.SliceLayout({inside.index(v.axis)}, {self.tiles[inside]})", self.homes[order[0]])

    def quotients(self, s: tile.Store) -> Value:
        """What a store writes, in two bytes with a reciprocal for each row in place of a division at every position."""
        narrow = s.type.dtype.is_float and s.type.dtype.size == _NARROW

        def inverted(v: Value) -> Value:
            match rebuild(v, inverted):
                case tile.Elem(op="div", args=(x, y)) if len(self.axes(x)) > 1 == len(self.axes(y)):
                    return tile.Elem("mul", (x, tile.Elem("div", (tile.Lit(1.0, self.dtype(y)), y))))
                case found:
                    return found

        return inverted(s.value) if narrow else s.value

    def is_scaled(self, v: Value) -> bool:
        """Is it a tile times a number, or the maximum of such a product?"""
        match v:
            case tile.Fold(args=(tile.Ref(name=name),)) if v.monoid.op == "max":
                return name in self.bound and self.is_scaled(self.bound[name])
            case tile.Elem(op="mul", args=(c, tile.Ref() as x)) if self.is_known(c) and self.is_known(x):
                return self.dtype(x).is_float and not self.axes(c) and len(self.axes(x)) > 1
            case _:
                return False

    def is_known(self, v: Value) -> bool:
        """Is all that it reads written down? A product waits for what reads it."""
        return all(x.name in self.types for x in walk_values(v) if isinstance(x, tile.Ref))

    def scaled(self, v: tile.Fold, inside: Axes) -> Text:
        """The maximum of a tile times a number."""
        (arg,) = v.args
        assert isinstance(arg, tile.Ref)
        product = self.bound[arg.name]
        assert isinstance(product, tile.Elem)
        c, x = product.args
        of = f"{self.strict(c, ()).code}, {self.value(x, inside).code}, {inside.index(v.axis)}"
        return Text(f"{self.file.helper('scaled_maximum')}({of})")

    def at_home(self, text: Text, have: str, want: str) -> Text:
        """A tile along one axis in another layout."""
        return text if have == want else Text(f"gl.convert_layout({text.code}, {want})")

    def expanded(self, text: Text, own: Axes, target: Axes) -> Text:
        if len(own) == 1 and len(target) == 2:
            wanted = f"gl.SliceLayout({1 - target.index(own[0])}, {self.tiles[target]})"
            text = self.at_home(text, self.homes[own[0]], wanted)
        return super().expanded(text, own, target)

    def filled(self, v: tile.Lit, axes: Axes) -> Text:
        dtype = TYPES[v.dtype.name]
        if not axes:
            return Text(f"tl.cast({literal(v).code}, {dtype})")
        return Text(f"gl.full({self.shape(axes)}, {literal(v).code}, {dtype}, layout={self.layout(axes)})")

    def arranged(self, text: Text, have: Axes, want: Axes) -> Text:
        if have == want:
            return text
        return Text(f"gl.convert_layout({text.at(ATOM)}.permute((1, 0)), {self.tiles[want]})")
