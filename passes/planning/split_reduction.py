"""Walk a long axis in parts where the grid alone leaves most of the machine idle.

    loop r: s = step(s)   -->   for each part p of r:  loop r in p: s = step(s);  then  loop p: s = merge(s, S[p])

A walk can be split if nothing is written on the way and all its reductions stream: merging is associative, so that only
rounding differs. The number of parts is the one predicted to take the least time, or the one asked for.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from einc import ein
from einc.base.facts import MOST_ALIGNED
from einc.passes.algebra.contraction import contraction
from einc.passes.estimate.cost import Model
from einc.passes.streaming.walks import can_split
from einc.pipeline import Context, Product, State
from einc.pipeline.plan import Planned
from einc.tile.asked import asked

_STEM = "split"
_NARROW = 2  # bytes of an element that matrix units multiply


def split_reduction(state: State, context: Context) -> State:
    """The state with the number of parts of every plan's walk; an axis of the program counts the parts."""
    if context.level < 2 and not any(c.name == "parts" for c in context.choices):
        return state
    model = Model(state.program, context)
    counts = [_parts(plan.of(state.program), model) for plan in state.plans]
    if not set(counts) - {1}:
        return state
    axes = _axes(state.program, set(counts) - {1})
    counted = tuple(ein.AxisDecl(name, ein.Const(n)) for n, name in axes.items())
    program = replace(state.program, axes=(*state.program.axes, *counted))
    chosen = [p if n == 1 else replace(p, split=axes[n], splits=n) for p, n in zip(state.plans, counts, strict=True)]
    return replace(state, program=program, plans=tuple(chosen))


def _parts(plan: Planned, model: Model) -> int:
    """The number of parts asked for, else the one that takes the least time."""
    context = model.context
    parts = asked(context.choices, "parts", plan.name)
    if isinstance(parts, int):
        return parts if can_split(plan) else 1
    if context.level < 2:
        return 1
    product = _product(plan, model) if context.backend.parts is not None and context.target.has_descriptors else None
    if product is None or context.backend.parts is None:
        return model.splits(plan)[0]
    return context.backend.parts(product, context.target) if can_split(plan) and model.can_merge(plan) else 1


def _product(plan: Planned, model: Model) -> Product | None:
    """The product of two tensors, of elements that matrix units multiply, that a plan is alone; None for any other."""
    context = model.context
    if len(plan.equations) > 1 or not plan.walked or plan.whole or plan.scanned:
        return None
    (eq,) = plan.equations
    found = contraction(eq, eq.body, context.size) if eq.monoid is not None and eq.monoid.adds else None
    if found is None or len(found.terms) > 1 or set(found.shape.batch) != set(plan.batch):
        return None
    (term,) = found.terms
    sides = [f for f in (*term.left, *term.right) if isinstance(f, ein.Read)]
    sizes = {model.dtypes[r.tensor].size for r in sides}
    if len(sides) != 2 or len((*term.left, *term.right)) != 2 or len(sizes) != 1 or max(sizes) > _NARROW:
        return None
    batch, rows, columns, inner = (
        prod(map(context.extent, axes)) for axes in (plan.batch, plan.rows, plan.columns, plan.walked)
    )
    lying = [context.layouts[r.tensor].aligned for r in sides if r.tensor in context.layouts]
    return Product(batch, rows, columns, inner, max(sizes), min(lying, default=MOST_ALIGNED) == MOST_ALIGNED)


def _axes(program: ein.Program, counts: set[int]) -> dict[int, str]:
    """An axis for each number of parts."""
    taken = {*program.dtypes(), *(a.name for a in program.axes)}
    found: dict[int, str] = {}
    for n in sorted(counts):
        name, k = _STEM, 0
        while name in taken:
            k += 1
            name = f"{_STEM}_{k}"
        taken.add(name)
        found[n] = name
    return found
