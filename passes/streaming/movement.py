"""How a scalar expression changes when the references inside it move: the algebra under streaming.

A reference d is a value that is still changing while an axis r is walked, such as a running maximum. When it moves from
d to d', an expression f(r; d) may move

    by a shift     f(r; d') = f(r; d) + s(d, d')                x - m, log(x / m)
    by a factor    f(r; d') = c(d, d') * f(r; d)                exp(x - m), (abs(x) / m) ** p
    by expansion   f(r; d') = sum_q c_q(d, d') * phi_q(r; d)    (x - m) ** 2, (x - m) * exp(x - m)

where s, c and c_q are free of r. Both criteria of the literature (a product G(x) * H(d), and an invertible update that
commutes with the reducer) are expansions of one term. Shifts and factors are found by the structure of the expression,
where exp and log turn one into the other; no derivative is taken and no equation solved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from einc import ein
from einc.base.types import compute
from einc.ein import ONE, ZERO, Apply, Cast, Const, Expr, Read
from einc.passes.algebra.folding import ZEROS, call, indicator, settled
from einc.passes.algebra.signs import not_negative
from einc.passes.streaming.monomials import Expansion, added, multiplied, scaled, within

NEW = "'"


def prime(name: str) -> str:
    """The name of a reference's value after the movement."""
    return name + NEW


