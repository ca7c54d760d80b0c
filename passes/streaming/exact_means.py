"""Means as exact as the first moment about them.

    d = sum(w * x) / sum(w)   -->   d = m + sum(w * (x - m)) / sum(w)      for any m

A mean m in floating point has an error, and so have moments about it: a variance that of its square. Where the first
moment about m is carried, as it is beside a variance, values are finished at d by their own transition C(m -> d), and
d - m comes from the carried moment, not from a difference of large numbers. The mean is m + (d - m), rounded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from einc import ein
from einc.ein import ONE, ZERO, Apply, Const, Equation, Expr, Extent, Read
from einc.ein.rewriting import read_as
from einc.passes.algebra.folding import call, indicator
from einc.passes.streaming.movement import Movement
from einc.passes.streaming.sweep import Accumulator, Link, Reference

HELD = "#"  # follows the name of an accumulator where the value it holds is meant, and not its link's of the same name
_INFINITE = Const(float("inf"))


@dataclass(frozen=True, slots=True)
class _Mean:
    """A reference that is a mean: the sum `total` divided by the sum `weights`, or by the number of terms if None."""

    total: Equation
    weights: Equation | None
    count: Expr


def centred(closed: Sequence[Link]) -> list[Link]:
    """The links of a walk with values finished at exact means, where their first moments are carried."""
    sums = {link.equation.name: link.equation for link in closed if _is_plain_sum(link)}
    drifts: dict[Expr, Expr] = {}
    totals: dict[str, Expr] = {}
    means: dict[Expr, Expr] = {}
    for r in (r for link in closed for r in link.references if r.value not in drifts):
        mean = _mean(r.value, sums)
        moment = None if mean is None else _moment(mean, r, closed)
        if mean is None or moment is None:
            continue
        off = read_as(r.value, {mean.total.name: moment})
        drifts[r.value] = _where_finite(off, ZERO)
        if not r.hat and mean.total.outputs[0].dtype.is_float:
            own = Read(mean.total.name, moment.index)
            totals[mean.total.name] = _where_finite(Apply("add", (Apply("mul", (mean.count, r.value)), moment)), own)
            means[r.value] = Apply("add", (r.value, drifts[r.value]))
    return [_with_means(_finished(link, drifts, totals), means) for link in closed] if drifts else [*closed]


def _finished(link: Link, drifts: Mapping[Expr, Expr], totals: Mapping[str, Expr]) -> Link:
    known = {r.name: drifts[r.value] for r in link.references if r.value in drifts}
    if not known:
        return replace(link, exact=totals.get(link.equation.name))
    held = _held(link.moved, {a.name: a for a in link.accumulators}, link.equation.over)
    shifting = frozenset(r.name for r in link.references if not r.hat or r.name in known)
    movement = Movement(shifting, frozenset())
    exact = movement.landed(held, known)
    return replace(link, exact=None if exact == movement.at_rest(held) else exact)


def _with_means(link: Link, means: Mapping[Expr, Expr]) -> Link:
    return replace(link, references=tuple(replace(r, exact=means.get(r.value)) for r in link.references))


def _is_plain_sum(link: Link) -> bool:
    """Is it a sum without references?"""
    eq = link.equation
    return eq.monoid is not None and eq.monoid.op == "add" and not link.references


def _mean(e: Expr, sums: Mapping[str, Equation]) -> _Mean | None:
    """The expression as a mean: a sum divided by the sum of its weights, or by the extents that it sums over."""
    match e:
        case Apply(op="div", args=(above, Read(tensor=name) as count)) if name in sums:
            weights = sums[name]
            total = sums.get(above.tensor) if isinstance(above, Read) else None
            same = total is not None and (weights.over, weights.domain) == (total.over, total.domain)
            return _Mean(total, weights, count) if total is not None and same else None
        case _:
            below: list[Expr] = []
            while isinstance(e, Apply) and e.op == "div":
                e, divisor = e.args
                below += _product(divisor)
            total = sums.get(e.tensor) if isinstance(e, Read) else None
            if total is None or total.domain is not None or Counter(below) != Counter(Extent(a) for a in total.over):
                return None
            return _Mean(total, None, _extents(total.over))


def _moment(mean: _Mean, r: Reference, links: Iterable[Link]) -> Read | None:
    """The carried first moment about a mean: over the axes of its sum, since over others it is a multiple."""
    for link in (x for x in links if {*x.equation.over} == {*mean.total.over}):
        names = [x.name for x in link.references if x.value == r.value]
        for a in link.accumulators:
            if names and _is_moment(a, names[0], mean, {x.name for x in link.references}):
                return Read(a.name + HELD, tuple(ein.AxisValue(x) for x in a.axes))
    return None


def _is_moment(a: Accumulator, name: str, mean: _Mean, references: set[str]) -> bool:
    if a.monoid.op != "add" or (a.domain, a.axes) != (mean.total.domain, mean.total.axes):
        return False
    factors = _factors(a.bodies[0])
    moving = [f for f in factors.elements() if ein.tensors_of(f) & references]
    match moving:
        case [Apply(op="sub", args=(x, Read(tensor=n)) as args)] if n == name and not ein.tensors_of(x) & references:
            rest = factors - Counter([Apply("sub", args)])
            weights = Counter() if mean.weights is None else _factors(mean.weights.body)
            return rest == weights and rest + _factors(x) == _factors(mean.total.body)
        case _:
            return False


# ---------------------------------------------------------------------------------------------------------------------
# Products


def _product(e: Expr) -> list[Expr]:
    return [f for a in e.args for f in _product(a)] if isinstance(e, Apply) and e.op == "mul" else [e]


@lru_cache(maxsize=4096)
def _factors(e: Expr) -> Counter[Expr]:
    """The factors of a product; a mask around it counts as a factor. Nobody changes what it gives."""
    match e:
        case Apply(op="where", args=(p, x, zero)) if zero in (ZERO, Const(0.0)):
            return Counter([indicator(p)]) + _factors(x)
        case Apply(op="mul", args=(x, y)):
            return _factors(x) + _factors(y)
        case _:
            return Counter() if e in (ONE, Const(1.0)) else Counter([e])


def _extents(axes: Sequence[str]) -> Expr:
    count: Expr = ONE
    for a in axes:
        count = call("mul", count, Extent(a))
    return count


def _held(e: Expr, carried: Mapping[str, Accumulator], over: tuple[str, ...]) -> Expr:
    """The expression reading the values that accumulators hold; one that counts all positions is their number."""
    if isinstance(e, Read) and e.tensor in carried:
        a = carried[e.tensor]
        return _extents(over) if a.bodies == (ONE,) and a.domain is None else replace(e, tensor=e.tensor + HELD)
    return ein.rebuild(e, lambda below: _held(below, carried, over))


def _where_finite(e: Expr, other: Expr) -> Expr:
    return call("where", Apply("lt", (Apply("abs", (e,)), _INFINITE)), e, other)
