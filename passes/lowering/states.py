"""The states that the links of a walk carry in a kernel, and the values of links that follow from them.

Equal accumulators are carried once. A **moment** is a time in the walk: the values that the accumulators hold then, and
a mark that tells the values of this time from those of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from einc import ein
from einc.base.types import F32, DType
from einc.ein import Apply, Equation, Expr, Read
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import read_as, reading, replaced
from einc.passes.algebra.domain import conjunction, ordered
from einc.passes.lowering.kernel import Kernel
from einc.passes.streaming.at_references import LOWEST, at_moved
from einc.passes.streaming.exact_means import HELD
from einc.passes.streaming.movement import Movement, prime
from einc.passes.streaming.sweep import Accumulator, Link, Reference, extents_of
from einc.tile import Elem, Lit, Ref, TileType, Value

TALLY = Accumulator("|seen|", (), MONOIDS["sum"], (ein.ONE,))  # the number of positions walked

END = "end"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time in a walk, or several: one for each position `along` a tile axis."""

    mark: str
    held: dict[str, list[Value]] = field(default_factory=dict)
    along: tuple[str, ...] = ()

    def of(self, name: str) -> str:
        """The name of a link's value at this moment."""
        return f"{name}@{self.mark}"

    def before(self, reference: str) -> str:
        """The name of a reference's value at this moment, if it is past."""
        return f"{reference}@before {self.mark}"


