"""Prefixes instead of a reduction for every end: the work of one walk, not that of its square.

    C[i] = m[t : t <= i](f(t))         -->   one walk over t that carries its total      f free of i, |t| = |i|
    C[i] = m[t : t < i](f(t))          -->   C[i] = m[t : t <= i and t >= 1](f(t - 1))
    T[o] = m[t : t <= e(o)](f(t))      -->   S[p] = m[t : t <= p](f(t));  T[o] = where(e >= 0, S[min(e, |t| - 1)], unit)
    D[o] = sum[t : l < t <= e](f(t))   -->   S as before;  D[o] = where(l <= e, S[e] - S[l], 0)
    T[i] = m[t, k : t <= i](f(t, k))   -->   U[t] = m[k](f(t, k));  T[i] = m[t : t <= i](U[t])
    C[i] = m[t : t <= i](f(t; M[i]))   -->   one walk whose total follows M      (`running`)

And likewise for t >= i, from the other end. Elsewhere the bound must have an axis that f does not know, or nothing is
gained. Prefixes along axes of one length walk one axis, so that those that read others can share the walk. A difference
is for sums whose two ends have different such axes; where one axis has both ends, the window between them is short or
is walked from end to end. It is exact for integers; of floats it is as good as the larger prefix. Terms of minus
infinity, as of a gate that is shut, are left out of S, and count where the last of them lies in the interval; an
interval behind a term that is plus infinity or NaN is NaN.

A decay between any two positions has this shape: n**3 work that is n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from einc.base.types import I32
from einc.ein import (
    TRUE,
    ZERO,
    Apply,
    AxisDecl,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Monoid,
    Program,
    Read,
    Tensor,
    axes_of,
    reads,
    substitute,
)
from einc.ein.guards import argument_guard, composite, conjoin
from einc.ein.inference import dtype_of
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import bottom_up, names, unused
from einc.passes.algebra.bounds import bounds
from einc.passes.algebra.domain import conjunction, fails, holds
from einc.passes.algebra.scope import Scope, accumulated
from einc.passes.algebra.signs import is_finite, makes_no_negative
from einc.passes.equations.ends import Ends, Reads, moved, offset
from einc.passes.equations.inline import inline
from einc.passes.equations.simplify import simplify
from einc.passes.streaming.running import Along, End, Running, is_along, knows_its_end, running
from einc.pipeline import Context


@dataclass(frozen=True, slots=True)
class Prefix:
    """What an equation `T[..., i] = monoid[t : t <= i and domain](f)` is where the domain is free of i and |t| = |i|:
    prefixes along t, one for every i; with t >= i, suffixes. Where f is not free of i, it follows it (`running`)."""

    scanned: str
    walked: str
    rows: tuple[str, ...]
    reverse: bool
    domain: Expr | None
    running: Running | None = None


def prefix(eq: Equation, program: Program) -> Prefix | None:
    """The prefixes that an equation makes; None if it makes none."""
    if eq.monoid is None or len(eq.over) != 1 or eq.domain is None:
        return None
    (walked,) = eq.over
    terms = holds(eq.domain)
    for n, p in enumerate(terms):
        match p:
            case Apply("le" | "ge" as op, (AxisValue(t), AxisValue(i))) if t == walked and i in eq.axes:
                rest = conjunction([q for k, q in enumerate(terms) if k != n])
                if (rest is not None and i in axes_of(rest)) or not _is_alike(program, i, t):
                    continue
                found = Prefix(i, t, tuple(a for a in eq.axes if a != i), op == "ge", rest)
                if i not in _axes(eq.bodies):
                    return found
                if (followed := _followed(eq, found, program)) is not None:
                    return replace(found, running=followed)
    return None


def _followed(eq: Equation, found: Prefix, program: Program) -> Running | None:
    """What prefixes that know their end carry, if it follows that."""
    end = End(found.scanned, found.walked, found.reverse)
    if eq.domain is None or not knows_its_end(eq, end):
        return None
    length = _length(program, found.walked)
    return running(replace(eq, domain=found.domain), end, _along(program, eq.name, length, found.reverse))


@lru_cache(maxsize=256)
def _along(program: Program, name: str, length: Expr, reverse: bool) -> Along:
    """What is known of the tensors made before one, along axes of a length, walked from one end."""
    along = Along()
    for eq in program.equations:
        if eq.name == name:
            break
        if any(t.dtype.is_complex for t in eq.outputs):
            continue
        places: list[tuple[str, int]] = []
        for k, dim in enumerate(eq.dims):
            if len(dim) == 1 and _length(program, dim[0]) == length and _runs(eq, dim[0], reverse, along, program):
                places += [(t.name, k) for t in eq.outputs]
        extreme = None if eq.monoid is None else eq.monoid.extreme
        along = Along(
            along.places.union(places),
            along.greatest.union([eq.name] if extreme == "max" else []),
            along.orders.union([eq.name] if extreme else []),
            along.positive.union([eq.name] if makes_no_negative(eq, along.positive) else []),
        )
    return along


def _runs(eq: Equation, axis: str, reverse: bool, along: Along, program: Program) -> bool:
    """Does an equation's value along an axis go on as a walk from one end does?"""
    if eq.monoid is None:
        return is_along(eq.body, axis, along)
    found = prefix(eq, program)
    return found is not None and found.scanned == axis and found.reverse == reverse


