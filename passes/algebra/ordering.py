"""One order for the terms and factors of floats, however they were written.

    y * x, x * (y * z)   -->   x * y, x * y * z         s + x   -->   x + s          x * x   -->   x ** 2
    i >= j               -->   j <= i                   of integers

Numbers that are the same everywhere are the first factors and the last terms. Factors of a contraction follow the axes
of its result, the side with the last of them at the end, so that rows of a product are rows of its result. Others that
extend over more axes, and are made of less, come first; what is left is decided by where tensors were defined, never by
how anything is called.

Sums and products of two floats are the same in either order. A product of more is rounded as often as before, in
another order, in the type that all of it is computed in: results differ in their last place, and a product that only
its grouping kept from overflow may overflow. Terms of longer sums, where numbers may cancel, stay as they are grouped.

Sides of comparisons have an order of the whole program's: what masks equations over different axes is then one mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from itertools import groupby, islice

from einc.base.ops import MIRRORED
from einc.base.types import DType, compute
from einc.ein import Apply, AxisValue, Const, Equation, Expr, Program, Read, axes_of, reads, walk
from einc.ein.ranges import is_closed
from einc.ein.rewriting import bottom_up
from einc.passes.algebra.scope import Scope

Key = tuple[object, ...]


_LONG = 32  # factors; a longer product stays as it is written
_LARGE = 256  # parts of a sum of two, which stays as it is written then


class Order:
    """The order that a program gives to its terms, factors and sides of comparisons."""

    def __init__(self, program: Program, scope: Scope) -> None:
        self.scope = scope
        self.defined = {name: n for n, name in enumerate(scope.dtypes)}
        self.places = _places(program)

    def of(self, e: Equation) -> Equation:
        """The equation in this order."""
        order = _Order(e, self)
        return e.map(lambda x: bottom_up(bottom_up(x, order.comparison), order.node, into_reads=False))


def _places(program: Program) -> dict[str, int]:
    """An order of a program's axes: those that are reduced come last, the first of them at the end."""
    dims = (*(d for p in program.operands for d in p.dims), *(d for e in program.equations for d in e.dims))
    reduced = dict.fromkeys(a for e in program.equations for a in e.over)
    kept = dict.fromkeys(a for d in dims for a in d if a not in reduced)
    return {a: n for n, a in enumerate((*kept, *reversed(reduced)))}


class _Order:
    """The order of terms and factors in one equation."""

    def __init__(self, e: Equation, order: Order) -> None:
        self.scope, self.defined, self.everywhere = order.scope, order.defined, order.places
        self.place = {a: n for n, a in enumerate((*e.axes, *e.over))}
        self.result = {a: n for n, a in enumerate(e.axes)}
        self.sums = e.monoid is not None and e.monoid.adds

    def node(self, e: Expr) -> Expr:
        match e:
            case Apply(op="mul") if _is_short(e) and self.scope.type(e).is_float and not is_closed(e):
                return self.product(e)
            case Apply(op="add", args=(x, y)) if (
                _is_small(e) and self.scope.type(e).is_float and self.term(y) < self.term(x)
            ):
                return replace(e, args=(y, x))
            case _:
                return e

    def comparison(self, e: Expr) -> Expr:
        """A comparison of integers with its sides in order, in guards of reads as elsewhere."""
        match e:
            case Apply(op=op, args=(x, y)) if op in MIRRORED and self.exact(x, y) and self.side(y) < self.side(x):
                return replace(e, op=MIRRORED[op], args=(y, x))
            case _:
                return e

    def exact(self, *sides: Expr) -> bool:
        return all(self.scope.exact(x) and not isinstance(x, Const) for x in sides)

    def side(self, e: Expr) -> Key:
        """The place of a side of a comparison: numbers on the right, positions that are reduced on the left."""
        found = sorted(-self.everywhere.get(a, 0) for a in axes_of(e))
        return (is_closed(e), -sum(1 for _ in walk(e)), found, self.tensors(e), self.form(e, self.everywhere))

    def product(self, e: Apply) -> Expr:
        """The product with its factors in order, and equal ones as a power."""
        factors = sorted(self.factors(e, compute(self.scope.type(e))), key=self.factor)
        powers = ((f, len(list(same))) for f, same in groupby(factors))
        made = [f if n == 1 or is_closed(f) else Apply("pow", (f, Const(n))) for f, n in powers]
        if len(made) < len(factors) and any(is_closed(f) for f in made):
            return e
        found = reduce(lambda x, y: Apply("mul", (x, y)), made)
        return e if found == e else found

    def factors(self, e: Expr, t: DType) -> Iterator[Expr]:
        """The factors of a product, as far as it is computed in one type."""
        stack = [e]
        while stack:
            match stack.pop():
                case Apply(op="mul", args=(x, y)) as product if product is e or self.alike(product, t):
                    stack += [y, x]
                case factor:
                    yield factor

    def alike(self, e: Expr, t: DType) -> bool:
        own = self.scope.type(e)
        return own.is_float and (own.bits == 0 or compute(own) == t) and not is_closed(e)

    def factor(self, e: Expr) -> Key:
        own = [self.result[a] for a in axes_of(e) if a in self.result]
        across = tuple(sorted(own, reverse=True)) if self.sums else ()
        return (not is_closed(e), across, *self.extent(e))

    def term(self, e: Expr) -> Key:
        return (is_closed(e), *self.extent(e))

    def extent(self, e: Expr) -> Key:
        """How many axes a value extends over, which, how much it is made of, and what."""
        axes = sorted(self.place.get(a, len(self.place)) for a in axes_of(e))
        return (-len(axes), axes, sum(1 for _ in walk(e)), self.tensors(e), self.form(e, self.place))

    def tensors(self, e: Expr) -> list[int]:
        return [self.defined.get(r.tensor, len(self.defined)) for r in reads(e)]

    def form(self, e: Expr, place: Mapping[str, int]) -> str:
        """What a value is, without the names in it."""
        parts: list[str] = []
        for n in walk(e):
            match n:
                case Read(tensor):
                    parts.append(f"[{self.defined.get(tensor, len(self.defined))}]")
                case AxisValue(axis):
                    parts.append(f"@{place.get(axis, len(place))}")
                case Apply(op):
                    parts.append(op)
                case Const(value):
                    parts.append(repr(value))
                case _:
                    parts.append(type(n).__name__)
        return " ".join(parts)


def _is_small(e: Expr) -> bool:
    return sum(1 for _ in islice(walk(e), _LARGE)) < _LARGE


def _is_short(e: Expr) -> bool:
    stack, count = [e], 0
    while stack and count <= _LONG:
        match stack.pop():
            case Apply(op="mul", args=(x, y)):
                stack += [y, x]
            case _:
                count += 1
    return count <= _LONG
