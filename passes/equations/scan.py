"""Prefixes instead of a reduction for every end: linear instead of quadratic work.

    C[i] = m[t : t <= i](f(t))         -->   one walk over t that carries its total      f free of i, |t| = |i|
    C[i] = m[t : t < i](f(t))          -->   C[i] = m[t : t <= i and t >= 1](f(t - 1))
    T[o] = m[t : t <= e(o)](f(t))      -->   S[p] = m[t : t <= p](f(t));  T[o] = where(e >= 0, S[min(e, |t| - 1)], unit)
    D[o] = sum[t : l < t <= e](f(t))   -->   S as before;  D[o] = where(l <= e, S[e] - S[l], 0)
    T[i] = m[t, k : t <= i](f(t, k))   -->   U[t] = m[k](f(t, k));  T[i] = m[t : t <= i](U[t])
    C[i] = m[t : t <= i](f(t; M[i]))   -->   one walk whose total follows M      (`running`)

And likewise for t >= i, from the other end. Except in the last law, the bound must have an axis that f does not depend
on, or nothing is gained. Prefixes along axes of one length walk one axis, so that prefixes that read others can share
the walk. A difference is for sums whose two ends have different such axes; where one axis has both ends, the window
between them is short or is walked from end to end. It is exact for integers; for floats it is as accurate as the larger
prefix. Terms of minus infinity, as of a closed gate, are left out of S, and the result is minus infinity where the last
of them lies in the interval; an interval after a term that is plus infinity or NaN is NaN.

A decay between any two positions has this shape: it takes n instead of n**3 work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

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
    substitute,
)
from einc.ein.guards import conjoin
from einc.ein.inference import dtype_of
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import bottom_up, names, unused
from einc.passes.algebra.domain import conjunction, holds
from einc.passes.algebra.scope import Scope, accumulated
from einc.passes.algebra.signs import is_finite
from einc.passes.equations.ends import Ends, Reads, moved, offset
from einc.passes.equations.inline import inline
from einc.passes.equations.restrictions import end, restricted
from einc.passes.equations.simplify import simplify
from einc.passes.streaming.prefix import is_alike, length_of, prefix
from einc.pipeline import Context


def scan(program: Program, context: Context) -> Program:
    """The program with its prefixes in normal form, and with reductions that are made of prefixes read from these."""
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
        axis = walked.setdefault(length_of(program, found.walked), found.walked)
        if axis not in (*eq.axes, *_axes(eq.expressions())):
            eq = replace(eq.map(lambda e: substitute(e, {found.walked: AxisValue(axis)})), over=(axis,))
        return _unguarded(eq, program)

    return replace(program, equations=tuple(map(over_one, program.equations)))


def _unguarded(eq: Equation, program: Program) -> Equation:
    """The equation without guards on reads of other equations that hold because axes have the same length."""
    shapes, given = program.shapes(), {p.name for p in program.operands}

    def free(n: Expr) -> Expr:
        if not isinstance(n, Read) or n.guard is None or n.tensor in given:
            return n
        inside = [
            Apply("lt", (at, Extent(dim[0])))
            for at, dim in zip(n.index, shapes[n.tensor], strict=True)
            if len(dim) == 1 and isinstance(at, AxisValue) and is_alike(program, at.axis, dim[0])
        ]
        left = conjunction([p for p in holds(n.guard) if p not in inside and p != TRUE])
        return replace(n, guard=left or (None if len(inside) == len(n.index) else TRUE))

    return eq.map(lambda e: bottom_up(e, free))


def _axes(expressions: Iterable[Expr]) -> set[str]:
    return {a for e in expressions for a in axes_of(e)}


class _Scans:
    def __init__(self, program: Program, context: Context) -> None:
        self.program, self.context = program, context
        self.scope = Scope(program.dtypes(), program.shapes())
        self.taken = names(program)
        self.axes: list[AxisDecl] = []
        self.done: list[Equation] = []
        self.places: dict[str, str] = {}  # for an axis, another one of the same length

    def equation(self, eq: Equation) -> list[Equation]:
        """The equation, or equations that compute the same by prefixes."""
        if eq.monoid is None:
            return [eq]
        done = prefix(eq, self.whole) is not None  # still rewritten if f does not depend on a second end
        for axis in eq.over:
            ends = self.ends(eq, axis)
            if ends is None or (done and not (ends.lower and ends.upper)):
                continue
            if (made := self.made(eq, ends)) is not None:
                return made
        return [eq] if done else self.following(eq) or [eq]

    @property
    def whole(self) -> Program:
        """The program as rewritten so far, with the remaining equations as they were."""
        made = {eq.name for eq in self.done}
        equations = (*self.done, *(eq for eq in self.program.equations if eq.name not in made))
        return replace(self.program, equations=equations, axes=(*self.program.axes, *self.axes))

    def following(self, eq: Equation) -> list[Equation] | None:
        """The equation as prefixes whose body depends on where they end, if their total can follow that end."""
        if len(eq.over) > 1:
            return None
        eq, (axis,) = _unguarded(eq, self.whole), eq.over
        terms, bodies = restricted(eq, self.program, self.whole, self.scope.shapes)
        for p in terms:
            side, e = end(p, axis, self.scope.dtypes) or ("", ZERO)
            i, _ = offset(e)
            if i in eq.axes and is_alike(self.whole, i, axis):
                own = tuple(a for a in eq.axes if a != i)
                lower, upper = ((e,) if side == s else () for s in ("ge", "le"))
                ends = Ends(axis, bodies, tuple(q for q in terms if q != p), own, lower, upper)
                made = self.in_place(eq, ends)
                if made is not None and prefix(made[0], self.whole) is not None:
                    return made
        return None

    def ends(self, eq: Equation, axis: str) -> Ends | None:
        """The ends of a reduced axis that the body does not depend on."""
        terms, bodies = restricted(eq, self.program, self.whole, self.scope.shapes)
        solved = {p: end(p, axis, self.scope.dtypes) for p in terms}
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
        """Where other axes are reduced as well, reduce these first, at each position of the walked axis."""
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
        alike = i is not None and is_alike(self.whole, i, ends.walked)
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
        """The expression at another position, with its reads made only where the terms hold."""
        guard = conjunction(terms)

        def guarded(n: Expr) -> Expr:
            if isinstance(n, Read) and any(a in axes_of(x) for x in n.index for a in _axes(at.values())):
                return replace(n, guard=conjoin(guard, None if n.guard == TRUE else n.guard))
            return n

        return bottom_up(substitute(e, at), guarded)

    def read_from(self, eq: Equation, ends: Ends) -> list[Equation]:
        """The prefixes at every position, and the equation as reads of them."""
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
        """The reduction of a body up to every position p, or from it on, under a name of its own."""
        name = unused(name, self.taken)
        self.taken.add(name)
        dims = tuple((a,) for a in (*ends.own, p))
        tensor = Tensor(name, accumulated(monoid, body, eq.outputs[0].dtype, self.scope.dtypes))
        self.scope.dtypes[name], self.scope.shapes[name] = tensor.dtype, dims
        order: Expr = Apply("le" if ends.upper else "ge", (AxisValue(ends.walked), AxisValue(p)))
        domain = conjunction((order, *ends.rest))
        return Equation((tensor,), dims, (body,), monoid, (ends.walked,), domain, eq.span)

    def position(self, ends: Ends) -> str:
        """An axis as long as the walked one: that of an end, if it is, or a new one."""
        for e in (*ends.upper, *ends.lower):
            if isinstance(e, AxisValue) and e.axis not in ends.own and is_alike(self.whole, e.axis, ends.walked):
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
