"""The plan of a kernel for a single equation: nothing shared, nothing but tiling."""

from __future__ import annotations

from einc.ein import Equation, Program
from einc.ein.components import components
from einc.ein.conditions import added_at
from einc.passes.algebra.contraction import contraction
from einc.passes.streaming.prefix import prefix
from einc.pipeline import Context
from einc.pipeline.plan import Planned


def alone(equation: Equation, program: Program, context: Context) -> Planned:
    """The plan of a kernel for one equation.

    Prefixes walk along the axis that they end at. A contraction has its rows, columns and inner axes; another reduction
    its outputs as rows; a pointwise equation its last axis as columns and the others as rows. So does one whose terms
    are added at places that data decides, over the positions of terms: neighbours in memory are neighbours in a block.
    """
    eq = components(equation)
    stores = tuple(t.name for t in eq.outputs)
    if added_at(eq):
        own = tuple(a for a in eq.axes if a not in eq.added)
        axes = (*eq.over, *own) if own and eq.axes[-1] == own[-1] else (*own, *eq.over)
        return Planned((eq,), stores=stores, rows=axes[:-1], columns=axes[-1:])
    prefixes = prefix(eq, program) if context.level >= 1 else None
    if prefixes is not None:
        return Planned((eq,), stores=stores, rows=prefixes.rows, walked=(prefixes.walked,), scanned=(prefixes.scanned,))
    if eq.monoid is None:
        return Planned((eq,), stores=stores, rows=eq.axes[:-1], columns=eq.axes[-1:])
    if eq.monoid.adds:
        found = contraction(eq, eq.body, context.size)
        if found is not None:
            s = found.shape
            return Planned((eq,), stores=stores, batch=s.batch, rows=s.rows, columns=s.columns, walked=s.inner)
    return Planned((eq,), stores=stores, rows=eq.axes, walked=eq.over)
