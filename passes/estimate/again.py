"""What a walk costs more because others are within it.

A walk within a walk reads its operands anew for every block of the other. Programs that run at once are of neighbouring
rows, in all parts of the walk (`split_walks`): what the walk's blocks are made of is read once for all of these, and
what their rows are made of stays in the cache from one block to the next, if there is room for that of all of these. A
block takes as long as a contraction of a tile, whether parts of the walk need all of their last one or not. A tile with
fewer rows or columns than the widest of a contraction waits for the cache, since it reads more for each product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from einc.base.types import F16, DType
from einc.ein import Equation
from einc.passes.algebra.exposure import Dims
from einc.passes.streaming.walks import tensors_read
from einc.pipeline import Context, positions
from einc.pipeline.plan import Planned

_KEPT = 2  # times what is read again, the cache holds
_WIDE = 2  # times as many columns a block of such a walk has as a program of a contraction has rows


@lru_cache(maxsize=1024)
def repeated(plan: Planned) -> tuple[Equation, ...]:
    """The equations that walk their axes for every block of a plan's walk."""
    return tuple(eq for eq in plan.equations if plan.walks_within(eq) and not plan.along.isdisjoint(eq.axes))


def overhang(plan: Planned, context: Context) -> Callable[[int], float]:
    """The blocks that a plan's walk visits for each that it has, by the number of its parts."""
    blocks = _blocks(plan.walked, context, _WIDE)
    return (lambda splits: -(-blocks // splits) * splits / blocks) if repeated(plan) else lambda _: 1.0


def read_again(
    plan: Planned, context: Context, shapes: Mapping[str, Dims], dtypes: Mapping[str, DType]
) -> Callable[[int], float]:
    """Bytes that the walks within a plan's walk read from memory beyond the first time, by the number of its parts."""
    rates = context.target.rates
    rows, blocks = _blocks((*plan.rows, *plan.columns), context), _blocks(plan.walked, context, _WIDE)
    of_walk = of_rows = kept = 0.0  # bytes of operands, and what those of all rows of one batch have in the cache
    for axes, size in _operands(plan, context, shapes, dtypes):
        alone = size / positions(tuple(axes.intersection(plan.batch)), context)
        if axes & plan.along:
            of_walk += size if _KEPT * alone > rates.last_cache else 0
        else:
            of_rows, kept = of_rows + size, kept + alone

    def again(splits: int) -> float:
        at_once = min(rows, -(-rates.processors // splits))
        lost = _KEPT * kept * at_once / rows > rates.last_cache
        return of_walk * (-(-rows // at_once) - 1) + of_rows * (blocks - 1) * lost

    return again if of_walk or of_rows else lambda _: 0.0


def through_cache(
    plan: Planned, chained: bool, context: Context, shapes: Mapping[str, Dims], dtypes: Mapping[str, DType]
) -> float:
    """FLOPs of f16 for which the matrix units wait while the tiles of walks within a plan's walk are read.

    They are kept busy by tiles of the widest kind, as those of a contraction by itself are. Where one contraction
    follows another tiles have half the rows, and as many columns.
    """
    rows = context.block(chained)
    columns = rows if chained else _WIDE * rows
    tiles = _count((*plan.rows, *plan.columns), rows, context), _count(plan.walked, columns, context)
    widest = 2.0 * context.block() * _WIDE / (1 + _WIDE) / F16.size  # FLOPs for each byte
    return widest * sum(
        size * (tiles[0] if axes & plan.along else tiles[1]) for axes, size in _operands(plan, context, shapes, dtypes)
    )


def _operands(
    plan: Planned, context: Context, shapes: Mapping[str, Dims], dtypes: Mapping[str, DType]
) -> Iterable[tuple[frozenset[str], float]]:
    """The axes and the bytes of each tensor that walks within a plan's walk read along their own axes."""
    read = tensors_read(e for eq in repeated(plan) for e in eq.expressions())
    for name in read - {t.name for eq in plan.equations for t in eq.outputs}:
        axes = frozenset(a for dim in shapes[name] for a in dim)
        if not axes.isdisjoint(a for group in plan.inner for a in group):
            yield axes, float(positions(tuple(axes), context) * dtypes[name].size)


def _blocks(axes: tuple[str, ...], context: Context, wide: int = 1) -> int:
    return _count(axes, wide * context.block(), context)


def _count(axes: tuple[str, ...], block: int, context: Context) -> int:
    return max(-(-positions(axes, context) // block), 1)
