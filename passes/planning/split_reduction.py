"""Walk a long axis in parts where the grid alone leaves most of the machine idle.

    loop r: s = step(s)   -->   for each part p of r:  loop r in p: s = step(s);  then  loop p: s = merge(s, S[p])

A walk can be split if nothing is written on the way and all its reductions stream: merging is associative, so that only
rounding differs. The number of parts is the one predicted to take the least time, or the one asked for.
"""

from __future__ import annotations

from dataclasses import replace

from einc import ein
from einc.passes.estimate.cost import Model
from einc.passes.estimate.parts import can_merge, parts
from einc.passes.estimate.products import single
from einc.passes.streaming.walks import can_split
from einc.pipeline import Context, State
from einc.pipeline.plan import Planned
from einc.tile.asked import asked

_STEM = "split"


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
    given = asked(context.choices, "parts", plan.name)
    if isinstance(given, int):
        return given if can_split(plan) else 1
    if context.level < 2:
        return 1
    found = single(plan, model) if context.target.has_descriptors else None
    if found is None or context.backend.parts is None:
        return parts(model, plan)[0]
    return context.backend.parts(found.product, context.target) if can_split(plan) and can_merge(plan) else 1


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
