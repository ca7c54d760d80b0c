"""Axes that are read by their groups as two axes, so that what a group shares gets a sum over one of them.

def f(Q[h, i], K[g, j]):                           def f(Q[(g r), i], K[g, j]):
    S[h, i, j] = Q[h, i] * K[h // (|h| / |g|), j]  -->     S[g, r, i, j] = Q[(g r), i] * K[g, j]

dK[g, j] = sum[r, i](dS[g, r, i, j] * Q[(g r), i])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from einc.ein import Apply, AxisDecl, AxisValue, Expr, Extent, Operand, Param, Program, walk
from einc.ein.rewriting import bottom_up
from einc.passes.algebra.grouping import Split, exactly, grouped, split


def by_groups(program: Program) -> Program:
    """The program with both axes in place of each that is read by its group, in operands too where nothing else is."""
    program = exactly(program)
    for h, g in grouped(program).items():
        parts = split(program, h, g)
        apart = parts.program()
        if apart is not None:
            program = _in_operands(apart, parts) or apart
    return program


def _in_operands(program: Program, parts: Split) -> Program | None:
    """The program without the whole axis; None where it is needed."""
    h, both = parts.axis, (parts.group, parts.place)
    declared = {a.name: a.extent for a in program.axes}
    if declared[h] is not None or not any((h,) in p.dims for p in program.operands):
        return None
    if _follows(parts.group, h, declared):
        return None
    if any(h in (*e.axes, *e.over) or any(AxisValue(h) in walk(x) for x in e.expressions()) for e in program.equations):
        return None
    product = Apply("mul", (Extent(parts.group), Extent(parts.place)))

    def at(n: Expr) -> Expr:
        return product if n == Extent(h) else n

    def rewritten(e: Expr | None) -> Expr | None:
        return None if e is None else bottom_up(e, at)

    def parameter(p: Operand | Param) -> Operand | Param:
        if isinstance(p, Param):
            return replace(p, default=rewritten(p.default))
        return replace(p, dims=tuple(tuple(b for a in d for b in (both if a == h else (a,))) for d in p.dims))

    return replace(
        program,
        params=tuple(map(parameter, program.params)),
        axes=tuple(
            AxisDecl(a.name, None if a.name == parts.place else rewritten(a.extent), a.span)
            for a in program.axes
            if a.name != h
        ),
        equations=tuple(e.map(lambda x: bottom_up(x, at)) for e in program.equations),
    )


def _follows(axis: str, other: str, declared: Mapping[str, Expr | None]) -> bool:
    """Is an axis as long as a formula says in which the extent of another is?"""
    e = declared[axis]
    below = () if e is None else tuple(n.axis for n in walk(e) if isinstance(n, Extent))
    return any(a == other or _follows(a, other, declared) for a in below)
