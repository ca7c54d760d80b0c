"""Reads at a combination of axes as reads of a tensor over that combination.

    ... A[f(i - j)] ...   -->   R[u] = A[f(u - |j| + 1)],   ... R[i - j + |j| - 1] ...

An index that depends on several axes only through one sum of them, each times a number, has fewer values than these
have positions: |i| + |j| - 1, not |i| * |j|. The read's adjoint is then that of reading R, whose index is solved for an
axis, and that of R's own read at every u. Otherwise each position of A would look at all pairs of i and j. Where an
index is such a sum itself, as in A[i - j], it is solved as it is. R is never made: only its gradient is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from math import gcd

from einc.base.ops import COMPARISONS
from einc.ein import ONE, ZERO, Apply, AxisValue, Const, Expr, Extent, Read, axes_of, children, rebuild
from einc.passes.algebra.linear import Form, combined, form, written

_Sum = Mapping[str, int]  # the factor of each axis


@dataclass(frozen=True, slots=True)
class Combination:
    """A sum of axes, each times a number, that a read's index depends on; `others` are the axes that it has beside.

    The sum of its terms and `least` is at least 0 and less than `extent`.
    """

    terms: _Sum
    others: tuple[str, ...]

    @property
    def name(self) -> str:
        """What an axis that counts its values is called."""
        return "".join(self.terms)

    @property
    def extent(self) -> Expr:
        """As many as there are from the least value to the greatest; none where an axis has no positions."""
        steps = sum(map(abs, self.terms.values()))
        whole: Form = {Extent(a): abs(n) for a, n in self.terms.items()}
        extents: list[Expr] = [Extent(a) for a in self.terms]
        shortest = reduce(lambda x, y: Apply("min", (x, y)), extents)
        return Apply(
            "where", (Apply("gt", (shortest, ZERO)), written(combined((1, whole), (1 - steps, {ONE: 1}))), ZERO)
        )

    @property
    def least(self) -> Form:
        """What makes the least value 0."""
        down = {a: -n for a, n in self.terms.items() if n < 0}
        return combined((1, {Extent(a): n for a, n in down.items()}), (-sum(down.values()), {ONE: 1}))

    def read(self, tensor: str) -> Read:
        """A tensor over the other axes and the combination, where an index has these values."""
        at: Form = {AxisValue(a): n for a, n in self.terms.items()}
        return Read(tensor, (*map(AxisValue, self.others), written(combined((1, at), (1, self.least)))))

    def along(self, read: Read, axis: str) -> Read:
        """The read at the values that an axis counts, without its guard."""
        value = combined((1, {AxisValue(axis): 1}), (-1, self.least))
        return Read(read.tensor, tuple(_placed(e, self.terms, value) for e in read.index))


def combination(read: Read) -> Combination | None:
    """The combination that a read's index depends on; None where it is solved as it is, or where there is none."""
    for e in read.index:
        if not _is_solved(e):
            for terms in (p for p in _parts(e) if len(p) > 1):
                found = _reduced(terms)
                if all(_is_multiple(p, found) for i in read.index for p in _parts(i)):
                    others = dict.fromkeys(a for i in read.index for a in axes_of(i) if a not in found)
                    return Combination(found, tuple(others))
    return None


def _is_solved(e: Expr) -> bool:
    """Is an index a sum of axes itself, whose position tells one of them?"""
    return len(axes_of(e)) < 2 or form(e) is not None


def _parts(e: Expr) -> Iterator[_Sum]:
    """The largest parts of an expression that are sums of axes; a comparison of two is one of their difference."""
    match e:
        case Apply(op, (x, y)) if op in COMPARISONS and (f := _difference(x, y)) is not None:
            yield from filter(None, (_axes(f),))
        case _ if (f := form(e)) is not None:
            yield from filter(None, (_axes(f),))
        case _:
            for below in children(e):
                yield from _parts(below)


def _difference(x: Expr, y: Expr) -> Form | None:
    return form(Apply("sub", (x, y)))


def _axes(f: Form) -> _Sum:
    return {x.axis: n for x, n in f.items() if isinstance(x, AxisValue)}


def _reduced(terms: _Sum) -> _Sum:
    """The sum in lowest terms, the first axis added."""
    divisor = gcd(*terms.values()) * (1 if next(iter(terms.values())) > 0 else -1)
    return {a: n // divisor for a, n in terms.items()}


def _is_multiple(part: _Sum, terms: _Sum) -> bool:
    """Has a part none of the axes of a combination, or all of them, so many times?"""
    if part.keys().isdisjoint(terms):
        return True
    return part.keys() == terms.keys() and len({part[a] / terms[a] for a in terms}) == 1 and all(part.values())


def _placed(e: Expr, terms: _Sum, value: Form) -> Expr:
    """An expression with a value in place of the combination."""
    match e:
        case Apply(op, (x, y)) if (
            op in COMPARISONS and (f := form(Apply("sub", (x, y)))) is not None and _has(f, terms)
        ):
            return Apply(op, (written(_with(f, terms, value)), ZERO))
        case AxisValue() | Const():
            return e
        case _ if (found := form(e)) is not None and _has(found, terms):
            return written(_with(found, terms, value))
        case _:
            return rebuild(e, lambda below: _placed(below, terms, value))


def _has(f: Form, terms: _Sum) -> bool:
    return not _axes(f).keys().isdisjoint(terms)


def _with(f: Form, terms: _Sum, value: Form) -> Form:
    first = next(iter(terms))
    times = f[AxisValue(first)] // terms[first]
    return combined((1, {x: n for x, n in f.items() if x not in {AxisValue(a) for a in terms}}), (times, value))
