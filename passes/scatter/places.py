"""Which sums have terms that data sends to their places.

    S[v, d] = sum[b, n : v == token[b, n]](x[b, n, d])

Each position (b, n) has one place along v, and its terms are added there. The gradient of a read whose index is data
has this form, and so have histograms. `segments` adds terms up place by place, `add_terms` position by position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from einc.base.ops import COMPARISONS
from einc.base.types import compute
from einc.ein import (
    ZERO,
    Apply,
    AxisValue,
    Equation,
    Expr,
    Program,
    Read,
    Tensor,
    axes_of,
    children,
    reads,
    rebuild,
    tensors_of,
)
from einc.ein.conditions import Shapes, all_of, conjuncts, placed

_FEW = 64  # places or positions with which each of the others is compared: two or four blocks of a walk
_PLAIN = {*COMPARISONS, "add", "sub", "mul", "neg", "abs", "max", "min", "floordiv", "mod", "where", "and", "or", "not"}


@dataclass(frozen=True, slots=True)
class Scatter:
    """The places of an equation's terms, by axis of its output; the axes that the places depend on, those on both sides
    and those summed; the conditions on these axes alone, and what remains of the domain."""

    places: Mapping[str, Expr]
    kept: tuple[str, ...]
    summed: tuple[str, ...]
    conditions: tuple[Expr, ...]
    rest: tuple[Expr, ...]


def scatters(program: Program) -> bool:
    """Does data decide the places of some of its sums' terms?"""
    return any(scatter(e) is not None for e in program.equations)


def scatter(e: Equation) -> Scatter | None:
    """The places of its terms that data decides, if it decides any."""
    if e.monoid is None or not e.monoid.commutative or len(e.bodies) > 1:
        return None
    known = conjuncts(e.domain)
    found: dict[str, tuple[Expr, Expr]] = {}
    for c in known:
        for v, place in _equated(c, e):
            found.setdefault(v, (place, c))
    found = {v: pair for v, pair in found.items() if found.keys().isdisjoint(axes_of(pair[0]))}
    places = {v: place for v, (place, _) in found.items()}
    read = {a for place in places.values() for r in reads(place) for a in axes_of(r)}
    if read.isdisjoint(e.over):
        return None
    needed = {a for place in places.values() for a in axes_of(place)}
    summed, kept = (tuple(a for a in axes if a in needed) for axes in (e.over, e.axes))
    left = [c for c in known if all(c is not own for _, own in found.values())]
    own = [c for c in left if set(axes_of(c)) <= needed and not needed.isdisjoint(axes_of(c))]
    if _counts(e.body, frozenset(summed)):
        return None
    return Scatter(places, kept, summed, tuple(own), tuple(c for c in left if c not in own))


def space(e: Equation, found: Scatter) -> tuple[str, ...]:
    """The axes that the terms of an equation vary over, but for those of their places and those summed before."""
    used = {a for x in (e.body, *found.rest) for a in axes_of(Told(e.domain).of(x))}
    others = (a for a in e.axes if a in used and a not in found.places and a not in found.kept)
    return (*found.kept, *found.summed, *others)


def worthwhile(e: Equation, found: Scatter, program: Program, size: Callable[[str], int]) -> bool:
    """Does it save work to send terms to their places?"""
    return hindrance(e, found, program, size) is None


def hindrance(
    e: Equation, found: Scatter, program: Program, size: Callable[[str], int]
) -> Literal["few", "large"] | None:
    """Why it does not: places or positions are few, or what is computed for it is larger than all that there is."""

    def positions(axes: Iterable[str]) -> int:
        return prod(size(a) for a in axes)

    if min(positions(found.places), positions(found.summed)) <= _FEW:
        return "few"
    operands, shapes = [p.name for p in program.operands], program.shapes()
    needed = [positions((*found.kept, *found.summed))]
    if len(e.over) > len(found.summed) or not tensors_of(e.body) <= set(operands):
        needed.append(positions(space(e, found)))
    most = max(positions(a for d in shapes[n] for a in d) for n in (*operands, *program.results))
    return "large" if max(needed) > most else None


def terms_first(e: Equation, found: Scatter, name: str, shapes: Shapes) -> tuple[Equation, Equation]:
    """The sums over all else at each position, under this name, and the sum of these at their places."""
    told = Told(e.domain)
    own = all_of((*found.conditions, *found.rest))
    dtype, axes = compute(e.outputs[0].dtype), space(e, found)
    over = tuple(a for a in e.over if a not in found.summed)
    domain = all_of(c for c in conjuncts(own) if not set(over).isdisjoint(axes_of(c)))
    others = all_of(c for c in conjuncts(own) if set(over).isdisjoint(axes_of(c)))
    body = placed(told.of(e.body), own, shapes)
    body = body if others is None else Apply("where", (others, body, ZERO))
    terms = Equation((Tensor(name, dtype),), tuple((a,) for a in axes), (body,), e.monoid, over, domain)
    equal = [c for c in conjuncts(e.domain) if c not in found.rest]
    whole = replace(e, bodies=(Read(name, tuple(map(AxisValue, axes))),), over=found.summed, domain=all_of(equal))
    return terms, replace(whole, within=None)


def _equated(c: Expr, e: Equation) -> Iterator[tuple[str, Expr]]:
    """An axis of the output that a condition equates to something that varies over the sum, with that."""
    if isinstance(c, Apply) and c.op == "eq":
        for x, place in (c.args, c.args[::-1]):
            if isinstance(x, AxisValue) and x.axis in e.axes and not set(e.over).isdisjoint(axes_of(place)):
                yield x.axis, place


def _counts(e: Expr, axes: frozenset[str]) -> bool:
    """Is a function computed of a position along one of these axes, which has no type until it meets a value?"""
    if isinstance(e, Read):
        return False
    if isinstance(e, Apply) and e.op not in _PLAIN and any(isinstance(a, AxisValue) and a.axis in axes for a in e.args):
        return True
    return any(_counts(below, axes) for below in children(e))


class Told:
    """Expressions under a condition: their reads without the guards that it tells."""

    def __init__(self, condition: Expr | None) -> None:
        self.known: set[Expr] = set()
        for c in conjuncts(condition):
            self.known.add(self.of(c))

    def of(self, e: Expr) -> Expr:
        e = rebuild(e, self.of)
        if isinstance(e, Read) and e.guard is not None:
            return replace(e, guard=all_of(c for c in conjuncts(e.guard) if c not in self.known))
        return e
