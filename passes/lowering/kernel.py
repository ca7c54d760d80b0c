"""One kernel in the making: the values of its plan's tensors, reductions of one block, and stores.

A tensor that one equation of the plan reads from another is computed in place, once a block. A sum of products whose
two sides have one row, one column and one inner tile axis becomes a dot; with one further tile axis, which is a batch
axis or one of two rows or columns, a dot at each of its positions; these are summed where it is one of two inner axes.
Any other reduction folds its tile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from einc import ein, tile
from einc.base.types import BOOL, DType, accumulator, compute, join, settle
from einc.ein import Equation, Expr, Program, Read
from einc.ein.domains import Domains
from einc.ein.exclusion import Exclusion
from einc.ein.guards import positions
from einc.ein.origins import Products
from einc.passes.algebra.contraction import Contraction, Term, contraction, operand_type
from einc.passes.algebra.domain import ordered
from einc.passes.algebra.products import multiplied
from einc.passes.estimate.sides import fills, held, sides
from einc.passes.lowering.builder import Builder
from einc.passes.lowering.counted import Counted, telling
from einc.passes.lowering.statements import Axes
from einc.passes.streaming.walks import above
from einc.pipeline import Context
from einc.pipeline.plan import Planned
from einc.tile import Elem, Lit, Sides, TileType, Value
from einc.tile.masks import extent


class Kernel:
    """The lowering of one plan."""

    def __init__(self, program: Program, plan: Planned, context: Context) -> None:
        self.program, self.plan, self.context = program, plan, context
        self.b = Builder(program, plan, self.inside)
        self.origins = Products(program)
        self.definitions = {t.name: eq for eq in plan.equations for t in eq.outputs}
        self.known: dict[str, Value] = {}  # tensors and references that have a value here
        self.order: tuple[str, ...] = ()
        self.named = {t.name: eq for eq in program.equations for t in eq.outputs} | self.definitions
        self.domains = Domains(self.named)
        self.read = {r.tensor for eq in plan.equations for e in eq.expressions() for r in ein.reads(e)}
        self.within: dict[tuple[str, ...], tile.TileAxis] = {}  # the axes that reductions walk themselves
        self.refined: Mapping[str, Callable[[], Value]] = {}  # reductions with a more exact way to compute them

    def enter(self) -> tuple[Axes, Axes]:
        """Enter the axes that are not walked: those of the grid, and those held whole."""
        plan, b = self.plan, self.b
        batch = tuple(b.axis((a,), "batch") for a in plan.batch)
        blocked = tuple(b.axis(g, role) for g, role in ((plan.rows, "row"), (plan.columns, "column")) if g)
        whole = tuple(b.axis(g, "whole") for g in held(plan, self.context))
        self.within = {g: b.axis(g, "inner") for g in plan.inner}
        b.enter((*batch, *blocked, *whole))
        self.order = tuple(a.name for a in (*blocked, *whole))
        return (*batch, *blocked), whole

    def extends(self, axes: Iterable[str]) -> tuple[str, ...]:
        """The tile axes that a value over some axes extends over, in order."""
        tiles = {self.b.tile_of[a] for a in axes}
        return tuple(t for t in self.order if t in tiles)

    # ---------------------------------------------------------------------------------------------------------- values

    def inside(self, read: Read, order: tuple[str, ...], real: DType) -> Value | None:
        """The value of a tensor that this kernel computes; None for one in memory."""
        if read.tensor in self.known:
            return self.known[read.tensor]
        eq = self.definitions.get(read.tensor)
        if eq is None:
            return None
        at = positions(eq.dims, read.index)
        if eq.monoid is None:
            value = self.b.typed(ein.substitute(eq.body, at), order, eq.outputs[0].dtype)
            return self.b.keep(read, real, self.b.convert(value, compute(eq.outputs[0].dtype)), order)
        assert all(self.is_at(e, a) for a, e in at.items()), "a reduction is read where it was made"
        for t, made in zip(eq.outputs, self.reduced(eq), strict=True):
            self.known[t.name] = self.b.bind(t.name, self.b.rounded(made, t.dtype), self.result_order(eq))
        return self.known[read.tensor]

    def is_at(self, e: Expr, axis: str) -> bool:
        """Is it the position of the axis, or of one that shares its positions?"""
        return isinstance(e, ein.AxisValue) and self.b.tile_of[e.axis] == self.b.tile_of[axis]

    def reduced(self, eq: Equation) -> list[Value]:
        """The results of a reduction over axes that are held whole, computed more exactly where that is possible, or
        over axes that it walks itself."""
        if self.plan.walks_within(eq):
            return self.walked(eq)
        return [self.refined[eq.name]()] if eq.name in self.refined else self.folded(eq)

    def folded(self, eq: Equation) -> list[Value]:
        """A reduction over axes that are held whole, as it is written."""
        assert eq.monoid is not None
        units = zip(eq.monoid.identity, self.state_types(eq), strict=True)
        made = self.reduce(eq, [tile.Fill(Lit(u, t)) for u, t in units], self.result_order(eq))
        return [made[k] for k in eq.monoid.results]

    def walked(self, eq: Equation) -> list[Value]:
        """A reduction that walks its axes itself: a loop with states of its own, after all reductions that it reads."""
        assert eq.monoid is not None
        self.settle(above(self.plan.equations)[eq.name])
        axis, order, types = self.within[eq.over], self.result_order(eq), self.state_types(eq)
        names = self.b.names(eq.name, eq.monoid.components)
        self.b.types.update((n, TileType(t, order)) for n, t in zip(names, types, strict=True))
        known, outside = dict(self.known), self.order
        with self.b.loop(axis) as block:
            self.order = (*outside, axis.name)
            values = self.reduce(eq, [tile.Ref(n) for n in names], order)
            for name, unit, t, value in zip(names, eq.monoid.identity, types, values, strict=True):
                block.carry(name, TileType(t, order), tile.Fill(Lit(unit, t)), value)
            block.full = tile.Full(extent(axis.axes)) if self.context.level >= 2 else None
        self.known, self.order = known, outside
        return [tile.Ref(names[k]) for k in eq.monoid.results]

    def settle(self, needed: Collection[str]) -> None:
        """Compute here those of some reductions that have no value yet."""
        for eq in (eq for eq in self.plan.equations if eq.monoid is not None and eq.name in needed):
            if eq.name not in self.known:
                read = Read(eq.name, tuple(map(ein.AxisValue, eq.axes)))
                self.inside(read, self.extends(eq.axes), compute(eq.outputs[0].dtype))

    def result_order(self, eq: Equation) -> tuple[str, ...]:
        """The tile axes an equation's value extends over, in the order it is computed in."""
        dots = self.contractions(eq)
        if dots is not None:
            found = self.sides(dots[0])
            assert found is not None
            return (found.row, found.column) if self.summed(dots[0], found) else found.result
        return self.extends(eq.axes)

    def reduce(self, eq: Equation, states: list[Value], order: tuple[str, ...]) -> list[Value]:
        """States combined with the reduction of this block: a dot where every body is a contraction, else a fold."""
        assert eq.monoid is not None
        dots = self.contractions(eq)
        if dots is not None:
            return [self.dotted(eq, c, acc) for c, acc in zip(dots, states, strict=True)]
        over = tuple(dict.fromkeys(t for t in map(self.b.tile_of.__getitem__, eq.over) if self.b.types[t].axes))
        inside = self.folding_order(eq, tuple(a for a in order if a not in over), over)
        types = self.state_types(eq)
        args = self.terms(eq, inside)
        for axis in reversed(over):
            args = self.b.fold(eq, axis, args, inside, types)
        if all(isinstance(s, tile.Fill) for s in states):
            return list(args)
        return list(self.b.combine(eq.monoid, tuple(states), args))

    def folding_order(self, eq: Equation, kept: tuple[str, ...], over: tuple[str, ...]) -> tuple[str, ...]:
        """The order of a tile that is folded: the folded axis comes last, so that it lies within a thread.

        It comes before the last in a tile in memory order that the generator cannot fold otherwise.
        """
        as_stored, before = any(isinstance(b, Read) for b in eq.bodies), self.context.backend.folds_before
        within = as_stored and before is not None and len(kept) + len(over) >= before
        return (*kept[:-1], *over, *kept[-1:]) if within else (*kept, *over)

    def terms(self, eq: Equation, inside: tuple[str, ...]) -> tuple[Value, ...]:
        """What is reduced, component by component: the identity outside the domain."""
        assert eq.monoid is not None
        domain = None if eq.domain is None else self.b.typed(eq.domain, inside, BOOL)
        args: tuple[Value, ...] = ()
        for body, t, unit in zip(eq.bodies, self.state_types(eq), eq.monoid.identity, strict=True):
            value = self.b.widened(self.counted(eq, body), inside, t)
            args += (value if domain is None else Elem("where", (domain, value, Lit(unit, t))),)
        return args

    def state_types(self, eq: Equation) -> tuple[DType, ...]:
        """Sums and products accumulate wide; an order keeps its type; a carried index is i64."""
        assert eq.monoid is not None
        found = []
        for body in eq.bodies:
            t = self.b.dtype(body)
            if eq.monoid.accumulates:
                wide = accumulator(settle(t))
                found.append(wide if t.is_bool else join(wide, accumulator(eq.outputs[0].dtype.part)))
            else:
                found.append(BOOL if eq.monoid.truths else compute(settle(t)))
        return tuple(found)

    # ---------------------------------------------------------------------------------------------------- contractions

    def contractions(self, eq: Equation) -> list[Contraction] | None:
        """The bodies of a sum as contractions that the target's dot takes, each over the same tile axes."""
        if eq.monoid is None or not eq.monoid.adds:
            return None
        found: list[Contraction] = []
        for body in eq.bodies:
            c = contraction(eq, body, self.context.size, found[0].shape if found else None)
            if c is None or self.sides(c) is None:
                return None
            types = {self.operand_type(eq, t) for t in c.terms}
            if not all(map(self.context.multiplies, types)) or not self.holds(eq, types):
                return None
            found.append(c)
        return found

    def sides(self, c: Contraction) -> Sides | None:
        """The tile axes of a dot for a contraction, or None.

        Rows stay while a walk goes over columns: so what is made of a result lies as the next dot takes it.
        """
        found = fills(c.shape.inner, self.plan, self.context)
        at = sides(c.shape, self.tiles, found, self.context)
        walked = {self.b.tile_of[a] for a in self.plan.walked}
        if at is None or at.batch or at.row not in walked:
            return at
        return Sides(at.column, at.row, at.inner)

    def summed(self, c: Contraction, at: Sides) -> str:
        """The further tile axis of a dot if it is an inner one, over which results are summed; none if it is not."""
        return at.batch if at.batch in self.tiles(c.shape.inner) else ""

    def tiles(self, axes: Iterable[str]) -> list[str]:
        """The tile axes that these axes extend over, outermost first; an axis with one position a program has none."""
        found = {self.b.tile_of[a] for a in axes if self.b.types[self.b.tile_of[a]].axes}
        return sorted(found, key=lambda t: self.order.index(t) if t in self.order else len(self.order))

    def holds(self, eq: Equation, types: Iterable[DType]) -> bool:
        """Can dots over these types sum as wide as the equation? Dots of floats can be added up in a wider type."""
        return all(t.is_float or accumulator(t) == own for t in types for own in self.state_types(eq))

    def dotted(self, eq: Equation, c: Contraction, acc: Value) -> Value:
        at = self.sides(c)
        assert at is not None
        rows, columns = at.over(at.row, at.inner), at.over(at.inner, at.column)
        product = self.operand_type(eq, c.terms[0])
        summed, precision = accumulator(product), None if product == product.held else product
        over = self.summed(c, at)
        scaled = bool(c.terms[0].outer) or summed != self.b.type_of(acc) or bool(over)
        start = tile.Fill(Lit(0, summed)) if scaled else acc
        counted = Counted(self.exclusion(c.shape.inner), self.tiles, lambda e: self.b.dtype(e).is_int)
        for term in c.terms:
            operand = self.operand_type(eq, term).held
            factors = (term.left, term.right) if at.row in self.tiles(c.shape.rows) else (term.right, term.left)
            first, second = counted.sides(multiplied(factors[0]), multiplied(factors[1]), rows, columns)
            left = self.b.typed(first.value, rows, operand)
            left = Elem("neg", (left,)) if term.negative and operand.is_float else left
            right = self.b.typed(second.value, columns, operand)
            left, right = self.b.bind("left", left, rows), self.b.bind("right", right, columns)
            if term.negative and operand.is_int:  # the least integer has no opposite, so the dot is negated
                zero = tile.Fill(Lit(0, summed))
                made = tile.Dot(left, right, zero, at.row, at.column, at.inner, at.batch)
                start = Elem("sub", (start, self.b.bind("dot", made, at.result)))
                continue
            inside = (self.truth(first.inside, rows), self.truth(second.inside, columns))
            start = tile.Dot(left, right, start, at.row, at.column, at.inner, at.batch, *inside, precision)
        if not scaled:
            return start
        value, order = self.b.bind("dot", start, at.result), at.result
        if over:
            order = (at.row, at.column)
            (value,) = self.b.fold(eq, over, (value,), at.result, (summed,))
        value = self.scaled(value, c.terms[0].outer, order)
        value = self.b.convert(value, self.b.type_of(acc))
        return value if isinstance(acc, tile.Fill) else Elem("add", (acc, value))

    def exclusion(self, over: Iterable[str]) -> Exclusion:
        """What a reduction over these axes leaves out, as far as this kernel can tell."""
        stored = self.read | (self.b.dtypes.keys() if self.context.level == 0 else self.b.given)
        walked = self.plan.along.union(*self.plan.inner)
        told = telling(self.named, self.definitions, walked, stored - self.definitions.keys())
        absent = self.named.keys() - self.definitions.keys() - stored
        return Exclusion(frozenset(over), self.domains, self.b.dtypes, told, absent)

    def counted(self, eq: Equation, body: Expr) -> Expr:
        """A body guarded where it does not count, comparisons in the form of bounds; itself if all of it counts."""
        found = self.exclusion(eq.over).guarded(body)
        return body if found is body else ordered(found, lambda x: self.b.dtype(x).is_int)

    def truth(self, p: Expr | None, order: tuple[str, ...]) -> Value | None:
        return None if p is None else self.b.bind("inside", self.b.typed(p, order, BOOL), order)

    def scaled(self, value: Value, outer: tuple[Expr, ...], order: tuple[str, ...]) -> Value:
        for factor in outer:
            t = join(self.b.type_of(value), compute(settle(self.b.dtype(factor))))
            value = Elem("mul", (self.b.convert(value, t), self.b.typed(factor, order, t)))
        return value

    def operand_type(self, eq: Equation, term: Term) -> DType:
        return self.context.unit(operand_type(term, self.origins.product(eq), self.b.dtypes))

    # ---------------------------------------------------------------------------------------------------------- stores

    def store(self, eq: Equation) -> None:
        """Compute an equation's outputs, unless they have values already, and write those that are stored."""
        order = self.extends(eq.axes)
        index = tuple(self.b.composite(dim) for dim in eq.dims)
        for n, (value, dtype) in enumerate(zip(self.results(eq, order), stored_types(eq), strict=True)):
            output = eq.outputs[0 if eq.outputs[0].dtype.is_complex else n]
            if output.name not in self.plan.stores:
                continue
            part = n if output.dtype.is_complex else None
            converted = self.b.convert(value, dtype)
            self.b.emit(tile.Store(output.name, index, converted, TileType(dtype, order), part=part))

    def store_rest(self) -> None:
        """Write the stored tensors that do not extend along the walked axes."""
        for eq in self.plan.equations:
            if self.plan.writes(eq) and self.plan.along.isdisjoint(eq.axes):
                self.store(eq)

    def results(self, eq: Equation, order: tuple[str, ...]) -> list[Value]:
        """The stored values of an equation."""
        types = stored_types(eq)
        if eq.name in self.known:
            return [self.known[component(eq, n)] for n in range(len(types))]
        if eq.monoid is None:
            return [self.b.typed(body, order, t) for body, t in zip(eq.bodies, types, strict=True)]
        return self.reduced(eq)


def component(eq: Equation, n: int) -> str:
    """The name of an equation's n-th stored value: a tensor, or a part of its one complex tensor."""
    return eq.outputs[n].name if n < len(eq.outputs) else f"{eq.name}#{n}"


def stored_types(eq: Equation) -> tuple[DType, ...]:
    """The type that each result is stored in: one for each output, or the two parts of a complex output."""
    first = eq.outputs[0].dtype
    return (first.part, first.part) if first.is_complex else tuple(t.dtype for t in eq.outputs)
