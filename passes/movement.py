"""How a scalar expression changes when the references inside it move: the algebra under streaming.

A reference d is a value that is still changing while an axis r is walked, such as a running maximum. When it moves from
d to d', an expression f(r; d) may move

    by a shift     f(r; d') = f(r; d) + s(d, d')                x - m, log(x / m)
    by a factor    f(r; d') = c(d, d') * f(r; d)                exp(x - m), (abs(x) / m) ** p
    by expansion   f(r; d') = sum_q c_q(d, d') * phi_q(r; d)    (x - m) ** 2, (x - m) * exp(x - m)

where s, c and c_q are free of r. The expansion contains both criteria of the literature (a product G(x) * H(d), and an
invertible update that commutes with the reducer): they are its case of one term. Shifts and factors are found by the
structure of the expression, exp and log leading from one to the other; no derivative is taken and no equation solved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from einc import ein
from einc.ein import FALSE, ONE, TRUE, ZERO, Apply, AxisValue, Cast, Const, Expr, Read
from einc.passes.signs import not_negative
from einc.types import compute

# A product of powers of factors, each free of further structure; the empty product is 1.
Monomial = tuple[tuple[Expr, int], ...]
Expansion = dict[Monomial, Expr]

_MOST_TERMS = 64
_ZEROS = (ZERO, Const(0.0))
NEW = "'"
_LOGARITHMS = {  # of the base of a power
    ("log", "exp"): 1,
    ("log", "exp2"): math.log(2),
    ("log2", "exp"): math.log2(math.e),
    ("log2", "exp2"): 1,
}


def prime(name: str) -> str:
    """The name of a reference's value after the movement."""
    return name + NEW


def call(op: str, *args: Expr) -> Expr:
    """An operation with what 0 and 1 do to it, and differences of equals, carried out."""
    match op, args:
        case "add", (x, y) if ZERO in (x, y):
            return y if x == ZERO else x
        case "add", (x, y) if x == y:
            return Apply("mul", (Const(2), x))
        case "sub", (x, y) if y == ZERO:
            return x
        case "sub", (x, y) if x == ZERO:
            return call("neg", y)
        case "sub", (x, y) if x == y:
            return ZERO
        case "sub", (Apply(op="add", args=(x, y)), z) if x == z:
            return y
        case "sub", (x, Apply(op="add", args=(y, z))) if x == y:
            return call("neg", z)
        case "mul", (x, y) if ZERO in (x, y):
            return ZERO
        case "mul", (x, y) if ONE in (x, y):
            return y if x == ONE else x
        case "div", (x, y) if y == ONE or x == ZERO:
            return x
        case "div", (x, y) if x == y:
            return ONE
        case "div", (x, Apply(op="div", args=(y, z))) if x == ONE:
            return Apply("div", (z, y))
        case "neg", (x,) if x == ZERO:
            return ZERO
        case "neg", (Apply(op="neg", args=(x,)),):
            return x
        case "neg", (Apply(op="sub", args=(x, y)),):
            return Apply("sub", (y, x))
        case "exp" | "exp2" | "cos", (x,) if x == ZERO:
            return ONE
        case "sin", (x,) if x == ZERO:
            return ZERO
        case "pow", (_, y) if y == ZERO:
            return ONE
        case "log" | "log2", (x,) if x == ONE:
            return ZERO
        case "log" | "log2", (Apply(op="exp" | "exp2" as power, args=(x,)),):
            return call("mul", Const(_LOGARITHMS[op, power]), x)
        case "log" | "log2", (Apply(op="mul" | "div" as joined, args=(x, y)),) if _is_power(x) or _is_power(y):
            return call("add" if joined == "mul" else "sub", call(op, x), call(op, y))
        case "pow", (x, y) if y == ONE or x == ONE:
            return x
        case "abs", (x,) if x == ONE:
            return ONE
        case "pow", (x, Const(value=n)) if x in _ZEROS and n > 0:
            return ZERO
        case "eq" | "le" | "ge" | "ne" | "lt" | "gt", (x, y) if x in _ZEROS and y in _ZEROS:
            return TRUE if op in ("eq", "le", "ge") else FALSE
        case "where", (p, x, y) if p in (TRUE, FALSE):
            return x if p == TRUE else y
        case "where", (_, x, y) if x == y:
            return x
        case _:
            return Apply(op, args)


