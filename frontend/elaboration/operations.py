"""Operations on values: types joined, axes merged, and the axes that can no longer be summed implicitly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from einc import ein
from einc.base.errors import AxisError, DTypeError
from einc.base.ops import LINEAR, result_type
from einc.base.source import Span
from einc.frontend.elaboration.cascade import check_extent
from einc.frontend.elaboration.values import Obstacle, Obstacles, Value, blocked, collect, multiplied, union

_INSIDE = {
    "pow": "a power", "floordiv": "'//'", "mod": "'%'", "and": "a condition", "or": "a condition",
    "not": "a condition", "lt": "a comparison", "le": "a comparison", "gt": "a comparison", "ge": "a comparison",
    "eq": "a comparison", "ne": "a comparison",
}  # fmt: skip


def operate(op: str, values: Sequence[Value], span: Span, order: Sequence[int]) -> Value:
    """An operation on values; `order` says whose axes come first. Raises `DTypeError` for types it does not take."""
    op = _exact(op, values)
    if op in ("floordiv", "mod", "exactdiv") and values[1].expr == ein.ZERO:
        raise AxisError("this divides by zero", span, hint="divide by 1 or more")
    try:
        dtype = result_type(op, tuple(v.dtype for v in values))
    except DTypeError as e:
        raise _wrong_type(e, op, values, span) from None
    expr = ein.Apply(op, tuple(v.expr for v in values), span)
    dims, positions = collect(values, order)
    depth, size = 1 + max(v.depth for v in values), 1 + sum(v.size for v in values)
    check_extent(depth, size, span)
    return Value(expr, dtype, span, dims, positions, _obstacles(op, values, span), depth, size)


def _exact(op: str, values: Sequence[Value]) -> str:
    """The operation that is meant: `/` between extents is exact."""
    whole = op == "div" and all(v.dtype.is_int and _of_extents(v.expr) for v in values)
    return "exactdiv" if whole and any(isinstance(n, ein.Extent) for n in ein.walk(values[0].expr)) else op


def _of_extents(e: ein.Expr) -> bool:
    """Is it made only of extents, integers and scalars?"""
    match e:
        case ein.Extent() | ein.Scalar():
            return True
        case ein.Const(value):
            return isinstance(value, int) and not isinstance(value, bool)
        case ein.Apply("add" | "sub" | "mul" | "floordiv" | "mod" | "exactdiv" | "neg", args):
            return all(map(_of_extents, args))
        case _:
            return False


def _obstacles(op: str, values: Sequence[Value], span: Span) -> Obstacles:
    """The axes of the arguments that an implicit sum cannot be taken over any more."""
    match op:
        case _ if op == "mul" or op in LINEAR:
            return multiplied(values)
        case "div":
            below = replace(values[1], obstacles=blocked(values[1], "a denominator", values[1].span))
            return multiplied([below, values[0]])
        case "add" | "sub":
            a, b = (set(v.axes) for v in values)
            inner = union(values)
            lacking = Obstacle("a sum, some of whose terms lack it,", span, alone=False)
            return {**inner, **{axis: replace(inner.get(axis, lacking), alone=False) for axis in a ^ b}}
        case _:
            inside = _INSIDE.get(op, f"{op}(…)")
            return union([replace(v, obstacles=blocked(v, inside, span)) for v in values])


def _wrong_type(e: DTypeError, op: str, values: Sequence[Value], span: Span) -> DTypeError:
    """The error with its place: the argument that should be a truth value and is not, else the operation."""
    if op in ("where", "and", "or", "not"):
        wrong = next(v for v in values if not v.dtype.is_bool)
        return DTypeError(e.message, wrong.span, hint=f"compare it: {wrong.span.text} != 0")
    types = ", ".join(dict.fromkeys(str(v.dtype) for v in values))
    fact = f"{'the arguments have' if len(values) > 1 else 'the argument has'} type {types}"
    size = "take the real part, re(x), or the size, abs(x)"
    return DTypeError(e.message, span, fact=fact, hint=size if any(v.dtype.is_complex for v in values) else "")
