"""Where an expression may differ from a neutral value: predicates that leave 0, 1 or an infinity where they fail.

    where(p, x, 0), exp(where(p, x, -inf))     differ from 0 where p holds
    x + where(p, 0, -inf)                      differs from -inf where p holds
    T[e], T[i] = where(p, x, 0)                differs from 0 where p holds, at e
    where(x == -inf, 0, exp(x - y))            differs from 0 where x is not masked, whatever elements are infinite

A product differs from 0 where each factor does; a sum where any of its terms does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import assert_never

from einc.base.ops import COMPARISONS, DENIED, OPS
from einc.ein import (
    FALSE,
    Apply,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Read,
    Scalar,
    axes_of,
    children,
    substitute,
)
from einc.ein.guards import in_range_by_form

Domain = frozenset[Expr]  # predicates, all of which must hold

EVERYWHERE: Domain = frozenset()
_TRUTH = (*COMPARISONS, "and", "or", "not")


@dataclass(frozen=True, slots=True)
class Domains:
    """The domains of expressions that read tensors; the definitions of `named` ones are looked into."""

    named: Mapping[str, Equation] = field(default_factory=dict)
    known: dict[tuple[str, float], Domain] = field(default_factory=dict)

    def of(self, e: Expr, nothing: float) -> Domain:
        """Predicates, each of which must hold for the expression to differ from `nothing`: 0, 1 or an infinity."""
        match e:
            case Const():
                return frozenset((FALSE,)) if e.value == nothing else EVERYWHERE
            case Cast(arg=x):
                return self.of(x, nothing)
            case Read():
                return self._of_read(e, nothing)
            case Apply(op="where", args=(p, Const(value=0), y)) if nothing == 0:
                return self.of(y, 0).union(self.told(q for q in fails(p) if not _is_limit(q, y)))
            case Apply(op="where", args=(p, x, Const(value=0))) if nothing == 0:
                return self.of(x, 0).union(self.told(q for q in holds(p) if not _is_limit(q, x)))
            case Apply(op="where", args=(p, x, y)):
                a, b = self.of(x, nothing), self.of(y, nothing)
                return a if a == b else either(a.union(self.told(holds(p))), b.union(self.told(fails(p))))
            case Apply(op=op) if op in _TRUTH and not math.isinf(nothing):
                return frozenset(self.told(fails(e) if nothing else holds(e)))
            case Apply(op=op, args=args) if nothing == 0:
                return self._of_zero(op, args)
            case Apply(op=op, args=args) if math.isinf(nothing):
                return self._of_infinity(op, args, nothing)
            case Apply(op="exp" | "exp2", args=(x,)) if nothing == 1:
                return self.of(x, 0)
            case Apply() | AxisValue() | Extent() | Scalar():
                return EVERYWHERE
            case _:
                assert_never(e)

    def _of_zero(self, op: str, args: tuple[Expr, ...]) -> Domain:
        match op, args:
            case "mul", (x, y):
                return self.of(x, 0) | self.of(y, 0)
            case (("add" | "sub" | "max" | "min"), (x, y)):
                return either(self.of(x, 0), self.of(y, 0))
            case (("div" | "floordiv" | "mod"), (x, _)):
                return self.of(x, 0)
            case "pow", (x, Const(value=n)) if n > 0:
                return self.of(x, 0)
            case (("exp" | "exp2"), (x,)):
                return self.of(x, -math.inf)
            case _ if OPS[op].keeps_zero:
                return self.of(args[0], 0)
            case _:
                return EVERYWHERE

    def _of_infinity(self, op: str, args: tuple[Expr, ...], nothing: float) -> Domain:
        match op, args:
            case "add", (x, y):
                return self.of(x, nothing) | self.of(y, nothing)
            case "sub", (x, y):
                return self.of(x, nothing) | self.of(y, -nothing)
            case "neg", (x,):
                return self.of(x, -nothing)
            case (("mul" | "div"), (x, y)) if is_positive(y):
                return self.of(x, nothing)
            case "mul", (x, y) if is_positive(x):
                return self.of(y, nothing)
            case (("max" | "min"), (x, y)):
                a, b = self.of(x, nothing), self.of(y, nothing)
                return a | b if (op == "min") == (nothing < 0) else either(a, b)
            case (("log" | "log2"), (x,)) if nothing < 0:
                return self.of(x, 0)
            case _:
                return EVERYWHERE

    # ------------------------------------------------------------------------------------------------- through tensors

    def _of_read(self, e: Read, nothing: float) -> Domain:
        """A guarded read is 0 outside its guard; inside, it differs where the tensor does."""
        own = EVERYWHERE if e.guard is None or nothing else frozenset(holds(e.guard))
        source = self.named.get(e.tensor)
        if source is None or (nothing and e.guard is not None) or len(source.outputs) > 1:
            return own
        differs = self._of_tensor(source, nothing)
        if not differs:
            return own
        at: dict[str, Expr] = {}
        for group, i in zip(source.dims, e.index, strict=True):
            if in_range_by_form(i, group):
                at |= {axis: AxisValue(axis) for axis in group}
            elif nothing or len(group) != 1:
                return own  # out of range it is 0, and positions in a composite dimension are not told apart
            else:
                at[group[0]] = i
        return own | frozenset(substitute(p, at) for p in differs)

    def _of_tensor(self, e: Equation, nothing: float) -> Domain:
        """Where a tensor differs; a reduction of neutral values alone is neutral itself."""
        key = (e.name, nothing)
        if key not in self.known:
            self.known[key] = EVERYWHERE
            if e.monoid is None:
                self.known[key] = self.of(e.body, nothing)
            elif e.monoid.unit is not None and e.monoid.unit.value == nothing:
                given = (*self.of(e.body, nothing), *(() if e.domain is None else holds(e.domain)))
                self.known[key] = frozenset(p for p in given if set(e.over).isdisjoint(axes_of(p)))
        return self.known[key]

    def told(self, predicates: Iterable[Expr]) -> Iterable[Expr]:
        """Predicates, with those that follow from comparisons with 0 or an infinity: x != -inf holds where x differs.

        A computed x is taken to be infinite only by a mask, so that its comparison is dropped; an operand's is kept.
        """
        for p in predicates:
            match p:
                case Apply(op="ne", args=(x, Const(value=c)) | (Const(value=c), x)) if c == 0 or _is_infinite(c):
                    if _is_infinite(c) and self.is_computed(x):
                        yield from self.of(x, c)
                    else:
                        yield from (*self.of(x, c), p)
                case Apply(op="gt", args=(x, Const(value=0))) | Apply(op="lt", args=(Const(value=0), x)):
                    yield from (*self.of(x, 0), p)
                case _:
                    yield p

    def is_computed(self, e: Expr) -> bool:
        """Is it made of reductions and numbers alone, not of an operand's elements?"""
        match e:
            case Read(tensor=name):
                source = self.named.get(name)
                return source is not None and (source.monoid is not None or self.is_computed(source.body))
            case Apply(op="where", args=(_, x, y)):
                return self.is_computed(x) and self.is_computed(y)
            case _:
                return all(map(self.is_computed, children(e)))