class States:
    """The states of a chain of links that walk some axes, or the axes `beside`, which share their positions."""

    def __init__(
        self, kernel: Kernel, chain: tuple[Link, ...], over: tuple[str, ...], beside: tuple[str, ...] = ()
    ) -> None:
        self.k, self.b, self.chain, self.over, self.beside = kernel, kernel.b, chain, over, beside
        self.real = self.b.real
        for r in (r for link in chain for r in link.references):
            self.b.dtypes[prime(r.name)] = self.real
            self.b.dtypes.setdefault(r.name, self.real)
        self.wanted = {r.tensor for link in chain for x in link.references for r in ein.reads(x.value)}
        self.names: dict[str, tuple[str, ...]] = {}
        self.equations: dict[str, Equation] = {}
        self.counts = any(r.seen for link in chain for r in link.references)
        if self.counts:
            self.equations[TALLY.name] = Equation((ein.Tensor("seen", F32),), (), TALLY.bodies, TALLY.monoid, over)
        for link in chain:
            self.equations |= {a.name: self.share(link, a) for a in link.accumulators}
        self.b.share(self.k.counted(eq, body) for eq in self.equations.values() for body in eq.bodies)

    def share(self, link: Link, a: Accumulator) -> Equation:
        """An accumulator's share of a block, as a reduction at the moved references."""
        stored = link.equation.outputs[0].dtype
        moved = (at_moved(body, link.references) for body in a.bodies)
        bodies = tuple(ordered(body, lambda e: self.b.dtype(e).is_int) for body in moved)
        dims = tuple((x,) for x in a.axes)
        outputs, eq = (ein.Tensor(a.name, stored),), link.equation
        domain = self.domain(link, a, bodies[0])
        return Equation(outputs, dims, bodies, a.monoid, eq.over, domain, product=eq.product)

    def domain(self, link: Link, a: Accumulator, moved: Expr) -> Expr | None:
        """The positions that count: the domain, and masks that the body does not show without its needless guards."""
        exclusion = self.k.exclusion(link.equation.over)
        if not a.monoid.adds or exclusion.guarded(a.bodies[0]) is a.bodies[0]:
            return a.domain
        lost = exclusion.zero(a.bodies[0]) - exclusion.zero(moved)
        masks = sorted((p for p in lost if isinstance(p, Apply) and p.op == "ne" and LOWEST in p.args), key=repr)
        return conjunction([*(() if a.domain is None else (a.domain,)), *masks])

    # ---------------------------------------------------------------------------------------------------------- states

    def accumulators(self) -> list[Accumulator]:
        """All accumulators in order, after the number of positions where a reference needs that."""
        return [TALLY] * self.counts + [a for link in self.chain for a in link.accumulators]

    def allocate(self, order: Callable[[Equation], tuple[str, ...]]) -> None:
        """Give the states of every accumulator names and types; equal accumulators share them."""
        same: dict[tuple[object, ...], tuple[str, ...]] = {}
        for a in self.accumulators():
            eq = self.equations[a.name]
            key = (a.monoid, a.bodies, a.domain, a.axes, frozenset(eq.over), self.types(a), eq.product)
            if key not in same:
                same[key] = self.b.names(a.name.strip("|"), a.monoid.components)
                t = order(eq)
                self.b.types.update((n, TileType(d, t)) for n, d in zip(same[key], self.types(a), strict=True))
            self.names[a.name] = same[key]

    def types(self, a: Accumulator) -> tuple[DType, ...]:
        """The element types of an accumulator's components."""
        return self.k.state_types(self.equations[a.name])

    def order(self, a: Accumulator) -> tuple[str, ...]:
        """The tile axes of its states."""
        return self.b.types[self.names[a.name][0]].axes

    def held(self, mark: str) -> Moment:
        """The moment at which accumulators have the values that their states hold."""
        return Moment(mark, {a: [Ref(s) for s in names] for a, names in self.names.items()})

    def units(self) -> dict[str, Lit]:
        """Each state's value before any position has been walked."""
        parts = ((self.names[a.name], a.monoid.identity, self.types(a)) for a in self.accumulators())
        return {n: Lit(u, t) for names, units, types in parts for n, u, t in zip(names, units, types, strict=True)}

    # ---------------------------------------------------------------------------------------------------------- values

    def define(self, name: str, value: Value) -> None:
        self.k.known[name] = value
        self.b.dtypes[name] = self.b.type_of(value)

    def settle(self, link: Link, at: Moment) -> None:
        """Define a link's value at a moment, if a reference follows it."""
        if link.equation.name in self.wanted:
            self.define(at.of(link.equation.name), self.finished(link, at, lambda e: self.at(e, at))[0])

    def at(self, e: Expr, moment: Moment) -> Expr:
        """The expression reading the values of links at a moment."""
        return reading(e, {x.equation.name: moment.of(x.equation.name) for x in self.chain})

    def moving(self, e: Expr, past: Moment) -> Expr:
        """A part of a transition, from the references of a past moment."""
        return reading(e, {r.name: past.before(r.name) for x in self.chain for r in x.references})

    def reference(self, r: Reference, at: Moment, order: tuple[str, ...]) -> Value:
        """A reference's value at a moment, usable or not: the same to the last bit in every kernel."""
        e = self.at(r.value, at)
        return self.divided(self.seen(e, at.of(TALLY.name)) if r.seen else e, order)

    def divided(self, e: Expr, order: tuple[str, ...]) -> Value:
        """The value of an expression with each quotient rounded only once."""
        self.b.inverts = False
        value = self.b.typed(e, order, self.real)
        self.b.inverts = True
        return value

    def seen(self, e: Expr, name: str) -> Expr:
        """The expression with the first walked extent replaced by the positions seen, over the other walked extents."""
        for axis in self.beside:
            e = replaced(e, {ein.Extent(axis): ein.Extent(self.over[0])})
        here = [a for a in self.over if a in extents_of(e)]
        if not here:
            return e
        share: Expr = Read(name, ())
        for other in self.over:
            if other != here[0]:
                share = Apply("div", (share, ein.Extent(other)))
        others: dict[Expr, Expr] = {r: r for r in ein.reads(e)}
        return replaced(e, others | {ein.Extent(here[0]): share})

    def finished(self, link: Link, at: Moment, read: Callable[[Expr], Expr]) -> list[Value]:
        """The link's results from its accumulators; `read` gives references the values of links at the right moment."""
        eq, monoid = link.equation, link.accumulators[0].monoid
        held = at.held[link.accumulators[0].name]
        finish = self.landed(link)
        if finish == Read(eq.name, tuple(ein.AxisValue(x) for x in eq.axes)):
            return [held[n] for n in monoid.results]
        known = dict(self.k.known)
        values = {r.name: read(r.value) for r in link.references}
        for r in (r for r in link.references if r.hat):
            e = read(r.value)
            values |= self.hatted(r, self.seen(e, at.of(TALLY.name)) if r.seen and at.mark != END else e, at.along)
        for a in link.accumulators:
            self.define(a.name + HELD, at.held[a.name][0])
        finish = reading(finish, {a.name: a.name + HELD for a in link.accumulators})
        result = self.b.typed(read_as(finish, values), self.k.order, self.types(link.accumulators[0])[0])
        self.k.known = known
        return [[result, *held[1:]][n] for n in monoid.results]

    def last(self, e: Expr) -> Expr:
        """The expression reading links at the values that references had last, where their final values differ."""
        names = {x.equation.name: f"{x.equation.name}@{END}" for x in self.chain}
        return reading(e, {name: last for name, last in names.items() if last in self.k.known})

    def landed(self, link: Link) -> Expr:
        """The value at the references as they are, from accumulators that are relative to their hats, if any."""
        if not any(r.hat for r in link.references):
            return link.finish
        shifting = frozenset(r.name for r in link.references if not r.hat)
        return Movement(shifting, frozenset()).at_rest(link.moved)

    def hatted(self, r: Reference, value: Expr, along: tuple[str, ...]) -> dict[str, Expr]:
        """A reference's value that accumulators are relative to, and the one to move them to: its own, if finite."""
        order = (*along, *self.k.extends(r.axes))
        there = self.b.bind(f"{r.name}_there", self.b.typed(value, order, self.real), order)
        here = self.b.bind(f"{r.name}_hat", Elem("where", (self.usable(there, r), there, Lit(r.hat, self.real))), order)
        self.define(r.name + "^", here)
        self.define(prime(r.name) + "^", Elem("where", (self.finite(there), there, here)))
        index = tuple(ein.AxisValue(a) for a in r.axes)
        return {name: Read(name + "^", index) for name in (r.name, prime(r.name))}

    def scales(self, e: Expr) -> bool:
        """Does a coefficient depend on a reference that scales?"""
        return any(r.hat and r.name in ein.tensors_of(e) for link in self.chain for r in link.references)

    def maxima(self) -> set[str]:
        return {x.equation.name for x in self.chain if x.accumulators[0].monoid.extreme == "max"}

    def finite(self, v: Value) -> Elem:
        return Elem("lt", (Elem("abs", (v,)), Lit(float("inf"), self.real)))

    def usable(self, v: Value, r: Reference) -> Value:
        """Can accumulators be relative to this value of a reference? If not, its hat takes its place.

        A maximum can be inf: then exp(x - inf) is 0 for every x but the maximum itself, where it and the sum are NaN.
        """
        of_maximum = isinstance(r.value, Read) and r.value.tensor in self.maxima()
        found = Elem("ne", (v, Lit(float("-inf"), self.real))) if of_maximum else self.finite(v)
        return Elem("and", (found, Elem("ne", (v, Lit(0, self.real))))) if r.hat else found
