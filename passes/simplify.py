"""Make expressions smaller by laws of arithmetic and logic, and compute equal things once.

    e                                 -->   the smaller expression of `einc.passes.identities`
    T[i] = m[r](f);  U[i] = m[r](f)   -->   T[i] = m[r](f), and U is read as T
    T[i] = m[r : p](identity of m)    -->   T[i] = identity

To a fixpoint: every law takes nodes away. Two equations that are both results stay two, the second a copy of the first.

What a person writes for clarity, the elaborator for generality and `inline` for uniformity is paid for at run time,
once a position.
"""

from __future__ import annotations

import math
from dataclasses import replace

from einc.ein import FALSE, TRUE, ZERO, Cast, Const, Equation, Program
from einc.passes.identities import simplify_expression
from einc.passes.rewriting import Scope, drop_dead, merge_equal
from einc.pipeline import Context

_IDENTITIES: dict[str, tuple[Const, ...]] = {
    "sum": (ZERO, Const(0.0)),
    "prod": (Const(1), Const(1.0)),
    "max": (Const(-math.inf),),
    "min": (Const(math.inf),),
    "any": (FALSE,),
    "all": (TRUE,),
}


def simplify(program: Program, _: Context) -> Program:
    """The program with every law applied as often as it can be; the same results."""
    while True:
        scope = Scope(program.dtypes(), program.shapes())
        smaller = replace(program, equations=tuple(_equation(e, scope) for e in program.equations))
        smaller = drop_dead(merge_equal(smaller))
        if smaller == program:
            return program
        program = smaller


def _equation(e: Equation, scope: Scope) -> Equation:
    e = e.map(lambda x: simplify_expression(x, scope))
    if e.domain == TRUE:
        e = replace(e, domain=None)
    if e.monoid is None or len(e.bodies) > 1:
        return e
    identities = _IDENTITIES[e.monoid.name]
    if e.domain == FALSE and e.monoid.name not in ("max", "min"):  # whose identity depends on the type
        e = replace(e, bodies=identities[:1])
    body = e.body
    while isinstance(body, Cast):
        body = body.arg
    return replace(e, bodies=(body,), monoid=None, over=(), domain=None) if body in identities else e
