"""Scalar laws that make an expression smaller: one step at a node whose arguments are already simplified.

    constants       1 + 2 --> 3                 neutral         x + 0, x * 1, x / 1, x ** 1 --> x
    signs           -(-x) --> x                 selection       where(true, x, y) --> x
    truth           p and p --> p               comparison      j < |j| --> true;  not a < b --> a >= b (integers)
    casts           f32(f32(x)) --> f32(x)      inverses        log(exp(x)) --> x;  1 / sqrt(x) --> rsqrt(x)
    positions       (g * |r| + r) // |r| --> g  guards          T[e : true] --> T[e]
    quotients       x / sqrt(y) --> x * rsqrt(y);  x / c --> x * (1 / c), c the same everywhere and no count
    known truth     where(p, where(p and q, x, y), z) --> where(p, where(q, x, y), z)

Laws that rounding, NaN or infinity would break are applied to integers only: x - x, x * 0, x == x. Two things are not
kept: the sign of a zero (-0.0 + 0 is 0.0), and overflow between a function and its inverse (log(exp(1000)) is 1000). A
law never changes a type: if the smaller expression has a narrower one, it is cast; if the cast would round, the law is
not applied.
"""

from __future__ import annotations

import math
from dataclasses import replace

from einc.base.errors import Error
from einc.base.types import FLOAT, DType, compute
from einc.ein import FALSE, TRUE, ZERO, Apply, Cast, Const, Expr, Read
from einc.ein.arithmetic import evaluate_formula
from einc.ein.ranges import is_closed
from einc.ein.rewriting import bottom_up
from einc.passes.algebra.arithmetic_laws import ARITHMETIC
from einc.passes.algebra.exposure import within
from einc.passes.algebra.scope import Scope, is_stored_as
from einc.passes.algebra.truth_laws import TRUTH

_LAWS = ARITHMETIC | TRUTH


def simplify_expression(e: Expr, scope: Scope) -> Expr:
    """The expression with every law applied, from the leaves up, as often as it can be."""
    while True:
        smaller = bottom_up(e, lambda n: simplified(n, scope))
        if smaller == e:
            return e
        e = smaller


def simplified(e: Expr, scope: Scope) -> Expr:
    """The expression after as many steps at its root as apply."""
    while (smaller := step(e, scope)) is not None:
        e = smaller
    return e


def step(e: Expr, scope: Scope) -> Expr | None:
    """A smaller expression of the same value and type, or None."""
    match e:
        case Read(guard=Const()):
            return _read(e, scope)
        case Cast():
            return _cast(e, scope)
        case Apply(op):
            folded = _folded(e, scope)
            if folded is not None or op not in _LAWS:
                return folded
            return _retyped(e, _LAWS[op](scope, e), scope)
        case _:
            return None


def _retyped(old: Expr, new: Expr | None, scope: Scope) -> Expr | None:
    """The new expression in the type of the old one, or None where the cast would round."""
    if new is None:
        return None
    wanted, got = scope.type(old), scope.type(new)
    if wanted == got:
        return new
    if wanted == FLOAT and isinstance(new, Const):
        return Const(float(new.value))
    weak = wanted.bits == 0
    return None if weak or compute(wanted) != wanted else Cast(wanted, new)


def _folded(e: Apply, scope: Scope) -> Expr | None:
    """The value of an operation on constants, as the evaluator has it; None if it is NaN or does not fit 64 bits."""
    if e.op == "rand" or not all(isinstance(a, Const) for a in e.args):
        return None
    if e.op == "pow" and any(isinstance(a, Const) and abs(a.value) > 64 for a in e.args[1:]):
        return None
    try:
        value = evaluate_formula(e, {}, {})
    except Error:
        return None
    value = float(value) if scope.type(e) == FLOAT else value
    fits = not math.isnan(value) if isinstance(value, float) else -(1 << 63) <= value < 1 << 63
    return Const(value) if fits else None


def _read(e: Read, scope: Scope) -> Expr | None:
    """A guard that always holds becomes a check of the range; under one that never holds, the read is 0."""
    if e.guard == FALSE:
        stored = scope.dtypes[e.tensor]
        return FALSE if stored.is_bool else Cast(stored, ZERO)
    tests = within(e.index, scope.shapes[e.tensor])
    left = None if tests is None else simplify_expression(tests, scope)
    return replace(e, guard=None if left == TRUE else left)


def _cast(e: Cast, scope: Scope) -> Expr | None:
    if is_stored_as(e.arg, e.dtype, scope.dtypes):
        return e.arg
    match e.arg:
        case Cast(dtype, arg) if widens(scope.type(arg), dtype):
            return replace(e, arg=arg)
        case Apply("mul", (c, x)) if is_closed(c) and not is_closed(x) and e.dtype == compute(scope.type(e.arg)):
            return Apply("mul", (c, replace(e, arg=x)))  # the product was computed in this type
        case _:
            return None


def widens(narrow: DType, wide: DType) -> bool:
    """Does the wide type hold every value of the narrow one, and every result of arithmetic on it?"""
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
