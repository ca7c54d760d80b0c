"""Which tensors are compared with themselves, and so must not be computed twice.

    S[i, j] = sum[d](...);  m[i] = max[j](S);  where(S[i, t] > S[i, j], ...);  where(S == m, ...)      here S is

A sum of floats in another order, or in a tile of another shape, differs in the last bit. If such a value is compared
with one made of it, computing it twice could make one of two equal numbers the greater. So it is computed once, and
stored where several walks or kernels need it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from einc import ein
from einc.base.ops import COMPARISONS
from einc.ein import Apply, Equation, Expr, Program
from einc.passes.streaming.walks import Walk, above, computed_from, walks
from einc.pipeline.plan import Planned


def compared(program: Program) -> frozenset[str]:
    """The tensors made by sums or products of floats that are compared with themselves, directly or through others."""
    named = {t.name: eq for eq in program.equations for t in eq.outputs}
    known = above(program.equations)
    found: set[str] = set()
    for a, b in (pair for eq in program.equations for e in eq.computed() for pair in _comparisons(e)):
        left, right = ({n for t in side & named.keys() for n in (t, *known[t])} for side in (a, b))
        found |= {n for n in left & right if _rounds(named[n])}
    return frozenset(found)


def _comparisons(e: Expr) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
    """The tensors on the two sides of each comparison."""
    for n in ein.walk(e):
        match n:
            case Apply(op=op, args=(a, b)) if op in COMPARISONS and ein.reads(a) and ein.reads(b):
                yield ein.tensors_of(a), ein.tensors_of(b)
            case _:
                pass


def _rounds(eq: Equation) -> bool:
    """Does its last bit depend on the order in which it is computed?"""
    rounds = eq.monoid is not None and eq.monoid.accumulates
    return rounds and not all(t.dtype.is_int or t.dtype.is_bool for t in eq.outputs)


def computes_again(plan: Planned, names: Collection[str]) -> str | None:
    """The first of some tensors that a kernel would compute in several of its walks; None if there is none."""
    named = {t.name: eq for eq in plan.equations for t in eq.outputs}
    inside = [n for n in names if n in named and not plan.along.isdisjoint(named[n].axes)]
    if not inside:
        return None
    needed = [_computed(walk, plan, named) for walk in walks(plan)]
    return next((n for n in sorted(inside) if sum(n in made for made in needed) > 1), None)


def _computed(walk: Walk, plan: Planned, named: Mapping[str, Equation]) -> set[str]:
    """The tensors that are computed within a walk, without those that other walks have reduced."""
    stack = [*walk.stores, *walk.scans, *(link.equation for link in walk.links)]
    found = {t.name for eq in stack for t in eq.outputs}
    while stack:
        for name in computed_from(stack.pop()):
            eq = named.get(name)
            if eq is not None and name not in found and (plan.is_scan(eq) or plan.along.isdisjoint(eq.over)):
                found.add(name)
                stack.append(eq)
    return found
