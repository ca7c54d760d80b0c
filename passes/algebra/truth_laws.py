"""Laws of conditions that make an expression smaller: selection, `and`, `or`, `not`, and comparisons of integers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce

from einc.base.ops import COMPARISONS, DENIED, MIRRORED, ORDERINGS
from einc.base.types import INT
from einc.ein import FALSE, TRUE, Apply, Const, Expr, Extent, Read
from einc.ein.rewriting import bottom_up
from einc.passes.algebra.arithmetic_laws import is_below, is_number
from einc.passes.algebra.scope import Rule, Scope
from einc.passes.algebra.signs import not_negative

_INFINITE = (math.inf, -math.inf)


def _where(scope: Scope, e: Apply) -> Expr | None:
    return _selected(e) or _where_known(e) or _turned(scope, e)


def _turned(scope: Scope, e: Apply) -> Expr | None:
    """A choice with the value first that is no constant, and without a test for a difference."""
    match e.args:
        case (Apply(op, (a, b)) as p, Const() as c, x) if (
            op in ORDERINGS and scope.exact(a) and scope.exact(b) and not isinstance(x, Const)
        ):
            return replace(e, args=(replace(p, op=DENIED[op]), x, c))
        case (Apply("ne", args), x, y) if any(isinstance(a, Const) and a.value in _INFINITE for a in args):
            return replace(e, args=(Apply("eq", args), y, x))
        case _:
            return None


def _selected(e: Apply) -> Expr | None:
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


def _where_known(e: Apply) -> Expr | None:
    """Inside the branches, the truth of the condition and its parts is known."""
    p, x, y = e.args
    there = replace(e, args=(p, _with(_facts(p, True), x), _with(_facts(p, False), y)))
    return None if there.args[1] is x and there.args[2] is y else there


def _facts(p: Expr, truth: bool) -> dict[Expr, Expr]:
    """The expressions whose truth is known where the condition has this truth value."""
    found: dict[Expr, Expr] = {}
    for part in _parts(p, "and" if truth else "or"):
        match part:
            case Apply("not", (q,)):
                found |= _facts(q, not truth)
            case Const():
                pass
            case _:
                found[part] = Const(truth)
    return found


def _with(facts: Mapping[Expr, Expr], e: Expr) -> Expr:
    """The expression where these facts hold; the inside of a read is not changed."""
    return bottom_up(e, lambda n: facts.get(n, n) if isinstance(n, Apply | Read) else n, into_reads=False)


def _not(scope: Scope, e: Apply) -> Expr | None:
    match e.args[0]:
        case Apply("not", (p,)):
            return p
        case Apply(op, (a, b)) if op in DENIED:
            if op in ORDERINGS and not (scope.exact(a) and scope.exact(b)):
                return None  # with a NaN, neither a < b nor a >= b holds
            return Apply(DENIED[op], (a, b))
        case _:
            return None


def _junction(_: Scope, e: Apply) -> Expr | None:
    """`and`, `or`: neutral and absorbing constants, repeated operands, and an operand beside its opposite."""
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
    """Comparisons of integers with a known truth: of equals, of a position with its extent, of a size with 0."""
    a, b = e.args
    if e.op in ("eq", "ne"):
        found = _compared(e.op, a, b) or _compared(e.op, b, a)
        if found is not None:
            return found
    if not (scope.exact(a) and scope.exact(b)):
        return None
    if a == b:
        return Const(e.op in ("le", "ge", "eq"))
    isolated = _isolated(scope, e)
    if isolated is not None:
        return isolated
    match e.op:
        case "gt" | "ge":
            low, high, equal = b, a, e.op == "ge"
        case "lt" | "le":
            low, high, equal = a, b, e.op == "le"
        case _:
            return None
    if _is_less(low, high) or (equal and is_number(low, 0) and not_negative(high)):
        return TRUE
    if _is_less(high, low) or (not equal and is_number(high, 0) and not_negative(low)):
        return FALSE
    return None


def _is_less(a: Expr, b: Expr) -> bool:
    """Is a position, or one before it, compared with the extent of its axis?"""
    match a:
        case Apply("sub", (position, Const(int() as c))) if c >= 0:
            return isinstance(b, Extent) and is_below(position, b)
        case _:
            return is_below(a, b)


def _isolated(scope: Scope, e: Apply) -> Expr | None:
    """All constants moved to the right of the comparison: 0 <= i - 1 is i >= 1."""
    match e.args:
        case (Const() as c, x) if not isinstance(x, Const):
            return replace(e, op=MIRRORED[e.op], args=(x, c))
        case (Apply("add" | "sub" as op, (x, Const(int() as c))), Const(int() as d)) if scope.type(x) == INT:
            return replace(e, args=(x, Const(d - c if op == "add" else d + c)))
        case _:
            return None


def _compared(op: str, e: Expr, c: Expr) -> Expr | None:
    """A `where` between a constant and something else, compared with a constant."""
    match e, c:
        case Apply("where", (p, x, y)), Const() if c in (x, y):
            other, chosen = (y, p) if x == c else (x, Apply("not", (p,)))
            equal = Apply("or", (chosen, Apply("eq", (other, c))))
            return equal if op == "eq" else Apply("not", (equal,))
        case _:
            return None


TRUTH: dict[str, Rule] = {
    "where": _where, "not": _not, "and": _junction, "or": _junction, **dict.fromkeys(COMPARISONS, _compare)
}  # fmt: skip
