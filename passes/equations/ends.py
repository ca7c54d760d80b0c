"""The ends of a reduced axis, and the reads of prefixes that replace a reduction between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from einc.base.types import DType
from einc.ein import ONE, TRUE, ZERO, Apply, AxisValue, Const, Equation, Expr, Extent, Monoid, Program, Read
from einc.passes.algebra.domain import conjunction


@dataclass(frozen=True, slots=True)
class Ends:
    """A reduction whose axis `walked` ends at each of `upper` and begins at each of `lower`, both included.

    Between them it reduces `bodies` where `rest` holds; `own` are the output axes that bodies and `rest` depend on.
    """

    walked: str
    bodies: tuple[Expr, ...]
    rest: tuple[Expr, ...]
    own: tuple[str, ...]
    lower: tuple[Expr, ...]
    upper: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Reads:
    """What an equation reads from prefixes S[own..., position]."""

    program: Program
    eq: Equation
    ends: Ends
    position: str

    def single(self, tensor: str) -> Expr:
        """The value at the first of the upper ends, or the last of the lower ones."""
        assert self.eq.monoid is not None
        unit = _unit(self.eq.monoid, self.eq.outputs[0].dtype)
        if self.ends.upper:
            return self.value(tensor, extreme("min", self.ends.upper), unit)
        return self.value(tensor, extreme("max", self.ends.lower), unit)

    def difference(self, tensor: str, last: str = "") -> Expr:
        """The sum up to the upper end minus the sum before the lower one, in a tensor of prefixes.

        Prefixes leave out terms of minus infinity; the tensor `last`, if any, says where the last such term was.
        """
        end, before = extreme("min", self.ends.upper), moved(extreme("max", self.ends.lower), -1)
        reached = end == AxisValue(self.position)
        found: Expr = Apply("sub", (self.value(tensor, end, 0), self.value(tensor, before, 0, reached)))
        if last:
            floor = before if isinstance(before, AxisValue) else Apply("max", (before, Const(-1)))
            lost = Apply("gt", (self.value(last, end, -1), floor))
            found = Apply("where", (lost, Const(-math.inf), found))
        return Apply("where", (Apply("le", (before, end)), found, ZERO))

    def value(self, tensor: str, e: Expr, unit: float, inside: bool = False) -> Expr:
        """The prefix that ends at e: the unit before the first position, the total after the last.

        A read out of range gives 0, the unit of a sum; `inside` says that e is not after the last.
        """
        backwards = not self.ends.upper
        own = tuple(AxisValue(a) for a in self.ends.own)
        if e == AxisValue(self.position):
            return Read(tensor, (*own, e))
        length = Extent(self.ends.walked)
        bare = isinstance(e, AxisValue)
        if backwards:
            at = e if bare or inside else Apply("max", (e, ZERO))
            exists: tuple[Expr, ...] = (Apply("lt", (at, length)),)
        else:
            at = e if inside else Apply("min", (e, Apply("sub", (length, ONE))))
            exists = (Apply("gt", (length, ZERO)), *(() if bare else (Apply("ge", (e, ZERO)),)))
        read = Read(tensor, (*own, at), TRUE)
        guard = conjunction(exists)
        return read if unit == 0 or guard is None else Apply("where", (guard, read, Const(unit)))


def _unit(monoid: Monoid, t: DType) -> bool | int | float:
    """A monoid's identity as a literal of a type."""
    (unit,), bound = monoid.identity, monoid.unit
    assert bound is not None
    if not isinstance(unit, str) or t.is_float:
        return bound.value
    if t.is_bool:
        return unit == "highest"
    low, high = t.limits
    return low if unit == "lowest" else high


def extreme(op: str, ends: Sequence[Expr]) -> Expr:
    return reduce(lambda a, b: Apply(op, (a, b)), ends)


def _apart(e: Expr) -> tuple[Expr, int]:
    """An integer expression as another one plus a literal."""
    match e:
        case Apply("add", (x, Const(int() as n))) | Apply("add", (Const(int() as n), x)):
            base, more = _apart(x)
            return base, n + more
        case Apply("sub", (x, Const(int() as n))):
            base, more = _apart(x)
            return base, more - n
        case _:
            return e, 0


def moved(e: Expr, by: int) -> Expr:
    """The expression with an integer added."""
    base, n = _apart(e)
    if n + by == 0:
        return base
    return Apply("add", (base, Const(n + by))) if n + by > 0 else Apply("sub", (base, Const(-n - by)))


def offset(e: Expr) -> tuple[str | None, int]:
    """An expression as the sum of an axis and a literal; None for the axis if it is not such a sum."""
    base, n = _apart(e)
    return (base.axis, n) if isinstance(base, AxisValue) else (None, n)
