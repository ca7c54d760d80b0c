"""The states of one walk: the accumulators of its links, how they move from block to block, and their final values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import reduce

from einc import ein, tile
from einc.ein import Apply, Equation, Expr, Read
from einc.passes.builder import Block, Builder
from einc.passes.domain import fails, is_nothing
from einc.passes.kernel import Kernel, component, stored_types
from einc.passes.movement import prime
from einc.sweep import Accumulator, Link, Reference
from einc.tile import Elem, Lit, Ref, TileType, Value
from einc.types import F32, F64, DType


class States:
    """One loop: the accumulators of a chain of links, how they move, and their final values."""

    def __init__(self, kernel: Kernel, axis: tile.TileAxis, chain: tuple[Link, ...]) -> None:
        self.k, self.b, self.axis, self.chain = kernel, kernel.b, axis, chain
        self.own: dict[tuple[object, ...], Accumulator] = {}  # equal accumulators are carried once
        self.states: dict[str, tuple[str, ...]] = {}
        for r in (r for link in chain for r in link.references):
            self.b.dtypes[r.name] = self.b.dtypes[prime(r.name)] = F64 if self.b.wide else F32
        self.wanted = {r.tensor for link in chain for x in link.references for r in ein.reads(x.value)}
        self.b.share(_moved(b, link.references) for link in chain for a in link.accumulators for b in a.bodies)

    def step(self, block: Block) -> None:
        """The body of the loop: references, then movement and contribution, link by link."""
        if any(r.seen for link in self.chain for r in link.references):
            self.count(block)
        for link in self.chain:
            for a in link.accumulators:
                self.allocate(link, a)
        for link in self.chain:
            if link.equation.name in self.wanted:
                self.define(_old(link), self.value(link, {n: self.refs(n) for n in self.states}, _old))
        for link in self.chain:
            for r in link.references:
                if prime(r.name) not in self.k.known:
                    self.refer(r)
            after = {a.name: self.advance(link, a, block) for a in link.accumulators}
            if link.equation.name in self.wanted:
                self.define(_new(link), self.value(link, after, _new))

    def count(self, block: Block) -> None:
        """Carry the number of positions seen, before and after this block."""
        (name,) = self.b.names("seen", 1)
        self.b.types[name] = TileType(F32)
        self.define("seen@old", Ref(name))
        counted = Equation((ein.Tensor("seen", F32),), (), (ein.Const(1.0),), ein.MONOIDS["sum"], self.axis.axes)
        (more,) = self.k.reduce(counted, [Ref(name)], ())
        self.define("seen@new", Ref(block.carry(name, TileType(F32), tile.Fill(Lit(0, F32)), more)))

    def seen(self, e: Expr, name: str) -> Expr:
        """The expression with the walked extent replaced by the positions seen, in proportion."""
        here = [a for a in self.axis.axes if any(n == ein.Extent(a) for n in ein.walk(e))]
        if not here:
            return e
        share: Expr = Read(name, ())
        for other in self.axis.axes:
            if other != here[0]:
                share = Apply("div", (share, ein.Extent(other)))
        return _replaced(e, ein.Extent(here[0]), share)

    def allocate(self, link: Link, a: Accumulator) -> None:
        """Names for an accumulator's states, those of an equal one if there is one."""
        key = (a.monoid.name, a.bodies, a.domain, a.axes)
        same = self.own.setdefault(key, a)
        if same is not a:
            self.states[a.name] = self.states[same.name]
            return
        self.states[a.name] = self.b.names(a.name, a.monoid.components)
        eq = self.equation(link, a)
        order = self.k.result_order(eq)
        for name, t in zip(self.states[a.name], self.k.state_types(eq), strict=True):
            self.b.types[name] = TileType(t, order)

    def refs(self, name: str) -> list[Value]:
        return [Ref(s) for s in self.states[name]]

    def equation(self, link: Link, a: Accumulator) -> Equation:
        """An accumulator's share of a block as a reduction at the moved references."""
        stored = link.equation.outputs[0].dtype
        bodies = tuple(_moved(b, link.references) for b in a.bodies)
        dims = tuple((x,) for x in a.axes)
        return Equation((ein.Tensor(a.name, stored),), dims, bodies, a.monoid, link.equation.over, a.domain)

    def define(self, name: str, value: Value) -> None:
        self.k.known[name] = value
        self.b.dtypes[name] = self.b.type_of(value)

    def value(self, link: Link, at: Mapping[str, list[Value]], when: Callable[[Link], str]) -> Value:
        """What a link's value would be with these accumulators: the running value that references follow."""
        by_name = {x.equation.name: when(x) for x in self.chain}
        return self.finished(link, at, lambda e: _renamed(e, by_name))[0]

    def finished(self, link: Link, at: Mapping[str, list[Value]], read: Callable[[Expr], Expr]) -> list[Value]:
        """The link's results from its accumulators; `read` says where the links that references follow stand."""
        eq = link.equation
        if link.finish == Read(eq.name, tuple(ein.AxisValue(x) for x in eq.axes)):
            return [at[eq.name][n] for n in link.accumulators[0].monoid.results]
        values = {r.name: read(r.value) for r in link.references}
        known = dict(self.k.known)
        for a in link.accumulators:
            self.define(a.name + "#", at[a.name][0])
        finish = _renamed(link.finish, {a.name: a.name + "#" for a in link.accumulators})
        finish = _substituted(finish, values)
        result = self.b.typed(finish, self.k.order, self.k.state_types(self.equation(link, link.accumulators[0]))[0])
        self.k.known = known
        return [result]

    def refer(self, r: Reference) -> None:
        """A reference before and after this block. One that is not usable yet has not moved."""
        order = tuple(t for t in self.k.order if t in {self.b.tile_of[x] for x in r.axes})
        t = F64 if self.b.wide else F32
        old_names, new_names = (
            {x.equation.name: _old(x) for x in self.chain},
            {x.equation.name: _new(x) for x in self.chain},
        )
        now, past = _renamed(r.value, new_names), _renamed(r.value, old_names)
        if r.seen:
            now, past = self.seen(now, "seen@new"), self.seen(past, "seen@old")
        new = self.b.bind(f"{r.name}_new", self.b.typed(now, order, t), order)
        hatted = Elem("where", (_usable(new, r, t), new, Lit(r.hat, t)))
        here = self.b.bind(f"{r.name}_ref", hatted, order)
        old = self.b.bind(f"{r.name}_old", self.b.typed(past, order, t), order)
        before = Elem("where", (_usable(old, r, t), old, here))
        self.define(prime(r.name), here)
        self.define(r.name, self.b.bind(f"{r.name}_was", before, order))

    def advance(self, link: Link, a: Accumulator, block: Block) -> list[Value]:
        """Move an accumulator to the new references and add what this block gives; its states from here on."""
        states = self.states[a.name]
        done = [s for s in block.states if s.name in states]
        if done:
            return [Ref(s.after) for s in done]
        eq = self.equation(link, a)
        order = self.k.result_order(eq)
        moved = self.moved(a, order)
        values = self.k.reduce(eq, moved, order)
        return [
            Ref(block.carry(name, self.b.types[name], tile.Fill(Lit(unit, self.b.types[name].dtype)), v))
            for name, unit, v in zip(states, a.monoid.identity, values, strict=True)
        ]

    def moved(self, a: Accumulator, order: tuple[str, ...]) -> list[Value]:
        first, *others = self.refs(a.name)
        t = self.b.type_of(first)
        if a.shift is not None and a.shift != ein.ZERO:
            first = Elem("add", (first, self.b.typed(a.shift, order, t)))
        elif a.count is not None:
            ((coefficient, _),) = a.moves
            count = self.b.convert(self.refs(a.count)[0], t)
            first = Elem("mul", (first, Elem("pow", (self.b.typed(coefficient, order, t), count))))
        elif a.moves:
            first = self.combined(a, order, t)
        return [first, *others]

    def combined(self, a: Accumulator, order: tuple[str, ...], t: DType) -> Value:
        whole: Value | None = None
        for coefficient, name in a.moves:
            term = self.b.convert(self.refs(name)[0], t)
            if coefficient != ein.ONE:
                term = Elem("mul", (term, self.coefficient(coefficient, order, t)))
            whole = term if whole is None else Elem("add", (whole, term))
        assert whole is not None
        return whole

    def coefficient(self, e: Expr, order: tuple[str, ...], t: DType) -> Value:
        axes = {self.b.tile_of[x] for x in ein.axes_of(e)}
        key = (e, t)
        bound = self.b.blocks[-1].bound
        if key not in bound:
            bound[key] = self.b.bind("rescale", self.b.typed(e, tuple(o for o in order if o in axes), t), order)
        return bound[key]

    def finish(self) -> None:
        """After the loop: every link's value, rounded as it would be stored."""
        ends = {name: self.refs(name) for name in self.states}
        for link in self.chain:
            values = self.finished(link, ends, lambda e: e)
            for n, (value, dtype) in enumerate(zip(values, stored_types(link.equation), strict=True)):
                self.define(component(link.equation.name, n), _rounded(self.b, value, dtype))


