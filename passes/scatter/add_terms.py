"""Add the terms of a sum at their places as they are computed, in no order that is fixed.

    S[v] = sum[n, i : v == token[n]](f)   -->   T[n] = sum[i](f);  S[v] = sum[n : v == token[n]](T[n])     added at v

A kernel for the sum goes over the positions n, and not over the places v: each adds its term to S[token[n]] in memory,
by an operation that no other comes between. So nothing is compared and nothing sorted, but sums of floats are rounded
in another way in each run: programs are compiled like this only where they need not be deterministic. Terms are sums
over all that their places do not depend on. What is added to in memory is as wide as sums are, and rounded afterwards.
"""

from __future__ import annotations

from dataclasses import replace

from einc.base.types import F32, F64, I32, I64, DType
from einc.ein import (
    ZERO,
    Apply,
    AxisValue,
    Equation,
    Expr,
    Extent,
    Program,
    Read,
    Tensor,
    axes_of,
    substitute,
)
from einc.ein.conditions import all_of, placed
from einc.ein.inference import dtype_of
from einc.ein.rewriting import names, unused
from einc.passes.algebra.scope import accumulated
from einc.passes.scatter.places import Scatter, Told, scatter, terms_first, worthwhile
from einc.pipeline import Context

_ADDED = (F32, F64, I32, I64)  # the types that are added to in memory


def add_terms(program: Program, context: Context) -> Program:
    """The program with the sums marked whose terms are added at their places, where that saves work."""
    if context.deterministic:
        return program
    adding = _Adding(program, context)
    return replace(program, equations=tuple(made for e in program.equations for made in adding.equations(e)))


class _Adding:
    """The equations of a program in the making."""

    def __init__(self, program: Program, context: Context) -> None:
        self.program, self.context = program, context
        self.shapes, self.dtypes, self.taken = program.shapes(), program.dtypes(), names(program)

    def equations(self, e: Equation) -> list[Equation]:
        """What an equation becomes: itself where data sends its terms nowhere, or where that saves nothing."""
        found = scatter(e)
        if found is None or e.monoid is None or not e.monoid.adds:
            return [e]
        if not worthwhile(e, found, self.program, self.context.size):
            return [e]
        if e.outputs[0].dtype.is_complex:
            parts = [self.stored(e, Apply(part, (e.body,)), f"{e.name}_{part}") for part in ("re", "im")]
            reads = tuple(self.whole(p) for p in parts)
            return [*(x for p in parts for x in self.equations(p)), _pointwise(e, Apply("complex", reads))]
        if set(e.over) > set(found.summed):
            terms, e = terms_first(e, found, self.unused(f"{e.name}_terms"), self.shapes)
            self.know(terms)
            found = scatter(e)
            assert found is not None
            return [terms, *self.added(e, found)]
        return self.added(e, found)

    def added(self, e: Equation, found: Scatter) -> list[Equation]:
        """The sum whose terms are added, and the equation that rounds it."""
        assert e.monoid is not None
        here = dict(found.places)
        inside = [x for v, at in here.items() for x in (Apply("le", (ZERO, at)), Apply("lt", (at, Extent(v))))]
        counted = all_of((*inside, *found.conditions, *found.rest))
        body = placed(substitute(Told(e.domain).of(e.body), here), counted, self.shapes)
        t = accumulated(e.monoid, body, e.outputs[0].dtype, self.dtypes)
        if t not in _ADDED or not set(here).isdisjoint(axes_of(body)):
            return [e]
        made = replace(e, bodies=(body,), within=None, added=tuple(here))
        if t == e.outputs[0].dtype:
            return [made]
        made = replace(made, outputs=(Tensor(self.unused(f"{e.name}_sum"), t),), dims=tuple((a,) for a in e.axes))
        self.know(made)
        return [made, _pointwise(e, self.whole(made))]

    def stored(self, e: Equation, body: Expr, name: str) -> Equation:
        """The same sum of something else, under another name."""
        t: DType = accumulated_type(e, body, self.dtypes)
        made = replace(e, outputs=(Tensor(self.unused(name), t),), dims=tuple((a,) for a in e.axes), bodies=(body,))
        self.know(made)
        return made

    def whole(self, e: Equation) -> Expr:
        """A tensor, read where it was made."""
        return Read(e.name, tuple(map(AxisValue, e.axes)))

    def know(self, e: Equation) -> None:
        self.shapes[e.name], self.dtypes[e.name] = e.dims, e.outputs[0].dtype

    def unused(self, wanted: str) -> str:
        name = unused(wanted, self.taken)
        self.taken.add(name)
        return name


def accumulated_type(e: Equation, body: Expr, dtypes: dict[str, DType]) -> DType:
    """The type that the real sum of a body accumulates in."""
    assert e.monoid is not None
    return accumulated(e.monoid, body, dtype_of(body, dtypes), dtypes)


def _pointwise(e: Equation, body: Expr) -> Equation:
    """An equation for the same tensor that computes it position by position."""
    return replace(e, bodies=(body,), monoid=None, over=(), domain=None, within=None)
