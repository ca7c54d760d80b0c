"""What a pass knows of a program besides its equations: axes, types, and what a store does to a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from einc.base.ops import result_type
from einc.base.types import DType, accumulator, compute, join
from einc.ein import (
    Apply,
    Cast,
    Const,
    Expr,
    Monoid,
    Read,
)
from einc.ein.inference import dtype_of, reduced_type
from einc.passes.algebra.exposure import Dims


def is_unit(e: Expr, unit: float) -> bool:
    """Is the expression that constant, whatever type it is in?"""
    while isinstance(e, Cast):
        e = e.arg
    return isinstance(e, Const) and isinstance(e.value, bool) == isinstance(unit, bool) and e.value == unit


@dataclass(frozen=True, slots=True)
class Scope:
    """The types and dimensions of all tensors, which decide which laws hold; new tensors are added."""

    dtypes: dict[str, DType]
    shapes: dict[str, Dims]
    _types: dict[Expr, DType] = field(init=False, default_factory=dict, compare=False, repr=False)

    def type(self, e: Expr) -> DType:
        """The type of an expression, which is found once for each of its parts."""
        if not isinstance(e, Apply):
            return dtype_of(e, self.dtypes)
        if e not in self._types:
            self._types[e] = result_type(e.op, tuple(map(self.type, e.args)))
        return self._types[e]

    def exact(self, e: Expr) -> bool:
        """Is it an integer or a truth value?"""
        return self.type(e).kind in "iub"


Rule = Callable[[Scope, Apply], Expr | None]  # a law at a node, or None where it does not apply


def is_stored_as(e: Expr, stored: DType, dtypes: Mapping[str, DType]) -> bool:
    """Does the value survive a store in that type and a load unchanged?

    Arithmetic on narrow floats is wider than their type, so that only reads and casts have their precision.
    """
    return dtype_of(e, dtypes) == stored and (isinstance(e, Read | Cast) or compute(stored) == stored)


def accumulated(monoid: Monoid, body: Expr, whole: DType, dtypes: Mapping[str, DType]) -> DType:
    """The type of an intermediate reduction of `body` for a result of type `whole`; it is real where the body is."""
    own = reduced_type(monoid, 0, dtype_of(body, dtypes))
    if not monoid.accumulates:
        return own
    return join(own, accumulator(whole if own.is_complex else whole.part))
