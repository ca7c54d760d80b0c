"""The order in memory of a result that no one has asked for in another.

    out[m, n, b] = sum[k](A[b, m, k] * B[b, k, n])   -->   out[b, m, n] = ..., returned as a view with axes m, n, b

A product for each position of b stores whole rows where b is not the fastest axis.
"""

from __future__ import annotations

from dataclasses import replace

from einc import ein
from einc.ein import AxisValue, Equation, Program, Read

Views = tuple[tuple[int, ...], ...]  # of each result, the dimensions as they lie in memory by those that are returned


def batch_first(program: Program) -> tuple[Program, Views]:
    """The program with batch axes first in its result, and the view that has them as asked; none if nothing moves."""
    if len(program.equations) != 1 or len(program.results) != 1:
        return program, ()
    (eq,) = program.equations
    order = _order(eq)
    if order == tuple(range(len(eq.dims))):
        return program, ()
    moved = replace(eq, dims=tuple(eq.dims[k] for k in order))
    return replace(program, equations=(moved,)), (tuple(order.index(k) for k in range(len(order))),)


def _order(eq: Equation) -> tuple[int, ...]:
    """The dimensions of a result with those of batch axes first, where the last one is of a batch axis."""
    own = tuple(range(len(eq.dims)))
    read = [r for b in eq.bodies for r in ein.reads(b)]
    plain = all(isinstance(e, AxisValue) for r in read for e in r.index)
    if len(read) != 2 or not eq.over or not plain or any(len(d) != 1 for d in eq.dims):
        return own
    batch = _axes(read[0]) & _axes(read[1]) - set(eq.over)
    others = [k for k in own if eq.dims[k][0] not in batch]
    if not others or others[-1] == own[-1]:
        return own
    return (*(k for k in own if k not in others), *others)


def _axes(read: Read) -> set[str]:
    return {e.axis for e in read.index if isinstance(e, AxisValue)}
