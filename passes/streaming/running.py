"""A prefix whose body knows where it ends: accumulators that follow the end, and so one scan for all ends.

    T[i] = m[t : t <= i](f(t; d[i]))   -->   prefixes of (Phi, d), Phi = phi(t; d[t]) at a position alone
                                             (Phi, d) then (Phi', d')  =  (C(d -> d') Phi (+) Phi', d')

f is closed under the movement of d (`closure`), the largest parts of f that know i and not t. A movement by way of d'
is the movement, so that this is associative: prefixes of prefixes take the work of one walk. What accumulators are
relative to is the position, or is made of other prefixes along the axis, which move as the walk goes on; any other
value at i may jump, and only multiplies or is added to what is carried.

A running variance, softmax or logsumexp has this shape, and a sum that decays with the distance.
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

_EXACT = ("add", "sub", "mul", "neg")  # of integers


@dataclass(frozen=True, slots=True)
class End:
    """How prefixes lie: over `walked`, up to the position of `scanned`, or from it on."""

    scanned: str
    walked: str
    reverse: bool


@dataclass(frozen=True, slots=True)
class Running:
    """A prefix as the link that it is for every end; `greatest` are those of its references that are maxima."""

    link: Link
    greatest: frozenset[str]


@dataclass(frozen=True, slots=True)
class Along:
    """What is known of the tensors that a program makes.

    `places` are those that prefixes along an axis decide, each with that axis's place in its index. The `greatest` are
    maxima, the `orders` maxima or minima, and the `positive` never less than 0.
    """

    places: frozenset[tuple[str, int]] = frozenset()
    greatest: frozenset[str] = frozenset()
    orders: frozenset[str] = frozenset()
    positive: frozenset[str] = frozenset()


def knows_its_end(eq: Equation, end: End) -> bool:
    """Does what a prefix reduces know the end by values there alone?"""
    parts = _Parts(eq, end)
    return not any(end.scanned in ein.axes_of(parts.hidden(b)) for b in eq.bodies) and bool(parts.names)


@lru_cache(maxsize=1024)
def running(eq: Equation, end: End, along: Along) -> Running | None:
    """The link of a prefix that knows its end; None if what it carries cannot follow the end."""
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
    """Do prefixes along the axis decide an expression wherever it knows the axis, or does it grow with the position?"""
    at = [r for r in ein.reads(e) if scanned in ein.axes_of(r)]
    for r in at:
        own = {(r.tensor, n) for n, x in enumerate(r.index) if x == AxisValue(scanned)}
        elsewhere = [x for x in r.index if x != AxisValue(scanned) and scanned in ein.axes_of(x)]
        if r.guard not in (None, TRUE) or elsewhere or len(own) != 1 or not own <= along.places:
            return False
    return bool(at) or all(n.op in _EXACT for n in ein.walk(e) if isinstance(n, Apply))


class _Parts:
    """The parts of an equation that its end decides, each under a name."""

    def __init__(self, eq: Equation, end: End) -> None:
        self.eq, self.end = eq, end
        self.names: dict[Expr, str] = {}
        self.taken = {t.name for t in eq.outputs} | {n for e in eq.expressions() for n in ein.tensors_of(e)}

    def hidden(self, e: Expr) -> Expr:
        """The expression with its largest parts that know the end, and not the position walked, read by name."""
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
    """Is it of floats, or does it move integers by integers?"""
    moves = (n for a in link.accumulators for c, _ in a.moves for n in ein.walk(c) if isinstance(n, Apply))
    return link.equation.outputs[0].dtype.is_float or all(n.op in _EXACT for n in moves)
