"""Which positions of a walked axis a reduction needs: predicates that leave nothing where they are false.

    monoid[j](f)   -->   monoid[j : p](f)      where f is the monoid's identity wherever p is false

`where(p, x, -inf)` under a maximum, `where(p, x, 0)` and the exp of the former under a sum have the domain p; so has a
product with such a factor, as the others are finite where it counts. What is common to every reduction of a walk is
solved for the walked axis: j <= e bounds it above by the greatest e of the tile's rows, j >= e below by the least.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from einc import ein
from einc.ein import Apply, AxisValue, Cast, Const, Expr
from einc.passes.movement import call

_NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
_FLIPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The walked axis is at least each of `lowest` and less than each of `beyond`: integers free of that axis."""

    lowest: tuple[Expr, ...]
    beyond: tuple[Expr, ...]


def domain(e: Expr, nothing: float) -> frozenset[Expr]:
    """Predicates, each of which must hold for the expression to differ from `nothing`: 0 or minus infinity."""
    match e:
        case Apply(op="where", args=(p, x, y)) if is_nothing(y, nothing):
            return domain(x, nothing).union(holds(p))
        case Apply(op="where", args=(p, x, y)) if is_nothing(x, nothing):
            return domain(y, nothing).union(fails(p))
        case Apply(op="mul", args=(x, y)) if nothing == 0:
            return domain(x, 0) | domain(y, 0)
        case Apply(op="div", args=(x, _)) if nothing == 0:
            return domain(x, 0)
        case Apply(op="exp" | "exp2", args=(x,)) if nothing == 0:
            return domain(x, float("-inf"))
        case Apply(op="add", args=(x, y)) if nothing != 0:
            return domain(x, nothing) | domain(y, nothing)
        case Apply(op="sub", args=(x, _)) if nothing != 0:
            return domain(x, nothing)
        case Apply(op="neg", args=(x,)) if nothing == 0:
            return domain(x, 0)
        case Cast(arg=x):
            return domain(x, nothing)
        case _:
            return frozenset()


def is_nothing(e: Expr, nothing: float) -> bool:
    """Whether the expression is that constant."""
    return isinstance(e, Const) and e.kind != "bool" and e.value == nothing


def holds(p: Expr) -> tuple[Expr, ...]:
    """The conjuncts of a predicate, in order."""
    match p:
        case Apply(op="and", args=(x, y)):
            return holds(x) + holds(y)
        case Apply(op="not", args=(x,)):
            return fails(x)
        case _:
            return (p,)


def fails(p: Expr) -> tuple[Expr, ...]:
    """The conjuncts of a predicate's negation, in order."""
    match p:
        case Apply(op="or", args=(x, y)):
            return fails(x) + fails(y)
        case Apply(op="not", args=(x,)):
            return holds(x)
        case Apply(op=op, args=args) if op in _NEGATED:
            return (Apply(_NEGATED[op], args),)
        case _:
            return (Apply("not", (p,)),)


def bounds(predicates: Iterable[Expr], axis: str) -> Bounds:
    """What the predicates say of the axis, as far as they can be solved for it."""
    lowest: list[Expr] = []
    beyond: list[Expr] = []
    for p in sorted(predicates, key=repr):
        match p:
            case Apply(op="lt" | "le" | "gt" | "ge" | "eq" as op, args=(a, b)):
                solved = _solved(op, a, b, axis)
                if solved is None:
                    continue
                relation, e = solved
                if relation in ("gt", "ge", "eq"):
                    lowest.append(call("add", e, Const(int(relation == "gt"))))
                if relation in ("lt", "le", "eq"):
                    beyond.append(call("add", e, Const(int(relation != "lt"))))
    return Bounds(tuple(lowest), tuple(beyond))


def _solved(op: str, a: Expr, b: Expr, axis: str) -> tuple[str, Expr] | None:
    """`a op b` as `axis op e`, where the axis occurs once, with coefficient 1 or -1."""
    left, right = _linear(a, axis), _linear(b, axis)
    if left is None or right is None:
        return None
    coefficient = left[0] - right[0]
    if coefficient == 1:
        return op, call("sub", right[1], left[1])
    if coefficient == -1:
        return _FLIPPED[op], call("sub", left[1], right[1])
    return None


def _linear(e: Expr, axis: str) -> tuple[int, Expr] | None:
    """(c, rest) with e = c * axis + rest and rest free of the axis."""
    if axis not in ein.axes_of(e):
        return 0, e
    match e:
        case AxisValue():
            return 1, Const(0)
        case Apply(op="add" | "sub" as op, args=(x, y)):
            left, right = _linear(x, axis), _linear(y, axis)
            if left is None or right is None:
                return None
            sign = 1 if op == "add" else -1
            return left[0] + sign * right[0], call(op, left[1], right[1])
        case Apply(op="neg", args=(x,)):
            inner = _linear(x, axis)
            return None if inner is None else (-inner[0], call("neg", inner[1]))
        case _:
            return None
