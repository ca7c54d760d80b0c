"""Plans to kernels: tiles without sizes yet, and one loop for every walk over the walked axes.

    T[o...] = monoid[r...](f)   -->   loop r...: state = move(state) + fold(f);  T = finish(state)
    S[p] += f(r)                -->   kernel of zeros;  store S[p] += f                where terms are added at places
    sum[r](f * A[e])            -->   sum[r](f * A[e : |r| > 0])      the call checks e only where there are positions

A load is thus in bounds, or masked, whenever its kernel runs, and may be moved out of the loop over r.
Masks, tile sizes and the way to memory are left to `mask-edges`, `choose-tiles` and `place-loads`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from einc import tile
from einc.base.types import BOOL
from einc.ein import TRUE, ZERO, Apply, Cast, Equation, Expr, Extent, Program, Read, axes_of, reads
from einc.ein.conditions import added_at, counted_at
from einc.ein.rewriting import bottom_up, unused
from einc.passes.algebra.domain import conjunction
from einc.passes.algebra.exposure import Dims, is_exposed
from einc.passes.lowering.finish import finish
from einc.passes.lowering.held_rows import refined
from einc.passes.lowering.kernel import Kernel
from einc.passes.lowering.limits import outermost_bounded
from einc.passes.lowering.loops import loop, walked
from einc.passes.lowering.split_walks import in_parts
from einc.passes.streaming.walks import finished
from einc.pipeline import Context, State
from einc.pipeline.plan import Planned


def lower(state: State, context: Context) -> State:
    """One kernel for each plan, or two if its walk is in parts, or if it adds to what is in memory.

    Tensors that are not results live between kernels, and so do the states of parts.
    """
    program = state.program
    stored = {name for plan in state.plans for name in plan.stores}
    between = [
        tile.Buffer(t.name, eq.dims, t.dtype)
        for eq in program.equations
        for t in eq.outputs
        if t.name in stored and t.name not in program.results
    ]
    taken = {*program.dtypes(), *(a.name for a in program.axes)}
    kernels: list[tile.Kernel] = []
    for plan in (_ordered(program, _guarded(p.of(program), program.shapes()), context) for p in state.plans):
        if added_at(plan.equations[0]):
            zeros, added = adding(program, plan, context, {k.name for k in kernels} | taken)
            kernels += [zeros, added]
        elif plan.splits > 1:
            pair, states = in_parts(program, plan, context, taken)
            kernels += pair
            between += states
            taken |= {b.name for b in states}
        else:
            kernels.append(lowered(program, plan, context))
    return replace(state, schedule=tile.Schedule(tuple(kernels), tuple(between)))


def lowered(program: Program, plan: Planned, context: Context) -> tile.Kernel:
    """The kernel of a plan."""
    kernel = Kernel(program, plan, context)
    grid, whole = kernel.enter()
    kernel.refined = refined(kernel)
    if plan.walked:
        axes = walked(kernel)
        kernel.b.run_along(plan.scanned, axes[-1])
        for walk in finished(plan):
            finish(loop(kernel, axes, walk))
    kernel.store_rest()
    return kernel.b.kernel(plan, grid, whole)


def adding(program: Program, plan: Planned, context: Context, taken: Iterable[str]) -> tuple[tile.Kernel, tile.Kernel]:
    """The kernels of a plan whose terms are added at their places: zeros in memory, and what is added to them."""
    (eq,) = plan.equations
    (output,) = eq.outputs
    none = Equation(eq.outputs, eq.dims, (Cast(output.dtype, ZERO),))
    zeros = lowered(program, Planned((none,), stores=plan.stores, rows=eq.axes[:-1], columns=eq.axes[-1:]), context)
    name, title = unused(f"{eq.name}_zeros", taken), f"what terms of {eq.name} are added to"
    kernel = Kernel(program, plan, context)
    grid, whole = kernel.enter()
    b, order = kernel.b, kernel.order
    counted = counted_at(eq)
    assert counted is not None
    inside = b.bind("inside", b.typed(counted, order, BOOL), order)
    for v, place in added_at(eq).items():
        b.position[v] = b.bind(v, b.place(place, order), order)
    value = b.convert(b.widened(eq.body, order, output.dtype), output.dtype)
    index = tuple(map(b.composite, eq.dims))
    b.emit(tile.Store(output.name, index, value, tile.TileType(output.dtype, order), inside, adds=True))
    return replace(zeros, name=name, title=(title,)), b.kernel(plan, grid, whole)


def _ordered(program: Program, plan: Planned, context: Context) -> Planned:
    """The plan with its walked axes in the order that prunes most."""
    if len(plan.walked) < 2 or context.level < 2:
        return plan
    return replace(plan, walked=outermost_bounded(Kernel(program, plan, context)))


def _guarded(plan: Planned, shapes: Mapping[str, Dims]) -> Planned:
    """The plan with guards on reads that are in range only where a reduced axis, not in the grid, has positions: those
    of one equation at least that has the read."""
    made = {eq.name for eq in plan.equations}
    own = {r for eq in plan.equations for e in eq.expressions() for r in reads(e)}
    sheltered: set[Read] = set()
    grid = {*plan.batch, *plan.rows, *plan.columns}
    beside: dict[Read, list[tuple[str, ...]]] = {}  # the other axes of equations that read it

    def others(r: Read, eq: Equation) -> tuple[str, ...]:
        return tuple(a for a in (*eq.axes, *eq.over) if a not in grid and a not in axes_of(r))

    for eq in plan.equations:
        computed = (*eq.bodies, *(() if eq.domain is None else (eq.domain,)))
        for r in (r for e in computed for r in reads(e) if r.tensor not in made and is_exposed(r, shapes)):
            beside.setdefault(r, []).append(others(r, eq))

    def guarded(e: Expr, eq: Equation) -> Expr:
        if not isinstance(e, Read) or e not in beside:
            return e
        mine = others(e, eq)
        fewest = min((axes for axes in beside[e] if set(axes) <= set(mine)), key=len, default=mine)
        found = replace(e, guard=conjunction(Apply("gt", (Extent(a), ZERO)) for a in fewest))
        sheltered.update({found} - own)
        return found

    def bounding(e: Expr, eq: Equation) -> Expr:
        bare = replace(e, guard=None) if isinstance(e, Read) and e.guard in (None, TRUE) else None
        return guarded(bare, eq) if bare in beside else e

    def of(eq: Equation) -> Equation:
        done = eq.map(lambda x: bottom_up(x, lambda e: guarded(e, eq)))
        # tables of chunks have one for every position of the grid; other reads are those of the bodies
        within = None if eq.within is None else bottom_up(eq.within, lambda e: bounding(e, eq))
        return replace(done, within=within)

    equations = tuple(map(of, plan.equations))
    return replace(plan, equations=equations, sheltered=frozenset(sheltered))
