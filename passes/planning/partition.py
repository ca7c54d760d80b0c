"""Decide which equations share a kernel, by predicted time.

    kernels P, Q   -->   kernel P + Q      where their equations can share one, and it is predicted to take less time

`search` finds the kernels of a program as it stands, `roles` the roles of the axes in one. Where another program of the
same meaning may have better kernels (`materialise`, `recompute`, `nest`, `share`, `pick`, `apart`), both are searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from einc.ein import Program
from einc.ein.rewriting import drop_dead
from einc.passes.estimate.single import alone
from einc.passes.planning.apart import one_by_one
from einc.passes.planning.flow import Flow
from einc.passes.planning.materialise import materialised
from einc.passes.planning.nest import nested
from einc.passes.planning.pass_on import narrowed, pass_on
from einc.passes.planning.pick import picked
from einc.passes.planning.recompute import recomputed
from einc.passes.planning.search import Search, after
from einc.passes.planning.share import shared
from einc.pipeline import Context, State, positions
from einc.pipeline.plan import Alternative, Groups, Join, Planned


def partition(state: State, context: Context) -> State:
    """The state with a plan for every kernel, and the joins compared. At level 0, each equation is a kernel."""
    if context.level == 0:
        return replace(state, plans=tuple(alone(eq, state.program, context).plan for eq in state.program.equations))
    found = _searched(Search(drop_dead(state.program), context))
    assert found is not None
    found = _improved(found)
    joins = (*found.joins, *found.search.left(found.plans))
    program, plans = pass_on(found.search.program, [p.plan for p in found.plans])
    program = narrowed(program, plans, context)
    ordered = Flow([p.of(program) for p in plans]).ordered()
    return replace(state, program=program, plans=tuple(p.plan for p in ordered), joins=joins)


# The alternatives to a program, given its kernels.
_ALTERNATIVES: tuple[Callable[[Program, Sequence[Planned], Context], Iterator[Alternative]], ...] = (
    materialised,
    recomputed,
    nested,
    shared,
    one_by_one,
    picked,
)


_HUGE = 1 << 28  # elements, a gigabyte of float32


@dataclass(frozen=True, slots=True)
class _Found:
    """The kernels found for a program, the joins that led there, their predicted seconds, and the `large` tensors that
    they pass on."""

    search: Search
    joins: tuple[Join, ...]
    plans: tuple[Planned, ...]
    seconds: float
    large: frozenset[str]

    @property
    def huge(self) -> int:
        """The number of tensors passed on in a CPU's memory that are too large for that."""
        context = self.search.context
        made = {t.name: eq.axes for p in self.plans for eq in p.equations for t in eq.outputs}
        passed = {name for p in self.plans for name in p.stores} & self.search.spared - {*self.search.program.results}
        return sum(positions(made[n], context) > _HUGE for n in passed) if context.target.cache else 0

    def is_better(self, other: _Found, most: float) -> bool:
        """Does it take less than the share `most` of the other's time, or not much more for fewer large tensors?

        A CPU computes again what would not fit its memory, however long that takes.
        """
        mine, others = self.huge, other.huge
        if mine != others:
            return mine < others
        if len(self.large) > len(other.large):
            return False
        if self.seconds < most * other.seconds:
            return True
        worth = other.search.worth(other.large - self.large, self.plans)
        return len(self.large) < len(other.large) and self.seconds <= worth * other.seconds


def _searched(search: Search, begin: Groups = ()) -> _Found | None:
    """The kernels for a program as it stands; None where the groups to begin with cannot share kernels."""
    separate = search.separate()
    joins = search.begin(separate, begin)
    if joins is None:
        return None
    joins += search.steps(reduce(after, joins, separate))
    plans = reduce(after, joins, separate)
    return _Found(search, tuple(joins), tuple(plans), sum(map(search.seconds, plans)), search.passed(plans))


def _improved(found: _Found) -> _Found:
    """The kernels after all alternatives that are better, one after the other."""
    while (better := _better(found)) is not None:
        found = better
    return found


def _better(found: _Found) -> _Found | None:
    """The first alternative that takes less time, if one does."""
    program, context, memory = found.search.program, found.search.context, found.search.memory
    for alternative in (a for law in _ALTERNATIVES for a in law(program, found.plans, context)):
        other = _searched(Search(drop_dead(alternative.program), context, memory), alternative.begin)
        if other is not None and alternative.leads:
            other = _improved(other)
        if other is not None and other.is_better(found, alternative.most):
            return other
    return None
