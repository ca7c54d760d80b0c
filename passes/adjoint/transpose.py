"""The adjoint of a read: which positions it was read from, for each position of the tensor.

    T[o] = sum[r](f(A[e(o, r)]))    -->    dA[a] += sum[o, r : a == e(o, r)](dT[o] * f')

The equation a == e(o, r) is solved for as many of the axes o and r as it determines, which leave the sum:

    A[j, i]          j := a0, i := a1
    A[2 * i + k]     i := (a - k) // 2    where (a - k) % 2 == 0 and 0 <= (a - k) // 2 < |i|
    A[h // n]        h := a * n + t       t a new axis of extent n
    A[t % n]         t := k * n + a       k a new axis
    A[token[b]]      b stays, where token[b] == a

What determines nothing stays a condition of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

from einc.ein import ONE, ZERO, Apply, AxisDecl, AxisValue, Const, Expr, Extent, Read, axes_of, rebuild, substitute
from einc.ein.conditions import all_of, conjuncts, placed
from einc.ein.guards import composite, conjoin, positions
from einc.ein.ranges import is_closed
from einc.passes.algebra.folding import call
from einc.passes.algebra.linear import combined, form, linear, written

Dims = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is added to a gradient at each position of its tensor: a sum over axes, or one value where there are none.

    It is 0 where the condition does not hold.
    """

    over: tuple[str, ...]
    condition: Expr | None
    value: Expr


@dataclass
class Axes:
    """The axes of the program with their declared extents, to which new ones are added."""

    extents: dict[str, Expr | None]
    taken: set[str]
    added: list[AxisDecl] = field(default_factory=list)
    after: dict[str, str] = field(default_factory=dict)  # what those are named after

    def fresh(self, wanted: str, extent: Expr, beside: Container[str] = ()) -> str:
        """A new axis, named after another: the same for the same extent, but where that is among those `beside`."""
        for known in self.added:
            if self.after.get(known.name) == wanted and known.extent == extent and known.name not in beside:
                return known.name
        name, n = wanted, 1
        while name in self.taken:
            n += 1
            name = f"{wanted}_{n}"
        self.taken.add(name)
        self.extents[name], self.after[name] = extent, wanted
        self.added.append(AxisDecl(name, extent))
        return name

    def same(self, a: str, b: str) -> bool:
        """Do two axes have the same extent by their declarations?"""
        return self._root(a) == self._root(b)

    def _root(self, axis: str) -> Expr:
        """The extent as far as it follows from others."""
        e = self.extents.get(axis)
        while isinstance(e, Extent):
            axis, e = e.axis, self.extents.get(e.axis)
        return Extent(axis) if e is None else e


def transposed(
    read: Read,
    value: Expr,
    guard: Expr | None,
    space: tuple[str, ...],
    dims: Dims,
    axes: Axes,
    shapes: Mapping[str, Dims],
) -> Piece:
    """What a read contributes to the gradient of its tensor, of dimensions `dims`, at each of its positions.

    `space` are the axes that the read varies over; `value` is the contribution at each position of them, where the
    guard holds; `shapes` are the dimensions of all tensors.
    """
    own = tuple(axis for group in dims for axis in group)
    solving = Solving(axes, list(space), {*space, *own})
    solving.solve_all(positions(dims, read.index))
    solving.meet_all([e for group, e in zip(dims, read.index, strict=True) if not group])
    condition = conjoin(guard, read.guard)
    inside = [] if condition is None else [substitute(c, solving.solved) for c in conjuncts(condition)]
    final: dict[str, Expr] = {_own(a): AxisValue(a) for a in own}
    taken = {*own, *solving.open}
    names = {x: axes.fresh(x, Extent(x), taken) if x in own else x for x in solving.open}
    final |= {x: AxisValue(name) for x, name in names.items()}
    conditions = [substitute(c, final) for c in (*solving.conditions, *inside)]
    value = substitute(substitute(value, solving.solved), final)
    piece = pointed(Piece(tuple(names.values()), all_of(conditions), value))
    if not solving.conditions and piece.over == tuple(names.values()):
        return piece  # every read is where it was, under other names: in range, or guarded
    return guarded(piece, shapes)


def _own(axis: str) -> str:
    """A tensor's own axis, apart from one of that name that the read varies over."""
    return f"{axis}'"


