"""What a walk costs more because others are within it.

A walk within a walk reads its operands anew for every block of the other. Programs that run at once are of neighbouring
rows, in all parts of the walk (`split_walks`): what the walk's blocks are made of is read once for all of these, and
what their rows are made of stays in the cache from one block to the next, if there is room for that of all of these. A
block takes as long as a contraction of a tile, whether parts of the walk need all of their last one or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from einc.base.types import DType
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


def overhang(plan: Planned, splits: int, context: Context) -> float:
    """The blocks that a plan's walk visits in so many parts, for each that it has."""
    blocks = _blocks(plan.walked, context, _WIDE)
    return -(-blocks // splits) * splits / blocks if repeated(plan) else 1.0


def read_again(
    plan: Planned, splits: int, context: Context, shapes: Mapping[str, Dims], dtypes: Mapping[str, DType]
) -> float:
    """Bytes that the walks within a plan's walk in so many parts read from memory beyond the first time."""
    if not repeated(plan):
        return 0.0
    rates, within = context.target.rates, {a for group in plan.inner for a in group}
    rows = _blocks((*plan.rows, *plan.columns), context)
    at_once = min(rows, -(-rates.processors // splits))
    read = tensors_read(e for eq in repeated(plan) for e in eq.expressions())
    kept = again = 0.0
    for name in sorted(read - {t.name for eq in plan.equations for t in eq.outputs}):
        axes = {a for dim in shapes[name] for a in dim}
        size = float(positions(tuple(axes), context) * dtypes[name].size)
        batch = positions(tuple(axes.intersection(plan.batch)), context)
        if axes & plan.along and _KEPT * size / batch > rates.cache:
            again += size * (-(-rows // at_once) - 1)
        elif axes & within and not axes & plan.along:
            kept += size / batch * at_once / rows
            again += size * (_blocks(plan.walked, context, _WIDE) - 1) * (_KEPT * kept > rates.cache)
    return again


def _blocks(axes: tuple[str, ...], context: Context, wide: int = 1) -> int:
    return max(-(-positions(axes, context) // (wide * context.block())), 1)
