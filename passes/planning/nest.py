"""Sum along a walk where it is walked, and over the rest afterwards.

    kernel P: rows b, i; walks j: T[b, i, j] = f
    kernel Q: U = sum[b, i, j](g(T))
    -->
    kernel P: T[b, i, j] = f, V[b, i] = sum[j](g(T))
    kernel Q: U = sum[b, i](V)

A sum over more than a kernel's walk, as the gradient of a scale or of a temperature is, would have a tensor stored or
computed again that is otherwise never in memory. This is an alternative, taken where it is predicted to take less time
(`partition`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from einc.base.types import accumulator
from einc.ein import AxisValue, Equation, Program, Read, Tensor, reads
from einc.ein.rewriting import names, unused
from einc.pipeline import Context
from einc.pipeline.plan import Alternative, Planned


def nested(program: Program, plans: Sequence[Planned], _: Context) -> Iterator[Alternative]:
    """The program with a sum in two steps, for each that goes over more than a kernel that makes what it reads."""
    for eq in program.equations:
        if eq.monoid is None or not eq.monoid.adds or len(eq.outputs) > 1 or eq.domain is not None:
            continue
        for plan in plans:
            walk = set(plan.walked)
            rest = tuple(a for a in eq.over if a not in walk)
            grid = [*plan.batch, *plan.rows, *plan.columns]
            if not walk or not walk < set(eq.over) or set(grid) != {*eq.axes, *rest}:
                continue
            made = {t.name: e for e in plan.equations for t in e.outputs}
            if eq.name not in made and any(_own(r, made[r.tensor]) for r in reads(eq.body) if r.tensor in made):
                yield _split(program, plans, plan, eq, rest)


def _own(r: Read, source: Equation) -> bool:
    """Is a tensor read at its own axes?"""
    return r.guard is None and r.index == tuple(map(AxisValue, source.axes))


def _split(
    program: Program, plans: Sequence[Planned], plan: Planned, eq: Equation, rest: tuple[str, ...]
) -> Alternative:
    own = {e.name for e in plan.equations}
    part = Tensor(unused(f"{eq.name}_part", names(program)), accumulator(eq.outputs[0].dtype))
    axes = tuple(a for a in (*plan.batch, *plan.rows, *plan.columns))
    first = replace(eq, outputs=(part,), dims=tuple((a,) for a in axes), over=plan.walked)
    last = replace(eq, bodies=(Read(part.name, tuple(map(AxisValue, axes))),), over=rest, within=None)
    equations = tuple(x for e in program.equations for x in ((first, last) if e.name == eq.name else (e,)))
    groups = [frozenset(e.name for e in p.equations) - {eq.name} for p in plans if p is not plan]
    return Alternative(replace(program, equations=equations), [*groups, own | {part.name}])
