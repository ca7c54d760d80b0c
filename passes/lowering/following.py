"""The components that a prefix carries whose body depends on its end, and the monoid that combines them.

    (Phi, d) then (Psi, d')   -->   (C(d -> d') Phi (+) Psi, d')

The components are the values of the accumulators, then the references, then whatever else the transition reads: a scan
combines only values of single positions, so these come along. A reference that is not usable has not moved yet, as in a
walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

from einc import ein
from einc.base.types import I64, DType, settle
from einc.ein import ONE, ZERO, Apply, Cast, Const, Equation, Expr, Monoid, Read, Scalar
from einc.ein.inference import dtype_of
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import replaced
from einc.passes.algebra.domain import ordered
from einc.passes.lowering.kernel import Kernel
from einc.passes.lowering.statements import Block
from einc.passes.streaming.at_references import at_moved
from einc.passes.streaming.movement import NEW, Movement, prime
from einc.passes.streaming.running import Running
from einc.passes.streaming.sweep import Accumulator, Reference
from einc.tile import Convert, Elem, Lit, Ref, TileType, Value

_NAME = "running"


class Following:
    """The states of one running prefix within a loop of a kernel, as tiles over some tile axes."""

    def __init__(self, kernel: Kernel, eq: Equation, running: Running, inside: tuple[str, ...]) -> None:
        self.k, self.b, self.eq, self.inside = kernel, kernel.b, eq, inside
        self.link, self.greatest = running.link, running.greatest
        self.real = self.b.real
        for r in self.link.references:
            self.refer(r)
        self.shares = [self.share(a) for a in self.link.accumulators]
        self.types: tuple[DType, ...] = ()
        self.leaves = tuple(dict.fromkeys(x for a in self.link.accumulators for c in _moves(a) for x in self.read(c)))

    # References -------------------------------------------------------------------------------------------------------

    def refer(self, r: Reference) -> None:
        """Define the value of a reference at every end, and the value that accumulators are relative to there."""
        t = I64 if settle(dtype_of(r.value, self.b.dtypes)).is_int else self.real
        there = self.b.bind(f"{r.name}_there", self.b.typed(r.value, self.inside, t), self.inside)
        self.define(r.name, there)
        self.define(prime(r.name), self.b.bind(r.name, self.usable_or(there, r, Lit(r.hat, t)), self.inside))

    def define(self, name: str, value: Value) -> None:
        self.k.known[name] = value
        self.b.dtypes[name] = self.b.type_of(value)

    def usable_or(self, v: Value, r: Reference, other: Value) -> Value:
        """A value of a reference, or another value where accumulators cannot be relative to it."""
        if self.b.type_of(v).is_int:
            return v
        below = Elem("ne", (v, Lit(float("-inf"), self.real)))
        found = below if r.name in self.greatest else self.finite(v)
        if r.hat:
            found = Elem("and", (found, Elem("ne", (v, Lit(0, self.real)))))
        return Elem("where", (found, v, other))

    def finite(self, v: Value) -> Elem:
        return Elem("lt", (Elem("abs", (v,)), Lit(float("inf"), self.real)))

    # Components -------------------------------------------------------------------------------------------------------

    def share(self, a: Accumulator) -> Equation:
        """An accumulator of a single position, as a reduction of that."""
        moved = (at_moved(body, self.link.references) for body in a.bodies)
        bodies = tuple(ordered(body, lambda e: self.b.dtype(e).is_int) for body in moved)
        dims = tuple((x,) for x in self.eq.axes)
        return Equation((self.eq.outputs[0],), dims, bodies, a.monoid, self.eq.over, a.domain)

    def read(self, e: Expr) -> Iterator[Expr]:
        """The values in a coefficient that differ between prefixes, with unmoved references."""
        match e:
            case Read(tensor=name) if name.removesuffix(NEW) in {r.name for r in self.link.references}:
                yield Read(name.removesuffix(NEW), ())
            case Read() | Scalar() | ein.Extent() | ein.AxisValue():
                yield e
            case _:
                for below in ein.children(e):
                    yield from self.read(below)

    def terms(self) -> tuple[Monoid, tuple[Value, ...], tuple[DType, ...]]:
        """The monoid of all components, their values at every single position, and their types."""
        args: list[Value] = []
        types: list[DType] = []
        for eq in self.shares:
            args += self.k.terms(eq, self.inside)
            types += self.k.state_types(eq)
        for leaf in self.leaves:
            t = settle(dtype_of(leaf, self.b.dtypes))
            types.append(t if t.is_float or t.is_bool else I64)
            args.append(self.b.typed(leaf, self.inside, types[-1]))
        self.types = tuple(types)
        bound = tuple(self.b.bind(f"{self.eq.name}_term", x, self.inside) for x in args)
        return self.monoid(), bound, self.types

    # The monoid -------------------------------------------------------------------------------------------------------

    def monoid(self) -> Monoid:
        """The monoid of all components."""
        b = self.b
        before = dict(self.k.known), dict(b.dtypes), dict(b.types), b.shared
        b.blocks.append(Block(b))
        b.shared, b.inverts = set(), False
        for name, t in ((f"{side}{n}", t) for side in "ab" for n, t in enumerate(self.types)):
            b.types[name] = TileType(t)
            self.define(name, Ref(name))
        combine = tuple(map(_as_expr, self.combined()))
        b.blocks.pop()
        b.inverts = True
        self.k.known, b.dtypes, b.types, b.shared = before
        identity = [u for a in self.link.accumulators for u in a.monoid.identity]
        return Monoid(_NAME, (*identity, *map(self.unit, self.leaves)), combine, commutative=False)

    def unit(self, leaf: Expr) -> int | str:
        """The identity of a value that comes along: for a float, one that is not usable as a reference."""
        return "lowest" if isinstance(leaf, Read) and self.b.dtypes[leaf.tensor].is_float else 0

    def combined(self) -> Iterator[Value]:
        """Every component of the combination of two states."""
        start = sum(a.monoid.components for a in self.link.accumulators)
        places = {leaf: n for n, leaf in enumerate(self.leaves, start)}
        for r in self.link.references:
            if (n := places.pop(Read(r.name, ()), None)) is not None:
                hat = Lit(r.hat, self.types[n])
                here = self.usable_or(Ref(f"b{n}"), r, hat)
                self.define(prime(r.name), here)
                self.define(r.name, self.usable_or(Ref(f"a{n}"), r, hat if r.hat else here))
        others: dict[Expr, Expr] = {leaf: Read(f"b{n}", ()) for leaf, n in places.items()}
        held = dict(zip((a.name for a in self.link.accumulators), self.firsts(), strict=True))
        for a, n in zip(self.link.accumulators, self.firsts(), strict=True):
            rest = range(n + 1, n + a.monoid.components)
            earlier = (self.moved(a, held, others), *(Ref(f"a{k}") for k in rest))
            yield from self.b.combine(a.monoid, earlier, tuple(Ref(f"b{k}") for k in (n, *rest)))
        yield from (Ref(f"b{n}") for n in range(start, len(self.types)))

    def firsts(self) -> Iterator[int]:
        """The place of every accumulator's first component."""
        n = 0
        for a in self.link.accumulators:
            yield n
            n += a.monoid.components

    def moved(self, a: Accumulator, held: Mapping[str, int], others: Mapping[Expr, Expr]) -> Value:
        """The first component of an accumulator of the earlier state, moved to the end of the later one."""
        t = self.types[held[a.name]]
        first: Value = Ref(f"a{held[a.name]}")

        def value(e: Expr) -> Value:
            return self.b.typed(replaced(e, others), (), t)

        if a.shift is not None and a.shift != ZERO:
            return Elem("add", (first, value(a.shift)))
        if a.count is not None:
            ((coefficient, _),) = a.moves
            return Elem("mul", (first, Elem("pow", (value(coefficient), self.b.convert(Ref(f"a{held[a.count]}"), t)))))
        terms = [self.term(a, c, Ref(f"a{held[name]}"), t, value) for c, name in a.moves]
        return reduce(lambda x, y: Elem("add", (x, y)), terms) if terms else first

    def term(self, a: Accumulator, coefficient: Expr, held: Value, t: DType, value: Callable[[Expr], Value]) -> Value:
        """A term of a move, from one accumulator: the unit where that holds the unit, however large the coefficient."""
        held = self.b.convert(held, t)
        if coefficient == ONE:
            return held
        moved = Elem("mul", (held, value(coefficient)))
        scales = {r.name for r in self.link.references if r.hat} & ein.tensors_of(coefficient)
        unit = Lit(a.monoid.identity[0], t)
        return Elem("where", (Elem("eq", (held, unit)), unit, moved)) if scales or a.monoid.identity[0] != 0 else moved

    # Results ----------------------------------------------------------------------------------------------------------

    def chosen(self, axis: str, at_end: tuple[Value, ...]) -> list[Value]:
        """Every component at the end of a tile axis, from tiles that are 0 elsewhere."""
        one = replace(self.eq, monoid=MONOIDS["sum"])
        return [self.b.fold(one, axis, (v,), self.inside, (t,))[0] for v, t in zip(at_end, self.types, strict=True)]

    def zeros(self) -> tuple[int, ...]:
        return (0,) * len(self.types)

    def results(self, states: Sequence[Value]) -> list[Value]:
        """The prefixes from the states at their ends."""
        link, monoid, before = self.link, self.link.accumulators[0].monoid, (dict(self.k.known), dict(self.b.dtypes))
        scaling = [r for r in link.references if r.hat]
        shifting = frozenset(r.name for r in link.references if not r.hat)
        finish = Movement(shifting, frozenset()).at_rest(link.moved) if scaling else link.finish
        for r in scaling:
            there, here = self.k.known[r.name], self.k.known[prime(r.name)]
            self.define(r.name, here)
            moved = there if self.b.type_of(there).is_int else Elem("where", (self.finite(there), there, here))
            self.define(prime(r.name), moved)
        for a, n in zip(link.accumulators, self.firsts(), strict=True):
            self.define(a.name, states[n])
        first = self.b.typed(finish, self.inside, self.types[0])
        self.k.known, self.b.dtypes = before
        return [[first, *states[1:]][n] for n in monoid.results]


def _moves(a: Accumulator) -> tuple[Expr, ...]:
    return (*(c for c, _ in a.moves), *(() if a.shift is None else (a.shift,)))


def _as_expr(v: Value) -> Expr:
    """A tile value of states as an expression of them, its literals cast to their types."""
    match v:
        case Ref(name=name):
            return Scalar(name)
        case Lit(value=bool() as value):
            return Const(value)
        case Lit(value=value, dtype=dtype) if not isinstance(value, str):
            return Cast(dtype, Const(value))
        case Convert(dtype=dtype, arg=arg):
            return Cast(dtype, _as_expr(arg))
        case Elem(op=op, args=args):
            return Apply(op, tuple(map(_as_expr, args)))
        case _:
            raise AssertionError(f"a value that does not combine states: {v}")
