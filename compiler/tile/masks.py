"""Masks, as conjunctions of terms: which positions of tile axes exist."""

from __future__ import annotations

from functools import lru_cache

from einc import tile
from einc.base.types import INT
from einc.tile import Elem, ExtentOf, Lit, Ref, Value


def inside(axis: tile.TileAxis, stop: Value | None = None) -> Value:
    """The condition that a position of a tile axis exists, and lies before `stop` if given."""
    return Elem("lt", (Ref(axis.name), extent(axis.axes) if stop is None else stop))


def conjunction(terms: list[Value]) -> Value | None:
    """All of the terms as one mask; None if there are none."""
    whole: Value | None = None
    for term in terms:
        whole = term if whole is None else Elem("and", (whole, term))
    return whole


def conjuncts(mask: Value | None) -> list[Value]:
    """The terms of a mask, which all hold where it does; none without a mask."""
    match mask:
        case None:
            return []
        case Elem(op="and", args=(x, y)):
            return conjuncts(x) + conjuncts(y)
        case _:
            return [mask]


@lru_cache(maxsize=1024)
def extent(axes: tuple[str, ...]) -> Value:
    """The number of positions of a group of axes."""
    whole: Value = ExtentOf(axes[0]) if axes else Lit(1, INT)
    for axis in axes[1:]:
        whole = Elem("mul", (whole, ExtentOf(axis)))
    return whole
