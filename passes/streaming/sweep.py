"""Reductions that share one walk over an axis: what is carried, how it moves, and how two partial walks merge.

A **link** is one reduction of a chain. While the axis is walked its value is not final, and neither are the references
that later links read. So a link carries accumulators, each always relative to the current references d:

    step     Phi_q  <-  Phi_q (+) fold of phi_q(r; d) over a block
    move     Phi_q(d')  =  (+)_p  C_qp(d, d') (x) Phi_p(d)
    merge    move both sides to a common d', then (+)
    finish   value  =  sum_q h_q(d) * Phi_q,  or more generally the value at d' from the accumulators at d

In expressions a reference is read by its name, and its value after a movement by the name with a prime.
"""

from __future__ import annotations

from dataclasses import dataclass

from einc.ein import Equation, Expr, Extent, Monoid, Read, children


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that later links are relative to: an expression over the values of earlier links.

    `seen` says that the extent of the walked axes that it is made of stands for the number of positions walked so far,
    so that a mean is the mean of these. `hat` replaces the value where it is not finite (and, if 1, where it is 0):
    before any position has been seen, or in a row that is all masked. `exact`, if given, is the value after the whole
    walk with less rounding than one computed from earlier links: like `Link.exact` it reads the values that
    accumulators hold.
    """

    name: str
    axes: tuple[str, ...]
    value: Expr
    hat: int
    seen: bool
    exact: Expr | None = None


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A carried partial reduction of `bodies` by a monoid, over output axes, restricted to a domain.

    `moves` are pairs of a coefficient in d and d' and the accumulator that it multiplies; empty where nothing moves.
    Under max and min a `shift` may be added instead; under a product the coefficient is raised to the power `count`.
    """

    name: str
    axes: tuple[str, ...]
    monoid: Monoid
    bodies: tuple[Expr, ...]
    domain: Expr | None = None
    moves: tuple[tuple[Expr, str], ...] = ()
    shift: Expr | None = None
    count: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A reduction of the chain with its accumulators.

    `finish` reads them and the references. `moved` is the value at moved references, from accumulators that have not
    moved yet; it is `finish` where nothing moves. `exact`, if given, is the value after the whole walk with less
    rounding: it reads references as they were last, and the values that accumulators of any link hold (name + "#").
    """

    equation: Equation
    references: tuple[Reference, ...]
    accumulators: tuple[Accumulator, ...]
    finish: Expr
    moved: Expr
    exact: Expr | None = None


@dataclass(frozen=True, slots=True)
class NotClosed:
    """A reduction that does not stream: the part of its body that no finite set of accumulators follows, and why."""

    equation: Equation
    part: Expr
    reason: str


def extents_of(e: Expr) -> frozenset[str]:
    """The axes whose extents a value is made of: not those that only tell where tensors are read."""
    match e:
        case Extent(axis):
            return frozenset((axis,))
        case Read():
            return frozenset()
        case _:
            return frozenset().union(*map(extents_of, children(e)))
