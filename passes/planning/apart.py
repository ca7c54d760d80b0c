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

from collections.abc import Iterator, Sequence
from dataclasses import replace

from einc.base.types import accumulator
from einc.ein import AxisValue, Equation, Program, Read, Tensor
from einc.ein.rewriting import names, unused
from einc.passes.estimate.sides import follow_each_other, shapes_of
from einc.passes.streaming.walks import above
from einc.pipeline import Context
from einc.pipeline.plan import Alternative, Planned

_SLOWER = 1.25  # a walk over several axes as one, with contractions that follow each other


def one_by_one(program: Program, plans: Sequence[Planned], context: Context) -> Iterator[Alternative]:
    """The program with sums in two steps, for each kernel that walks several axes with contractions along them."""
    if context.target.cache:
        return  # whose blocks are boxes
    for plan in plans:
        summed = [eq for eq in plan.equations if eq.over and set(eq.over) == set(plan.walked)]
        dots = frozenset(shapes_of(plan.equations, context))
        if len(plan.walked) < 2 or not summed or not all(map(_is_plain, summed)):
            continue
        if not follow_each_other(plan.equations, dots):
            continue
        longest = max(plan.walked, key=context.size)
        yield _split(program, plans, plan, summed, longest)


def _is_plain(eq: Equation) -> bool:
    return eq.monoid is not None and eq.monoid.adds and len(eq.outputs) == 1 and eq.domain is None


def _split(
    program: Program, plans: Sequence[Planned], plan: Planned, summed: Sequence[Equation], walked: str
) -> Alternative:
    rest = tuple(a for a in plan.walked if a != walked)
    taken = names(program)
    made: dict[str, tuple[Equation, Equation]] = {}
    for eq in summed:
        part = Tensor(unused(f"{eq.name}_part", taken), accumulator(eq.outputs[0].dtype))
        taken.add(part.name)
        axes = (*rest, *eq.axes)
        first = replace(eq, outputs=(part,), dims=tuple((a,) for a in axes), over=(walked,))
        read = Read(part.name, tuple(map(AxisValue, axes)))
        made[eq.name] = first, replace(eq, bodies=(read,), over=rest, within=None, product=None)
    equations = tuple(x for e in program.equations for x in made.get(e.name, (e,)))
    known = above(plan.equations)
    after = {e.name for e in plan.equations if made.keys() & {e.name, *known[e.name]}}
    first_group = frozenset(e.name for e in plan.equations if e.name not in after) | {f.name for f, _ in made.values()}
    groups = [frozenset(e.name for e in p.equations) for p in plans if p is not plan]
    return Alternative(replace(program, equations=equations), [*groups, first_group, frozenset(after)], _SLOWER)