@dataclass(frozen=True, slots=True)
class Movement:
    """The movement of `references` (tensor names) while the axes `over` are walked.

    References that are `maxima`, or made of them, keep quotients small whose dividend alone may overflow. `known` are
    tensors, moved or not, with no negative elements.
    """

    references: frozenset[str]
    over: frozenset[str]
    maxima: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()

    def depends(self, e: Expr) -> bool:
        """Does a reference occur in it?"""
        return not self.references.isdisjoint(ein.tensors_of(e))

    def varies(self, e: Expr) -> bool:
        """Does it depend on the position along the walked axes?"""
        return not self.over.isdisjoint(ein.axes_of(e))

    def after(self, e: Expr) -> Expr:
        """The expression at the moved references."""
        if isinstance(e, Read) and e.tensor in self.references:
            return Read(prime(e.tensor), e.index, e.guard, e.span)
        return ein.rebuild(e, self.after)

    # ---------------------------------------------------------------------------------------------------------- shifts

    def shift(self, e: Expr) -> Expr | None:
        """s with e' = e + s and s free of the walked axes, or None."""
        if not self.depends(e):
            return ZERO
        if not self.varies(e):
            return call("sub", self.after(e), e)
        match e:
            case Apply(op="add" | "sub" as op, args=(x, y)):
                return _both(op, self.shift(x), self.shift(y))
            case Apply(op="neg", args=(x,)):
                return _call_on("neg", self.shift(x))
            case Apply(op="mul", args=(x, y)) if self.constant(x):
                return _both("mul", x, self.shift(y))
            case Apply(op="mul" | "div" as op, args=(x, y)) if self.constant(y):
                return _both(op, self.shift(x), y)
            case Apply(op="log" | "log2" as op, args=(x,)):
                return _call_on(op, self.factor(x))
            case Apply(op="max" | "min", args=(x, y)):
                return _same(self.shift(x), self.shift(y))
            case Apply(op="where", args=(p, x, y)) if self.stands(p):
                return _same(*(self.shift(b) for b in (x, y) if not _infinite(b)))
            case Cast(dtype=dtype, arg=x) if dtype == compute(dtype) and dtype.is_float:
                return self.shift(x)
            case _:
                return None

    def constant(self, e: Expr) -> bool:
        """Is it free of both the references and the walked axes?"""
        return not self.depends(e) and not self.varies(e)

    # ------------------------------------------------------------------------------------------------------ predicates

    def stands(self, p: Expr) -> bool:
        """Does a truth value stay the same? Both sides of a comparison move by one shift, or one factor (0 by any)."""
        if not self.depends(p):
            return True
        match p:
            case Apply(op="not" | "and" | "or", args=args):
                return all(self.stands(q) for q in args)
            case Apply(op="eq" | "ne" | "lt" | "le" | "gt" | "ge" as op, args=args):
                scales = any(e in ZEROS for e in args)
                if not scales and _same(*(self.shift(e) for e in args if not _infinite(e))) is not None:
                    return True
                c = _same(*(self.factor(e) for e in args if e not in ZEROS))
                return c is not None and (op in ("eq", "ne") or not_negative(c, self.known))
            case _:
                return False

    # --------------------------------------------------------------------------------------------------------- factors

    def factor(self, e: Expr) -> Expr | None:
        """c with e' = c * e and c free of the walked axes, or None."""
        if not self.depends(e):
            return ONE
        found = self._structural_factor(e)
        if found is None and not self.varies(e):
            return call("div", self.after(e), e)
        return found

    def _structural_factor(self, e: Expr) -> Expr | None:
        match e:
            case Apply(op="exp" | "exp2" as op, args=(x,)):
                return _call_on(op, self.shift(x))
            case Apply(op="pow", args=(base, x)) if self.constant(base) and self.depends(x):
                return _both("pow", base, self.shift(x))
            case Apply(op="mul" | "div" as op, args=(x, y)):
                return _both(op, self.factor(x), self.factor(y))
            case Apply(op="neg", args=(x,)):
                return self.factor(x)
            case Apply(op="abs" | "sqrt" | "rsqrt" as op, args=(x,)):
                return _call_on(op, self.factor(x))
            case Apply(op="pow", args=(x, n)) if not self.depends(n) and not self.varies(n):
                return _both("pow", self.factor(x), n)
            case Apply(op="add" | "sub", args=(x, y)):
                return _same(self.factor(x), self.factor(y))
            case Apply(op="max" | "min", args=(x, y)):
                c = _same(self.factor(x), self.factor(y))
                return c if c is not None and not_negative(c, self.known) else None
            case Apply(op="where", args=(p, x, y)) if self.stands(p):
                return _same(*(self.factor(b) for b in (x, y) if b not in ZEROS))
            case Cast(dtype=dtype, arg=x) if dtype == compute(dtype) and dtype.is_float:
                return self.factor(x)
            case _:
                return None

    # ------------------------------------------------------------------------------------------------------ expansions

    def expand(self, e: Expr) -> Expansion | None:
        """Coefficients c_q, free of the walked axes, by monomials phi_q at the unmoved references, or None."""
        e = self.parted(e) if self.varies(e) else e
        if not self.varies(e):  # parts that vary may have cancelled
            return {(): self.after(e)}
        match e:
            case Apply(op="where", args=(p, x, y)) if self.alone(p) and (self.constant(x) or self.constant(y)):
                holds = self.after(p)
                return added(within(holds, self.expand(x)), within(Apply("not", (holds,)), self.expand(y)))
            case Apply(op="mul", args=(x, y)):
                return multiplied(self.expand(x), self.expand(y))
            case Apply(op="pow", args=(x, Const(value=int() | float() as n))) if n in range(2, 9):
                base = whole = self.expand(x)
                for _ in range(int(n) - 1):
                    whole = multiplied(whole, base)
                return whole
            case Apply(op="div", args=(x, y)) if not self.varies(y) and self.maxima.isdisjoint(ein.tensors_of(y)):
                return multiplied(self.expand(x), {(): call("div", ONE, self.after(y))})
        c = self.factor(e)
        if c is not None:
            return {((e, 1),): c}
        s = self.shift(e)
        if s is not None:
            return {((e, 1),): ONE, (): s}
        moved = self._affine(e)
        if moved is not None:
            return {((e, 1),): moved[0], (): moved[1]}
        return self._expand_wave(e) or self._expand_sum(e)

    def _affine(self, e: Expr) -> tuple[Expr, Expr] | None:
        """c and s with e' = c * e + s, where one side scales: e = x / m - u moves to c * e + (c * u - u').

        Only where c is made of maxima: any other reference may grow from near 0, and c * u - u' would cancel.
        """
        match e:
            case Apply(op="sub", args=(x, u)) if self.alone(u) and (c := self.unit(x)) is not None:
                return c, call("sub", call("mul", c, u), self.after(u))
            case Apply(op="sub", args=(u, x)) if self.alone(u) and (c := self.unit(x)) is not None:
                return c, call("sub", self.after(u), call("mul", c, u))
            case Apply(op="add", args=(x, u)) if self.alone(u) and (c := self.unit(x)) is not None:
                return c, call("sub", self.after(u), call("mul", c, u))
            case _:
                return None

    def unit(self, e: Expr) -> Expr | None:
        """The factor of an expression if it is made of maxima alone, or None."""
        c = self.factor(e)
        return c if c is not None and {name.removesuffix(NEW) for name in ein.tensors_of(c)} <= self.maxima else None

    def parted(self, e: Expr) -> Expr:
        """An expression with a `where` inside whose condition depends on references alone, as a `where` of expressions.

        Sums and products stay as they are: they expand with the `where` inside.
        """
        match e:
            case Apply(op="add" | "sub" | "mul" | "div" | "neg"):
                return e
            case Apply(op="where", args=(p, *_)) if self.stands(p):
                return e
        choices = (n.args[0] for n in ein.walk(e) if isinstance(n, Apply) and n.op == "where")
        found = next((p for p in choices if self.alone(p)), None)
        return e if found is None else Apply("where", (found, *(settled(_chosen(e, found, n)) for n in (1, 2))))

    def alone(self, e: Expr) -> bool:
        """Does it depend on the references, and on no walked axis?"""
        return self.depends(e) and not self.varies(e)

    def _expand_wave(self, e: Expr) -> Expansion | None:
        """sin(x + s) = sin(x) cos(s) + cos(x) sin(s), and the same for the cosine."""
        match e:
            case Apply(op="sin" | "cos" as op, args=(x,)) if (s := self.shift(x)) is not None:
                other = Apply("cos" if op == "sin" else "sin", (x,))
                turned = Apply("sin", (s,))
                return {((e, 1),): Apply("cos", (s,)), ((other, 1),): turned if op == "sin" else call("neg", turned)}
            case _:
                return None

    def _expand_sum(self, e: Expr) -> Expansion | None:
        match e:
            case Apply(op="add", args=(x, y)):
                return added(self.expand(x), self.expand(y))
            case Apply(op="sub", args=(x, y)):
                return added(self.expand(x), scaled(self.expand(y), Const(-1)))
            case Apply(op="neg", args=(x,)):
                return scaled(self.expand(x), Const(-1))
            case Apply(op="div", args=(x, y)):
                c = self.factor(y)
                if c is None:
                    return None
                return multiplied(self.expand(x), {((call("div", ONE, y), 1),): call("div", ONE, c)})
            case Apply(op="where", args=(p, x, y)) if self.stands(p):
                return added(self._masked(p, x), self._masked(Apply("not", (p,)), y))
            case Cast(dtype=dtype, arg=x) if dtype == compute(dtype) and dtype.is_float:
                return self.expand(x)
            case _:
                return None

    def _masked(self, p: Expr, e: Expr) -> Expansion | None:
        if e in ZEROS:
            return {}
        return multiplied({((indicator(p), 1),): ONE}, self.expand(e))

    def at_rest(self, e: Expr) -> Expr:
        """A coefficient c(d, d') where nothing has moved: c(d, d)."""
        return self.landed(e, {})

    def landed(self, e: Expr, drifts: Mapping[str, Expr]) -> Expr:
        """A coefficient c(d, d') where references have moved by these drifts: c(d, d + drift)."""
        return settled(self._unprimed(e, drifts))

    def _unprimed(self, e: Expr, drifts: Mapping[str, Expr]) -> Expr:
        if isinstance(e, Read) and e.tensor.endswith(NEW) and (name := e.tensor[: -len(NEW)]) in self.references:
            here = Read(name, e.index, e.guard, e.span)
            return Apply("add", (here, drifts[name])) if name in drifts else here
        return ein.rebuild(e, lambda below: self._unprimed(below, drifts))


def _chosen(e: Expr, p: Expr, side: int) -> Expr:
    """The expression with one side, 1 or 2, of every `where` with this condition."""
    if isinstance(e, Apply) and e.op == "where" and e.args[0] == p:
        return _chosen(e.args[side], p, side)
    return ein.rebuild(e, lambda below: _chosen(below, p, side))


def _infinite(e: Expr) -> bool:
    return isinstance(e, Const) and e.kind == "float" and e.value in (float("inf"), float("-inf"))


def _call_on(op: str, x: Expr | None) -> Expr | None:
    return None if x is None else call(op, x)


def _both(op: str, x: Expr | None, y: Expr | None) -> Expr | None:
    return None if x is None or y is None else call(op, x, y)


def _same(*found: Expr | None) -> Expr | None:
    return found[0] if found and all(f == found[0] for f in found) else None