def scan(program: Program, context: Context) -> Program:
    """The program with its prefixes in their form, and with what is made of prefixes read from them."""
    scans = _Scans(program, context)
    for eq in program.equations:
        scans.done += scans.equation(eq)
    changed = _with_one_walk(replace(program, equations=tuple(scans.done), axes=(*program.axes, *scans.axes)))
    return program if changed == program else simplify(inline(changed, context), context)


def _with_one_walk(program: Program) -> Program:
    """The program with prefixes along axes of one length written over one axis."""
    walked: dict[Expr, str] = {}

    def over_one(eq: Equation) -> Equation:
        found = prefix(eq, program)
        if found is None:
            return eq
        axis = walked.setdefault(_length(program, found.walked), found.walked)
        if axis not in (*eq.axes, *_axes(eq.expressions())):
            eq = replace(eq.map(lambda e: substitute(e, {found.walked: AxisValue(axis)})), over=(axis,))
        return _unguarded(eq, program)

    return replace(program, equations=tuple(map(over_one, program.equations)))


def _unguarded(eq: Equation, program: Program) -> Equation:
    """The equation with no read of what others make guarded by what axes of one length say: that it is in range."""
    shapes, given = program.shapes(), {p.name for p in program.operands}

    def free(n: Expr) -> Expr:
        if not isinstance(n, Read) or n.guard is None or n.tensor in given:
            return n
        inside = [
            Apply("lt", (at, Extent(dim[0])))
            for at, dim in zip(n.index, shapes[n.tensor], strict=True)
            if len(dim) == 1 and isinstance(at, AxisValue) and _is_alike(program, at.axis, dim[0])
        ]
        left = conjunction([p for p in holds(n.guard) if p not in inside and p != TRUE])
        return replace(n, guard=left or (None if len(inside) == len(n.index) else TRUE))

    return eq.map(lambda e: bottom_up(e, free))


def _axes(expressions: Iterable[Expr]) -> set[str]:
    return {a for e in expressions for a in axes_of(e)}


def _contexts(e: Expr, own: Read, context: Expr | None) -> Iterator[Expr | None]:
    """What holds at every read of a tensor, None for nothing; nothing does at one that is not at its own axes."""
    match e:
        case Read(tensor, index, guard):
            inner = conjoin(context, guard)
            if tensor == own.tensor:
                yield inner if index == own.index else None
            for x in index:
                yield from _contexts(x, own, inner)
            if guard is not None:
                yield from _contexts(guard, own, context)
        case Apply(op, args):
            for k, arg in enumerate(args):
                yield from _contexts(arg, own, argument_guard(op, args[:k], context))
        case Cast(arg=arg):
            yield from _contexts(arg, own, context)
        case _:
            pass


def _length(program: Program, axis: str) -> Expr:
    """The extent of an axis, by the axis that it is declared to be as long as."""
    declared = {a.name: a.extent for a in program.axes}
    extent: Expr = Extent(axis)
    while isinstance(extent, Extent) and (formula := declared.get(extent.axis)) is not None:
        extent = formula
    return extent


def _is_alike(program: Program, a: str, b: str) -> bool:
    """Have two axes the same extent, whatever the operands are?"""
    return _length(program, a) == _length(program, b)


