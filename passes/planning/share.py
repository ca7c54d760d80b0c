"""Compute a tensor once for two kernels that compute it along the same walk, by making them one.

    kernel P: S = f, U = sum[i](g(S))
    kernel Q: T = f, V = sum[i](h(T))      -->      kernel P: S = f, U = sum[i](g(S)), V = sum[i](h(S))

    kernel P: grid b, j; walks i: S = f, U = sum[i](g(S))
    kernel Q: grid j; walks i, holds b: T = f, V = sum[b, i](h(T))
    -->
    kernel P: grid b, j; walks i: S = f, U = sum[i](g(S)), W[b] = sum[i](h(S))
    kernel Q: V = sum[b](W)

Kernels come to compute the same where each reads a tensor that neither may store (`recompute`). This is an alternative,
taken where one kernel is predicted to take less time than two (`partition`): it does less, and holds more at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

from einc.ein import Equation, Program, Tensor, tensors_of
from einc.ein.rewriting import renamed
from einc.passes.planning.nest import in_two_steps
from einc.pipeline import Context
from einc.pipeline.plan import Alternative, Planned


def shared(program: Program, plans: Sequence[Planned], _: Context) -> Iterator[Alternative]:
    """The program with two kernels as one, for each pair along one walk that computes something twice.

    And with a kernel that computes something twice itself, since two were joined that did.
    """
    groups = [frozenset(eq.name for eq in p.equations) for p in plans]
    for (p, own), (q, other) in combinations_with_replacement(zip(plans, groups, strict=True), 2):
        others = [g for g in groups if g not in (own, other)]
        if p.walked and _space(p) == _space(q):
            yield from _joined(program, others, own, other)
        for one, its, more, theirs in ((p, own, q, other), (q, other, p, own)):
            found = _in_steps(program, one, more)
            if found is not None:
                made, first, after = found
                yield from _joined(made, others, its, (theirs - after) | first)


def _joined(
    program: Program, others: Sequence[frozenset[str]], own: frozenset[str], other: frozenset[str]
) -> Iterator[Alternative]:
    """Two groups of equations as one, without what both compute, if that is a reduction."""
    names = _twice(program, own, other)
    if any(eq.monoid is not None for eq in program.equations if eq.name in names):
        left = tuple(renamed(eq, names) for eq in program.equations if eq.name not in names)
        yield Alternative(replace(program, equations=left), [*others, (own | other) - names.keys()])


def _in_steps(program: Program, one: Planned, more: Planned) -> tuple[Program, frozenset[str], frozenset[str]] | None:
    """The program in which sums of a second kernel, that go over axes of the first one's grid as well, are in two
    steps; the names of the first steps, along the first one's walk; and those of what the second kernel has after."""
    grid, walk = _space(one)
    axes = (*one.batch, *one.rows, *one.columns)
    beyond = grid - _space(more)[0]
    over = [eq for eq in more.equations if not beyond.isdisjoint(eq.over)]
    whole = [eq for eq in over if {*eq.axes, *eq.over} == walk | grid and walk < {*eq.over}]
    apart = [eq for eq in over if {*eq.over} <= beyond]
    if not walk or not walk <= {*more.walked} or not over or len(over) > len(whole) + len(apart):
        return None
    if not all(eq.monoid and eq.monoid.adds and len(eq.outputs) == 1 for eq in over):
        return None
    first: set[str] = set()
    for eq in whole:
        steps = in_two_steps(eq, tuple(a for a in eq.over if a in walk), axes, program)
        equations = tuple(x for e in program.equations for x in (steps if e is eq else (e,)))
        program = replace(program, equations=equations)
        first.add(steps[0].name)
    after = {eq.name for eq in over}
    for eq in more.equations:
        if after & {n for e in eq.expressions() for n in tensors_of(e)}:
            after.add(eq.name)
    return program, frozenset(first), frozenset(after)


def _space(plan: Planned) -> tuple[frozenset[str], frozenset[str]]:
    """The axes of a kernel's grid, and of its walk."""
    return frozenset((*plan.batch, *plan.rows, *plan.columns)), frozenset(plan.walked)


def _twice(program: Program, own: frozenset[str], other: frozenset[str]) -> dict[str, str]:
    """The names in the second of two groups of equations, or the first, of what is computed before in the other."""
    first: dict[Equation, Equation] = {}
    names: dict[str, str] = {}
    for eq in program.equations:
        if eq.name not in own | other:
            continue
        e = renamed(eq, names)
        anonymous = replace(e, outputs=tuple(Tensor("", t.dtype) for t in e.outputs))
        known = first.setdefault(anonymous, eq)
        if known is not eq and not any(t.name in program.results for t in eq.outputs):
            names |= {t.name: s.name for t, s in zip(eq.outputs, known.outputs, strict=True)}
    return names
