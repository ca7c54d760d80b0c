"""Walk one axis at a time, and sum over the others afterwards.

    kernel P: walks r, i: U = sum[r, i](g(T))
    -->
    kernel P: one position of r; walks i: V[r] = sum[i](g(T))
    kernel Q: U = sum[r](V)

The positions of two axes walked as one are not neighbours in memory: every row of a block takes a division and an
address of its own. Where contractions follow each other in a walk, as in the gradient of keys that several heads share,
that may cost more than to store the sums of each position. This is an alternative, compared by predicted time
(`partition`), in which such a walk is counted as slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from einc.base.types import accumulator
from einc.ein import AxisValue, Equation, Program, Read, Tensor, tensors_of
from einc.ein.rewriting import names, unused
from einc.passes.estimate.sides import follow_each_other, shapes_of
from einc.passes.planning.scores import large
from einc.passes.streaming.walks import above
from einc.pipeline import Context
from einc.pipeline.plan import Alternative, Planned

_SLOWER = 1.25  # a walk over several axes as one, with contractions that follow each other


def one_by_one(program: Program, plans: Sequence[Planned], context: Context) -> Iterator[Alternative]:
    """The program with sums in two steps, for each kernel that walks several axes with contractions along them.

    And for all at once that walk several, one of them in blocks, and read what is `large`: along that one they may
    compute it again together.
    """
    if context.target.cache:
        return  # whose blocks are boxes
    found = {n: s for n, plan in enumerate(plans) if (s := _summed(plan))}
    for n, summed in found.items():
        plan = plans[n]
        if follow_each_other(plan.equations, frozenset(shapes_of(plan.equations, context))):
            yield _split(program, plans, {n: summed}, context, leads=False)
    long = [n for n in found if max(map(context.size, plans[n].walked)) >= context.block()]
    sizes = large(program, context) if long else frozenset[str]()
    reading = {n: found[n] for n in long if not sizes.isdisjoint(_given(plans[n]))}
    if reading:
        yield _split(program, plans, reading, context, leads=True)


def _summed(plan: Planned) -> list[Equation]:
    """The sums of a kernel that walks several axes, if it can be two."""
    summed = [eq for eq in plan.equations if eq.over and set(eq.over) == set(plan.walked)]
    return summed if len(plan.walked) > 1 and all(map(_is_plain, summed)) else []


def _given(plan: Planned) -> set[str]:
    """The tensors that a kernel reads from memory."""
    made = {t.name for eq in plan.equations for t in eq.outputs}
    return {n for eq in plan.equations for e in eq.computed() for n in tensors_of(e)} - made


def _is_plain(eq: Equation) -> bool:
    return eq.monoid is not None and eq.monoid.adds and len(eq.outputs) == 1 and eq.domain is None


def _split(
    program: Program, plans: Sequence[Planned], found: Mapping[int, Sequence[Equation]], context: Context, leads: bool
) -> Alternative:
    """The program in which these sums of kernels walk their longest axis, and are then summed along the others."""
    taken = names(program)
    made: dict[str, tuple[Equation, Equation]] = {}
    groups = [frozenset(e.name for e in p.equations) for n, p in enumerate(plans) if n not in found]
    for n, summed in found.items():
        plan = plans[n]
        walked = max(plan.walked, key=context.size)
        rest = tuple(a for a in plan.walked if a != walked)
        own: dict[str, tuple[Equation, Equation]] = {}
        for eq in summed:
            part = Tensor(unused(f"{eq.name}_part", taken), accumulator(eq.outputs[0].dtype))
            taken.add(part.name)
            axes = (*rest, *eq.axes)
            first = replace(eq, outputs=(part,), dims=tuple((a,) for a in axes), over=(walked,))
            read = Read(part.name, tuple(map(AxisValue, axes)))
            own[eq.name] = first, replace(eq, bodies=(read,), over=rest, within=None, product=None)
        known = above(plan.equations)
        after = {e.name for e in plan.equations if own.keys() & {e.name, *known[e.name]}}
        before = {e.name for e in plan.equations if e.name not in after}
        groups += [frozenset(before | {f.name for f, _ in own.values()}), frozenset(after)]
        made |= own
    equations = tuple(x for e in program.equations for x in made.get(e.name, (e,)))
    return Alternative(replace(program, equations=equations), groups, 1.0 if leads else _SLOWER, leads=leads)
