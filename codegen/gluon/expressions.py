"""Tile values as Gluon expressions: Triton's, with a layout for every tile.

A tile of rows and columns is laid out as a warpgroup multiplies it, and one along an axis as a row, or a column, of
such a tile: its **home**. What is spread along the other axis of another tile becomes a row, or a column, of that.
"""

from __future__ import annotations

from einc import tile
from einc.codegen.emit.text import ATOM, Axes, Text, literal
from einc.codegen.triton import contractions
from einc.codegen.triton.expressions import Expressions
from einc.codegen.triton.writer import TYPES
from einc.tile import Value


class Layouts(Expressions):
    """Writes values with their layouts: `tiles` are the names of those of tiles by both axes, `homes` those by one."""

    tiles: dict[Axes, str]
    homes: dict[str, str]

    def layout(self, axes: Axes) -> str:
        """The layout of a tile over these axes."""
        return self.homes[axes[0]] if len(axes) == 1 else self.tiles[axes]

    def value(self, v: Value, order: Axes) -> Text:
        if isinstance(v, tile.Fold):
            return self.fold(v, order)
        return super().value(v, order)

    def fold(self, v: tile.Fold, order: Axes) -> Text:
        """A fold, in the home of the axis that is left."""
        text = contractions.fold(self, v, order)
        inside = contractions.operand_order(self, v, order)
        if not order:
            return text
        return self.at_home(text, f"gl.SliceLayout({inside.index(v.axis)}, {self.tiles[inside]})", self.homes[order[0]])

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
