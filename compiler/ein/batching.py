"""A program over a batch: the same equations with one more axis, wherever an operand has it.

    S[i] = sum[j](A[i, j] * x[j])  of A with a batch   -->   S[batch, i] = sum[j](A[batch, i, j] * x[j])

The axis comes first in the operands that have it, and in every tensor that is computed from one of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from einc.ein import AxisDecl, AxisValue, Equation, Expr, Operand, Program, Read, rebuild
from einc.ein.expressions import reads

_NAME = "batch"


def batched(program: Program, operands: Collection[str]) -> tuple[Program, frozenset[str]]:
    """The program for operands of which these have a batch, and the tensors that have one then."""
    axis = _fresh(program)
    having = set(operands)
    equations = []
    for e in program.equations:
        if having.isdisjoint(r.tensor for x in e.expressions() for r in reads(x)):
            equations.append(e)
            continue
        equations.append(_over(e, axis, frozenset(having)))
        having |= {t.name for t in e.outputs}
    params = tuple(
        replace(p, dims=((axis,), *p.dims)) if isinstance(p, Operand) and p.name in having else p
        for p in program.params
    )
    axes = (AxisDecl(axis), *program.axes)
    return replace(program, params=params, axes=axes, equations=tuple(equations)), frozenset(having)


def _fresh(program: Program) -> str:
    """A name for the axis that nothing in the program has."""
    taken = {a.name for a in program.axes} | program.dtypes().keys()
    name, n = _NAME, 1
    while name in taken:
        n += 1
        name = f"{_NAME}_{n}"
    return name


def _over(e: Equation, axis: str, having: frozenset[str]) -> Equation:
    """The equation at every position of the batch."""

    def at(x: Expr) -> Expr:
        made = rebuild(x, at)
        if isinstance(made, Read) and made.tensor in having:
            return replace(made, index=(AxisValue(axis), *made.index))
        return made

    return replace(
        e,
        dims=((axis,), *e.dims),
        bodies=tuple(map(at, e.bodies)),
        domain=None if e.domain is None else at(e.domain),
        within=None if e.within is None else at(e.within),
    )
