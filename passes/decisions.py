"""What `partition` decided, and what stood against the rest: kernels joined, tried and left apart, with their times."""

from __future__ import annotations

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


def decisions(program: Program, context: Context) -> tuple[Decision, ...]:
    """The joins in the order they were made, then what was left apart, for a program as `partition` leaves it."""
    search = Search(program, context)
    steps = list(search.steps())
    found = []
    for before, after in pairwise(steps):
        group = [p for p in before if p not in after]
        found.append(_decision(search, group, after[-1], joined=True))
    flow = Flow(steps[-1])
    found += [_decision(search, group, search.joined(group, flow), joined=False) for group in flow.candidates()]
    return tuple(found)


def _decision(search: Search, group: list[Plan], plan: Plan | Apart, joined: bool) -> Decision:
    apart = sum(search.seconds(p) for p in group)
    names = tuple(p.stores for p in group)
    if isinstance(plan, Apart):
        return Decision(names, joined, apart, None, plan.reason)
    return Decision(names, joined, apart, search.seconds(plan), "")
