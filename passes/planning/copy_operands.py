"""Copy an operand once where it does not lie in memory as its product reads it.

    sum[k](A[k, b] * B[b, k])   -->   A_copy[b, k] = A[k, b];  sum[k](A_copy[b, k] * B[b, k])

A product takes blocks of its operands from memory again and again. Where neighbours along neither a row nor a column of
a block are neighbours in memory, or rows begin at odd addresses, every element of every block is fetched by itself; a
copy fetches each once. Its batch axes come first, the others stay in their order, and its rows begin at whole lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from einc import ein
from einc.base.facts import Layout
from einc.ein import AxisValue, Equation, Read
from einc.ein.rewriting import bottom_up, names, unused
from einc.passes.estimate.cost import Model
from einc.passes.estimate.products import Single, single
from einc.pipeline import Backend, Context, State
from einc.pipeline.plan import Plan, Planned

_COPIED = 0.5  # of the rate of memory, by a kernel that may turn what it copies
_WORTH = 0.75  # of the time without copies that a product takes with them, for what the model does not see


def copy_operands(state: State, context: Context) -> State:
    """The state with copies, each by a kernel of its own, of the operands of products that gain by that."""
    if context.backend.seconds is None or not context.target.has_descriptors or not context.layouts:
        return state
    model, taken = Model(state.program, context), names(state.program)
    for plan in state.plans:
        found = single(plan.of(state.program), model)
        for read in () if found is None else _copied(found, context, context.backend):
            state = _with_copy(state, plan, read, context.layouts[read.tensor], taken)
    return state


def _copied(found: Single, context: Context, backend: Backend) -> tuple[Read, ...]:
    """The operands of a product that are copied: those with which it takes the least time."""
    assert backend.seconds is not None
    target, rates = context.target, context.target.rates
    unfit = [r for r in found.sides if r.tensor in context.layouts and not found.fits(r)]
    best: tuple[Read, ...] = ()
    least = backend.seconds(found.product, target)
    for chosen in [tuple(unfit), *((r,) for r in unfit)] if unfit else []:
        copies = [2 * found.bytes(r) / (rates.memory * _COPIED) + rates.launch for r in chosen]
        taken = sum(copies) + backend.seconds(found.copying(chosen), target)
        if taken < least * _WORTH:
            best, least = chosen, taken
    return best


def _with_copy(state: State, plan: Plan, read: Read, layout: Layout, taken: set[str]) -> State:
    """The state with a copy of an operand, which the plan's equation reads in its place."""
    program = state.program
    axes = [e.axis for e in read.index if isinstance(e, AxisValue)]
    order = [axes[k] for k in layout.order]
    inner = [a for a in order if a not in plan.batch]
    name = unused(f"{read.tensor}_copy", taken)
    taken.add(name)
    dims = tuple((a,) for a in (*(a for a in order if a in plan.batch), *inner))
    own = Equation((ein.Tensor(name, program.dtypes()[read.tensor]),), dims, (replace(read, guard=None),))
    there = Read(name, tuple(AxisValue(a) for (a,) in dims))
    equations = tuple(_reading(eq, read, there) if eq.name in plan.equations else eq for eq in program.equations)
    at = next(k for k, eq in enumerate(equations) if eq.name in plan.equations)
    rows = tuple(a for a in order if a != inner[-1])
    copying = Planned((own,), stores=(name,), rows=rows, columns=(inner[-1],)).plan
    place = state.plans.index(plan)
    return replace(
        state,
        program=replace(program, equations=(*equations[:at], own, *equations[at:])),
        plans=(*state.plans[:place], copying, *state.plans[place:]),
    )


def _reading(eq: Equation, read: Read, other: Read) -> Equation:
    """The equation with another tensor read in place of one."""
    changed: Mapping[Read, Read] = {read: other}
    return eq.map(lambda x: bottom_up(x, lambda e: changed.get(e, e) if isinstance(e, Read) else e))
