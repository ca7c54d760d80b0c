"""Sum over all axes at once where a sum of sums would be in memory.

    T[i, r] = sum[k](f);  U[j] = sum[r : p](T[e, r])   -->   U[j] = sum[r, k : p](f(e, r))

T is larger than all that is given and wanted, nothing else reads it, and each of its sums is read about once. The
gradient of what a convolution reads comes as such sums: of products with the weights, along the positions of a window.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from einc.ein import AxisValue, Equation, Program, Read, reads
from einc.ein.guards import positions as at_positions
from einc.passes.algebra.exposure import moved
from einc.pipeline import Context, positions

_OFTEN = 1.5  # times as many products at most


def join_sums(program: Program, context: Context) -> Program:
    """The program without such sums of sums."""
    sites = Counter(r.tensor for e in program.equations for x in e.expressions() for r in reads(x))
    named = {e.name: e for e in program.equations}
    given = [tuple(a for dim in p.dims for a in dim) for p in program.operands]
    most = max(positions(axes, context) for axes in (*given, *(named[r].axes for r in program.results if r in named)))
    joined: dict[str, Equation] = {}
    for outer in program.equations:
        inner = _only_read(outer, named)
        if inner is None or sites[inner.name] > 1 or inner.name in program.results:
            continue
        if positions(inner.axes, context) <= most or {*inner.over} & {*outer.axes, *outer.over}:
            continue
        work = positions((*outer.axes, *outer.over, *inner.over), context)
        if work <= _OFTEN * positions((*inner.axes, *inner.over), context):
            joined |= {outer.name: _joined(outer, inner, program), inner.name: inner}
    gone = {e.name for e in joined.values()} - {name for name, e in joined.items() if e is not named[name]}
    return replace(program, equations=tuple(joined.get(e.name, e) for e in program.equations if e.name not in gone))


def _only_read(outer: Equation, named: dict[str, Equation]) -> Equation | None:
    """The sum that another is a sum of, and of nothing else."""
    if not _is_sum(outer) or not isinstance(outer.body, Read):
        return None
    inner = named.get(outer.body.tensor)
    return inner if inner is not None and _is_sum(inner) and inner.domain is None else None


def _is_sum(e: Equation) -> bool:
    return e.monoid is not None and e.monoid.adds and len(e.bodies) == 1 and e.within is None


def _joined(outer: Equation, inner: Equation, program: Program) -> Equation:
    """Both sums as one."""
    read = outer.body
    assert isinstance(read, Read)
    at = at_positions(inner.dims, read.index) | {a: AxisValue(a) for a in inner.over}
    body = moved(inner.body, at, read.guard, program.shapes())
    return replace(outer, bodies=(body,), over=(*outer.over, *inner.over), product=inner.product)
