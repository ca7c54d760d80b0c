"""Copy an operand once where it does not lie in memory as its product reads it.

    sum[k](A[k, b] * B[b, k])   -->   A_copy[b, k] = A[k, b];  sum[k](A_copy[b, k] * B[b, k])

A product takes blocks of its operands from memory again and again. Where neighbours along neither a row nor a column of
a block are neighbours in memory, or rows begin at odd addresses, every element of every block is fetched by itself; a
copy fetches each once. Its batch axes come first, the others stay in their order, and its rows begin at whole lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from einc import ein
from einc.ein import AxisValue, Equation, Read
from einc.ein.guards import composite
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
        if found is None:
            continue
        for read in _copied(found, context, context.backend):
            state = _with_copy(state, plan, read, found.order(read), taken)
    return state


def _copied(found: Single, context: Context, backend: Backend) -> tuple[Read, ...]:
    """The operands of a product that are copied: those with which it takes the least time."""
    assert backend.seconds is not None
    target, rates = context.target, context.target.rates
    unfit = [r for r in found.sides if r.tensor in context.layouts and not found.fits(r) and found.order(r)]
    best: tuple[Read, ...] = ()
    least = backend.seconds(found.product, target)
    for chosen in [tuple(unfit), *((r,) for r in unfit)] if unfit else []:
        copies = [2 * found.bytes(r) / (rates.memory * _COPIED) + rates.launch for r in chosen]
        taken = sum(copies) + backend.seconds(found.copying(chosen), target)
        if taken < least * _WORTH:
            best, least = chosen, taken
    return best


def _with_copy(state: State, plan: Plan, read: Read, order: Sequence[int], taken: set[str]) -> State:
    """The state with a copy of an operand, its dimensions in this order, which the plan's equation reads instead."""
    program = state.program
    name = unused(f"{read.tensor}_copy", taken)
    taken.add(name)
    bare = all(isinstance(e, AxisValue) for e in read.index)
    own = tuple((e.axis,) for e in read.index if isinstance(e, AxisValue)) if bare else program.shapes()[read.tensor]
    dims, index = tuple(own[k] for k in order), tuple(read.index[k] for k in order)
    source = Read(read.tensor, tuple(map(composite, own)))
    copied = Equation((ein.Tensor(name, program.dtypes()[read.tensor]),), dims, (source,))
    there = Read(name, index, None if bare else read.guard)
    equations = tuple(_reading(eq, read, there) if eq.name in plan.equations else eq for eq in program.equations)
    at = next(k for k, eq in enumerate(equations) if eq.name in plan.equations)
    columns = dims[-1]
    rows = tuple(a for dim in own for a in dim if a not in columns)
    copying = Planned((copied,), stores=(name,), rows=rows, columns=columns).plan
    place = state.plans.index(plan)
    return replace(
        state,
        program=replace(program, equations=(*equations[:at], copied, *equations[at:])),
        plans=(*state.plans[:place], copying, *state.plans[place:]),
    )


def _reading(eq: Equation, read: Read, other: Read) -> Equation:
    """The equation with another tensor read in place of one."""
    changed: Mapping[Read, Read] = {read: other}
    return eq.map(lambda x: bottom_up(x, lambda e: changed.get(e, e) if isinstance(e, Read) else e))
