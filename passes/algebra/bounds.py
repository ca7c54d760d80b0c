"""Predicates solved for one axis: an interval that it lies in, with bounds that are expressions free of it.

    j <= i                    -->   j < i + 1
    j <= i or j < prefix      -->   j < max(i + 1, prefix)      the hull of the alternatives
    abs(i - j) < w            -->   i - w < j < i + w
    j // c == i // c          -->   i // c * c <= j < (i // c + 1) * c
    (c * j + i) // c == k     -->   j == k - i // c
    (j + i) // c == j // c    -->   j < where(i < c and i > -c, |j|, 0)
    2 * j <= i                -->   j < i // 2 + 1
    j + c <= j + i            -->   j < where(c <= i, |j|, 0)
    i < length[b]             -->   j < where(i < length[b], |j|, 0)

A predicate that cannot be solved bounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from einc import ein
from einc.base.ops import DENIED, MIRRORED
from einc.base.types import I32, I64, U64, DType
from einc.ein import ONE, ZERO, Apply, AxisValue, Cast, Const, Expr
from einc.ein.inference import dtype_of, exact, is_position
from einc.passes.algebra.domain import is_positive
from einc.passes.algebra.folding import call


@dataclass(frozen=True, slots=True)
class Bounds:
    """The axis is at least each of `lowest` and less than each of `beyond`, integers free of the axis.

    Within these bounds each of the predicates in `decided` holds, and need not be evaluated.
    """

    lowest: tuple[Expr, ...] = ()
    beyond: tuple[Expr, ...] = ()
    decided: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class _Range:
    """Bounds of one predicate; `exact` where they are equivalent to it, `free` where it is so of all or nothing."""

    lowest: tuple[Expr, ...]
    beyond: tuple[Expr, ...]
    exact: bool
    free: bool = False


_ANYWHERE = _Range((), (), False)


def bounds(
    predicates: Iterable[Expr], axis: str, whole: Expr, known: Callable[[Expr], bool], dtypes: Mapping[str, DType]
) -> Bounds:
    """The bounds that the predicates together put on an axis of `whole` positions.

    `known` says whether an expression without the axis is an integer or truth value that is available beforehand. The
    bounds are computed in 64 bits; what a predicate computes in a narrower type is computed in that type (`exact`).
    """
    solver = _Solver(axis, whole, known, dtypes)
    found = Bounds()
    for p in sorted(predicates, key=repr):
        r = solver.range(p)
        lowest = () if solver.is_free(p) or r.free else r.lowest  # where it is false, `beyond` says enough
        decided = (p,) if r.exact else ()
        found = Bounds(found.lowest + lowest, found.beyond + r.beyond, found.decided + decided)
    return found


@dataclass(frozen=True, slots=True)
class _Solver:
    axis: str
    whole: Expr
    known: Callable[[Expr], bool]
    dtypes: Mapping[str, DType]

    def is_free(self, e: Expr) -> bool:
        return self.axis not in ein.axes_of(e)

    def range(self, p: Expr) -> _Range:
        """Where along the axis a predicate may hold."""
        match p:
            case Const(True):
                return _Range((), (), True)
            case Const(False):
                return _Range((self.whole,), (ZERO,), True)
            case Apply(op="and", args=(x, y)):
                a, b = self.range(x), self.range(y)
                return _Range(a.lowest + b.lowest, a.beyond + b.beyond, a.exact and b.exact)
            case Apply(op="or", args=(x, y)):
                return self.hull(x, y)
            case Apply(op="not", args=(x,)):
                return self.opposite(x, p)
            case Apply(op="where", args=(c, x, y)):
                return self.range(call("or", call("and", c, x), call("and", Apply("not", (c,)), y)))
            case _ if self.is_free(p):
                return self.free(p)
            case Apply(op=op, args=(a, b)) if op in MIRRORED:
                return self.comparison(op, a, b)
            case _:
                return _ANYWHERE

    def free(self, p: Expr) -> _Range:
        """A predicate without the axis holds at all of its positions, or at none."""
        if not self.known(p):
            return _ANYWHERE
        return _Range((Apply("where", (p, ZERO, self.whole)),), (Apply("where", (p, self.whole, ZERO)),), True, True)

    def opposite(self, x: Expr, p: Expr) -> _Range:
        match x:
            case Apply(op="and", args=(a, b)):
                return self.range(call("or", Apply("not", (a,)), Apply("not", (b,))))
            case Apply(op="or", args=(a, b)):
                return self.range(call("and", Apply("not", (a,)), Apply("not", (b,))))
            case Apply(op="not", args=(a,)):
                return self.range(a)
            case Apply(op=op, args=args) if op in DENIED and not self.is_free(x):
                return self.range(Apply(DENIED[op], args))  # integers, since only their comparisons are solved
            case _:
                return self.free(p) if self.is_free(p) else _ANYWHERE

    def hull(self, x: Expr, y: Expr) -> _Range:
        """The interval around two others; equivalent to their union where both are open on the same side."""
        for free, other in ((x, y), (y, x)):
            if self.is_free(free) and self.known(free):
                r = self.range(other)
                return self.chosen(Apply("not", (free,)), r, r.exact)
        a = self.range(x)
        if not (a.lowest or a.beyond):
            return a  # whatever y is
        b = self.range(y)
        lowest = (_met("min", _met("max", *a.lowest), _met("max", *b.lowest)),) if a.lowest and b.lowest else ()
        beyond = (_met("max", _met("min", *a.beyond), _met("min", *b.beyond)),) if a.beyond and b.beyond else ()
        single = not (a.lowest or b.lowest) or not (a.beyond or b.beyond)
        return _Range(lowest, beyond, a.exact and b.exact and single)

    def chosen(self, p: Expr, r: _Range, exact: bool) -> _Range:
        """The range where p holds, and everything where it does not."""
        lowest = tuple(Apply("where", (p, e, ZERO)) for e in r.lowest)
        return _Range(lowest, tuple(Apply("where", (p, e, self.whole)) for e in r.beyond), exact)

    # ---------------------------------------------------------------------------------------------------- comparisons

    def comparison(self, op: str, a: Expr, b: Expr) -> _Range:
        """`a op b`, where one term of the difference contains the axis."""
        if U64 in (dtype_of(a, self.dtypes), dtype_of(b, self.dtypes)):
            return _ANYWHERE
        left, right = self.linear(exact(a, self.dtypes)), self.linear(exact(b, self.dtypes))
        if left is None or right is None or (left[1] is not None and right[1] not in (None, left[1])):
            return self.neighbours(a, b) if op == "eq" else _ANYWHERE
        atom = left[1] if left[1] is not None else right[1]
        factor = left[0] - right[0]
        if atom is None:
            return _ANYWHERE
        if factor == 0:
            return self.free(Apply(op, (left[2], right[2])))
        if factor > 0:
            return self.scaled(op, atom, Const(factor), call("sub", right[2], left[2]))
        return self.scaled(MIRRORED[op], atom, Const(-factor), call("sub", left[2], right[2]))

    def neighbours(self, a: Expr, b: Expr) -> _Range:
        """Where `x // c == y // c`, x and y are less than c apart, which may say more than either quotient."""
        match a, b:
            case (Apply("floordiv", (x, Const(int() as n))), Apply("floordiv", (y, Const(int() as m)))) if n == m > 0:
                near = call("add", y, Const(n)), call("sub", y, Const(n))
                found = self.both(self.comparison("lt", x, near[0]), self.comparison("gt", x, near[1]))
                return _Range(found.lowest, found.beyond, False)
            case _:
                return _ANYWHERE

    def linear(self, e: Expr) -> tuple[int, Expr | None, Expr] | None:
        """(c, term, rest) with e = c * term + rest, where only the term contains the axis."""
        if self.is_free(e):
            return 0, None, e
        match e:
            case Apply(op="add" | "sub" as op, args=(x, y)):
                left, right = self.linear(x), self.linear(y)
                if left is None or right is None or (None not in (left[1], right[1]) and left[1] != right[1]):
                    return None
                sign = 1 if op == "add" else -1
                term = right[1] if left[1] is None else left[1]
                return left[0] + sign * right[0], term, call(op, left[2], right[2])
            case Apply(op="neg", args=(x,)):
                inner = self.linear(x)
                return None if inner is None else (-inner[0], inner[1], call("neg", inner[2]))
            case Apply(op="mul", args=(Const(int() as n), x)) | Apply(op="mul", args=(x, Const(int() as n))):
                inner = self.linear(x)
                return None if inner is None else (n * inner[0], inner[1], call("mul", Const(n), inner[2]))
            case Apply(op="floordiv", args=(x, Const(int() as n))) if n > 0:
                inner = self.linear(x)
                if inner is None or inner[0] % n:
                    return 1, e, ZERO
                return inner[0] // n, inner[1], call("floordiv", inner[2], Const(n))
            case Cast(dtype=t, arg=x) if t == I64 and is_position(dtype_of(x, self.dtypes)):
                return self.linear(x)
            case Cast(dtype=t, arg=AxisValue() | Cast() as x) if t.kind == "i" and t.bits >= I32.bits:
                return self.linear(x)
            case _:
                return 1, e, ZERO

    def scaled(self, op: str, x: Expr, n: Expr, v: Expr) -> _Range:
        """`x * n op v` for a positive n."""
        if n == ONE:
            return self.term(op, x, v)
        below, above = call("floordiv", v, n), call("neg", call("floordiv", call("neg", v), n))
        match op:
            case "le" | "gt":
                return self.term(op, x, below)
            case "lt" | "ge":
                return self.term(op, x, above)
            case "eq":
                return self.both(self.term("ge", x, above), self.term("le", x, below))
            case _:
                return _ANYWHERE

    def both(self, a: _Range, b: _Range) -> _Range:
        return _Range(a.lowest + b.lowest, a.beyond + b.beyond, a.exact and b.exact)

    def term(self, op: str, x: Expr, v: Expr) -> _Range:
        """`x op v` for a term x that contains the axis."""
        if op == "ne" or not self.known(v):
            return _ANYWHERE
        match x:
            case AxisValue():
                lowest = (v if op != "gt" else self.after(v),) if op in ("gt", "ge", "eq") else ()
                beyond = (v if op == "lt" else self.after(v),) if op in ("lt", "le", "eq") else ()
                return _Range(lowest, beyond, True)
            case Apply(op="abs", args=(y,)):
                return self.distance(op, y, v)
            case Apply(op="max" | "min" as which, args=(y, z)):
                return self.extreme(which, op, y, z, v)
            case Apply(op="floordiv", args=(y, n)) if self.is_free(n):
                return self.positive(n, lambda m: self.quotient(op, y, m, v))
            case Apply(op="mul", args=(y, n)) if self.is_free(n):
                return self.positive(n, lambda m: self.product(op, y, m, v))
            case Apply(op="mul", args=(n, y)) if self.is_free(n):
                return self.positive(n, lambda m: self.product(op, y, m, v))
            case Apply(op="where", args=(c, y, z)):
                return self.range(Apply("where", (c, Apply(op, (y, v)), Apply(op, (z, v)))))
            case _:
                return _ANYWHERE

    def after(self, v: Expr) -> Expr:
        """The position after v; v is clamped to the axis where it is 64-bit data, which may be the greatest integer."""
        wide = any(dtype_of(r, self.dtypes) == I64 for r in ein.reads(v))
        return call("add", Apply("min", (v, self.whole)) if wide else v, ONE)

    def distance(self, op: str, y: Expr, v: Expr) -> _Range:
        up, down = Apply(op, (y, v)), Apply(MIRRORED[op], (y, call("neg", v)))
        return self.range(call("and", up, down) if op in ("lt", "le") else call("or", up, down))

    def extreme(self, which: str, op: str, y: Expr, z: Expr, v: Expr) -> _Range:
        if op == "eq":
            found = self.extreme(which, "le" if which == "max" else "ge", y, z, v)
            return _Range(found.lowest, found.beyond, False)
        every = (which == "max") == (op in ("lt", "le"))
        return self.range(call("and" if every else "or", Apply(op, (y, v)), Apply(op, (z, v))))

    def positive(self, n: Expr, f: Callable[[Expr], _Range]) -> _Range:
        """What f gives for a positive n; where the sign of n is not known, under the condition that n is positive."""
        if not self.known(n):
            return _ANYWHERE
        if is_positive(n):
            return f(n)
        return self.chosen(Apply("gt", (n, ZERO)), f(Apply("max", (n, ONE))), False)

    def quotient(self, op: str, y: Expr, n: Expr, v: Expr) -> _Range:
        """`y // n op v`."""
        start, after = call("mul", v, n), call("mul", call("add", v, ONE), n)
        match op:
            case "lt" | "ge":
                return self.comparison(op, y, start)
            case "le":
                return self.comparison("lt", y, after)
            case "gt":
                return self.comparison("ge", y, after)
            case _:
                return self.both(self.comparison("ge", y, start), self.comparison("lt", y, after))

    def product(self, op: str, y: Expr, n: Expr, v: Expr) -> _Range:
        """`y * n op v`."""
        found = self.linear(y)
        if found is None or found[1] is None or found[0] != 1:
            return _ANYWHERE
        return self.scaled(op, found[1], n, call("sub", v, call("mul", found[2], n)))


def _met(op: str, *values: Expr) -> Expr:
    return reduce(lambda a, b: a if a == b else Apply(op, (a, b)), values)
