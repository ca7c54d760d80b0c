"""Prefixes whose body depends on where they end: accumulators that follow the end, and so one scan for all ends.

    T[i] = m[t : t <= i](f(t; d[i]))   -->   prefixes of (Phi, d), Phi = phi(t; d[t]) at a position alone
                                             (Phi, d) then (Phi', d')  =  (C(d -> d') Phi (+) Phi', d')

d are the largest parts of f that depend on i and not on t, and f is closed under their movement (`closure`). Moving by
way of d' is the same as moving at once, so that this is associative: all prefixes take the work of one walk.
Accumulators may be relative to the position, or to values made of other prefixes along the axis, which move as the walk
goes on; any other value at i may jump, and may only multiply or be added to what is carried.

A running variance, softmax or logsumexp has this shape, and so has a sum that decays with the distance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from einc import ein
from einc.ein import TRUE, Apply, AxisValue, Equation, Expr, Read
from einc.ein.rewriting import unused
from einc.passes.algebra.signs import not_negative
from einc.passes.streaming.closure import closed
from einc.passes.streaming.movement import NEW
from einc.passes.streaming.sweep import Accumulator, Link

_EXACT = ("add", "sub", "mul", "neg")  # exact for integers


@dataclass(frozen=True, slots=True)
class End:
    """Where prefixes end: they reduce `walked` up to the position on `scanned`, or in `reverse` from it on."""

    scanned: str
    walked: str
    reverse: bool


@dataclass(frozen=True, slots=True)
class Running:
    """A prefix as a link whose references are values at the end; `greatest` are those references that are maxima."""

    link: Link
    greatest: frozenset[str]


@dataclass(frozen=True, slots=True)
class Along:
    """What is known of the tensors that a program defines.

    `places` are the tensors that prefixes along an axis decide, each with the place of that axis in its index. Those
    in `greatest` are maxima, those in `orders` maxima or minima, and those in `positive` are never less than 0.
    """

    places: frozenset[tuple[str, int]] = frozenset()
    greatest: frozenset[str] = frozenset()
    orders: frozenset[str] = frozenset()
    positive: frozenset[str] = frozenset()


def knows_its_end(eq: Equation, end: End) -> bool:
    """Does the body of a prefix depend on its end, and only through values at the end?"""
    parts = _Parts(eq, end)
    return not any(end.scanned in ein.axes_of(parts.hidden(b)) for b in eq.bodies) and bool(parts.names)


@lru_cache(maxsize=1024)
def running(eq: Equation, end: End, along: Along) -> Running | None:
    """The link of a prefix whose body depends on its end; None if its accumulators cannot follow the end."""
    parts = _Parts(eq, end)
    bodies = tuple(map(parts.hidden, eq.bodies))
    names = {name: e for e, name in parts.names.items()}
    orders = frozenset(n for n, e in names.items() if along.orders & ein.tensors_of(e))
    positive = along.positive | {n for n, e in names.items() if not_negative(e, along.positive)}
    link = closed(replace(eq, bodies=bodies), frozenset(names), orders, positive, (end.walked,))
    if link is None or not _is_exact(link):
        return None
    jumping = {n for n, e in names.items() if not is_along(e, end.scanned, along)}
    if any(jumping & _followed(a) for a in link.accumulators):
        return None
    references = tuple(replace(r, value=names[r.name]) for r in link.references)
    greatest = frozenset(n for n, e in names.items() if isinstance(e, Read) and e.tensor in along.greatest)
    return Running(replace(link, references=references), greatest)


def is_along(e: Expr, scanned: str, along: Along) -> bool:
    """Do only prefixes along the axis, or exact arithmetic on the position, make the expression depend on the axis?"""
    at = [r for r in ein.reads(e) if scanned in ein.axes_of(r)]
    for r in at:
        own = {(r.tensor, n) for n, x in enumerate(r.index) if x == AxisValue(scanned)}
        elsewhere = [x for x in r.index if x != AxisValue(scanned) and scanned in ein.axes_of(x)]
        if r.guard not in (None, TRUE) or elsewhere or len(own) != 1 or not own <= along.places:
            return False
    return bool(at) or all(n.op in _EXACT for n in ein.walk(e) if isinstance(n, Apply))


class _Parts:
    """The parts of an equation that depend on its end only, each under a name."""

    def __init__(self, eq: Equation, end: End) -> None:
        self.eq, self.end = eq, end
        self.names: dict[Expr, str] = {}
        self.taken = {t.name for t in eq.outputs} | {n for e in eq.expressions() for n in ein.tensors_of(e)}

    def hidden(self, e: Expr) -> Expr:
        """The expression with its largest parts that depend on the end, not on the walked position, read by name."""
        if self.end.scanned not in ein.axes_of(e):
            return e
        if self.end.walked in ein.axes_of(e):
            return ein.rebuild(e, self.hidden)
        if e not in self.names:
            self.names[e] = unused(f"{self.eq.name}_end", self.taken)
            self.taken.add(self.names[e])
        return Read(self.names[e], ())


def _followed(a: Accumulator) -> set[str]:
    """The references that an accumulator is relative to, or that move it."""
    moves = (*(c for c, _ in a.moves), *(() if a.shift is None else (a.shift,)))
    return {name.removesuffix(NEW) for e in (*a.bodies, *moves) for name in ein.tensors_of(e)}


def _is_exact(link: Link) -> bool:
    """Is it a link of floats, or one that moves integers by integers?"""
    moves = (n for a in link.accumulators for c, _ in a.moves for n in ein.walk(c) if isinstance(n, Apply))
    return link.equation.outputs[0].dtype.is_float or all(n.op in _EXACT for n in moves)