class _Scans:
    def __init__(self, program: Program, context: Context) -> None:
        self.program, self.context = program, context
        self.scope = Scope(program.dtypes(), program.shapes())
        self.taken = names(program)
        self.axes: list[AxisDecl] = []
        self.done: list[Equation] = []
        self.places: dict[str, str] = {}  # an axis as long as another, by that

    def equation(self, eq: Equation) -> list[Equation]:
        """The equation, or those that give the same by prefixes."""
        if eq.monoid is None:
            return [eq]
        done = prefix(eq, self.whole) is not None  # and made of others where it has a second end that f does not know
        for axis in eq.over:
            ends = self.ends(eq, axis)
            if ends is None or (done and not (ends.lower and ends.upper)):
                continue
            if (made := self.made(eq, ends)) is not None:
                return made
        return [eq] if done else self.following(eq) or [eq]

    @property
    def whole(self) -> Program:
        """The program as far as it is made, and as it was from there on."""
        made = {eq.name for eq in self.done}
        equations = (*self.done, *(eq for eq in self.program.equations if eq.name not in made))
        return replace(self.program, equations=equations, axes=(*self.program.axes, *self.axes))

    def following(self, eq: Equation) -> list[Equation] | None:
        """The equation as prefixes whose body knows where they end, if it follows that."""
        if len(eq.over) > 1:
            return None
        eq, (axis,) = _unguarded(eq, self.whole), eq.over
        terms, bodies = self.restricted(eq)
        for p in terms:
            side, e = self.end(p, axis) or ("", ZERO)
            i, _ = offset(e)
            if i in eq.axes and _is_alike(self.whole, i, axis):
                own = tuple(a for a in eq.axes if a != i)
                lower, upper = ((e,) if side == s else () for s in ("ge", "le"))
                ends = Ends(axis, bodies, tuple(q for q in terms if q != p), own, lower, upper)
                made = self.in_place(eq, ends)
                if made is not None and prefix(made[0], self.whole) is not None:
                    return made
        return None

    def ends(self, eq: Equation, axis: str) -> Ends | None:
        """The ends of a reduced axis that the body does not know."""
        terms, bodies = self.restricted(eq)
        solved = {p: self.end(p, axis) for p in terms}
        known = _axes((*bodies, *(p for p in terms if solved[p] is None)))
        ends = {p: e for p, e in solved.items() if e is not None and not _axes((e[1],)) <= known}
        reduced = set(eq.over)
        if not ends or any(reduced & _axes((e,)) for _, e in ends.values()):
            return None
        if math.prod(self.context.size(a) for a in _axes(e for _, e in ends.values()) - known) < 2:
            return None
        lower, upper = (tuple(e for s, e in ends.values() if s == side) for side in ("ge", "le"))
        own = tuple(a for a in eq.axes if a in known)
        return Ends(axis, bodies, tuple(p for p in terms if p not in ends), own, lower, upper)

    def restricted(self, eq: Equation) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
        """The conditions under which a position counts, and what is reduced there, free of guards that they imply."""
        assert eq.monoid is not None
        terms = () if eq.domain is None else holds(eq.domain)
        bodies = eq.bodies
        unit = eq.monoid.unit
        if len(bodies) == 1 and unit is not None:
            more, body = self.peeled(bodies[0], unit.value)
            terms, bodies = (*terms, *more), (body,)
        terms = tuple(dict.fromkeys(terms))
        holding = self.needed(eq).union(terms)
        return terms, tuple(self.freed(b, holding) for b in bodies)

    def needed(self, eq: Equation) -> frozenset[Expr]:
        """Conditions that hold wherever the equation's value is read."""
        if len(eq.outputs) > 1 or eq.name in self.program.results:
            return frozenset()
        own = Read(eq.name, tuple(composite(dim) for dim in eq.dims))
        places = [
            frozenset() if context is None else frozenset(holds(context))
            for e in self.program.equations
            for x, outer in (*((b, e.domain) for b in e.bodies), *(() if e.domain is None else ((e.domain, None),)))
            for context in _contexts(x, own, outer)
        ]
        return frozenset.intersection(*places) if places else frozenset()

    def peeled(self, e: Expr, unit: float) -> tuple[tuple[Expr, ...], Expr]:
        """The conditions without which an expression is the unit, and the expression where they hold."""
        match e:
            case Apply("where", (p, x, y)) if _is_unit(y, unit):
                terms, inner = self.peeled(x, unit)
                return (*holds(p), *terms), inner
            case Apply("where", (p, x, y)) if _is_unit(x, unit):
                terms, inner = self.peeled(y, unit)
                return (*fails(p), *terms), inner
            case Apply("neg", (x,)) if unit == 0 and unit is not False:
                terms, inner = self.peeled(x, unit)
                return terms, Apply("neg", (inner,))
            case Apply("mul", (x, y)) if unit == 0 and unit is not False:
                (some, left), (more, right) = self.peeled(x, unit), self.peeled(y, unit)
                return (*some, *more), Apply("mul", (left, right))
            case Apply("div", (x, y)) if unit == 0 and unit is not False:
                terms, inner = self.peeled(x, unit)
                return terms, Apply("div", (inner, y))
            case Cast(dtype, x) if dtype.is_float:
                terms, inner = self.peeled(x, unit)
                return terms, Cast(dtype, inner)
            case _:
                return (), e

    def freed(self, e: Expr, holding: frozenset[Expr]) -> Expr:
        """The expression with no read guarded by what holds anyhow."""

        def free(n: Expr) -> Expr:
            if not isinstance(n, Read) or n.guard is None:
                return n
            left = [p for p in holds(n.guard) if p not in holding]
            dims = self.scope.shapes[n.tensor]
            certain = all(
                len(dim) == 1 and isinstance(at, AxisValue) and _is_alike(self.whole, at.axis, dim[0])
                for at, dim in zip(n.index, dims, strict=True)
            )
            return replace(n, guard=conjunction(left) or (None if certain else TRUE))

        return bottom_up(e, free)

    def end(self, p: Expr, axis: str) -> tuple[str, Expr] | None:
        """The side on which a condition bounds the axis, and the last position there."""
        if axis not in axes_of(p):
            return None
        dtypes = self.scope.dtypes
        found = bounds((p,), axis, Extent(axis), lambda e: dtype_of(e, dtypes).kind in "ib", dtypes)
        match found.lowest, found.beyond, found.decided:
            case (e,), (), (_,):
                return "ge", moved(_from_zero(e), 0)
            case (), (e,), (_,):
                return "le", moved(_from_zero(e), -1)
            case _:
                return None

    # ---------------------------------------------------------------------------------------------------------- laws

    def made(self, eq: Equation, ends: Ends) -> list[Equation] | None:
        assert eq.monoid is not None
        if ends.lower and ends.upper and not self.is_difference(eq, ends):
            return None
        if len(eq.over) > 1 and (not eq.monoid.commutative or len(eq.bodies) > 1):
            return None
        before, ends = self.inner(eq, ends)
        found = self.in_place(eq, ends)
        if found is None and len(eq.bodies) == 1:
            found = self.read_from(eq, ends)
        return None if found is None else [*before, *found]

    def is_difference(self, eq: Equation, ends: Ends) -> bool:
        assert eq.monoid is not None
        unknown = [_axes(side) - set(ends.own) for side in (ends.lower, ends.upper)]
        return eq.monoid.op == "add" and unknown[0] != unknown[1]

    def inner(self, eq: Equation, ends: Ends) -> tuple[list[Equation], Ends]:
        """What is reduced at each position of the walked axis, where other axes are reduced as well."""
        over = tuple(a for a in eq.over if a != ends.walked)
        if not over:
            return [], ends
        axes = tuple(a for a in (*eq.axes, ends.walked) if a in (*ends.own, ends.walked))
        tensor = self.tensor(f"{eq.name}_terms", eq, ends.bodies[0])
        dims = tuple((a,) for a in axes)
        u = Equation((tensor,), dims, ends.bodies, eq.monoid, over, conjunction(ends.rest), eq.span)
        self.scope.dtypes[tensor.name], self.scope.shapes[tensor.name] = tensor.dtype, dims
        body = Read(tensor.name, tuple(AxisValue(a) for a in axes))
        return self.equation(u), replace(ends, bodies=(body,), rest=())

    def in_place(self, eq: Equation, ends: Ends) -> list[Equation] | None:
        """The equation as prefixes, if it has them at the positions of an axis of its own."""
        if len(ends.lower) + len(ends.upper) > 1:
            return None
        i, step = offset((*ends.lower, *ends.upper)[0])
        alike = i is not None and _is_alike(self.whole, i, ends.walked)
        backwards = bool(ends.lower)
        if i is None or {i, *ends.own} != set(eq.axes) or i in ends.own:
            return None
        if (step < 0 or not alike) if backwards else step > 0:
            return None
        t = ends.walked if alike else self.place(i)
        at = moved(AxisValue(t), step)
        terms: list[Expr] = [Apply("ge" if backwards else "le", (AxisValue(t), AxisValue(i)))]
        terms += [Apply("ge", (AxisValue(t), Const(-step)))] if step < 0 else []
        terms += [Apply("lt", (at, Extent(ends.walked)))] if step > 0 or not alike else []
        if len(terms) == 1:
            bodies, rest = ends.bodies, ends.rest
        else:
            bodies, rest = (
                tuple(self.shifted(e, {ends.walked: at}, terms[1:]) for e in s) for s in (ends.bodies, ends.rest)
            )
        return [replace(eq, bodies=bodies, over=(t,), domain=conjunction((*terms, *rest)))]

    def shifted(self, e: Expr, at: dict[str, Expr], terms: Sequence[Expr]) -> Expr:
        """The expression at another position, its reads there only where the terms hold."""
        guard = conjunction(terms)

        def guarded(n: Expr) -> Expr:
            if isinstance(n, Read) and any(a in axes_of(x) for x in n.index for a in _axes(at.values())):
                return replace(n, guard=conjoin(guard, None if n.guard == TRUE else n.guard))
            return n

        return bottom_up(substitute(e, at), guarded)

    def read_from(self, eq: Equation, ends: Ends) -> list[Equation]:
        """The prefixes at every position, and the equation as what it reads from them."""
        assert eq.monoid is not None
        p = self.position(ends)
        reads = Reads(self.whole, eq, ends, p)
        (term,) = ends.bodies
        between = bool(ends.lower and ends.upper)
        if not between or not dtype_of(term, self.scope.dtypes).is_float or is_finite(term):
            s = self.prefixes(eq, f"{eq.name}_scan", eq.monoid, term, ends, p)
            body = reads.difference(s.name) if between else reads.single(s.name)
            return [s, replace(eq, bodies=(body,), monoid=None, over=(), domain=None)]
        nothing = Apply("eq", (term, Const(-math.inf)))
        place = Cast(I32, Apply("where", (nothing, AxisValue(ends.walked), Const(-1))))
        s = self.prefixes(eq, f"{eq.name}_scan", eq.monoid, Apply("where", (nothing, ZERO, term)), ends, p)
        last = self.prefixes(eq, f"{eq.name}_last", MONOIDS["max"], place, ends, p)
        body = reads.difference(s.name, last.name)
        return [s, last, replace(eq, bodies=(body,), monoid=None, over=(), domain=None)]

    def prefixes(self, eq: Equation, name: str, monoid: Monoid, body: Expr, ends: Ends, p: str) -> Equation:
        """The reductions of a body up to every position p, or from it on, under a name of their own."""
        name = unused(name, self.taken)
        self.taken.add(name)
        dims = tuple((a,) for a in (*ends.own, p))
        tensor = Tensor(name, accumulated(monoid, body, eq.outputs[0].dtype, self.scope.dtypes))
        self.scope.dtypes[name], self.scope.shapes[name] = tensor.dtype, dims
        order: Expr = Apply("le" if ends.upper else "ge", (AxisValue(ends.walked), AxisValue(p)))
        domain = conjunction((order, *ends.rest))
        return Equation((tensor,), dims, (body,), monoid, (ends.walked,), domain, eq.span)

    def position(self, ends: Ends) -> str:
        """An axis as long as the walked one: one of the ends, if it is, or a new one."""
        for e in (*ends.upper, *ends.lower):
            if isinstance(e, AxisValue) and e.axis not in ends.own and _is_alike(self.whole, e.axis, ends.walked):
                return e.axis
        return self.place(ends.walked)

    def place(self, axis: str) -> str:
        """A new axis as long as another."""
        if axis not in self.places:
            name = self.places[axis] = unused(axis, self.taken)
            self.taken.add(name)
            self.axes.append(AxisDecl(name, Extent(axis)))
        return self.places[axis]

    def tensor(self, wanted: str, eq: Equation, body: Expr) -> Tensor:
        assert eq.monoid is not None
        name = unused(wanted, self.taken)
        self.taken.add(name)
        return Tensor(name, accumulated(eq.monoid, body, eq.outputs[0].dtype, self.scope.dtypes))


def _from_zero(e: Expr) -> Expr:
    """An end that, read from data, is no lower than where positions begin: the least integer has none before it."""
    return Apply("max", (e, ZERO)) if reads(e) and not isinstance(e, Cast) else e


def _is_unit(e: Expr, unit: float) -> bool:
    while isinstance(e, Cast):
        e = e.arg
    return isinstance(e, Const) and isinstance(e.value, bool) == isinstance(unit, bool) and e.value == unit
