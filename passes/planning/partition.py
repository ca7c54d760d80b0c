"""Decide which equations share a kernel, by predicted time.

    kernels P, Q   -->   kernel P + Q      where their equations can share one, and it is predicted to take less time

`search` finds the kernels of a program as it stands, `roles` the roles of the axes in one. Where another program of the
same meaning may have better kernels (`materialise`, `recompute`, `nest`, `share`, `pick`, `apart`), both are searched.
What was looked at beside the kernels that are taken is kept in order of time: `plan=2` asks for the first of those.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from einc.base.errors import CallError
from einc.ein import Program
from einc.ein.rewriting import drop_dead
from einc.passes.estimate.single import alone
from einc.passes.planning.apart import one_by_one
from einc.passes.planning.flow import Flow
from einc.passes.planning.materialise import computed_once, materialised
from einc.passes.planning.nest import nested
from einc.passes.planning.pass_on import narrowed, pass_on
from einc.passes.planning.pick import picked
from einc.passes.planning.recompute import recomputed
from einc.passes.planning.search import Search, after
from einc.passes.planning.share import shared
from einc.pipeline import Context, State, positions
from einc.pipeline.plan import Alternative, Groups, Join, Planned
from einc.tile.asked import PLAN, asked


def partition(state: State, context: Context) -> State:
    """The state with a plan for every kernel, and the joins compared. At level 0, each equation is a kernel.

    Raises `CallError` for the number of a plan that there is none of.
    """
    wanted = asked(context.choices, PLAN)
    number = wanted if isinstance(wanted, int) else 1
    if context.level == 0:
        _check(number, 1)
        return replace(state, plans=tuple(alone(eq, state.program, context).plan for eq in state.program.equations))
    found = _best(state.program, context)
    if number > 1:
        others = _beside(found)
        _check(number, 1 + len(others))
        found = others[number - 2]
    joins = (*found.joins, *found.search.left(found.plans))
    program, plans = pass_on(found.search.program, [p.plan for p in found.plans])
    program = narrowed(program, plans, context)
    ordered = Flow([p.of(program) for p in plans]).ordered()
    return replace(state, program=program, plans=tuple(p.plan for p in ordered), joins=joins)


def others(state: State, context: Context) -> tuple[float, ...]:
    """The predicted seconds of the plan that is taken, then of those that `plan=2` and so on ask for."""
    if context.level == 0:
        return ()
    found = _best(state.program, context)
    return (found.seconds, *(o.seconds for o in _beside(found)))


def _check(number: int, most: int) -> None:
    if number > most:
        there = "there is one plan" if most == 1 else f"there are {most} plans"
        raise CallError(f"plan={number} is not possible", fact=there, hint=f"plan={most}")


# The alternatives to a program, given its kernels.
_ALTERNATIVES: tuple[Callable[[Program, Sequence[Planned], Context], Iterator[Alternative]], ...] = (
    nested,  # before what a sum reads is stored for it alone, or computed again
    recomputed,
    materialised,
    shared,
    one_by_one,
    picked,
    computed_once,  # last: what a kernel of few equations computes again, one of more may need anyway
)


_HUGE = 1 << 28  # elements, a gigabyte of float32


@dataclass(frozen=True, slots=True)
class _Found:
    """The kernels found for a program, the joins that led there from a kernel for each equation, their predicted
    seconds, and the `large` tensors that they pass on."""

    search: Search
    separate: tuple[Planned, ...]
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

    @property
    def like(self) -> object:
        """What is the same of kernels that differ in nothing but the names of tensors that they compute again."""
        return len(self.plans), self.seconds, len(self.large)

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
    return _joined(search, separate, joins)


def _joined(search: Search, separate: Sequence[Planned], joins: Sequence[Join]) -> _Found:
    """The kernels that such joins make."""
    plans = reduce(after, joins, [*separate])
    seconds = sum(map(search.seconds, plans))
    return _Found(search, tuple(separate), tuple(joins), tuple(plans), seconds, search.passed(plans))


def _best(program: Program, context: Context) -> _Found:
    """The kernels that are predicted to take the least time."""
    found = _searched(Search(drop_dead(program), context))
    assert found is not None
    return _improved(found)


def _improved(found: _Found) -> _Found:
    """The kernels after all alternatives that are better, one after the other."""
    left = {found.like}
    while (better := _better(found, left)) is not None:
        found = better
        left.add(found.like)
    return found


def _better(found: _Found, left: Collection[object]) -> _Found | None:
    """The first alternative that takes less time, if one does; none that divides kernels into such as were left."""
    program, context, memory = found.search.program, found.search.context, found.search.memory
    for alternative in (a for law in _ALTERNATIVES for a in law(program, found.plans, context)):
        other = _searched(Search(drop_dead(alternative.program), context, memory), alternative.begin)
        if other is not None and alternative.leads:
            other = _improved(other)
        if other is None or (alternative.divides and (other.like in left or not _is_apart(other, found, alternative))):
            continue
        if other.is_better(found, alternative.most):
            return other
    return None


def _is_apart(found: _Found, before: _Found, alternative: Alternative) -> bool:
    """Does no kernel have several of the groups that the alternative makes?"""
    names, kept = ([frozenset(eq.name for eq in p.equations) for p in f.plans] for f in (found, before))
    made = [g for g in alternative.begin if g not in kept]
    return all(sum(not own.isdisjoint(g) for g in made) < 2 for own in names)


_MOST_BESIDE = 8  # plans that are kept beside the one that is taken


def _beside(found: _Found) -> list[_Found]:
    """Other kernels of the same meaning, by predicted time: with fewer joins, with one more, or of an alternative."""
    seen = {_made(found)}
    different = []
    for other in _looked_at(found):
        if _made(other) not in seen:
            seen.add(_made(other))
            different.append(other)
    return sorted(different, key=lambda o: o.seconds)[:_MOST_BESIDE]


def _made(found: _Found) -> tuple[object, ...]:
    return found.search.program.equations, frozenset(p.plan for p in found.plans)


def _looked_at(found: _Found) -> Iterator[_Found]:
    search, joins = found.search, found.joins
    for k in range(len(joins)):
        yield _joined(search, found.separate, joins[:k])
    for join in search.left(found.plans):
        if isinstance(join.made, Planned):
            yield _joined(search, found.separate, (*joins, replace(join, taken=True)))
    for alternative in (a for law in _ALTERNATIVES for a in law(search.program, found.plans, search.context)):
        other = _searched(Search(drop_dead(alternative.program), search.context, search.memory), alternative.begin)
        if other is not None:
            yield _improved(other) if alternative.leads else other
