"""An expression at other positions than those that it is written at, its reads guarded there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from einc.ein import AxisValue, Expr, Read
from einc.ein.guards import conjoin, implied_guard
from einc.ein.rewriting import bottom_up
from einc.passes.algebra.exposure import Dims


def moved(e: Expr, at: Mapping[str, Expr], guard: Expr | None, shapes: Mapping[str, Dims]) -> Expr:
    """The expression with its axes at these positions, and with its own reads under a guard too."""
    return bottom_up(e, _mover(at, guard, shapes), into_reads=False)


def _mover(at: Mapping[str, Expr], guard: Expr | None, shapes: Mapping[str, Dims]) -> Callable[[Expr], Expr]:
    """Moves a node to these positions, and guards reads."""

    def move(e: Expr) -> Expr:
        match e:
            case AxisValue(axis):
                return at[axis]
            case Read(tensor, index, own):
                there = tuple(moved(i, at, guard, shapes) for i in index)
                both = conjoin(guard, None if own is None else bottom_up(own, move, into_reads=False))
                return Read(tensor, there, implied_guard(there, shapes[tensor], both))
            case _:
                return e

    return move
