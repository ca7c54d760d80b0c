"""A sum of products dealt to two sides: which of its axes are rows, columns, batch and inner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product as choices

from einc.ein import Apply, Const, Expr, axes_of

MOST_FACTORS = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """The roles of an equation's axes in a contraction, each in the equation's order."""

    batch: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    inner: tuple[str, ...]


Dealing = tuple[Shape, tuple[Expr, ...], tuple[Expr, ...]]


def terms_of(e: Expr, negative: bool = False) -> Iterator[tuple[bool, Expr]]:
    """The terms of a sum, each with a flag that says whether it is subtracted."""
    match e:
        case Apply(op="add", args=(x, y)):
            yield from terms_of(x, negative)
            yield from terms_of(y, negative)
        case Apply(op="sub", args=(x, y)):
            yield from terms_of(x, negative)
            yield from terms_of(y, not negative)
        case Apply(op="neg", args=(x,)):
            yield from terms_of(x, not negative)
        case _:
            yield negative, e


def factors_of(e: Expr) -> Iterator[Expr]:
    """The factors of a term, without signs; a divisor counts as a factor, and the factors of a masked product too."""
    match e:
        case Apply(op="mul", args=(x, y)):
            yield from factors_of(x)
            yield from factors_of(y)
        case Apply(op="neg", args=(x,)):
            yield from factors_of(x)
        case Apply(op="div", args=(x, y)):
            yield from factors_of(x)
            yield Apply("div", (Const(1.0), y))
        case Apply(op="where", args=(_, Apply(op="mul") as x, Const(value=0))):
            yield from factors_of(x)
        case _:
            yield e


@lru_cache(maxsize=4096)
def dealings(axes: tuple[str, ...], over: tuple[str, ...], factors: tuple[Expr, ...]) -> tuple[Dealing, ...]:
    """Every way of dealing factors to two sides that makes a contraction, whatever the extents."""
    found = []
    for sides in choices((False, True), repeat=len(factors)):
        left = tuple(f for f, right in zip(factors, sides, strict=True) if not right)
        right = tuple(f for f, right in zip(factors, sides, strict=True) if right)
        shape = _shape(axes, over, left, right)
        if shape is not None:
            found.append((shape, left, right))
    return tuple(found)


def _shape(
    axes: tuple[str, ...], over: tuple[str, ...], left: tuple[Expr, ...], right: tuple[Expr, ...]
) -> Shape | None:
    on_left, on_right = ({a for f in side for a in axes_of(f)} for side in (left, right))
    rows = tuple(a for a in axes if a in on_left and a not in on_right)
    columns = tuple(a for a in axes if a in on_right and a not in on_left)
    batch = tuple(a for a in axes if a not in rows and a not in columns)
    if not rows or not columns or not any(a in on_left and a in on_right for a in over):
        return None
    if axes.index(rows[-1]) > axes.index(columns[-1]):
        return None  # the mirror image puts the last output axis, usually the contiguous one, on the columns
    return Shape(batch, rows, columns, over)
