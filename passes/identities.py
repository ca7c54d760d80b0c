"""Scalar laws that make an expression smaller: one step at a node whose arguments are already simplified.

    constants       1 + 2 --> 3                 neutral         x + 0, x * 1, x / 1, x ** 1 --> x
    signs           -(-x) --> x                 selection       where(true, x, y) --> x
    truth           p and p --> p               comparison      j < |j| --> true;  not a < b --> a >= b (integers)
    casts           f32(f32(x)) --> f32(x)      inverses        log(exp(x)) --> x;  1 / sqrt(x) --> rsqrt(x)
    positions       (g * |r| + r) // |r| --> g  guards          T[e : true] --> T[e]

Laws that rounding, NaN or infinity break hold for integers only: x - x, x * 0, x == x. Two things are not kept: the
sign of a zero (-0.0 + 0 is 0.0), and overflow between a function and its inverse (log(exp(1000)) is 1000). A law never
changes a type: where the smaller expression's is narrower, a cast is put around it, and where that would round, nothing
is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import reduce

from einc.arithmetic import evaluate_formula
from einc.ein import FALSE, TRUE, ZERO, Apply, AxisValue, Cast, Const, Expr, Extent, Read
from einc.errors import Error
from einc.guards import conjoin, in_range_by_form
from einc.inference import dtype_of
from einc.ops import ORDERINGS
from einc.passes.rewriting import Dims, inside, is_stored_as
from einc.ranges import is_simple
from einc.types import FLOAT, DType, compute

Rule = Callable[["Scope", Apply], Expr | None]

_OPPOSITE = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}
_INVERSE = {"log": "exp", "log2": "exp2"}


class Scope:
    """The types and dimensions of tensors, which decide which laws hold."""

    def __init__(self, dtypes: Mapping[str, DType], shapes: Mapping[str, Dims]) -> None:
        self.dtypes, self.shapes = dtypes, shapes

    def type(self, e: Expr) -> DType:
        return dtype_of(e, self.dtypes)

    def exact(self, e: Expr) -> bool:
        """Is it an integer or a truth value?"""
        return self.type(e).kind in "iub"

    def simplified(self, e: Expr) -> Expr:
        """The expression by as many steps at its root as there are."""
        while (smaller := self.step(e)) is not None:
            e = smaller
        return e

    def step(self, e: Expr) -> Expr | None:
        match e:
            case Read():
                return self.read(e)
            case Cast():
                return self.cast(e)
            case Apply(op):
                found = (self.retyped(e, rule(self, e)) for rule in _RULES.get(op, ()))
                return next((new for new in (self.folded(e), *found) if new is not None), None)
            case _:
                return None

    def retyped(self, old: Expr, new: Expr | None) -> Expr | None:
        """The new expression in the type of the old one, or None where it cannot be had without rounding."""
        if new is None:
            return None
        wanted, got = self.type(old), self.type(new)
        if wanted == got:
            return new
        if wanted == FLOAT and isinstance(new, Const):
            return Const(float(new.value))
        weak = wanted.bits == 0
        return None if weak or compute(wanted) != wanted else Cast(wanted, new)

    def folded(self, e: Apply) -> Expr | None:
        """The value of an operation on constants, as the evaluator has it; NaN and what leaves 64 bits stay."""
        if e.op == "rand" or not all(isinstance(a, Const) for a in e.args):
            return None
        if e.op == "pow" and any(isinstance(a, Const) and abs(a.value) > 64 for a in e.args[1:]):
            return None
        try:
            value = evaluate_formula(e, {}, {})
        except Error:
            return None
        value = float(value) if self.type(e) == FLOAT else value
        fits = not math.isnan(value) if isinstance(value, float) else -(1 << 63) <= value < 1 << 63
        return Const(value) if fits else None

    def read(self, e: Read) -> Expr | None:
        """A guard that always holds leaves the check of range that it called for; one that never does leaves 0."""
        if e.guard == FALSE:
            stored = self.dtypes[e.tensor]
            return FALSE if stored.is_bool else Cast(stored, ZERO)
        if e.guard != TRUE:
            return None
        pairs = zip(e.index, self.shapes[e.tensor], strict=True)
        unsure = [(at, dim) for at, dim in pairs if not in_range_by_form(at, dim) and is_simple(at)]
        tests = [self.simplified(t) for at, dim in unsure for t in inside(at, dim)]
        left = reduce(conjoin, [t for t in tests if t != TRUE], None)
        return replace(e, guard=left)

    def cast(self, e: Cast) -> Expr | None:
        if is_stored_as(e.arg, e.dtype, self.dtypes):
            return e.arg
        match e.arg:
            case Cast(dtype, arg) if widens(self.type(arg), dtype):
                return replace(e, arg=arg)
            case _:
                return None


def widens(narrow: DType, wide: DType) -> bool:
    """Does every value of the one type, arithmetic on it included, have an equal in the other?"""
    match narrow.kind, wide.kind:
        case ("b", _):
            return not wide.is_bool
        case ("f", "f") | ("f", "c") | ("c", "c"):
            return 0 < compute(narrow).part.bits <= wide.part.bits
        case ("i", "i") | ("u", "u"):
            return 0 < narrow.bits <= wide.bits
        case ("u", "i"):
            return narrow.bits < wide.bits
        case _:
            return False


def is_number(e: Expr, value: int) -> bool:
    return isinstance(e, Const) and not isinstance(e.value, bool) and e.value == value


def not_negative(e: Expr) -> bool:
    """Is the value provably at least 0, or NaN?"""
    match e:
        case Const(value):
            return value >= 0
        case AxisValue() | Extent():
            return True
        case Apply("exp" | "exp2" | "abs" | "sqrt"):
            return True
        case Apply("rsqrt", (x,)):
            return not_negative(x)
        case Apply("add" | "mul" | "div" | "floordiv" | "exactdiv" | "mod" | "min", args) | Apply("where", (_, *args)):
            return all(not_negative(a) for a in args)
        case Apply("max", args):
            return any(not_negative(a) for a in args)
        case _:
            return False


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic


def _add(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, y) if is_number(y, 0):
            return x
        case (x, y) if is_number(x, 0):
            return y
        case (x, Apply("neg", (y,))):
            return replace(e, op="sub", args=(x, y))
        case (Apply("mul", (Apply("floordiv", (x, n)), m)), Apply("mod", (y, k))) if n == m == k and x == y:
            return x if scope.exact(x) else None
        case _:
            return None


def _sub(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, zero) if is_number(zero, 0):
            return x
        case (zero, x) if is_number(zero, 0):
            return Apply("neg", (x,))
        case (x, Apply("neg", (y,))):
            return replace(e, op="add", args=(x, y))
        case (x, y) if x == y and scope.exact(x):
            return ZERO
        case _:
            return None


def _mul(scope: Scope, e: Apply) -> Expr | None:
    x, y = e.args
    for factor, other in ((x, y), (y, x)):
        if is_number(factor, 1):
            return other
        if is_number(factor, -1):
            return Apply("neg", (other,))
        if is_number(factor, 0) and scope.exact(e):
            return ZERO
    match x, y:
        case Apply("neg", (a,)), Apply("neg", (b,)):
            return replace(e, args=(a, b))
        case _:
            return None


def _divide(_: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, one) if is_number(one, 1):
            return x
        case (one, Apply("sqrt", (x,))) if is_number(one, 1):
            return Apply("rsqrt", (x,))
        case _:
            return None


def _power(_: Scope, e: Apply) -> Expr | None:
    return e.args[0] if is_number(e.args[1], 1) else None


def _neg(_: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply("neg", (x,)):
            return x
        case Apply("sub", (x, y)):
            return Apply("sub", (y, x))
        case _:
            return None


def _abs(_: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply("neg", (x,)):
            return replace(e, args=(x,))
        case x:
            return x if not_negative(x) else None


def _extreme(_: Scope, e: Apply) -> Expr | None:
    neutral = Const(-math.inf if e.op == "max" else math.inf)
    x, y = e.args
    if x in (y, neutral):
        return y
    return x if y == neutral else None


def _inverse(_: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply(op, (x,)) if _INVERSE.get(e.op) == op:
            return x
        case Apply(op, (x,)) if _INVERSE.get(op) == e.op and not_negative(x):
            return x
        case _:
            return None


def _part(scope: Scope, e: Apply) -> Expr | None:
    if scope.type(e.args[0]).is_complex:
        return None
    return e.args[0] if e.op == "re" else ZERO


# ---------------------------------------------------------------------------------------------------------------------
# Positions


def _floordiv(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, one) if is_number(one, 1):
            return x if scope.exact(x) else None
        case (Apply("add", (Apply("mul", (x, n)), r)), m) if n == m and _is_below(r, n):
            return x
        case (r, n) if _is_below(r, n):
            return ZERO
        case _:
            return None


def _mod(scope: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (x, one) if is_number(one, 1) and scope.exact(x):
            return ZERO
        case (Apply("add", (Apply("mul", (_, n)), r)), m) if n == m and _is_below(r, n):
            return r
        case (r, n) if _is_below(r, n):
            return r
        case _:
            return None


def _is_below(r: Expr, n: Expr) -> bool:
    """Is r one of 0, 1, ..., n - 1?"""
    match r, n:
        case AxisValue(axis), Extent(whole):
            return axis == whole
        case Const(int() as a), Const(int() as b):
            return 0 <= a < b
        case _:
            return False


# ---------------------------------------------------------------------------------------------------------------------
# Truth


def _where(_: Scope, e: Apply) -> Expr | None:
    match e.args:
        case (Const(True), x, _):
            return x
        case (Const(False), _, y):
            return y
        case (_, x, y) if x == y:
            return x
        case (p, Const(True), Const(False)):
            return p
        case (p, Const(False), Const(True)):
            return Apply("not", (p,))
        case (Apply("not", (p,)), x, y):
            return replace(e, args=(p, y, x))
        case (p, Apply("where", (q, x, _)), y) if p == q:
            return replace(e, args=(p, x, y))
        case (p, x, Apply("where", (q, _, y))) if p == q:
            return replace(e, args=(p, x, y))
        case (p, Apply("where", (q, x, y)), z) if y == z:
            return replace(e, args=(Apply("and", (p, q)), x, y))
        case _:
            return None


def _not(scope: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply("not", (p,)):
            return p
        case Apply(op, (a, b)) if op in _OPPOSITE:
            if op in ORDERINGS and not (scope.exact(a) and scope.exact(b)):
                return None  # of a NaN, neither a < b nor a >= b
            return Apply(_OPPOSITE[op], (a, b))
        case _:
            return None


def _junction(_: Scope, e: Apply) -> Expr | None:
    """`and`, `or`: neutral and absorbing constants, what stands there twice, and what stands beside its opposite."""
    neutral, absorbing = (TRUE, FALSE) if e.op == "and" else (FALSE, TRUE)
    parts = list(_parts(e, e.op))
    kept = [p for p in dict.fromkeys(parts) if p != neutral]
    if absorbing in kept or any(Apply("not", (p,)) in kept for p in kept):
        return absorbing
    if len(kept) == len(parts):
        return None
    return reduce(lambda a, b: Apply(e.op, (a, b)), kept) if kept else neutral


def _parts(e: Expr, op: str) -> Iterable[Expr]:
    stack = [e]
    while stack:
        node = stack.pop()
        if isinstance(node, Apply) and node.op == op:
            stack.extend(reversed(node.args))
        else:
            yield node


def _compare(scope: Scope, e: Apply) -> Expr | None:
    """Comparisons that integers decide: of equals, of a position with its extent, of what cannot be negative with 0."""
    a, b = e.args
    if not (scope.exact(a) and scope.exact(b)):
        return None
    if a == b:
        return Const(e.op in ("le", "ge", "eq"))
    match e.op:
        case "gt" | "ge":
            low, high, equal = b, a, e.op == "ge"
        case "lt" | "le":
            low, high, equal = a, b, e.op == "le"
        case _:
            return None
    if _is_below(low, high) or (equal and is_number(low, 0) and not_negative(high)):
        return TRUE
    if _is_below(high, low) or (not equal and is_number(high, 0) and not_negative(low)):
        return FALSE
    return None


_RULES: dict[str, tuple[Rule, ...]] = {
    "add": (_add,), "sub": (_sub,), "mul": (_mul,), "div": (_divide,), "exactdiv": (_divide,), "pow": (_power,),
    "floordiv": (_floordiv,), "mod": (_mod,), "neg": (_neg,), "abs": (_abs,), "max": (_extreme,), "min": (_extreme,),
    "log": (_inverse,), "log2": (_inverse,), "exp": (_inverse,), "exp2": (_inverse,), "re": (_part,), "im": (_part,),
    "where": (_where,), "not": (_not,), "and": (_junction,), "or": (_junction,),
    **dict.fromkeys(_OPPOSITE, (_compare,)),
}  # fmt: skip
