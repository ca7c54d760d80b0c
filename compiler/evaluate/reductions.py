"""The components of one equation over a box of positions, as arrays over its output axes.

An equation that would need a large array is evaluated in parts: sums of products by matrix products, others by halves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from einc.base.types import DType, accumulator, join
from einc.ein import Apply, Cast, Const, Equation, Expr, Monoid, axes_of
from einc.ein.inference import dtype_of, reduced_type
from einc.evaluate.elementwise import Array, Value, as_stored, convert, storage
from einc.evaluate.fields import Box, Fields, Scope
from einc.evaluate.products import sum_of_products

_MOST = 1 << 23  # elements of the largest array evaluated at once: 64 MB of doubles
_FEW = 1 << 20  # elements up to which sums of products are formed term by term, exactly as written


def component_types(e: Equation, dtypes: Mapping[str, DType]) -> tuple[DType, ...]:
    """The type that each component is computed in: sums and products at least as wide as they are stored."""
    if e.monoid is None:
        return tuple(t.dtype for t in e.outputs)
    types = [reduced_type(e.monoid, k, dtype_of(b, dtypes)) for k, b in enumerate(e.bodies)]
    if e.monoid.accumulates:
        types = [join(t, accumulator(e.outputs[0].dtype)) for t in types]
    return tuple(types)


def identity(monoid: Monoid, types: Sequence[DType]) -> list[Array]:
    """The value of each component of an empty reduction."""
    return [np.asarray(_bound(unit, storage(t)), storage(t)) for unit, t in zip(monoid.identity, types, strict=True)]


def _bound(unit: bool | int | str, t: np.dtype[Any]) -> bool | int | float:
    if not isinstance(unit, str):
        return unit
    if t.kind in "iu":
        return int(np.iinfo(t).min if unit == "lowest" else np.iinfo(t).max)
    if t.kind == "b":
        return unit == "highest"
    return -math.inf if unit == "lowest" else math.inf


def components(e: Equation, box: Box, scope: Scope) -> list[Array]:
    """Every component of the equation's monoid (or its bodies) over a box that is not empty."""
    found = _at_once(e, box, scope)
    if found is not None:
        return found
    axis = _widest(e, box)
    one, other = (components(e, half, scope) for half in box.halves(axis))
    if axis in e.over:
        assert e.monoid is not None
        return combine(e.monoid, one, other, component_types(e, scope.dtypes))
    k = e.axes.index(axis)
    shapes = [half.shape[: len(e.axes)] for half in box.halves(axis)]
    return [
        np.concatenate([np.broadcast_to(x, shapes[0]), np.broadcast_to(y, shapes[1])], axis=k)
        for x, y in zip(one, other, strict=True)
    ]


def _at_once(e: Equation, box: Box, scope: Scope) -> list[Array] | None:
    guards = scope.guarded(e)
    total = box.size(_dense(guards))
    if total > _FEW and e.monoid is not None and e.monoid.op == "add":
        (t,) = component_types(e, scope.dtypes)
        factors = _factors(e.body, scope.dtypes, t.is_int)
        if len(factors) > 1 and max(box.size(axes_of(f)) for f in factors) <= _MOST:
            found = _contracted(e, factors, t, Fields(box, scope), guards is not e)
            if found is not None:
                return [found]
    if total > _MOST:
        return None
    fields = Fields(box, scope)
    terms = None if guards is not e and not scope.finite else _terms(e, fields)
    if terms is None or (guards is not e and any(np.isnan(x).any() for x in terms)):
        terms = _terms(guards, fields)
    return _reduced(e, terms, fields)


def _dense(e: Equation) -> tuple[str, ...]:
    """The axes that the equation's expressions extend over."""
    return tuple(axis for expression in e.expressions() for axis in axes_of(expression))


def _widest(e: Equation, box: Box) -> str:
    """The axis to cut: the longest output axis if it has several positions, else the longest reduced one."""
    sizes = {axis: n for axis, n in zip(box.axes, box.shape, strict=True) if axis in _dense(e) and n > 1}
    return max((a for a in e.axes if a in sizes), key=sizes.__getitem__, default="") or max(
        sizes, key=sizes.__getitem__
    )


# ---------------------------------------------------------------------------------------------------------------------
# Term by term


def _terms(e: Equation, fields: Fields) -> list[Array]:
    types = component_types(e, fields.scope.dtypes)
    adds = e.monoid is not None and e.monoid.accumulates
    return [
        convert(fields.value(b, t if adds and t.is_int else None), t).array
        for b, t in zip(e.bodies, types, strict=True)
    ]


def _reduced(e: Equation, terms: list[Array], fields: Fields) -> list[Array]:
    if e.monoid is None:
        return terms
    types = component_types(e, fields.scope.dtypes)
    if e.domain is not None:
        inside = fields.truth(e.domain)
        terms = [np.where(inside, x, unit) for x, unit in zip(terms, identity(e.monoid, types), strict=True)]
    return fold(e.monoid, terms, len(e.axes), fields.box.shape, types)


