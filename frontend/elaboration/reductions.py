"""Reductions that are written out, `op[axes : domain within bound](x)`, and those that a missing axis implies."""

from __future__ import annotations

from collections.abc import Sequence

from einc import ein
from einc.base.errors import AxisError, CallError, DTypeError
from einc.base.source import Span
from einc.base.types import INT
from einc.ein.guards import composite, conjoin
from einc.ein.monoids import MONOIDS
from einc.frontend.elaboration.elaborator import Elaborator
from einc.frontend.elaboration.reads import condition
from einc.frontend.elaboration.values import Reduction, Value, collect, flatten, without
from einc.frontend.syntax.nodes import Call


def reduce(t: Elaborator, node: Call, guard: ein.Expr | None) -> Reduction:
    """`op[axes : domain within bound](x)`, or with positions given, `argmax[axes](x, position)`."""
    node = t.axes_for(node, guard)
    span = t.scope.at(node.span)
    over = _over(t, node, span)
    outer = None if guard is None or set(ein.axes_of(guard)) & set(over) else guard
    domain = None if node.domain is None else condition(t, node.domain, outer)
    within = None if node.within is None else condition(t, node.within, outer)
    inner = conjoin(outer, domain)
    _check_arguments(node, span)
    bodies = [t.value(arg, inner) for arg in node.args]
    if node.domain is None:
        _check_there(t, over, bodies, node, span)
    monoid = MONOIDS[node.function]
    if monoid.chooses and len(bodies) == 1:
        bodies.append(Value(composite(over), INT, span, (), tuple(over)))
    return reduction(monoid, over, bodies, domain, span, within)


def reduction(
    monoid: ein.Monoid,
    over: tuple[str, ...],
    bodies: Sequence[Value],
    domain: ein.Expr | None,
    span: Span,
    within: ein.Expr | None = None,
) -> Reduction:
    """The reduction of bodies over axes. Raises `DTypeError` for bodies that the monoid does not combine."""
    _check_types(monoid, bodies, span)
    dims, positions = collect(bodies)
    beyond = [a for p in (domain, within) if p is not None for a in ein.axes_of(p)]
    positions = tuple(dict.fromkeys((*positions, *(a for a in beyond if a not in flatten(dims)))))
    left = tuple(a for a in positions if a not in over)
    return Reduction(monoid, over, tuple(bodies), domain, span, without(dims, over), left, monoid.name, None, within)


def _over(t: Elaborator, node: Call, span: Span) -> tuple[str, ...]:
    if not node.axes:
        raise CallError(
            f"'{node.function}' needs the axes to reduce over",
            span,
            hint=f"{node.function}[j](x)" + (f", or {node.function}(x, y)" if node.function in ("max", "min") else ""),
        )
    over = tuple(a for name in node.axes for a in t.scope.axis(name.name, name.span))
    for k, axis in enumerate(over):
        if axis in over[:k]:
            raise AxisError(f"'{node.function}' is over axis '{axis}' twice", span, hint="name each axis once")
    return over


def _check_arguments(node: Call, span: Span) -> None:
    monoid = MONOIDS[node.function]
    most = monoid.components
    least = 1 if monoid.chooses else most
    if not least <= len(node.args) <= most:
        arguments = "1 argument" if least == 1 else f"{least} arguments"
        raise CallError(
            f"'{node.function}' over axes takes {arguments}, not {len(node.args)}",
            span,
            hint=f"{node.function}[{', '.join(a.name for a in node.axes or ())}](x)",
        )


def _check_there(t: Elaborator, over: tuple[str, ...], bodies: Sequence[Value], node: Call, span: Span) -> None:
    """Every reduced axis is an axis of the argument, unless the argument is a constant."""
    axes = dict.fromkeys(a for b in bodies for a in b.axes)
    for axis in over:
        if axes and axis not in axes:
            elsewhere = any(axis in dim for dims in t.cascade.dims.values() for dim in dims)
            repeat = f", or write [{axis} : true] to take every value |{axis}| times" if elsewhere else ""
            raise AxisError(
                f"'{node.function}' is over axis '{axis}', but its argument does not have that axis",
                span,
                fact=f"the axes of {_clip(node.args[0].span.text)} are {', '.join(axes)}",
                hint=f"reduce over one of them{repeat}",
            )


def _clip(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _check_types(monoid: ein.Monoid, bodies: Sequence[Value], span: Span) -> None:
    dtype = bodies[0].dtype
    if monoid.truths and not dtype.is_bool:
        place = bodies[0].span
        message = f"'{monoid.name}' combines truth values, not {dtype}"
        raise DTypeError(message, place, hint=f"compare it: {place.text} != 0")
    if monoid.order is not None and dtype.is_complex:
        raise DTypeError(
            f"'{monoid.name}' needs an order, and {dtype} has none",
            span,
            hint="order by size: abs(x)",
        )
    if monoid.chooses and not bodies[1].dtype.is_int:
        raise DTypeError(f"a position is an integer, not {bodies[1].dtype}", bodies[1].span, hint="i64(x)")