def _rounded(b: Builder, value: Value, dtype: DType) -> Value:
    t = b.type_of(value)
    return b.convert(value, dtype) if dtype.is_float and t.is_float and dtype.bits < t.bits else value


def _usable(v: Value, r: Reference, t: DType) -> Value:
    finite = Elem("lt", (Elem("abs", (v,)), Lit(float("inf"), t)))
    return finite if r.hat == 0 else Elem("and", (finite, Elem("ne", (v, Lit(0, t)))))


def _old(link: Link) -> str:
    return link.equation.name + "@old"


def _new(link: Link) -> str:
    return link.equation.name + "@new"


def _renamed(e: Expr, names: Mapping[str, str]) -> Expr:
    if isinstance(e, Read) and e.tensor in names:
        return replace(e, tensor=names[e.tensor])
    return ein.rebuild(e, lambda below: _renamed(below, names))


def _substituted(e: Expr, values: Mapping[str, Expr]) -> Expr:
    if isinstance(e, Read) and e.tensor in values:
        return values[e.tensor]
    return ein.rebuild(e, lambda below: _substituted(below, values))


def _replaced(e: Expr, old: Expr, new: Expr) -> Expr:
    return new if e == old else ein.rebuild(e, lambda below: _replaced(below, old, new))


def _moved(e: Expr, references: Iterable[Reference]) -> Expr:
    """The expression at the moved references, which are finite."""
    names = {r.name: prime(r.name) for r in references}
    return _sunk(_renamed(e, names), frozenset(names.values()))


def _sunk(e: Expr, finite: frozenset[str]) -> Expr:
    """A guard against minus infinity that a finite reference makes idle is dropped, and a mask beside it moves inside.

    where(p or x == -inf, 0, exp(x - d))   -->   exp(where(not p, x, -inf) - d)      d finite
    """
    e = ein.rebuild(e, lambda below: _sunk(below, finite))
    match e:
        case Apply(op="where", args=(p, zero, Apply(op="exp" | "exp2" as op, args=(Apply(op="sub", args=(x, d)),)))):
            empty = Apply("ne", (x, ein.Const(float("-inf"))))
            rest = [q for q in fails(p) if q != empty]
            if not is_nothing(zero, 0) or not isinstance(d, Read) or d.tensor not in finite:
                return e
            if len(rest) == len(fails(p)):
                return e
            if rest:
                x = Apply("where", (reduce(lambda a, b: Apply("and", (a, b)), rest), x, ein.Const(float("-inf"))))
            return Apply(op, (Apply("sub", (x, d)),))
        case _:
            return e