def fold(
    monoid: Monoid, terms: list[Array], outputs: int, shape: tuple[int, ...], types: Sequence[DType]
) -> list[Array]:
    """The terms combined along all but the first `outputs` dimensions; a term of extent 1 along one is repeated."""
    over = tuple(range(outputs, len(shape)))
    first = terms[0]
    if monoid.chooses and monoid.order is not None:
        return _first(monoid.order, first, terms[1], over)
    times = math.prod(shape[k] for k in over if first.shape[k] == 1)
    match monoid.op:
        case "add":
            return [first.sum(axis=over, dtype=first.dtype) * first.dtype.type(times)]
        case "mul":
            return [first.prod(axis=over, dtype=first.dtype) ** first.dtype.type(times)]
        case "max" | "or":
            return [first.max(axis=over)]
        case "min" | "and":
            return [first.min(axis=over)]
        case _:
            return _tree(monoid, terms, outputs, shape, types)


def _first(order: str, values: Array, index: Array, over: tuple[int, ...]) -> list[Array]:
    """The best value and its least index; a NaN is better than any number."""
    values, index = np.broadcast_arrays(values, index)
    best = values.max(axis=over, keepdims=True) if order == "max" else values.min(axis=over, keepdims=True)
    hit = (values == best) | ((values != values) & (best != best))
    place = np.where(hit, index, np.iinfo(np.int64).max).min(axis=over)
    return [best.reshape(place.shape), place]


def _tree(
    monoid: Monoid, terms: list[Array], outputs: int, shape: tuple[int, ...], types: Sequence[DType]
) -> list[Array]:
    """Neighbours combined, in order, until one is left."""
    out = np.broadcast_shapes(*(x.shape[:outputs] for x in terms))
    count = math.prod(shape[outputs:])
    terms = [np.broadcast_to(x, (*out, *shape[outputs:])).reshape(*out, count) for x in terms]
    while count > 1:
        if count % 2:
            units = identity(monoid, types)
            terms = [
                np.concatenate([x, np.broadcast_to(u, (*out, 1))], axis=-1) for x, u in zip(terms, units, strict=True)
            ]
        terms = combine(monoid, [x[..., 0::2] for x in terms], [x[..., 1::2] for x in terms], types)
        count = (count + 1) // 2
    return [x[..., 0] for x in terms]


def combine(monoid: Monoid, a: Sequence[Array], b: Sequence[Array], types: Sequence[DType]) -> list[Array]:
    """The monoid's combination of earlier and later states, position by position."""
    names = {f"a{k}": Value(x, t) for k, (x, t) in enumerate(zip(a, types, strict=True))}
    names |= {f"b{k}": Value(x, t) for k, (x, t) in enumerate(zip(b, types, strict=True))}
    fields = Fields(Box((), ()), Scope({}, {}, {name: v.dtype for name, v in names.items()}, {}, names))
    return [convert(fields.value(f), t).array for f, t in zip(monoid.combine, types, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# By matrix products


def _factors(e: Expr, dtypes: Mapping[str, DType], integer: bool) -> list[Expr]:
    """The factors of a product of numbers of one kind; a divisor is a reciprocal, casts of floats are dropped."""

    def of_kind(x: Expr) -> bool:
        t = dtype_of(x, dtypes)
        return not t.is_bool and t.is_int == integer

    match e:
        case Apply("mul", (a, b)) if of_kind(e):
            return _factors(a, dtypes, integer) + _factors(b, dtypes, integer)
        case Apply("neg", (a,)) if of_kind(e):
            return [Const(-1), *_factors(a, dtypes, integer)]
        case Apply("div", (a, b)) if not integer and of_kind(a):
            return [*_factors(a, dtypes, integer), Apply("div", (Const(1.0), b))]
        case Cast(dtype, a) if not integer and dtype.kind in "fc" and of_kind(a):
            return _factors(a, dtypes, integer)
        case _:
            return [e]


def _contracted(e: Equation, factors: list[Expr], t: DType, fields: Fields, guarded: bool) -> Array | None:
    """The sum by matrix products; None where order or guards would change it: with infinities and NaN."""
    arrays = [as_stored(fields.value(f, t if t.is_int else None).array, t) for f in factors]
    if (
        not t.is_int
        and (len(factors) > 2 or e.domain is not None or guarded)
        and not all(np.isfinite(x).all() for x in arrays)
    ):
        return None
    if e.domain is not None:
        arrays = _restricted(arrays, fields.truth(e.domain))
    numbers = [x for x in arrays if x.size == 1]
    moving = [x for x in arrays if x.size > 1]
    outputs, shape = len(e.axes), fields.box.shape
    found = sum_of_products(moving, outputs)
    for x in numbers:
        found = found * x.reshape(())
    extends = np.broadcast_shapes(*(x.shape for x in moving))
    times = math.prod(n for n, k in zip(shape[outputs:], extends[outputs:], strict=True) if k == 1)
    return np.asarray(found * found.dtype.type(times))


def _restricted(arrays: list[Array], inside: Array) -> list[Array]:
    """The factors with one of them set to 0 outside the domain: the smallest that extends over the domain's axes."""
    hosts = [x for x in arrays if np.broadcast_shapes(x.shape, inside.shape) == x.shape]
    if not hosts:
        return [*arrays, inside.astype(arrays[0].dtype)]
    host = min(hosts, key=lambda x: x.size)
    return [np.where(inside, x, np.zeros((), x.dtype)) if x is host else x for x in arrays]
