"""A reduction as accumulators that follow its references: closure under movement.

    a = (+)[r] f(r; d)   -->   Phi_q = (+)[r] phi_q(r; d);  Phi_q(d') = sum_p C_qp(d, d') Phi_p(d);  a = sum_q h_q Phi_q

Expand f at moved references; each new phi is expanded in turn, until no new one appears. A sum takes any expansion, a
maximum or minimum a shift or a factor that is at least 0, and a product a factor, raised to the number of positions,
which is carried too. If the set does not close, the reduction needs the final references and a walk of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from einc import ein
from einc.ein import ONE, ZERO, Apply, Const, Equation, Expr, Read
from einc.ein.monoids import MONOIDS
from einc.passes.algebra.folding import call
from einc.passes.algebra.signs import makes_no_negative, not_negative
from einc.passes.streaming.monomials import Expansion, Monomial, written
from einc.passes.streaming.movement import NEW, Movement, prime
from einc.passes.streaming.sweep import Accumulator, Link, NotClosed, Reference, extents_of

_MOST_ACCUMULATORS = 12


@lru_cache(maxsize=4096)
def _read(eq: Equation) -> frozenset[str]:
    """The tensors that an equation reads."""
    return frozenset(name for e in eq.expressions() for name in ein.tensors_of(e))


def links(
    chain: Sequence[Equation],
    over: Sequence[str],
    blurred: Collection[str] = frozenset(),
    sources: Callable[[Equation], Collection[str]] = _read,
    written: Callable[[Equation], Equation] = lambda eq: eq,
) -> list[Link | NotClosed]:
    """Each reduction of a chain over the same axes, in order, as a link with its accumulators.

    Earlier values are read by their names at the output axes. A reduction is not closed if it reads one that is not, or
    a result other than the first of one with several (a position jumps), or a `blurred` tensor, made of earlier values
    in a way that no movement follows.

    `written` writes an equation in terms of its `sources` alone. That grows with every equation written out, so it is
    done only where the sources are closed.
    """
    moving: set[str] = set()
    lost: set[str] = set()
    positive: set[str] = set()
    maxima = frozenset(eq.name for eq in chain if eq.monoid is not None and eq.monoid.extreme)
    found: list[Link | NotClosed] = []
    taken = {t.name for eq in chain for t in eq.outputs}
    taken |= {name for eq in chain for name in sources(eq)}
    named: dict[Expr, str] = {}
    for eq in chain:
        if lost.isdisjoint(sources(eq)):
            whole = written(eq)
            link = _mixed(whole, blurred) or _linked(whole, moving, maxima, positive, tuple(over), taken, named)
            positive |= {eq.name} if makes_no_negative(whole, positive) else set()
        else:
            link = NotClosed(eq, eq.body, "it depends on a value that is known only after a walk")
        found.append(link)
        (lost if isinstance(link, NotClosed) else moving).add(eq.name)
        lost |= {t.name for t in eq.outputs[1:]}
    return _hatted(found)


def closed(
    eq: Equation,
    references: Collection[str],
    maxima: Collection[str],
    positive: Collection[str],
    over: Sequence[str],
) -> Link | None:
    """A reduction that reads references by name as a link, if its accumulators can follow them."""
    taken = {t.name for t in eq.outputs} | {r.tensor for e in eq.expressions() for r in ein.reads(e)}
    link = _linked(eq, references, maxima, positive, tuple(over), taken, {})
    return link if isinstance(link, Link) else None


def _linked(
    eq: Equation,
    moving: Collection[str],
    maxima: Collection[str],
    positive: Collection[str],
    over: tuple[str, ...],
    taken: set[str],
    named: dict[Expr, str],
) -> Link | NotClosed:
    """An equation as a link, or why it is none; adds to the names that are taken, and to the references that have one.

    Only what it reads of the chain decides that: a search asks for the same links in many chains.
    """
    read = _read(eq)
    reads = [frozenset(read.intersection(names)) for names in (moving, maxima, positive)]
    own = frozenset(name for name in taken if name.startswith(f"{eq.name}_"))
    link, names, references = _link(eq, *reads, over, own, frozenset(named.items()))
    taken |= names
    named |= references
    return link


@lru_cache(maxsize=4096)
def _link(
    eq: Equation,
    moving: frozenset[str],
    maxima: frozenset[str],
    positive: frozenset[str],
    over: tuple[str, ...],
    taken: frozenset[str],
    named: frozenset[tuple[Expr, str]],
) -> tuple[Link | NotClosed, set[str], dict[Expr, str]]:
    """An equation as a link, or why it is none; the names that are taken then, and the references that have one."""
    closure = _Closure(eq, moving, maxima, positive, over, {*taken}, dict(named))
    return closure.link(), closure.taken, closure.named


def _mixed(eq: Equation, blurred: Collection[str]) -> NotClosed | None:
    found = next((r for e in eq.expressions() for r in ein.reads(e) if r.tensor in blurred), None)
    if found is None:
        return None
    return NotClosed(eq, found, "it reduces values that are still changing over another axis")


def _hatted(chain: Sequence[Link | NotClosed]) -> list[Link | NotClosed]:
    """Each reference with the same hat in all links that read it: 1 if it scales anything."""
    scales = {r.name for link in chain if isinstance(link, Link) for r in link.references if r.hat}
    return [
        replace(link, references=tuple(replace(r, hat=int(r.name in scales)) for r in link.references))
        if isinstance(link, Link)
        else link
        for link in chain
    ]


@dataclass(slots=True)
class _Closure:
    eq: Equation
    moving: frozenset[str]
    maxima: frozenset[str]
    positive: frozenset[str]
    over: tuple[str, ...]
    taken: set[str]
    named: dict[Expr, str]  # the references of all links that are no reads, by what they are made of
    references: dict[Expr, Reference] = field(default_factory=dict)

    def fresh(self, stem: str) -> str:
        """The equation's name with a stem, and a number if another name of the chain is the same."""
        name = f"{self.eq.name}_{stem}"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def link(self) -> Link | NotClosed:
        """The link of this equation, or why there is none."""
        outer = Movement(self.moving, frozenset((*self.over, *self.eq.over)))
        inside = [r for b in self.eq.bodies for r in ein.reads(b) if outer.depends(r) and outer.varies(r)]
        if inside:
            return NotClosed(self.eq, inside[0], "it reads a value that is still changing at every position it reduces")
        bodies = tuple(self.relative(b, outer) for b in self.eq.bodies)
        if self.eq.domain is not None and outer.depends(self.eq.domain):
            return NotClosed(self.eq, self.eq.domain, "which positions count depends on a value that is still changing")
        known = self.references.values()
        maxima = frozenset(r.name for r in known if not self.maxima.isdisjoint(ein.tensors_of(r.value)))
        positive = [r.name for r in known if not_negative(r.value, self.positive)]
        names = frozenset(r.name for r in known)
        movement = Movement(names, outer.over, maxima, frozenset((*positive, *map(prime, positive))))
        monoid = self.eq.monoid
        assert monoid is not None
        if not any(movement.depends(b) for b in bodies):
            return self.finished((self.accumulator(self.eq.name, bodies),), self.carried(), movement)
        if monoid.op == "add":
            return self.sum(bodies[0], movement)
        if monoid.order is not None:
            return self.order(bodies, movement)
        if monoid.op == "mul":
            return self.product(bodies[0], movement)
        return NotClosed(self.eq, bodies[0], f"'{monoid.name}' does not follow a value that is still changing")

    # ------------------------------------------------------------------------------------------------------ references

    def relative(self, e: Expr, outer: Movement) -> Expr:
        """The expression with its largest parts of earlier values, free of the walked axes, read as references."""
        if not outer.depends(e):
            return e
        if not outer.varies(e):
            return self.reference(e)
        return ein.rebuild(e, lambda below: self.relative(below, outer))

    def reference(self, e: Expr) -> Expr:
        axes = ein.axes_of(e)
        known = self.references.get(e)
        if known is None:
            seen = not extents_of(e).isdisjoint(self.over)
            name = e.tensor if isinstance(e, Read) else self.named.get(e)
            if name is None:
                name = self.named[e] = self.fresh(f"ref{len(self.references) or ''}")
            known = self.references[e] = Reference(name, axes, e, 0, seen)
        return Read(known.name, tuple(ein.AxisValue(a) for a in axes))

    def hats(self, accumulators: Sequence[Accumulator]) -> tuple[Reference, ...]:
        """References with their hats: 1 for those that scale, 0 for those that only shift.

        A reference scales if it is a factor or a divisor, or if a movement divides by it.
        """
        parts = [n for a in accumulators for e in a.bodies for n in ein.walk(e) if isinstance(n, Apply)]
        scales = [x for n in parts if n.op in ("div", "mul") for x in n.args]
        moves = [n for a in accumulators for c, _ in a.moves for n in ein.walk(c) if isinstance(n, Apply)]
        scales += [n.args[1] for n in moves if n.op == "div"]
        names = {x.tensor.removesuffix(NEW) for x in scales if isinstance(x, Read)}
        return tuple(Reference(r.name, r.axes, r.value, int(r.name in names), r.seen) for r in self.references.values())

    # ---------------------------------------------------------------------------------------------------------- pieces

    def position(self, axes: Sequence[str] | None = None) -> tuple[Expr, ...]:
        return tuple(ein.AxisValue(a) for a in (self.eq.axes if axes is None else axes))

    def accumulator(
        self,
        name: str,
        bodies: tuple[Expr, ...],
        moves: tuple[tuple[Expr, str], ...] = (),
        shift: Expr | None = None,
        count: str | None = None,
    ) -> Accumulator:
        assert self.eq.monoid is not None
        return Accumulator(name, self.eq.axes, self.eq.monoid, bodies, self.eq.domain, moves, shift, count)

    def carried(self) -> Expr:
        """The value that the first accumulator holds."""
        return Read(self.eq.name, self.position())

    def finished(self, accumulators: tuple[Accumulator, ...], moved: Expr, movement: Movement) -> Link:
        return Link(self.eq, self.hats(accumulators), accumulators, movement.at_rest(moved), moved)

    # --------------------------------------------------------------------------------------------------------- monoids

    def sum(self, body: Expr, movement: Movement) -> Link | NotClosed:
        first = movement.expand(body)
        if first is None:
            return self.open(body, movement)
        known: dict[Expr, Monomial] = {}
        heads = {m: h for m, c in _alike(first, known).items() if (h := movement.at_rest(c)) != ZERO}
        table: dict[Monomial, Mapping[Monomial, Expr]] = {}
        waiting = list(heads)
        while waiting:
            m = waiting.pop(0)
            if m in table:
                continue
            row = movement.expand(written(m))
            if row is None or len(table) >= _MOST_ACCUMULATORS:
                return self.open(written(m), movement)
            table[m] = {n: c for n, c in _alike(row, known).items() if c != ZERO}
            waiting += [n for n in table[m] if n not in table]
        names = {m: self.eq.name if n == 0 else self.fresh(str(n)) for n, m in enumerate(table)}
        accumulators = tuple(
            self.summed(names[m], written(m), tuple((c, names[n]) for n, c in row.items()), m)
            for m, row in table.items()
        )
        reads = {a.name: Read(a.name, self.position(a.axes)) for a in accumulators}
        moved: Expr = ZERO
        for m, c in first.items():
            if m in names:  # a monomial that is not carried is 0
                moved = call("add", moved, call("mul", c, reads[names[m]]))
        return self.finished(accumulators, moved, movement)

    def summed(self, name: str, phi: Expr, moves: tuple[tuple[Expr, str], ...], m: Monomial) -> Accumulator:
        """A sum's accumulator over the output axes that it depends on; one that does not move has no moves."""
        axes = self.along(*(self.unnamed(factor) for factor, _ in m))
        still = len(moves) == 1 and moves[0] == (ONE, name)
        return Accumulator(name, axes, MONOIDS["sum"], (phi,), self.eq.domain, () if still else moves)

    def along(self, *factors: Expr) -> tuple[str, ...]:
        """The output axes that these factors, or the domain, depend on."""
        where = () if self.eq.domain is None else (self.eq.domain,)
        depends = {a for e in (*factors, *where) for a in ein.axes_of(e)}
        return tuple(a for a in self.eq.axes if a in depends)

    def unnamed(self, e: Expr) -> Expr:
        """The expression with references written out, so that the axes they depend on show."""
        names = {r.name: value for value, r in self.references.items()}
        if isinstance(e, Read) and e.tensor in names:
            return names[e.tensor]
        return ein.rebuild(e, self.unnamed)

    def order(self, bodies: tuple[Expr, ...], movement: Movement) -> Link | NotClosed:
        assert self.eq.monoid is not None
        shift = movement.shift(bodies[0])
        if shift is not None:
            moved = call("add", self.carried(), shift)
            return self.finished((self.accumulator(self.eq.name, bodies, shift=shift),), moved, movement)
        factor = movement.factor(bodies[0])
        if factor is not None and not_negative(factor, movement.known):
            moves = ((factor, self.eq.name),)
            nothing = Const(-math.inf if self.eq.monoid.order == "max" else math.inf)
            held = self.carried()  # where no position was seen it is infinite, which no factor moves, not even 0
            moved = call("where", Apply("eq", (held, nothing)), held, call("mul", factor, held))
            return self.finished((self.accumulator(self.eq.name, bodies, moves),), moved, movement)
        return self.open(bodies[0], movement)

    def product(self, body: Expr, movement: Movement) -> Link | NotClosed:
        factor = movement.factor(body)
        if factor is None:
            return self.open(body, movement)
        count = self.fresh("count")
        counted = Accumulator(count, self.along(), MONOIDS["sum"], (ONE,), self.eq.domain)
        powered = self.accumulator(self.eq.name, (body,), ((factor, self.eq.name),), count=count)
        power = Apply("pow", (factor, Read(count, self.position(counted.axes))))
        return self.finished((powered, counted), call("mul", power, self.carried()), movement)

    def open(self, body: Expr, movement: Movement) -> NotClosed:
        """Not closed, because of the smallest part of the body that neither shifts, scales nor expands."""
        part = body
        while True:
            below = [
                c
                for c in ein.children(part)
                if movement.depends(c) and movement.varies(c) and movement.expand(c) is None
            ]
            if not below:
                break
            part = below[0]
        return NotClosed(
            self.eq, self.unnamed(part), "a movement of its references neither shifts, scales nor expands it"
        )


def _alike(row: Expansion, known: dict[Expr, Monomial]) -> Expansion:
    """The expansion with one monomial, the first known, for all that are written the same way."""
    found: Expansion = {}
    for m, c in row.items():
        same = known.setdefault(written(m), m)
        found[same] = call("add", found[same], c) if same in found else c
    return found
