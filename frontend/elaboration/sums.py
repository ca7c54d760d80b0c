"""Implicit sums: an axis that is missing on the left is summed over, in each additive term on the right that has it.

    O[i] = A[i, k] * B[k] + C[i]   -->   O[i] = sum[k](A[i, k] * B[k]) + C[i]

A term can be summed where it is linear in a factor with the axis: through products, signs, casts, and quotients by a
divisor without the axis. One such factor is enough, whatever else has the axis too, since then only one sum is meant:

    O[i] = relu(A[i, k]) * V[k]        -->   O[i] = sum[k](relu(A[i, k]) * V[k])
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from einc.base.errors import AxisError
from einc.base.types import BY_NAME
from einc.ein.monoids import MONOIDS
from einc.frontend.elaboration.elaborator import Elaborator
from einc.frontend.elaboration.reductions import reduction
from einc.frontend.elaboration.values import Reduction, Result, Value
from einc.frontend.syntax.nodes import Call, Node, Operation

_ALONE = "a missing axis is summed over a whole term, and only if a factor of the term has it outside of functions"
_LACKING = "terms that lack the axis may be meant to count once, or at each of its positions"


def total(t: Elaborator, node: Node, kept: Container[str]) -> Result:
    """The right side of a definition whose left has the axes `kept`, everything else summed."""
    match node:
        case Operation("add" | "sub" as op, args, span):
            terms = [_value(t, _arranged(total(t, a, kept), kept)) for a in args]
            return t.apply(op, terms, t.scope.at(span))
        case Call(function, None, None, (arg,)) if function in BY_NAME:
            return t.cast(node, total(t, arg, kept))
        case _:
            return summed(t, t.result(node), kept)


def _arranged(result: Result, kept: Container[str]) -> Result:
    """A sum with its dimensions in the order that the left side has them in, however its factors were written."""
    if not isinstance(result, Reduction) or not isinstance(kept, tuple) or any(len(d) > 1 for d in result.dims):
        return result
    return replace(result, dims=tuple(sorted(result.dims, key=lambda d: kept.index(d[0]))))


def _value(t: Elaborator, result: Result) -> Value:
    return result if isinstance(result, Value) else t.bound(result)


def summed(t: Elaborator, result: Result, kept: Container[str]) -> Result:
    """A term, summed over its axes that are not kept. Raises `AxisError` where an axis cannot be summed implicitly."""
    missing = tuple(a for a in result.axes if a not in kept)
    if not missing:
        return result
    if isinstance(result, Reduction):
        result = t.bound(result)
    for axis in missing:
        obstacle = result.obstacles.get(axis)
        if obstacle is not None:
            raise AxisError(
                f"axis '{axis}' is not on the left, and inside {obstacle.inside} it is not summed implicitly",
                t.scope.at(obstacle.span),
                fact=_ALONE if obstacle.alone else _LACKING,
                hint=f"write sum[{axis}](…) where the sum is meant, or put '{axis}' on the left",
            )
    plain = replace(result, obstacles={})
    return reduction(MONOIDS["sum"], missing, [plain], None, result.span)
