"""The walks of a kernel over its walked axes: which reductions share one, and which tensors are written in it.

Reductions whose accumulators follow the references they read share a walk (`closure`); any other waits for final values
and the next walk. A tensor along the walked axes is written in the first walk in which all that it reads is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from einc import ein
from einc.ein import Equation, Expr, Read
from einc.ein.guards import positions
from einc.ein.monoids import Monoid
from einc.passes.algebra.domain import Domain, domain_of, holds
from einc.passes.streaming.closure import links
from einc.passes.streaming.exact_means import centred
from einc.passes.streaming.sweep import Link, NotClosed
from einc.pipeline.plan import Planned


@dataclass(frozen=True, slots=True)
class Walk:
    """One loop: the links that stream in it, the equations whose tensors are written in it, and those that had to wait.

    `scans` are the prefixes that these need.
    """

    links: tuple[Link, ...]
    stores: tuple[Equation, ...]
    waiting: tuple[NotClosed, ...]
    scans: tuple[Equation, ...] = ()


@lru_cache(maxsize=4096)
def walks(plan: Planned) -> tuple[Walk, ...]:
    """The walks of a plan, in order. What is not walked decides nothing, nor do equations that neither stream or are
    written in a walk, nor decide such: a search asks for the same ones of many."""
    along = _written(plan)
    wanted = frozenset[str]().union(*(_needed(plan, eq) for eq in (*_late(plan), *along)))
    equations = tuple(eq for eq in plan.equations if any(t.name in wanted for t in eq.outputs))
    stores = tuple(name for name in plan.stores if any(name == t.name for eq in along for t in eq.outputs))
    return _walks(Planned(equations, stores=stores, walked=plan.walked, scanned=plan.scanned))


@lru_cache(maxsize=1024)
def finished(plan: Planned) -> tuple[Walk, ...]:
    """The same walks with values finished at exact means, which take no other time: kernels are made of these."""
    return tuple(replace(walk, links=tuple(centred(walk.links))) for walk in walks(plan))


def _late(plan: Planned) -> list[Equation]:
    """The reductions that go over a plan's walk."""
    return [eq for eq in plan.equations if plan.along & set(eq.over) and not plan.is_scan(eq)]


def _written(plan: Planned) -> list[Equation]:
    """The equations that are written along a plan's walk."""
    return [eq for eq in plan.equations if plan.along & set(eq.axes) and plan.writes(eq)]


def _needed(plan: Planned, eq: Equation) -> frozenset[str]:
    """An equation and what it is computed from."""
    return above(plan.equations)[eq.name] | {eq.name}


@lru_cache(maxsize=1024)
def _walks(plan: Planned) -> tuple[Walk, ...]:
    over = plan.along
    named = {t.name: eq for eq in plan.equations for t in eq.outputs}
    known = above(plan.equations)
    late, along = _late(plan), _written(plan)
    found: list[Walk] = []
    while over and (late or along):
        unknown = {t.name for eq in late for t in eq.outputs}
        open_ = between(plan.equations, unknown)
        made = links(
            late,
            (*plan.walked, *plan.scanned),
            blurred(plan.equations, unknown),
            lambda eq: sources(eq, named, open_),  # noqa: B023
            lambda eq: written_out(eq, named, open_),  # noqa: B023
        )
        now = [eq for eq in along if known[eq.name].isdisjoint(unknown)]
        ready = tuple(link for link in made if isinstance(link, Link))
        waiting = tuple(link for link in made if isinstance(link, NotClosed))
        needed = {n for eq in (*now, *(link.equation for link in ready)) for n in (eq.name, *upstream(eq, known))}
        scans = tuple(eq for eq in plan.equations if plan.is_scan(eq) and any(t.name in needed for t in eq.outputs))
        found.append(Walk(ready, tuple(now), waiting, scans))
        late = [named[link.equation.name] for link in waiting]
        along = [eq for eq in along if eq not in now]
    return tuple(found)


