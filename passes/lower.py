"""Plans to kernels: tiles of abstract size, one walk over the walked axes for every chain of reductions that streams.

    T[o...] = monoid[r...](f)   -->   loop r...: state = combine(move(state), fold(f)); T = finish(state)

A sum of products whose two sides meet in one row, one column and one inner tile axis becomes a dot; any other reduction
folds its tile. What an equation of the plan reads from another is computed in place, once a block. Reductions that do
not stream with what they read get a walk of their own, after it.

Masks, tile sizes and the way to memory are left to `mask-edges`, `choose-tiles` and `place-loads`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from einc import ein, tile
from einc.ein import Apply, Equation, Expr, Program, Read
from einc.passes.alone import alone
from einc.passes.builder import Block, Builder
from einc.passes.closure import links
from einc.passes.contraction import Contraction, Term, contraction
from einc.passes.movement import prime
from einc.pipeline import Context, State
from einc.plan import Plan
from einc.sweep import Accumulator, Link, NotClosed, Reference
from einc.tile import Elem, Lit, Ref, TileType, Value
from einc.types import BF16, BOOL, F32, F64, INT, DType, accumulator, compute, join, settle


def lower(state: State, context: Context) -> State:
    """One kernel a plan; without plans, one an equation. Tensors that are not results live between kernels."""
    program = state.program
    plans = state.plans or tuple(alone(eq, program, context) for eq in program.equations)
    kernels = tuple(_Kernel(program, plan, context).lowered() for plan in plans)
    stored = {name for plan in plans for name in plan.stores}
    between = tuple(
        tile.Buffer(t.name, eq.dims, t.dtype)
        for eq in program.equations
        for t in eq.outputs
        if t.name in stored and t.name not in program.results
    )
    return State(program, tile.Schedule(kernels, between), state.plans)


class _Kernel:
    """The lowering of one plan."""

    def __init__(self, program: Program, plan: Plan, context: Context) -> None:
        self.program, self.plan, self.context = program, plan, context
        self.b = Builder(program, plan.equations, self.inside)
        self.definitions = {eq.name: eq for eq in plan.equations}
        self.known: dict[str, Value] = {}  # tensors and references that have a value here
        self.order: tuple[str, ...] = ()

    def lowered(self) -> tile.Kernel:
        """The kernel."""
        b, plan = self.b, self.plan
        batch = [b.axis((a,), "batch") for a in plan.batch]
        blocked = [b.axis(g, role) for g, role in ((plan.rows, "row"), (plan.columns, "column")) if g]
        whole = [b.axis((a,), "whole") for a in plan.whole]
        grid = (*batch, *blocked, *whole)
        b.enter(grid)
        self.order = tuple(a.name for a in grid if a.block is not None)
        walked = b.axis(plan.walked, "reduced") if plan.walked else None
        if walked is not None:
            self.walks(walked)
        for eq in self.outer():
            self.store(eq)
        return b.kernel(plan, grid)

    # ----------------------------------------------------------------------------------------------------------- walks

    def walks(self, axis: tile.TileAxis) -> None:
        """Walk the axis until every reduction over it has its value and every tensor along it is written."""
        over = set(self.plan.walked)
        waiting = [eq for eq in self.plan.equations if over & set(eq.over)]
        along = [eq for eq in self.plan.equations if over & set(eq.axes) and eq.name in self.plan.stores]
        while waiting or along:
            chain = [replace(eq, bodies=tuple(self.written_out(b, waiting) for b in eq.bodies)) for eq in waiting]
            found = links(chain, self.plan.walked)
            ready = [link for link in found if isinstance(link, Link)]
            late = {eq.name for eq in waiting}
            now = [eq for eq in along if not late & self.read_by(eq)]
            self.walk(axis, ready, now)
            waiting = [link.equation for link in found if isinstance(link, NotClosed)]
            waiting = [self.definitions[eq.name] for eq in waiting]
            along = [eq for eq in along if eq not in now]

    def outer(self) -> Iterable[Equation]:
        """The stored equations that do not extend along the walked axes."""
        over = set(self.plan.walked)
        return (eq for eq in self.plan.equations if eq.name in self.plan.stores and not over & set(eq.axes))

    def read_by(self, eq: Equation) -> set[str]:
        """Every tensor of the plan that an equation reads, directly or through others of the plan."""
        found: set[str] = set()
        stack = [eq]
        while stack:
            for e in stack.pop().expressions():
                for r in ein.reads(e):
                    if r.tensor in self.definitions and r.tensor not in found:
                        found.add(r.tensor)
                        stack.append(self.definitions[r.tensor])
        return found

    def written_out(self, e: Expr, waiting: list[Equation]) -> Expr:
        """The expression with pointwise tensors that depend on reductions still to be made written out."""
        late = {eq.name for eq in waiting}

        def out(n: Expr) -> Expr:
            if isinstance(n, Read) and n.tensor in self.definitions:
                eq = self.definitions[n.tensor]
                if eq.monoid is None and late & self.read_by(eq):
                    return out(ein.substitute(eq.body, dict(zip(eq.axes, n.index, strict=True))))
            return ein.rebuild(n, out)

        return out(e)

    def walk(self, axis: tile.TileAxis, chain: list[Link], stored: list[Equation]) -> None:
        """One loop over the axis: the states of the chain, and the stores of what lies along it."""
        walk = _Walk(self, axis, chain)
        before = dict(self.known)
        with self.b.loop(axis) as block:
            walk.step(block)
            self.order = (*self.order, axis.name)
            for eq in stored:
                self.store(eq)
            self.order = self.order[:-1]
        self.known = before
        walk.finish()

    # ---------------------------------------------------------------------------------------------------------- values

    def inside(self, read: Read, order: tuple[str, ...], _: DType) -> Value | None:
        """The value of a tensor that this kernel computes; None for one in memory."""
        if read.tensor in self.known:
            return self.known[read.tensor]
        eq = self.definitions.get(read.tensor)
        if eq is None:
            return None
        at = dict(zip(eq.axes, read.index, strict=True))
        if eq.monoid is None:
            value = self.b.typed(ein.substitute(eq.body, at), order, eq.outputs[0].dtype)
            return self.b.convert(value, compute(eq.outputs[0].dtype))
        assert all(ein.AxisValue(a) == e for a, e in at.items()), "a reduction is read where it was made"
        (made,) = self.reduced(eq)
        self.known[eq.name] = self.b.bind(eq.name, made, self.result_order(eq))
        return self.known[eq.name]

    def reduced(self, eq: Equation) -> list[Value]:
        """A reduction over axes that are held whole: its results."""
        assert eq.monoid is not None
        units = zip(eq.monoid.identity, self.state_types(eq), strict=True)
        made = self.reduce(eq, [tile.Fill(Lit(u, t)) for u, t in units], self.result_order(eq))
        return [made[k] for k in eq.monoid.results]

    def result_order(self, eq: Equation) -> tuple[str, ...]:
        """The tile axes an equation's value extends over, in the order that it is made in."""
        dots = self.contractions(eq)
        if dots is not None:
            sides = self.sides(dots[0])
            assert sides is not None
            return sides[:2]
        extends = {self.b.tile_of[a] for a in eq.axes}
        return tuple(t for t in self.order if t in extends)

    def reduce(self, eq: Equation, states: list[Value], order: tuple[str, ...]) -> list[Value]:
        """States combined with the reduction of this block: a dot where every body is a contraction, else a fold."""
        assert eq.monoid is not None
        dots = self.contractions(eq)
        if dots is not None:
            return [self.dotted(c, acc) for c, acc in zip(dots, states, strict=True)]
        over = tuple(dict.fromkeys(self.b.tile_of[a] for a in eq.over))
        inside = (*(a for a in order if a not in over), *over)
        types = self.state_types(eq)
        domain = None if eq.domain is None else self.b.typed(eq.domain, inside, BOOL)
        args: tuple[Value, ...] = ()
        for body, t, unit in zip(eq.bodies, types, eq.monoid.identity, strict=True):
            value = self.b.typed(body, inside, t)
            args += (value if domain is None else Elem("where", (domain, value, Lit(unit, t))),)
        for axis in reversed(over):
            args = self.b.fold(eq, axis, args, inside, types)
        if all(isinstance(s, tile.Fill) for s in states):
            return list(args)
        return list(self.b.combine(eq.monoid, tuple(states), args))

    def state_types(self, eq: Equation) -> tuple[DType, ...]:
        """Sums and products accumulate wide; an order keeps its type; a carried index is i64."""
        assert eq.monoid is not None
        found = []
        for body in eq.bodies:
            t = self.b.dtype(body)
            if eq.monoid.name in ("sum", "prod"):
                wide = accumulator(settle(t))
                found.append(wide if t.is_bool else join(wide, accumulator(eq.outputs[0].dtype.part)))
            else:
                found.append(BOOL if eq.monoid.name in ("any", "all") else compute(settle(t)))
        return tuple(found)

    # ---------------------------------------------------------------------------------------------------- contractions

    def contractions(self, eq: Equation) -> list[Contraction] | None:
        """The bodies of a sum as contractions over one row, column and inner tile axis that the target's dot takes."""
        if eq.monoid is None or eq.monoid.name != "sum":
            return None
        found: list[Contraction] = []
        for body in eq.bodies:
            c = contraction(eq, body, self.context.size, found[0].shape if found else None)
            if c is None or self.sides(c) is None:
                return None
            if any(not self.context.target.takes_dot(self.operand_type(t)) for t in c.terms):
                return None
            found.append(c)
        return found

    def sides(self, c: Contraction) -> tuple[str, str, str] | None:
        """The row, column and inner tile axis; None if one of them is several, or a batch axis extends over a tile."""
        groups = [self.tiles(axes) for axes in (c.shape.rows, c.shape.columns, c.shape.inner)]
        if any(len(g) != 1 for g in groups) or len(set().union(*groups)) < 3 or self.tiles(c.shape.batch):
            return None
        row, column, inner = (next(iter(g)) for g in groups)
        return row, column, inner

    def tiles(self, axes: Iterable[str]) -> set[str]:
        """The tile axes that a group of axes extends over; a position of one a program has none."""
        return {self.b.tile_of[a] for a in axes if self.b.types[self.b.tile_of[a]].axes}

    def dotted(self, c: Contraction, acc: Value) -> Value:
        sides = self.sides(c)
        assert sides is not None
        row, column, inner = sides
        scaled = bool(c.terms[0].outer)
        start = tile.Fill(Lit(0, accumulator(self.operand_type(c.terms[0])))) if scaled else acc
        for term in c.terms:
            operand = self.operand_type(term)
            left = self.b.typed(_product(term.left), (row, inner), operand)
            left = Elem("neg", (left,)) if term.negative else left
            right = self.b.typed(_product(term.right), (inner, column), operand)
            left, right = self.b.bind("left", left, (row, inner)), self.b.bind("right", right, (inner, column))
            start = tile.Dot(left, right, start, row, column, inner)
        if not scaled:
            return start
        value = self.scaled(self.b.bind("dot", start, (row, column)), c.terms[0].outer, (row, column))
        return value if isinstance(acc, tile.Fill) else Elem("add", (acc, value))

    def scaled(self, value: Value, outer: tuple[Expr, ...], order: tuple[str, ...]) -> Value:
        for factor in outer:
            t = join(self.b.type_of(value), compute(settle(self.b.dtype(factor))))
            value = Elem("mul", (self.b.convert(value, t), self.b.typed(factor, order, t)))
        return value

    def operand_type(self, term: Term) -> DType:
        """The common type of a dot's operands.

        A side that is read as it lies in memory, or cast, has a type of its own; a computed side takes its partner's,
        if that is a float. Two computed sides meet in f32 (f64 if either is).
        """
        left, right = self.own_type(term.left), self.own_type(term.right)
        if left is not None and right is not None:
            return join(left, right)
        own = left or right
        if F64 in (compute(settle(self.b.dtype(f))) for f in (*term.left, *term.right)):
            return F64
        if own is None or not own.is_float:
            return F32
        return BF16 if own.bits == 8 else own

    def own_type(self, side: tuple[Expr, ...]) -> DType | None:
        if len(side) > 1:
            return None
        match side[0]:
            case Read(tensor=name):
                stored = self.b.dtypes[name]
                return stored if name in self.b.given or stored != F32 else None
            case Apply(op="re" | "im", args=(Read(tensor=name),)):
                return self.b.dtypes[name].part
            case ein.Cast(dtype=dtype):
                return None if dtype == INT else dtype
            case e:
                t = settle(self.b.dtype(e))
                return t if t.is_int or t.is_bool else None

    # ---------------------------------------------------------------------------------------------------------- stores

    def store(self, eq: Equation) -> None:
        """Compute an equation's outputs, if they have no value yet, and write them."""
        extends = {self.b.tile_of[a] for a in eq.axes}
        order = tuple(t for t in self.order if t in extends)
        index = tuple(self.b.composite(dim) for dim in eq.dims)
        for n, (value, dtype) in enumerate(zip(self.results(eq, order), stored_types(eq), strict=True)):
            output = eq.outputs[0 if eq.outputs[0].dtype.is_complex else n]
            part = n if output.dtype.is_complex else None
            converted = self.b.convert(value, dtype)
            self.b.emit(tile.Store(output.name, index, converted, TileType(dtype, order), part=part))

    def results(self, eq: Equation, order: tuple[str, ...]) -> list[Value]:
        """The stored values of an equation."""
        types = stored_types(eq)
        if eq.name in self.known:
            return [self.known[component(eq.name, n)] for n in range(len(types))]
        if eq.monoid is None:
            return [self.b.typed(body, order, t) for body, t in zip(eq.bodies, types, strict=True)]
        return self.reduced(eq)


class _Walk:
    """One loop: the accumulators of a chain of links, how they move, and their final values."""

    def __init__(self, kernel: _Kernel, axis: tile.TileAxis, chain: list[Link]) -> None:
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
    return _renamed(e, {r.name: prime(r.name) for r in references})


def component(name: str, n: int) -> str:
    """The name of an equation's n-th stored value."""
    return f"{name}#{n}" if n else name


def stored_types(eq: Equation) -> tuple[DType, ...]:
    """The type each result is stored as: one an output, or the two parts of a complex output."""
    first = eq.outputs[0].dtype
    return (first.part, first.part) if first.is_complex else tuple(t.dtype for t in eq.outputs)


def _product(factors: tuple[Expr, ...]) -> Expr:
    whole = factors[0]
    for f in factors[1:]:
        whole = Apply("mul", (whole, f))
    return whole
