"""A search for kernels plans only what could win, and finds what one that plans everything finds."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from einc.base.targets import TARGETS, Target, cores
from einc.codegen.triton.backend import TRITON
from einc.driver import elaborate, parse
from einc.ein.rewriting import drop_dead
from einc.passes.estimate.least import least
from einc.passes.planning.flow import Flow
from einc.passes.planning.search import Search, after
from einc.pipeline import Context
from einc.pipeline.plan import Join, Planned
from einc.stages import run_passes, stage
from tests.library import attention, products, rows
from tests.library.cases import Case

CASES = (*attention.CASES, *rows.CASES, *products.CASES)
MACHINES = {"H100": TARGETS["sm_90"], "CPU": cores(8)}

every_case = pytest.mark.parametrize("case", CASES[::4], ids=[case.name for case in CASES[::4]])
every_machine = pytest.mark.parametrize("target", MACHINES.values(), ids=MACHINES)


def searching(case: Case, target: Target) -> Search:
    """The search for the kernels of a program of the library, for operands of its long sizes."""
    sizes = dict(case.sizes) | dict(case.long)
    context = Context(level=2, target=target, backend=TRITON, sizes=sizes)
    before = stage(run_passes(elaborate(parse(case.path.read_text(), case.name)), context), "split-complex")
    return Search(drop_dead(before.state.program), context)


def of_all(search: Search, groups: Iterable[list[Planned]], flow: Flow) -> tuple[list[Planned], Planned] | None:
    """The group whose join gains most, and the joined kernel, where the join of every group is planned."""
    made = [(group, search.joined(*search.together(group, flow))) for group in groups]
    gains = [(search.total(g) - search.seconds(p), (g, p)) for g, p in made if isinstance(p, Planned)]
    most = max((gain for gain, _ in gains), default=0.0)
    return next(found for gain, found in gains if gain == most) if most > 0 else None


@every_machine
@every_case
def test_no_kernel_takes_less_than_the_bound_of_its_equations(case: Case, target: Target) -> None:
    search = searching(case, target)
    list(search.left(search.separate()))
    list(search.steps(search.separate()))
    assert search.total(search.separate()) > 0
    for plan, seconds in search.memory.seconds.items():
        assert 0 < least(search.model, plan.equations, plan.stores) <= seconds


@every_machine
@every_case
def test_the_join_that_gains_most_is_found_without_planning_all(case: Case, target: Target) -> None:
    search, every = searching(case, target), searching(case, target)
    plans = search.separate()
    while True:
        flow = Flow(plans)
        groups = list(flow.candidates())
        found = search.most(groups, flow)
        assert found == of_all(every, groups, flow)
        if found is None:
            break
        plans = after(plans, Join(tuple(found[0]), found[1], taken=True))
    assert len(search.memory.joined) <= len(every.memory.joined)


def test_attention_is_planned_without_most_of_its_joins() -> None:
    case = next(c for c in attention.CASES if c.name.endswith("/mha"))
    search, every = searching(case, TARGETS["sm_90"]), searching(case, TARGETS["sm_90"])
    list(search.steps(search.separate()))
    list(every.left(every.separate()))
    assert 2 * len(search.memory.joined) < len(every.memory.joined)