@dataclass(frozen=True, slots=True)
class Movement:
    """The movement of `references` (tensor names) while the axes `over` are walked.

    Those that are `maxima`, or made of them, keep small what they divide, which alone may be too large. What is `known`
    not to be negative is tensors, moved or not.
    """

    references: frozenset[str]
    over: frozenset[str]
    maxima: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()

    def depends(self, e: Expr) -> bool:
        """Whether a reference occurs in it."""
        return any(isinstance(n, Read) and n.tensor in self.references for n in ein.walk(e))

    def varies(self, e: Expr) -> bool:
        """Whether it depends on the position along the walked axes."""
        return any(isinstance(n, AxisValue) and n.axis in self.over for n in ein.walk(e))

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
        """Free of both the references and the walked axes."""
        return not self.depends(e) and not self.varies(e)

    # ------------------------------------------------------------------------------------------------------ predicates

    def stands(self, p: Expr) -> bool:
        """Whether a truth value stays what it is: what is compared moves alike, infinity by a shift, 0 by a factor."""
        if not self.depends(p):
            return True
        match p:
            case Apply(op="not" | "and" | "or", args=args):
                return all(self.stands(q) for q in args)
            case Apply(op="eq" | "ne" | "lt" | "le" | "gt" | "ge" as op, args=args):
                scales = any(e in _ZEROS for e in args)
                if not scales and _same(*(self.shift(e) for e in args if not _infinite(e))) is not None:
                    return True
                c = _same(*(self.factor(e) for e in args if e not in _ZEROS))
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
                return _same(*(self.factor(b) for b in (x, y) if b not in _ZEROS))
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
                return _sum(_within(holds, self.expand(x)), _within(Apply("not", (holds,)), self.expand(y)))
            case Apply(op="mul", args=(x, y)):
                return _product(self.expand(x), self.expand(y))
            case Apply(op="pow", args=(x, Const(value=int() | float() as n))) if n in range(2, 9):
                base = whole = self.expand(x)
                for _ in range(int(n) - 1):
                    whole = _product(whole, base)
                return whole
            case Apply(op="div", args=(x, y)) if not self.varies(y) and self.maxima.isdisjoint(ein.tensors_of(y)):
                return _product(self.expand(x), {(): call("div", ONE, self.after(y))})
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
        """c and s with e' = c * e + s, where one side scales: x / m - u = c * (x / m - u) + c * u - u'.

        By maxima alone: what grows from next to nothing would leave c * u - u' to cancel.
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
        """The factor of an expression in units of maxima, or None."""
        c = self.factor(e)
        return c if c is not None and {name.removesuffix(NEW) for name in ein.tensors_of(c)} <= self.maxima else None

    def parted(self, e: Expr) -> Expr:
        """An expression with a choice inside that references alone make, as that choice of expressions.

        Sums and products expand with the choice where it is.
        """
        match e:
            case Apply(op="add" | "sub" | "mul" | "div" | "neg"):
                return e
            case Apply(op="where", args=(p, *_)) if self.stands(p):
                return e
        choices = (n.args[0] for n in ein.walk(e) if isinstance(n, Apply) and n.op == "where")
        found = next((p for p in choices if self.alone(p)), None)
        return e if found is None else Apply("where", (found, *(_settled(_chosen(e, found, n)) for n in (1, 2))))

    def alone(self, e: Expr) -> bool:
        """Whether the references move it, and nothing else does."""
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
                return _sum(self.expand(x), self.expand(y))
            case Apply(op="sub", args=(x, y)):
                return _sum(self.expand(x), _scaled(self.expand(y), Const(-1)))
            case Apply(op="neg", args=(x,)):
                return _scaled(self.expand(x), Const(-1))
            case Apply(op="div", args=(x, y)):
                c = self.factor(y)
                if c is None:
                    return None
                return _product(self.expand(x), {((call("div", ONE, y), 1),): call("div", ONE, c)})
            case Apply(op="where", args=(p, x, y)) if self.stands(p):
                return _sum(self._masked(p, x), self._masked(Apply("not", (p,)), y))
            case Cast(dtype=dtype, arg=x) if dtype == compute(dtype) and dtype.is_float:
                return self.expand(x)
            case _:
                return None

    def _masked(self, p: Expr, e: Expr) -> Expansion | None:
        if e in _ZEROS:
            return {}
        return _product({((indicator(p), 1),): ONE}, self.expand(e))

    def at_rest(self, e: Expr) -> Expr:
        """A coefficient c(d, d') where nothing has moved: c(d, d)."""
        return self.landed(e, {})

    def landed(self, e: Expr, drifts: Mapping[str, Expr]) -> Expr:
        """A coefficient c(d, d') where references have moved by so much: c(d, d + drift)."""
        return _settled(self._unprimed(e, drifts))

    def _unprimed(self, e: Expr, drifts: Mapping[str, Expr]) -> Expr:
        if isinstance(e, Read) and e.tensor.endswith(NEW) and (name := e.tensor[: -len(NEW)]) in self.references:
            here = Read(name, e.index, e.guard, e.span)
            return Apply("add", (here, drifts[name])) if name in drifts else here
        return ein.rebuild(e, lambda below: self._unprimed(below, drifts))


def indicator(p: Expr) -> Expr:
    """1 where p holds, else 0."""
    return Apply("where", (p, ONE, ZERO))


def written(m: Monomial) -> Expr:
    """A monomial as an expression; its indicators become masks around the rest, so that 0 times anything is 0."""
    whole: Expr | None = None
    masks = []
    for factor, power in m:
        match factor:
            case Apply(op="where", args=(p, x, y)) if x == ONE and y == ZERO:
                masks.append(p)
                continue
        for _ in range(power):
            whole = factor if whole is None else Apply("mul", (whole, factor))
    body = ONE if whole is None else whole
    for p in masks:
        body = Apply("where", (p, body, ZERO))
    return body


def _is_power(e: Expr) -> bool:
    """Whether a logarithm undoes it; what it was is known where it is too small to be told from 0."""
    return isinstance(e, Apply) and e.op in ("exp", "exp2")


def _chosen(e: Expr, p: Expr, side: int) -> Expr:
    """The expression with one side, 1 or 2, of all that depends on a predicate."""
    if isinstance(e, Apply) and e.op == "where" and e.args[0] == p:
        return _chosen(e.args[side], p, side)
    return ein.rebuild(e, lambda below: _chosen(below, p, side))


def _settled(e: Expr) -> Expr:
    """The expression with equal terms cancelled, from the leaves up."""
    match e:
        case Apply(op=op, args=args):
            return call(op, *(_settled(a) for a in args))
        case _:
            return e


def _infinite(e: Expr) -> bool:
    return isinstance(e, Const) and e.kind == "float" and e.value in (float("inf"), float("-inf"))


def _call_on(op: str, x: Expr | None) -> Expr | None:
    return None if x is None else call(op, x)


def _both(op: str, x: Expr | None, y: Expr | None) -> Expr | None:
    return None if x is None or y is None else call(op, x, y)


def _same(*found: Expr | None) -> Expr | None:
    return found[0] if found and all(f == found[0] for f in found) else None


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for factor, power in b:
        is_mask = isinstance(factor, Apply) and factor == indicator(factor.args[0])
        powers[factor] = 1 if is_mask else powers.get(factor, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: repr(item[0])))


def _sum(a: Expansion | None, b: Expansion | None) -> Expansion | None:
    if a is None or b is None:
        return None
    whole = dict(a)
    for m, c in b.items():
        whole[m] = call("add", whole.get(m, ZERO), c)
    return whole


def _within(p: Expr, a: Expansion | None) -> Expansion | None:
    """The expansion where a predicate holds, and nothing elsewhere."""
    return None if a is None else {m: call("where", p, c, ZERO) for m, c in a.items() if c not in _ZEROS}


def _scaled(a: Expansion | None, c: Expr) -> Expansion | None:
    if a is None:
        return None
    return {m: call("neg", x) if c == Const(-1) else call("mul", c, x) for m, x in a.items()}


def _product(a: Expansion | None, b: Expansion | None) -> Expansion | None:
    if a is None or b is None or len(a) * len(b) > _MOST_TERMS:
        return None
    whole: Expansion = {}
    for m, c in a.items():
        for n, d in b.items():
            mn = _times(m, n)
            whole[mn] = call("add", whole.get(mn, ZERO), call("mul", c, d))
    return whole


def factors_of(m: Monomial) -> Iterable[Expr]:
    """The distinct factors of a monomial."""
    return (factor for factor, _ in m)
