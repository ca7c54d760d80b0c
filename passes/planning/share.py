"""Compute a tensor once for two kernels that compute it along the same walk, by making them one.

    kernel P: S = f, U = sum[i](g(S))
    kernel Q: T = f, V = sum[i](h(T))      -->      kernel P: S = f, U = sum[i](g(S)), V = sum[i](h(S))

Kernels come to compute the same where each reads a tensor that neither may store (`recompute`). This is an alternative,
taken where one kernel is predicted to take less time than two (`partition`): it does less, and holds more at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

from einc.ein import Equation, Program, Tensor
from einc.ein.rewriting import renamed
from einc.pipeline import Context
from einc.pipeline.plan import Alternative, Planned


def shared(program: Program, plans: Sequence[Planned], _: Context) -> Iterator[Alternative]:
    """The program with two kernels as one, for each pair along one walk that computes something twice.

    And with a kernel that computes something twice itself, since two were joined that did.
    """
    groups = [frozenset(eq.name for eq in p.equations) for p in plans]
    for (p, own), (q, other) in combinations_with_replacement(zip(plans, groups, strict=True), 2):
        if not p.walked or _space(p) != _space(q):
            continue
        names = _twice(program, own, other)
        if not any(eq.monoid is not None for eq in program.equations if eq.name in names):
            continue
        left = [renamed(eq, names) for eq in program.equations if eq.name not in names]
        joined = (own | other) - names.keys()
        yield Alternative(
            replace(program, equations=tuple(left)), [*(g for g in groups if g not in (own, other)), joined]
        )


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
