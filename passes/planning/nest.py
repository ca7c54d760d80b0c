"""Sum along a walk where it is walked, and over the rest afterwards.

    kernel P: rows b, i; walks j: T[b, i, j] = f
    kernel Q: U = sum[b, i, j](g(T))
    -->
    kernel P: T[b, i, j] = f, V[b, i] = sum[j](g(T))
    kernel Q: U = sum[b, i](V)

Positions that the sum leaves out are left out along the walk. A sum over more than a kernel's walk, as the gradient of
a scale or of a temperature is, would have a tensor stored or computed again that is otherwise never in memory. A kernel
that has both of its axes in its tile may walk one of them. This is an alternative, taken where it is predicted to take
less time, or to do without a tensor that is large (`partition`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from einc.base.types import accumulator
from einc.ein import AxisValue, Equation, Program, Read, Tensor, reads
from einc.ein.rewriting import names, unused
from einc.passes.planning.scores import large
from einc.pipeline import Context
from einc.pipeline.plan import Alternative, Planned

Axes = tuple[str, ...]


def nested(program: Program, plans: Sequence[Planned], context: Context) -> Iterator[Alternative]:
    """The program with a sum in two steps, for each that goes over more than a kernel that makes what it reads.

    And for each of a large tensor that other sums read along fewer axes: along these, it can be with them wherever the
    tensor is computed.
    """
    passed = {name for p in plans for name in p.stores} & large(program, context)
    maker = {t.name: e for e in program.equations for t in e.outputs}
    for eq in program.equations:
        if eq.monoid is None or not eq.monoid.adds or len(eq.outputs) > 1:
            continue
        for plan in plans:
            own = {t.name: e for e in plan.equations for t in e.outputs}
            if eq.name in own or not _reads(eq, own):
                continue
            for walk in (plan.walked, plan.columns, plan.rows):
                grid = tuple(a for a in (*plan.batch, *plan.rows, *plan.columns) if a not in walk)
                rest = tuple(a for a in eq.over if a not in walk)
                if walk and rest and set(walk) <= set(eq.over) and set(grid) == {*eq.axes, *rest}:
                    yield _split(program, plans, plan, eq, walk, grid)
        for name in _reads(eq, {n: maker[n] for n in passed}):
            axes = maker[name].axes
            walks = dict.fromkeys(e.over for e in program.equations if _reads(e, {name: maker[name]}))
            for walk in (w for w in walks if w and set(w) < set(eq.over)):
                if set(axes) == {*eq.axes, *eq.over}:
                    yield _split(program, plans, None, eq, walk, tuple(a for a in axes if a not in walk))


def _reads(eq: Equation, sources: Mapping[str, Equation]) -> list[str]:
    """Those of some tensors that an equation reads at their own axes."""
    found = [r for r in reads(eq.body) if r.tensor in sources]
    return [r.tensor for r in found if r.guard is None and r.index == tuple(map(AxisValue, sources[r.tensor].axes))]


def _split(
    program: Program, plans: Sequence[Planned], joined: Planned | None, eq: Equation, walk: Axes, axes: Axes
) -> Alternative:
    """The sum along a walk in a kernel that has it, or by itself, and the rest of it."""
    first, last = in_two_steps(eq, walk, axes, program)
    equations = tuple(x for e in program.equations for x in ((first, last) if e.name == eq.name else (e,)))
    groups = [frozenset(e.name for e in p.equations) - {eq.name} for p in plans if p is not joined]
    own = frozenset[str]() if joined is None else frozenset(e.name for e in joined.equations)
    return Alternative(replace(program, equations=equations), [*groups, own | {first.name}], leads=joined is None)


def in_two_steps(eq: Equation, walk: Axes, axes: Axes, program: Program) -> tuple[Equation, Equation]:
    """A sum along a walk at these axes, and the rest of it."""
    rest = tuple(a for a in eq.over if a not in walk)
    part = Tensor(unused(f"{eq.name}_part", names(program)), accumulator(eq.outputs[0].dtype))
    first = replace(eq, outputs=(part,), dims=tuple((a,) for a in axes), over=walk)
    last = replace(eq, bodies=(Read(part.name, tuple(map(AxisValue, axes))),), over=rest, domain=None, within=None)
    return first, last
