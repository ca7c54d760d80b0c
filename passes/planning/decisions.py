"""What `partition` decided, and what stood against the rest: kernels joined, tried and left apart, with their times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from einc.ein import Program
from einc.passes.planning.flow import Flow
from einc.passes.planning.roles import Apart
from einc.passes.planning.search import Search
from einc.pipeline import Context
from einc.pipeline.plan import Plan


@dataclass(frozen=True, slots=True)
class Decision:
    """Kernels, each as what it stores, that were joined or left apart: predicted seconds apart and together.

    `together` is None where they cannot share a kernel, for `reason`. `spared` are tensors that are not stored once
    they are joined: for the sake of those, or of the joins that it leads to, a join may take longer.
    """

    kernels: tuple[tuple[str, ...], ...]
    joined: bool
    apart: float
    together: float | None
    reason: str
    spared: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Do they take longer together?"""
        return self.together is not None and self.together > self.apart


def decisions(
    program: Program, context: Context, plans: Sequence[Plan], share: Callable[[Plan], float] = lambda _: 1.0
) -> tuple[Decision, ...]:
    """The joins that lead to some plans, those that gain most first, then what was left apart.

    The program and its plans are as `partition` leaves them. Times are for the `share` of the blocks that a plan's walk
    visits; what was decided counts all of them.
    """
    search = Search(program, context)
    groups = [{eq.name for eq in p.equations} for p in plans]

    def seconds(plan: Plan) -> float:
        return search.model.splits(plan, share(plan))[1]

    steps = list(search.steps(search.separate(), groups))
    found = []
    for before, after in pairwise(steps):
        group = [p for p in before if p not in after]
        found.append(_decision(seconds, group, after[-1], joined=True))
    for names in groups:  # what gains only as a whole
        rest = [p for p in steps[-1] if p.equations[0].name in names]
        if len(rest) > 1:
            whole = next(p for p in plans if p.equations[0].name in names)
            found.append(_decision(seconds, rest, whole, joined=True))
    flow = Flow(plans)
    found += [_decision(seconds, group, search.joined(group, flow), joined=False) for group in flow.candidates()]
    return tuple(found)


def _decision(seconds: Callable[[Plan], float], group: list[Plan], plan: Plan | Apart, joined: bool) -> Decision:
    apart = sum(map(seconds, group))
    names = tuple(p.stores for p in group)
    if isinstance(plan, Apart):
        return Decision(names, joined, apart, None, plan.reason)
    spared = tuple(name for stored in names for name in stored if name not in plan.stores)
    return Decision(names, joined, apart, seconds(plan), "", spared)