def can_split(plan: Planned) -> bool:
    """Can the walk be split into parts? It is the only one, every reduction streams and nothing is written in it."""
    if not plan.walked:
        return False
    found = walks(plan)
    return len(found) == 1 and not (found[0].stores or found[0].waiting or found[0].scans)


@lru_cache(maxsize=4096)
def above(equations: tuple[Equation, ...]) -> Mapping[str, frozenset[str]]:
    """For every tensor that some equations make, those of them that it is computed from, directly or through others.

    Each equation stands after those that it reads.
    """
    found: dict[str, frozenset[str]] = {}
    for eq in equations:
        found |= dict.fromkeys((t.name for t in eq.outputs), upstream(eq, found))
    return found


def upstream(eq: Equation, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The tensors that an equation reads, directly or through others, given what each of them is computed from."""
    read = computed_from(eq) & known.keys()
    return read.union(*(known[name] for name in read))


def blurred(equations: tuple[Equation, ...], unknown: Collection[str]) -> frozenset[str]:
    """Reductions over axes held whole that depend on unknown tensors: no movement is followed through them."""
    known, within = above(equations), (t.name for eq in equations if eq.monoid is not None for t in eq.outputs)
    return frozenset(n for n in within if n not in unknown and not known[n].isdisjoint(unknown))


@lru_cache(maxsize=4096)
def computed_from(eq: Equation) -> frozenset[str]:
    """The names of the tensors that decide an equation's values."""
    return frozenset(tensors_read(eq.computed()))


def tensors_read(expressions: Iterable[Expr]) -> set[str]:
    """The names of all tensors read in some expressions."""
    return {name for e in expressions for name in ein.tensors_of(e)}


def unfolded(e: Expr, named: dict[str, Equation]) -> Expr:
    """The expression with every pointwise tensor among `named` replaced by its body."""
    if isinstance(e, Read) and e.tensor in named and named[e.tensor].monoid is None:
        return unfolded(_value(named[e.tensor], e), named)
    return ein.rebuild(e, lambda below: unfolded(below, named))


def needed(monoid: Monoid, bodies: Iterable[Expr], given: Iterable[Expr | None], named: dict[str, Equation]) -> Domain:
    """Predicates that hold wherever a reduction changes: those given, and what its bodies say."""
    found: Domain = frozenset(q for p in given if p is not None for q in holds(unfolded(p, named)))
    return found | domain_of(monoid, (unfolded(b, named) for b in bodies))


def _value(source: Equation, read: Read) -> Expr:
    """The value of a pointwise equation at a read of it; integers have the type that they would be stored in."""
    value = ein.substitute(source.body, positions(source.dims, read.index))
    stored = source.outputs[0].dtype
    return ein.Cast(stored, value) if stored.is_int and isinstance(value, ein.Apply) else value


def between(equations: tuple[Equation, ...], unknown: Collection[str]) -> frozenset[str]:
    """The pointwise tensors that depend on unknown ones."""
    known, pointwise = above(equations), (t.name for eq in equations if eq.monoid is None for t in eq.outputs)
    return frozenset(n for n in pointwise if not known[n].isdisjoint(unknown))


def sources(eq: Equation, named: dict[str, Equation], through: Collection[str]) -> frozenset[str]:
    """The tensors that an equation reads, directly or through tensors that are written out."""
    found: set[str] = set()
    stack = [eq]
    while stack:
        for name in tensors_read(stack.pop().expressions()) - found:
            found.add(name)
            stack += [named[name]] if name in through else []
    return frozenset(found - set(through))


def written_out(eq: Equation, named: dict[str, Equation], through: Collection[str]) -> Equation:
    """The equation with these pointwise tensors replaced by their bodies."""

    def out(e: Expr) -> Expr:
        if isinstance(e, Read) and e.tensor in through:
            return out(_value(named[e.tensor], e))
        return ein.rebuild(e, out)

    return replace(eq, bodies=tuple(out(b) for b in eq.bodies)) if through else eq