def _is_limit(p: Expr, e: Expr) -> bool:
    """Does `e` tend to 0 where p fails: exp(x - y) where x == -inf? Then p masks nothing that `e` does not."""
    match p, e:
        case Apply(op="ne", args=(x, Const(value=c))), Apply(op="exp" | "exp2", args=(Apply(op="sub", args=(of, _)),)):
            return of == x and c == -math.inf
        case _:
            return False


def _is_infinite(c: float) -> bool:
    return isinstance(c, float) and math.isinf(c)


def either(a: Domain, b: Domain) -> Domain:
    """Where one domain or the other holds: their common predicates, and the disjunction of the rest."""
    if FALSE in a or FALSE in b:
        return b if FALSE in a else a
    common = a & b
    rest = [reduce(lambda x, y: Apply("and", (x, y)), sorted(d - common, key=repr)) for d in (a, b) if d - common]
    return common | {Apply("or", (rest[0], rest[1]))} if len(rest) == 2 else common


def is_positive(e: Expr) -> bool:
    """Is the value provably greater than 0 and finite, if no axis is empty?"""
    match e:
        case Const(value):
            return 0 < value < math.inf
        case Extent():
            return True
        case Apply("sqrt" | "rsqrt", (x,)):
            return is_positive(x)
        case Apply("mul" | "div" | "add" | "exactdiv" | "max" | "min", (x, y)):
            return is_positive(x) and is_positive(y)
        case Cast(_, x):
            return is_positive(x)
        case _:
            return False


def conjunction(predicates: Iterable[Expr]) -> Expr | None:
    """All of the predicates as one; None if there are none."""
    found = list(predicates)
    return reduce(lambda x, y: Apply("and", (x, y)), found) if found else None


def holds(p: Expr) -> tuple[Expr, ...]:
    """The conjuncts of a predicate, in order."""
    match p:
        case Const(True):
            return ()
        case Apply(op="and", args=(x, y)):
            return holds(x) + holds(y)
        case Apply(op="not", args=(x,)):
            return fails(x)
        case _:
            return (p,)


def fails(p: Expr) -> tuple[Expr, ...]:
    """The conjuncts of a predicate's negation, in order. With a NaN, neither a < b nor a >= b holds."""
    match p:
        case Const(False):
            return ()
        case Apply(op="or", args=(x, y)):
            return fails(x) + fails(y)
        case Apply(op="not", args=(x,)):
            return holds(x)
        case Apply(op="eq" | "ne" as op, args=args):
            return (Apply(DENIED[op], args),)
        case _:
            return (Apply("not", (p,)),)
