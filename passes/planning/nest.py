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

from collections.abc import Iterator, Sequence
from dataclasses import replace

from einc.base.types import accumulator
from einc.ein import AxisValue, Equation, Program, Read, Tensor, reads
from einc.ein.rewriting import names, unused
from einc.pipeline import Context
from einc.pipeline.plan import Alternative, Planned

Axes = tuple[str, ...]


def nested(program: Program, plans: Sequence[Planned], _: Context) -> Iterator[Alternative]:
    """The program with a sum in two steps, for each that goes over more than a kernel that makes what it reads."""
    for eq in program.equations:
        if eq.monoid is None or not eq.monoid.adds or len(eq.outputs) > 1:
            continue
        for plan in plans:
            made = {t.name: e for e in plan.equations for t in e.outputs}
            if eq.name in made or not any(_own(r, made[r.tensor]) for r in reads(eq.body) if r.tensor in made):
                continue
            for walk in (plan.walked, plan.columns, plan.rows):
                grid = [a for a in (*plan.batch, *plan.rows, *plan.columns) if a not in walk]
                rest = tuple(a for a in eq.over if a not in walk)
                if walk and rest and set(walk) <= set(eq.over) and set(grid) == {*eq.axes, *rest}:
                    yield _split(program, plans, plan, eq, walk, rest)


def _own(r: Read, source: Equation) -> bool:
    """Is a tensor read at its own axes?"""
    return r.guard is None and r.index == tuple(map(AxisValue, source.axes))


def _split(
    program: Program,
    plans: Sequence[Planned],
    plan: Planned,
    eq: Equation,
    walk: tuple[str, ...],
    rest: tuple[str, ...],
) -> Alternative:
    own = {e.name for e in plan.equations}
    part = Tensor(unused(f"{eq.name}_part", names(program)), accumulator(eq.outputs[0].dtype))
    axes = tuple(a for a in (*plan.batch, *plan.rows, *plan.columns) if a not in walk)
    first = replace(eq, outputs=(part,), dims=tuple((a,) for a in axes), over=walk)
    last = replace(eq, bodies=(Read(part.name, tuple(map(AxisValue, axes))),), over=rest, domain=None, within=None)
    equations = tuple(x for e in program.equations for x in ((first, last) if e.name == eq.name else (e,)))
    groups = [frozenset(e.name for e in p.equations) - {eq.name} for p in plans if p is not plan]
    return Alternative(replace(program, equations=equations), [*groups, own | {part.name}])
