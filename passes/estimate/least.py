"""A bound below the time of every kernel for some equations, known before it is planned.

    time >= launch + max(bytes / memory, arithmetic)

Everything is stored once, and read and computed once where masks leave anything, each contraction on the units that
are faster at it. A search need not plan what could not win even so.
"""

from __future__ import annotations

from einc.ein import Equation
from einc.passes.estimate.cost import Model
from einc.passes.estimate.moved import moved
from einc.passes.estimate.units import arithmetic, overlapped, reached
from einc.passes.estimate.visited import smallest

_ROUNDED = 1 - 1e-9  # of a sum, so that no order of adding it up gives less


def least(model: Model, equations: tuple[Equation, ...], stores: tuple[str, ...]) -> float:
    """Seconds that every kernel for these equations takes, if it stores these tensors."""
    known, context = model.kept.least, model.context
    if (equations, stores) not in known:
        rates = context.target.rates
        there = all(context.size(a) for eq in equations for a in (*eq.axes, *eq.over))
        computing = max(map(sum, zip(*(_computing(model, eq) for eq in equations), strict=True))) if there else 0.0
        some = smallest(model.program, context)
        sizes = moved(equations, stores, model.shapes, model.dtypes, context)
        moving = sum(n if name in stores else n * some for name, n in sizes.items()) / reached(rates)
        computing *= some
        known[equations, stores] = _ROUNDED * (rates.launch + overlapped(rates, computing, moving, again=False))
    return known[equations, stores]


def _computing(model: Model, eq: Equation) -> tuple[float, float]:
    """Seconds of all processors that an equation takes for dots and vector operations, and for dots and special
    functions: these two go on at the same time, so that those of several equations add up by themselves."""
    known = model.kept.computing
    if eq not in known:
        rates, adds = model.context.target.rates, eq.monoid is not None and eq.monoid.adds
        ways = (model.works(eq), model.by_position(eq)) if adds else (model.works(eq),)
        totals = [tuple(map(sum, zip(*((w.dots, w.vector, w.special) for w in way), strict=True))) for way in ways]
        vector = min(arithmetic(rates, dots, vector, 0.0)[0] for dots, vector, _ in totals)
        known[eq] = vector, min(arithmetic(rates, dots, 0.0, special)[0] for dots, _, special in totals)
    return known[eq]