@dataclass
class Solving:
    """Axes of a sum, `open` while nothing determines them, then `solved` in terms of the tensor's own axes.

    `met` are all axes that there have been.
    """

    axes: Axes
    open: list[str]
    met: set[str]
    solved: dict[str, Expr] = field(default_factory=dict)
    conditions: list[Expr] = field(default_factory=list)

    def solve_all(self, wanted: Mapping[str, Expr]) -> None:
        """Solve for the position along each own axis, those that are a bare axis first; others become conditions."""
        left = dict(wanted)
        for bare in (True, False):
            for a, e in list(left.items()):
                if (isinstance(e, AxisValue) or not bare) and self._solve(a, e):
                    del left[a]
        for a, e in left.items():
            self.conditions.append(Apply("eq", (AxisValue(_own(a)), self._reduced(substitute(e, self.solved)))))

    def meet_all(self, zeros: Iterable[Expr]) -> None:
        """In dimensions without axes there is one position, 0."""
        for e in zeros:
            at = self._reduced(substitute(e, self.solved))
            self.conditions += [] if at == ZERO else [Apply("eq", (at, ZERO))]

    def _solve(self, own: str, position: Expr) -> bool:
        """Determine axes from position == own, if the form of the position tells how."""
        position, at = self._reduced(substitute(position, self.solved)), AxisValue(_own(own))
        match position:
            case AxisValue(x) if x in self.open:
                self._set(x, at, most=not self.axes.same(x, own))
                return True
            case Apply("floordiv", (x, n)) if is_closed(n):
                whole = Apply("exactdiv", (Extent(x.axis), Extent(own))) if isinstance(x, AxisValue) else None
                return self._split(x, lambda t: call("add", call("mul", at, n), t), n, most=n != whole)
            case Apply("mod", (AxisValue(x), n)) if is_closed(n) and x in self.open:
                count = Apply("floordiv", (call("add", Extent(x), call("sub", n, ONE)), n))
                if n != Extent(own):
                    self.conditions.append(Apply("lt", (at, n)))
                return self._split(AxisValue(x), lambda k: call("add", call("mul", k, n), at), count, most=True)
        if self._composite(position, at):
            return True
        return any(self._affine(x, position, at) for x in axes_of(position) if x in self.open)

    def _set(self, axis: str, e: Expr, least: bool = False, most: bool = True) -> None:
        """An axis is determined: e takes its place everywhere, where it is at `least` 0 and at `most` the last."""
        here = {axis: e}
        self.open.remove(axis)
        self.solved = {a: substitute(x, here) for a, x in self.solved.items()} | here
        self.conditions = [substitute(c, here) for c in self.conditions]
        self.conditions += [Apply("le", (ZERO, e))] if least else []
        self.conditions += [Apply("lt", (e, Extent(axis)))] if most else []

    def _composite(self, position: Expr, at: Expr) -> bool:
        """Solve g * |r| + r == at, for any number of axes."""
        group = axes_of(position)
        if len(group) < 2 or position != composite(group) or not set(group) <= set(self.open):
            return False
        for axis in reversed(group[1:]):
            at, rest = Apply("floordiv", (at, Extent(axis))), Apply("mod", (at, Extent(axis)))
            self._set(axis, rest, most=False)
        self._set(group[0], at)
        return True

    def _affine(self, x: str, position: Expr, at: Expr) -> bool:
        """Solve factor * x + rest == at; a factor other than 1 and -1 has to divide."""
        found = linear(position, x)
        if found is None:
            return False
        factor, rest = found
        left = _difference(at, rest)
        if factor == Const(-1):
            self._set(x, _difference(rest, at), least=True)
        elif factor == ONE:
            self._set(x, left, least=rest != ZERO)
        elif isinstance(factor, Extent) or (isinstance(factor, Const) and factor.value > 1):
            self.conditions.append(Apply("eq", (Apply("mod", (left, factor)), ZERO)))
            self._set(x, Apply("floordiv", (left, factor)), least=rest != ZERO)
        else:
            return False
        return True

    def _split(self, x: Expr, value: Callable[[Expr], Expr], extent: Expr, most: bool) -> bool:
        """The axis in x = axis + c takes as many values as a new axis has positions: `value` of it, less c."""
        for axis in [a for a in axes_of(x) if a in self.open]:
            factor, rest = linear(x, axis) or (ZERO, ZERO)
            if factor == ONE and set(self.open).isdisjoint(axes_of(rest)):
                new = self.axes.fresh(axis, extent, self.met)
                self.open.append(new)
                self.met.add(new)
                self._set(axis, call("sub", value(AxisValue(new)), rest), least=rest != ZERO, most=most or rest != ZERO)
                return True
        return False

    def _reduced(self, e: Expr) -> Expr:
        """Remainders and quotients of what was solved before: (a * n + t) % n is t, // n is a, where t < n."""
        e = rebuild(e, self._reduced)
        match e:
            case Apply("mod" | "floordiv" as op, (Apply("add", (Apply("mul", (a, n)), AxisValue(t))), m)) if (
                m == n and self.axes.extents.get(t) == n
            ):
                return AxisValue(t) if op == "mod" else a
        return e


def _difference(a: Expr, b: Expr) -> Expr:
    """What is added first and what is subtracted after it, where both are sums of such terms."""
    first, second = form(a), form(b)
    return call("sub", a, b) if first is None or second is None else written(combined((1, first), (-1, second)))


def guarded(piece: Piece, shapes: Mapping[str, Dims]) -> Piece:
    """The piece with all reads that may leave their tensors, of these dimensions, under guards."""
    condition = None if piece.condition is None else placed(piece.condition, None, shapes)
    return Piece(piece.over, condition, placed(piece.value, condition, shapes))


def pointed(piece: Piece) -> Piece:
    """The piece with axes that a condition equates to something put there: a sum over r where r == e is its term."""
    for p in conjuncts(piece.condition):
        for axis, e in _equated(p):
            if axis in piece.over and axis not in axes_of(e):
                here = {axis: e}
                rest: list[Expr] = [Apply("le", (ZERO, e)), Apply("lt", (e, Extent(axis)))]  # before what reads there
                rest += [substitute(q, here) for q in conjuncts(piece.condition) if q is not p]
                over = tuple(a for a in piece.over if a != axis)
                return pointed(Piece(over, all_of(rest), substitute(piece.value, here)))
    return piece


def _equated(p: Expr) -> list[tuple[str, Expr]]:
    """The axes that a condition equates to something, with what."""
    if not isinstance(p, Apply) or p.op != "eq":
        return []
    x, y = p.args
    return [(a.axis, e) for a, e in ((x, y), (y, x)) if isinstance(a, AxisValue)]
