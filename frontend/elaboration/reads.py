"""Reads of tensors, and reads of a function's arguments at other axes, with the guards that they stand under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einc import ein
from einc.base import errors
from einc.base.errors import AxisError, DTypeError, ShapeError, nearest
from einc.base.types import INT
from einc.base.words import count
from einc.ein.guards import composite, conjoin, implied_guard
from einc.ein.inference import position
from einc.ein.printer import print_dims
from einc.frontend.elaboration.cascade import Known, check_extent, guard_size
from einc.frontend.elaboration.elaborator import Elaborator
from einc.frontend.elaboration.scopes import Argument
from einc.frontend.elaboration.values import Dims, Value, flatten, merge
from einc.frontend.syntax.nodes import Group, Literal, Node, Read


def read(t: Elaborator, node: Read, guard: ein.Expr | None) -> Value:
    """`T[e, ... : p]` under a guard."""
    argument = t.scope.arguments.get(node.tensor)
    if argument is not None:
        return _reread(t, argument, node, guard)
    known = t.scope.tensors.get(node.tensor)
    if known is None:
        raise _unknown(t, node)
    _check_count(t, node, known)
    if guard is None and node.guard is None:
        _check_sign(t, node, known)
    inner = guard if node.guard is None else condition(t, node.guard, guard)
    values = [_index(t, item, inner) for item in node.index]
    own = known.dims[: known.hidden]
    index = (*(composite(dim) for dim in own), *(v.expr for v in values))
    under = implied_guard(index, known.dims, guard) if node.guard is None else inner
    expr = known.read(ein.Read(known.name, index, under, t.scope.at(node.span)))
    dims = merge(own, *(v.dims for v in values))
    depth, size = 1 + max((v.depth for v in values), default=0), 1 + guard_size(under) + sum(v.size for v in values)
    check_extent(depth, size, t.scope.at(node.span))
    return Value(expr, known.dtype, t.scope.at(node.span), dims, _outside(values, under, dims), {}, depth, size)


def condition(t: Elaborator, node: Node, guard: ein.Expr | None) -> ein.Expr | None:
    """A guard or a domain as written; `true` is none."""
    if isinstance(node, Literal) and node.value is True:
        return None
    value = t.value(node, guard)
    if not value.dtype.is_bool:
        raise DTypeError(
            f"a guard is a truth value, not {value.dtype}",
            t.scope.at(node.span),
            hint=f"compare it: {node.span.text} != 0",
        )
    return value.expr


def _outside(values: Sequence[Value], guard: ein.Expr | None, dims: Dims) -> tuple[str, ...]:
    """The axes of subscripts and guard that are not among the dims."""
    seen = set(flatten(dims))
    axes = (*(a for v in values for a in v.positions), *(() if guard is None else ein.axes_of(guard)))
    return tuple(dict.fromkeys(a for a in axes if a not in seen))


def _unknown(t: Elaborator, node: Read) -> errors.Error:
    name, place = node.tensor, t.scope.at(node.span)
    if name in t.scope.scalars:
        return AxisError(f"'{name}' is a scalar: it has no axes", place, hint=f"write {name}")
    if name in t.scope.axes:
        return errors.NameError(f"'{name}' is an axis, not a tensor", place, hint=f"write {name}, its position")
    if t.is_function(name):
        return errors.NameError(
            f"'{name}' is a function, not a tensor", place, hint=f"call it: {name}[axes](x) or {name}(x)"
        )
    known = (*t.scope.tensors, *t.scope.arguments)
    return errors.NameError(
        f"there is no tensor '{name}'",
        place,
        fact=f"tensors: {', '.join(known)}" if known else "there are no tensors here",
        hint=nearest(name, known) or "make it a parameter, or define it",
    )


def _check_count(t: Elaborator, node: Read, known: Known) -> None:
    listed = known.dims[known.hidden :]
    if known.whole and node.index:
        raise AxisError(
            f"'{node.tensor}' was defined without axes",
            t.scope.at(node.span),
            hint=f"name the axes where it is defined: {node.tensor}[j] = …",
        )
    if len(node.index) != len(listed) and not known.whole:
        raise ShapeError(
            f"{node.tensor} has {count(len(listed), 'dimension')}, but {count(len(node.index), 'subscript')} here",
            t.scope.at(node.span),
            fact=f"it is {node.tensor}{print_dims(listed)}",
            hint="give every dimension a subscript" if len(node.index) < len(listed) else "leave out the last",
        )


def _check_sign(t: Elaborator, node: Read, known: Known) -> None:
    """No subscript is written as a negative number."""
    for dim, item in zip(known.dims[known.hidden :], node.index, strict=False):
        if isinstance(item, Literal) and not isinstance(item.value, float) and item.value < 0:
            size = " * ".join(f"|{axis}|" for axis in dim) or "1"
            raise ShapeError(
                f"the subscript {item.value} is before the start",
                t.scope.at(item.span),
                fact="subscripts count from 0, and do not wrap around",
                hint=f"count from the end: {size} - {-item.value}",
            )


def _index(t: Elaborator, node: Node, guard: ein.Expr | None) -> Value:
    """A subscript: an integer expression, or a composite axis."""
    if isinstance(node, Group):
        axes = tuple(t.scope.single(n.name, n.span) for n in node.axes)
        depth = 2 * len(axes)
        return Value(composite(axes), INT, node.span, (axes,) if axes else (), depth=depth, size=2 * depth)
    value = t.value(node, guard)
    if not value.dtype.is_int:
        raise DTypeError(
            f"a subscript is an integer, not {value.dtype}",
            t.scope.at(node.span),
            fact=f"{node.span.text} has type {value.dtype}",
            hint=f"i64({node.span.text})" if value.dtype.is_float else "use an integer",
        )
    return _positioned(value, position(value.expr, t.cascade.dtypes))


def _positioned(value: Value, expr: ein.Expr) -> Value:
    """In a subscript every axis is an axis of the read, not only a position."""
    dims = tuple((a,) for a in value.axes)
    return Value(expr, value.dtype, value.span, dims, (), {}, value.depth, value.size)


def _reread(t: Elaborator, argument: Argument, node: Read, guard: ein.Expr | None) -> Value:
    """An argument `x[j]` of a function at another axis or position: `x[t]`, `x[j - 1 : j >= 1]`."""
    name, axes = node.tensor, argument.axes
    if not axes:
        raise AxisError(
            f"'{name}' is an argument without axes",
            t.scope.at(node.span),
            fact="only an argument that the function declares with axes can be read at others",
            hint=f"declare it as {name}[j], j being an axis of the function",
        )
    if len(node.index) != len(axes):
        subscripts = count(len(node.index), "subscript")
        raise ShapeError(
            f"'{name}' is declared with {count(len(axes), 'axis', 'axes')}, but {subscripts} here",
            t.scope.at(node.span),
            hint="give every axis a subscript",
        )
    inner = guard if node.guard is None else condition(t, node.guard, guard)
    values = [_index(t, item, inner) for item in node.index]
    at = dict(zip(axes, values, strict=True))
    for axis, value in at.items():
        if isinstance(value.expr, ein.AxisValue) and value.expr.axis != axis:
            t.cascade.hints.setdefault(value.expr.axis, []).append(ein.Extent(axis))
    moved = ein.substitute(argument.value.expr, {axis: v.expr for axis, v in at.items()})
    expr = _guarded(t, moved, inner)
    dims = merge(*(_moved(dim, at) for dim in argument.value.dims))
    positions = merge(*(_moved((a,), at) for a in argument.value.positions))
    seen = set(flatten(dims))
    others = (*flatten(positions), *(() if inner is None else ein.axes_of(inner)))
    depth = argument.value.depth + max(v.depth for v in values)
    size = argument.value.size * (max(v.size for v in values) + guard_size(inner))
    check_extent(depth, size, t.scope.at(node.span))
    left = tuple(dict.fromkeys(a for a in others if a not in seen))
    return Value(expr, argument.value.dtype, t.scope.at(node.span), dims, left, {}, depth, size)


def _moved(dim: tuple[str, ...], at: Mapping[str, Value]) -> Dims:
    """The dimensions left of one after subscripts replace some of its axes."""
    if all(a not in at or isinstance(at[a].expr, ein.AxisValue) for a in dim):
        return (tuple(at[a].axes[0] if a in at else a for a in dim),)
    return merge(*(at[a].dims if a in at else ((a,),) for a in dim))


def _guarded(t: Elaborator, e: ein.Expr, guard: ein.Expr | None) -> ein.Expr:
    """The expression with its reads under one more guard, except those that are in range by form."""
    if guard is None:
        return e
    below = ein.rebuild(e, lambda x: _guarded(t, x, guard))
    if not isinstance(below, ein.Read):
        return below
    if below.guard is not None:
        return ein.Read(below.tensor, below.index, conjoin(guard, below.guard), below.span)
    dims = t.cascade.dims[below.tensor]
    return ein.Read(below.tensor, below.index, implied_guard(below.index, dims, guard), below.span)
