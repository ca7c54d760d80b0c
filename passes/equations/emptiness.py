"""The values where a reduction has nothing to reduce: over an empty axis, or under a domain that holds nowhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce

from einc.ein import FALSE, ONE, ZERO, Apply, Cast, Const, Equation, Expr, Extent, Program, Read, axes_of, reads
from einc.ein.guards import composite
from einc.ein.rewriting import bottom_up
from einc.passes.algebra.identities import simplify_expression
from einc.passes.algebra.scope import Scope
from einc.passes.algebra.signs import is_finite, not_negative


class Emptiness:
    """What the equations done so far tell about values where a reduction is empty."""

    def __init__(self, program: Program, done: Mapping[str, Equation], scope: Scope) -> None:
        self.done, self.scope = done, scope
        self.lengths = {a.name: a.extent for a in program.axes}
        self.known: dict[str, Expr | None] = {}  # the values of tensors where the current reduction is empty

    def begin(self) -> None:
        """Forget what is known for another reduction."""
        self.known = {}

    def is_never(self, e: Equation) -> bool:
        """Do all reduced axes have positions, whatever the operands are?"""
        extents = (self.lengths[axis] for axis in e.over)
        return e.domain is None and all(isinstance(n, Const) and n.value > 0 for n in extents)

    def value(self, value: Expr, e: Equation) -> Expr:
        """A value where the reduction e is empty: sums over the same axes are 0 there, and so on. A zero is `ZERO`."""

        def known(n: Expr) -> Expr:
            match n:
                case Extent(axis) if (axis,) == e.over and e.domain is None:
                    return ZERO
                case Read(tensor, guard=guard) if tensor in self.done:
                    constant = self._tensor(n, e)
                    unguarded = guard is None or constant in (ZERO, FALSE)
                    return constant if constant is not None and unguarded else n
                case Apply("mul", (x, c)) if x == ZERO and is_finite(c):
                    return ZERO
                case Apply("mul", (c, x)) if x == ZERO and is_finite(c):
                    return ZERO
                case Apply("div", (Const(float() as x), c)) if math.isinf(x) and not_negative(c) and is_finite(c):
                    return Const(x)
                case _:
                    return n

        found = simplify_expression(bottom_up(value, known), self.scope)
        while isinstance(found, Cast):
            found = found.arg
        zero = isinstance(found, Const) and found.value == 0 and found.value is not False
        return ZERO if zero else found

    def _tensor(self, read: Read, e: Equation) -> Expr | None:
        """The constant that a tensor is known to be wherever the reduction e is empty, if any."""
        d = self.done[read.tensor]
        own = read.index == tuple(composite(dim) for dim in d.dims)
        if d.monoid is not None:
            empty = (
                set(e.over) <= set(d.over) if e.domain is None else own and e.domain == d.domain and e.over == d.over
            )
            return d.monoid.unit if empty else None
        if read.tensor not in self.known:
            found = self.value(d.body, e) if e.domain is None and len(d.bodies) == 1 else None
            self.known[read.tensor] = found if isinstance(found, Const) else None
        return self.known[read.tensor]


def unless_empty(e: Equation, value: Expr) -> Expr:
    """The value, or the identity where a reduced axis has no positions."""
    assert e.monoid is not None
    assert e.monoid.unit is not None
    tests: list[Expr] = [Apply("eq", (Extent(axis), ZERO)) for axis in e.over]
    empty = reduce(lambda a, b: Apply("or", (a, b)), tests)
    match value:
        case Apply(op="mul", args=(c, Read() as sum_)) if e.monoid.op == "add" and not axes_of(c) and not reads(c):
            return Apply(
                "mul", (Apply("where", (empty, ONE, c)), sum_)
            )  # a sum of nothing is 0, any factor's product too
        case _:
            return Apply("where", (empty, e.monoid.unit, value))
