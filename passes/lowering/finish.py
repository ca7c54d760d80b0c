"""The values of links after their walk, each with the least rounding that its states allow."""

from __future__ import annotations

from functools import partial, reduce

from einc import ein
from einc.base.types import INT
from einc.ein import Expr
from einc.ein.rewriting import read_as
from einc.passes.lowering.kernel import component, stored_types
from einc.passes.lowering.states import END, Moment, States
from einc.passes.streaming.at_references import is_bare
from einc.passes.streaming.exact_means import HELD
from einc.passes.streaming.sweep import Link, Reference
from einc.tile import Elem, ExtentOf, Lit, Value


def finish(s: States) -> None:
    """Define every link's value after the walk, rounded as it would be stored."""
    end = s.held(END)
    if any(link.exact is not None for link in s.chain):  # references keep their last values
        for link in s.chain:
            s.settle(link, end)
    for link in s.chain:
        values = s.finished(link, end, s.last) if link.exact is None else [exactly(s, link, end, link.exact)]
        values = [_undefined(s, link, _unless_empty(s, link, end, values[0])), *values[1:]]
        for n, (value, dtype) in enumerate(zip(values, stored_types(link.equation), strict=True)):
            s.define(component(link.equation, n), s.b.rounded(value, dtype))
    for r in (r for link in s.chain for r in link.references if r.exact is not None):
        s.b.finer[r.value] = partial(mean, s, r, end)


def exactly(s: States, link: Link, end: Moment, exact: Expr) -> Value:
    """The link's value after the walk with least rounding."""
    known = dict(s.k.known)
    values = {r.name: s.last(r.value) for r in link.references}
    for r in (r for link in s.chain for r in link.references if r.hat and r.name in values):
        values |= s.hatted(r, values[r.name], end.along)
    _hold(s, exact, end)
    exact = s.last(read_as(exact, values))
    result = s.b.typed(exact, s.k.order, s.types(link.accumulators[0])[0])
    s.k.known = known
    return result


def mean(s: States, r: Reference, end: Moment) -> Value:
    """A reference that is a mean, after the walk with least rounding."""
    assert r.exact is not None
    known = dict(s.k.known)
    _hold(s, r.exact, end)
    order = s.k.extends(r.axes)
    result = s.b.bind(f"{r.name}_exact", s.divided(s.last(r.exact), order), order)
    s.k.known = known
    return result


def _hold(s: States, e: Expr, at: Moment) -> None:
    """Define the values of accumulators that an expression reads."""
    for name in ein.tensors_of(e):
        if name.endswith(HELD):
            s.define(name, at.held[name.removesuffix(HELD)][0])


def _unless_empty(s: States, link: Link, end: Moment, value: Value) -> Value:
    """The value, or 0 where a sum has no terms, though what its references multiply it by is infinite there.

    Under a domain no extent tells whether there are any: so it is 0 where all that was added up is.
    """
    added = [end.held[a.name][0] for a in link.accumulators]
    if not link.accumulators[0].monoid.adds or (len(added) == 1 and value == added[0]):
        return value
    return Elem("where", (_some(s, link), value, Lit(0, s.b.type_of(value))))


def _undefined(s: States, link: Link, value: Value) -> Value:
    """The value, or NaN where it is relative to a reference that is NaN, or infinite: inf - inf is NaN.

    In the walk a hat takes the place of such a reference, and terms that are infinite would count as 0. Under a domain
    no extent tells whether there are any: there are where anything was added up.
    """
    adds = link.accumulators[0].monoid.adds
    if not adds and (link.accumulators[0].monoid.op != "mul" or link.equation.domain is not None):
        return value
    counted = s.k.exclusion(link.equation.over).guarded
    bodies = [counted(b) for a in link.accumulators for b in a.bodies]
    t = s.b.type_of(value)
    for r in link.references:
        if not any(is_bare(b, r.name) for b in bodies):
            continue
        order = s.k.extends(r.axes)
        m = s.b.bind(f"{r.name}_last", s.b.typed(s.last(r.value), order, t), order)
        if adds and not r.hat and link.equation.domain is None:
            lost: Value = Elem("not", (Elem("lt", (Elem("abs", (m,)), Lit(float("inf"), t))),))
        else:
            lost = Elem("ne", (m, m))
        value = Elem("where", (Elem("and", (lost, _some(s, link))), Elem("sub", (m, m)), value))
    return value


def _some(s: States, link: Link) -> Value:
    """Were there any terms, as far as that can be told?"""
    eq = link.equation
    if eq.domain is None:
        return reduce(lambda p, q: Elem("and", (p, q)), [Elem("gt", (ExtentOf(a), Lit(0, INT))) for a in eq.over])
    added = [s.held(END).held[a.name][0] for a in link.accumulators]
    return reduce(lambda p, q: Elem("or", (p, q)), [Elem("ne", (v, Lit(0, s.b.type_of(v)))) for v in added])
