"""What a reduction lets through: the cotangent of each term, given that of the whole.

sum      dT
prod     dT * the product of the other terms; where one term is 0 only it gets one, where several are none does
max      dT at the first winner, whose position is kept
argmax, any, all, and what counts: nothing
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from einc.base.types import I64, DType, accumulator
from einc.ein import ONE, ZERO, Apply, AxisValue, Equation, Expr, Extent, Monoid, Read, Tensor
from einc.ein.guards import composite, conjoin
from einc.ein.monoids import MONOIDS
from einc.passes.algebra.folding import call

Naming = Callable[[str, str, DType, tuple[tuple[str, ...], ...]], str]
_PLACES = {"max": "argmax", "min": "argmin"}


@dataclass(frozen=True, slots=True)
class Seed:
    """A body of an equation, with its cotangent at each position of the equation's axes where the guard holds."""

    body: Expr
    cotangent: Expr
    guard: Expr | None


@dataclass(frozen=True, slots=True)
class Seeds:
    """The bodies that get a cotangent, and equations of the forward program that those read."""

    seeds: tuple[Seed, ...] = ()
    extra: tuple[Equation, ...] = ()


def seeds(e: Equation, cotangents: Mapping[str, str], name: Naming) -> Seeds:
    """What an equation passes on, given the names of its outputs' cotangents; `name` makes names for new tensors."""
    own = tuple(composite(group) for group in e.dims)
    if e.monoid is None or e.monoid.adds:
        given = [(t, b) for t, b in zip(e.outputs, e.bodies, strict=True) if t.name in cotangents]
        return Seeds(tuple(Seed(b, Read(cotangents[t.name], own), e.domain) for t, b in given))
    if e.monoid.op == "mul" and e.name in cotangents:
        return _of_factors(e, Read(cotangents[e.name], own), own, name)
    if e.monoid.order is not None:
        return _of_winner(e, e.monoid, cotangents, own, name)
    return Seeds()


def _of_winner(
    e: Equation, monoid: Monoid, cotangents: Mapping[str, str], own: tuple[Expr, ...], name: Naming
) -> Seeds:
    """What is chosen, at the position that it is chosen from."""
    given = [(k, cotangents[t.name]) for k, t in zip(monoid.results, e.outputs, strict=True) if t.name in cotangents]
    if not given:
        return Seeds()
    position = composite(e.over)
    known = [t for k, t in zip(monoid.results, e.outputs, strict=True) if k and e.bodies[k] == position]
    place = known[0] if known else Tensor(name(e.name, "at", I64, e.dims), I64)
    assert monoid.order is not None
    always = Apply("lt", (AxisValue(e.over[0]), Extent(e.over[0])))  # with a condition, there may be no position
    at = Equation((place,), e.dims, (e.body, position), MONOIDS[_PLACES[monoid.order]], e.over, e.domain or always)
    here = conjoin(Apply("eq", (position, Read(place.name, own))), e.domain)
    found = tuple(Seed(e.bodies[k], Read(cotangent, own), here) for k, cotangent in given)
    return Seeds(found, () if known else (at,))


def _of_factors(e: Equation, cotangent: Expr, own: tuple[Expr, ...], name: Naming) -> Seeds:
    """The product of the others: of those that are not 0, divided by the term, or whole at the only 0."""
    f = e.body
    zero = Apply("eq", (f, ZERO))
    dtype = accumulator(e.outputs[0].dtype)
    rest = Tensor(name(e.name, "rest", dtype, e.dims), dtype)
    zeros = Tensor(name(e.name, "zeros", I64, e.dims), I64)
    of_others = Equation((rest,), e.dims, (Apply("where", (zero, ONE, f)),), MONOIDS["prod"], e.over, e.domain)
    count = Equation((zeros,), e.dims, (Apply("where", (zero, ONE, ZERO)),), MONOIDS["sum"], e.over, e.domain)
    product, n = Read(rest.name, own), Read(zeros.name, own)
    others, whole = (call("conj", x) if dtype.is_complex else x for x in (Apply("div", (product, f)), product))
    none = Seed(f, call("mul", cotangent, others), conjoin(e.domain, Apply("eq", (n, ZERO))))
    only = Apply("and", (Apply("eq", (n, ONE)), zero))
    one = Seed(f, call("mul", cotangent, whole), conjoin(e.domain, only))
    return Seeds((none, one), (of_others, count))
