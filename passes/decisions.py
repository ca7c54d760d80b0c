"""What `partition` decided, and what stood against the rest: kernels joined, tried and left apart, with their times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from einc.ein import Program
from einc.passes.flow import Flow
from einc.passes.partition import Apart, Search
from einc.pipeline import Context
from einc.plan import Plan


@dataclass(frozen=True, slots=True)
class Decision:
    """Kernels, each as what it stores, that were joined or left apart: predicted seconds apart and together.

    `together` is None where they cannot share a kernel, for `reason`.
    """

    kernels: tuple[tuple[str, ...], ...]
    joined: bool
    apart: float
    together: float | None
    reason: str


def decisions(
    program: Program, context: Context, share: Callable[[Plan], float] = lambda _: 1.0
) -> tuple[Decision, ...]:
    """The joins in the order they were made, then what was left apart, for a program as `partition` leaves it.

    Times are for the `share` of the blocks that a plan's walk visits; what was decided counts all of them.
    """
    search = Search(program, context)

    def seconds(plan: Plan) -> float:
        return search.model.splits(plan, share(plan))[1]

    steps = list(search.steps())
    found = []
    for before, after in pairwise(steps):
        group = [p for p in before if p not in after]
        found.append(_decision(seconds, group, after[-1], joined=True))
    flow = Flow(steps[-1])
    found += [_decision(seconds, group, search.joined(group, flow), joined=False) for group in flow.candidates()]
    return tuple(found)


def _decision(seconds: Callable[[Plan], float], group: list[Plan], plan: Plan | Apart, joined: bool) -> Decision:
    apart = sum(map(seconds, group))
    names = tuple(p.stores for p in group)
    if isinstance(plan, Apart):
        return Decision(names, joined, apart, None, plan.reason)
    return Decision(names, joined, apart, seconds(plan), "")
