"""Plans to kernels: tiles of abstract size, one loop for every walk over the walked axes.

    T[o...] = monoid[r...](f)   -->   loop r...: state = combine(move(state), fold(f)); T = finish(state)

Masks, tile sizes and the way to memory are left to `mask-edges`, `choose-tiles` and `place-loads`.
"""

from __future__ import annotations

from einc import tile
from einc.ein import Program
from einc.passes.advance import step
from einc.passes.alone import alone
from einc.passes.kernel import Kernel
from einc.passes.limits import limits
from einc.passes.states import States
from einc.passes.walks import Walk, walks
from einc.pipeline import Context, State
from einc.plan import Plan


def lower(state: State, context: Context) -> State:
    """One kernel a plan; without plans, one an equation. Tensors that are not results live between kernels."""
    program = state.program
    plans = state.plans or tuple(alone(eq, program, context) for eq in program.equations)
    kernels = tuple(lowered(program, plan, context) for plan in plans)
    stored = {name for plan in plans for name in plan.stores}
    between = tuple(
        tile.Buffer(t.name, eq.dims, t.dtype)
        for eq in program.equations
        for t in eq.outputs
        if t.name in stored and t.name not in program.results
    )
    return State(program, tile.Schedule(kernels, between), state.plans)


def lowered(program: Program, plan: Plan, context: Context) -> tile.Kernel:
    """The kernel of a plan."""
    kernel = Kernel(program, plan, context)
    b = kernel.b
    batch = [b.axis((a,), "batch") for a in plan.batch]
    blocked = [b.axis(g, role) for g, role in ((plan.rows, "row"), (plan.columns, "column")) if g]
    whole = tuple(b.axis((a,), "whole") for a in plan.whole)
    b.enter((*batch, *blocked, *whole))
    kernel.order = tuple(a.name for a in (*blocked, *whole))
    if plan.walked:
        axis = b.axis(plan.walked, "reduced")
        for walk in walks(plan):
            _loop(kernel, axis, walk)
    for eq in plan.equations:
        if eq.name in plan.stores and not set(plan.walked) & set(eq.axes):
            kernel.store(eq)
    return b.kernel(plan, (*batch, *blocked), whole)


def _loop(kernel: Kernel, axis: tile.TileAxis, walk: Walk) -> None:
    """One loop over the axis: the states of its links, and the stores of what lies along it."""
    start, stop = limits(kernel, walk) if kernel.context.level >= 2 else (None, None)
    states = States(kernel, walk.links, axis.axes)
    known, order = dict(kernel.known), kernel.order
    with kernel.b.loop(axis, start, stop) as block:
        kernel.order = (*order, axis.name)
        states.allocate(kernel.result_order)
        step(states, block)
        for eq in walk.stores:
            kernel.store(eq)
    kernel.known, kernel.order = known, order
    states.finish()
