"""Sums that hold a sum that is there already, in another order of summation.

    sum[j](P[i, j] * sum[e](dO[i, e] * V[j, e]))  -->  sum[e](dO[i, e] * O[i, e])
    where O[i, e] = sum[j](P[i, j] * V[j, e])

A sum of products is taken apart until nothing in it is a product or a sum of one: what it multiplies and divides by,
where it is masked, and all axes it goes over. If a sum of the program is a part of that, and the rest does not vary
along its axes, the tensor takes its place. What is left may hold backward sums that were taken apart on the way: these
are read again.

    sum[e, k](dY[i, k] * W[e, k] * O[i, e])  -->  sum[e](dO[i, e] * O[i, e])
    where dO[i, e] = sum[k](dY[i, k] * W[e, k])

So are backward sums that were found in this way before.

    sum[i, e](s[i] * dO[i, e] * O[i, e])  -->  sum[i](s[i] * D[i])
    where D[i] = sum[e](dO[i, e] * O[i, e])

A sum that is another one at a place that data tells is read there. Its gradient is then a part of that of the other,
and not a sum of its own over all places:

    T[n] = sum[d](X[n, d] * W[t[n], d])      -->  T[n] = Z[n, t[n]]
    where Z[n, v] = sum[d](X[n, d] * W[v, d])
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from einc.ein import AxisValue, Equation, Expr, Program, Read, axes_of, children, reads, substitute
from einc.ein.guards import composite
from einc.passes.algebra.products import Definitions, Flat, Product, is_sum, multiplied

_MOST_PARTS = 24  # factors, divisors and masks of a sum that is looked at


def read_in_place(program: Program) -> Program:
    """The program with each sum that is one before it, at a place that data tells, read from that."""
    found: list[Equation] = []
    for e in program.equations:
        made = next((m for other in found if is_sum(e) and (m := _at_a_place(e, other)) is not None), e)
        found.append(made)
    return replace(program, equations=tuple(found))


def _at_a_place(e: Equation, other: Equation) -> Equation | None:
    """A sum as a read of another one that has one axis more; None if it is none."""
    if not is_sum(other) or e.over != other.over or e.domain is not None or other.domain is not None:
        return None
    rest = [a for a in other.axes if a not in e.axes]
    if len(rest) != 1 or set(other.axes) - set(rest) != set(e.axes) or (rest[0],) not in other.dims:
        return None
    place = _place(other.body, e.body, rest[0])
    if place is None or not any(reads(place)) or not set(e.over).isdisjoint(axes_of(place)):
        return None
    if substitute(other.body, {rest[0]: place}) != e.body:
        return None
    index = tuple(place if dim == (rest[0],) else composite(dim) for dim in other.dims)
    return replace(e, bodies=(Read(other.name, index),), monoid=None, over=())


def _place(general: Expr, special: Expr, axis: str) -> Expr | None:
    """What stands in one expression where the other has an axis."""
    if general == AxisValue(axis):
        return special
    below = children(general), children(special)
    if len(below[0]) != len(below[1]):
        return None
    return next((p for a, b in zip(*below, strict=True) if (p := _place(a, b, axis)) is not None), None)


def reassociated(forward: Sequence[Equation], backward: Sequence[Equation]) -> tuple[Equation, ...]:
    """The backward equations, with the forward sums that they hold read instead of computed again."""
    definitions = Definitions({e.name: e for e in (*forward, *backward)}, frozenset(e.name for e in backward))
    sums = [(e, definitions.sum(e)) for e in forward if is_sum(e)]
    own = [(e, definitions.sum(e)) for e in backward if is_sum(e)]
    found: list[Equation] = []
    shorter: list[tuple[Equation, Flat]] = []
    for e in backward:
        made = _rewritten(e, definitions.sum(e), sums) if is_sum(e) else None
        before = own[: next((k for k, (other, _) in enumerate(own) if other.name == e.name), 0)]
        if made is not None and is_sum(made):
            flat = definitions.sum(made)
            tried = (_rewritten(made, flat, known) for known in (before, shorter))
            made = min((made, *(t for t in tried if t is not None)), key=lambda t: len(t.over))
        if made is not None and is_sum(made):
            shorter.append((made, definitions.sum(made)))
        found.append(made or e)
    return tuple(found)


def _rewritten(e: Equation, whole: Flat, sums: Sequence[tuple[Equation, Flat]]) -> Equation | None:
    """The sum with another one read in it, if it holds one."""
    if sum(map(len, whole.parts)) > _MOST_PARTS:
        return None
    for other, part in sums:
        for names in _inclusions(part, whole):
            inner = {names.get(a, a) for a in part.over}
            rest = _without(whole, part, names, inner)
            if not inner <= set(whole.over) or any(inner & set(axes_of(x)) for side in rest.parts for x in side):
                continue
            over = tuple(a for a in whole.over if a not in inner)
            if any(a.endswith("'") for a in over):
                continue
            if not {names.get(a, a) for a in other.axes} <= {*e.axes, *over}:
                continue  # it is the same all along an axis that is not here
            own: dict[str, Expr] = {a: AxisValue(names.get(a, a)) for a in other.axes}
            read = Read(other.name, tuple(substitute(composite(group), own) for group in other.dims))
            negative = whole.negative != part.negative
            product = Product("mul", negative, rest.masks, rest.factors, rest.divisors)
            body = product.around(multiplied([*rest.factors, read]))
            if over:
                return replace(e, bodies=(body,), over=over, domain=None)
            return replace(e, bodies=(body,), monoid=None, over=(), domain=None)
    return None


def _without(whole: Flat, part: Flat, names: Mapping[str, str], inner: Collection[str]) -> Flat:
    """What is left of a product. Masks that do not vary along the inner sum stay before divisors, which may be 0."""
    at: dict[str, Expr] = {a: AxisValue(b) for a, b in names.items()}
    left = []
    for all_of, some in zip(whole.parts, part.parts, strict=True):
        rest = list(all_of)
        for x in some:
            rest.remove(substitute(x, at))
        left.append(rest)
    factors, divisors, masks = left
    if divisors:
        masks = [m for m in whole.masks if m in masks or not set(inner) & set(axes_of(m))]
    return Flat(whole.over, False, masks, factors, divisors)


def _inclusions(part: Flat, whole: Flat) -> Iterator[dict[str, str]]:
    """Ways of naming the axes of a product so that all its parts are parts of another."""
    if not part.factors or any(len(a) > len(b) for a, b in zip(part.parts, whole.parts, strict=True)):
        return
    pairs = [(x, side) for some, side in zip(part.parts, whole.parts, strict=True) for x in some]
    yield from _assigned(pairs, {}, [])


def _assigned(
    pairs: Sequence[tuple[Expr, list[Expr]]], names: dict[str, str], used: list[tuple[int, int]]
) -> Iterator[dict[str, str]]:
    if not pairs:
        yield names
        return
    (x, side), *rest = pairs
    for k, y in enumerate(side):
        if (id(side), k) in used:
            continue
        unified = _unified(x, y, names)
        if unified is not None:
            yield from _assigned(rest, unified, [*used, (id(side), k)])


def _unified(x: Expr, y: Expr, names: dict[str, str]) -> dict[str, str] | None:
    """The names of axes, one to one, under which x is y."""
    if isinstance(x, AxisValue) and isinstance(y, AxisValue):
        if x.axis in names:
            return names if names[x.axis] == y.axis else None
        return None if y.axis in names.values() else {**names, x.axis: y.axis}
    if type(x) is not type(y):
        return None
    below, others = children(x), children(y)
    if len(below) != len(others):
        return None
    if not below:
        return names if x == y else None
    if not _same_head(x, y):
        return None
    found: dict[str, str] | None = names
    for a, b in zip(below, others, strict=True):
        found = None if found is None else _unified(a, b, found)
    return found


def _same_head(x: Expr, y: Expr) -> bool:
    """Are they the same node but for what is below?"""
    if isinstance(x, Read) and isinstance(y, Read):
        return x.tensor == y.tensor and (x.guard is None) == (y.guard is None)
    return all(getattr(x, name, None) == getattr(y, name, None) for name in ("op", "dtype"))
