"""Copy an operand once where it does not lie in memory as its product reads it, and a result as its product stores it.

    sum[k](A[k, b] * B[b, k])   -->   A_copy[b, k] = A[k, b];  sum[k](A_copy[b, k] * B[b, k])

A product takes blocks of its operands from memory again and again. Where neighbours along neither a row nor a column of
a block are neighbours in memory, or rows begin at odd addresses, every element of every block is fetched by itself; a
copy fetches each once. Its batch axes come first, the others stay in their order, and its rows begin at whole lines.

    C[m, n, b] = sum[k](f)            -->   C_blocks[b, m, n] = sum[k](f);  C[m, n, b] = C_blocks[b, m, n]

Programs that have a position of b each would store single elements between those of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from einc import ein
from einc.ein import AxisValue, Equation, Read
from einc.ein.guards import composite
from einc.ein.rewriting import bottom_up, names, unused
from einc.passes.estimate.cost import Model
from einc.passes.estimate.products import Single, cost_of, single
from einc.pipeline import Backend, Context, State, positions
from einc.pipeline.plan import Plan, Planned

Axes = tuple[str, ...]

_LINE = 64  # positions of neighbours in memory that a block of a copy has at least
_COPIED = 0.85  # of the rate of memory, by a kernel that may turn what it copies
_WORTH = 0.8  # of the time without copies that a product takes with them, for what the model does not see


def copy_operands(state: State, context: Context) -> State:
    """The state with copies, each by a kernel of its own, of the operands of products that gain by that."""
    if context.backend.seconds is None or not context.target.has_descriptors or not context.layouts:
        return state
    taken, plans = names(state.program), state.plans
    model = Model(state.program, context)
    for plan in plans:
        found = single(plan.of(state.program), model)
        if found is None:
            continue
        for read in _copied(found, context, context.backend):
            state = _with_copy(state, plan, read, found.order(read), taken, context)
    for plan in plans:
        state = _stored_whole(state, plan, context, taken)
    return state


def _copied(found: Single, context: Context, backend: Backend) -> tuple[Read, ...]:
    """The operands of a product that are copied: those with which it takes the least time."""
    assert backend.seconds is not None
    target, rates = context.target, context.target.rates
    unfit = [r for r in found.sides if r.tensor in context.layouts and not found.fits(r) and found.order(r)]
    best: tuple[Read, ...] = ()
    least = backend.seconds(found.product, target)
    for chosen in [tuple(unfit), *((r,) for r in unfit)] if unfit else []:
        lined = [found.lined(r) for r in chosen]
        copies = [(found.bytes(r) + n) / (rates.memory * _COPIED) for r, n in zip(chosen, lined, strict=True)]
        wider = sum(n - found.bytes(r) for r, n in zip(chosen, lined, strict=True)) / rates.memory
        taken = sum(copies) + wider + len(chosen) * rates.launch + backend.seconds(found.copying(chosen), target)
        if taken < least * _WORTH:
            best, least = chosen, taken
    return best


def _with_copy(state: State, plan: Plan, read: Read, order: Sequence[int], taken: set[str], context: Context) -> State:
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
    lies = [own[k] for k in context.layouts[read.tensor].order]
    copying = _turning(copied, lies, dims, context)
    place = state.plans.index(plan)
    return replace(
        state,
        program=replace(program, equations=(*equations[:at], copied, *equations[at:])),
        plans=(*state.plans[:place], copying, *state.plans[place:]),
    )


def _stored_whole(state: State, plan: Plan, context: Context, taken: set[str]) -> State:
    """The state with a result copied to where it lies, if its plan then stores whole rows and all takes less time."""
    program, model = state.program, Model(state.program, context)
    eq = next(e for e in program.equations if e.name == plan.equations[-1])
    name, apart = eq.name, model.scattering(plan.of(program))
    if not apart or plan.stores != (name,) or name not in program.results or len(eq.outputs) > 1 or eq.added:
        return state
    if any(len(dim) != 1 for dim in eq.dims):
        return state
    inner = unused(f"{name}_blocks", taken)
    own = sorted(range(len(eq.dims)), key=lambda k: eq.dims[k][0] not in plan.batch)
    dims = tuple(eq.dims[k] for k in own)
    source = Read(inner, tuple(AxisValue(a) for (a,) in dims))
    made = replace(eq, outputs=(replace(eq.outputs[0], name=inner),), dims=dims)
    copied = Equation(eq.outputs, eq.dims, (source,))
    copying = _turning(copied, dims, eq.dims, context)
    storing = replace(plan, stores=(inner,), equations=(*plan.equations[:-1], inner))
    equations = tuple(x for e in program.equations for x in ((made, copied) if e is eq else (e,)))
    turned = replace(program, equations=equations)
    rates, size = context.target.rates, eq.outputs[0].dtype.size
    copy = 2 * size * prod(map(context.extent, eq.axes)) / (rates.memory * _COPIED) + rates.launch
    after = cost_of(storing.of(turned), Model(turned, context)).seconds + copy
    if after >= _WORTH * cost_of(plan.of(program), model).seconds:
        return state
    taken.add(inner)
    place = state.plans.index(plan)
    plans = (*state.plans[:place], storing, copying, *state.plans[place + 1 :])
    return replace(state, program=turned, plans=plans)


def _turning(copied: Equation, source: Sequence[Axes], result: Sequence[Axes], context: Context) -> Plan:
    """The plan of a copy whose dimensions are in two orders, the fastest last: its blocks lie along the fastest axes of
    the result, and of the source along those that fill a line of memory. All others have one position a block."""
    long = [dim for dim in result if positions(dim, context) > 1] or [*result[-1:]]
    columns = long[-1]
    rows: list[str] = []
    for dim in reversed(source):
        if positions(tuple(rows), context) < _LINE:
            rows = [*(a for a in dim if a not in columns), *rows]
    batch = tuple(a for dim in result for a in dim if a not in columns and a not in rows)
    return Planned((copied,), stores=(copied.name,), batch=batch, rows=tuple(rows), columns=columns).plan


def _reading(eq: Equation, read: Read, other: Read) -> Equation:
    """The equation with another tensor read in place of one."""
    changed: Mapping[Read, Read] = {read: other}
    return eq.map(lambda x: bottom_up(x, lambda e: changed.get(e, e) if isinstance(e, Read) else e))
