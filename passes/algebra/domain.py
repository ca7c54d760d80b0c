"""Which positions a reduction needs: predicates that leave nothing where they are false.

    monoid[j](f)   -->   monoid[j : p](f)      where f is the monoid's identity wherever p is false

`where(p, x, -inf)` under a maximum, `where(p, x, 0)` and the exp of the former under a sum have the domain p, and so
has `x + where(p, 0, -inf)`. A product has the domain of each factor, as the others are finite where it counts; a sum
needs what any of its terms needs. What is not listed here keeps its mask: a minimum of x where p, else -inf, or a tanh
of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce

from einc import ein
from einc.ein import FALSE, Apply, Cast, Const, Expr, Extent, Monoid, Read
from einc.passes.algebra.scope import IDENTITIES

Domain = frozenset[Expr]  # predicates, all of which must hold

_TRUTH = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not")
_OPPOSITE = {"eq": "ne", "ne": "eq"}
NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}  # of a NaN only `eq` and `ne`
_OF_ZERO = ("abs", "sqrt", "tanh", "erf", "sin", "tan", "floor", "ceil", "round", "neg")  # 0 at 0
_EVERYWHERE: Domain = frozenset()


def domain_of(monoid: Monoid, bodies: Iterable[Expr]) -> Domain:
    """Where any of the bodies changes a reduction. An argmax of nothing is a position: it needs all of them."""
    identity = IDENTITIES.get(monoid.name)
    return _EVERYWHERE if identity is None else reduce(either, (domain(b, identity.value) for b in bodies))


def domain(e: Expr, nothing: float) -> Domain:
    """Predicates, each of which must hold for the expression to differ from `nothing`: 0, 1 or an infinity."""
    match e:
        case Const():
            return frozenset((FALSE,)) if e.value == nothing else _EVERYWHERE
        case Cast(arg=x):
            return domain(x, nothing)
        case Read(guard=guard) if guard is not None and nothing == 0:
            return frozenset(holds(guard))
        case Apply(op="where", args=(p, x, y)):
            a, b = domain(x, nothing), domain(y, nothing)
            return a if a == b else either(a.union(holds(p)), b.union(fails(p)))
        case Apply(op=op) if op in _TRUTH and not math.isinf(nothing):
            return frozenset(fails(e) if nothing else holds(e))
        case Apply(op=op, args=args) if nothing == 0:
            return _of_zero(op, args)
        case Apply(op=op, args=args) if math.isinf(nothing):
            return _of_infinity(op, args, nothing)
        case Apply(op="exp" | "exp2", args=(x,)) if nothing == 1:
            return domain(x, 0)
        case _:
            return _EVERYWHERE


def _of_zero(op: str, args: tuple[Expr, ...]) -> Domain:
    match op, args:
        case "mul", (x, y):
            return domain(x, 0) | domain(y, 0)
        case (("add" | "sub" | "max" | "min"), (x, y)):
            return either(domain(x, 0), domain(y, 0))
        case (("div" | "floordiv" | "mod"), (x, _)):
            return domain(x, 0)
        case "pow", (x, Const(value=n)) if n > 0:
            return domain(x, 0)
        case (("exp" | "exp2"), (x,)):
            return domain(x, -math.inf)
        case _ if op in _OF_ZERO:
            return domain(args[0], 0)
        case _:
            return _EVERYWHERE


def _of_infinity(op: str, args: tuple[Expr, ...], nothing: float) -> Domain:
    match op, args:
        case "add", (x, y):
            return domain(x, nothing) | domain(y, nothing)
        case "sub", (x, y):
            return domain(x, nothing) | domain(y, -nothing)
        case "neg", (x,):
            return domain(x, -nothing)
        case (("mul" | "div"), (x, y)) if is_positive(y):
            return domain(x, nothing)
        case "mul", (x, y) if is_positive(x):
            return domain(y, nothing)
        case (("max" | "min"), (x, y)):
            least = (op == "min") == (nothing < 0)
            return domain(x, nothing) | domain(y, nothing) if least else either(domain(x, nothing), domain(y, nothing))
        case (("log" | "log2"), (x,)) if nothing < 0:
            return domain(x, 0)
        case _:
            return _EVERYWHERE


def either(a: Domain, b: Domain) -> Domain:
    """Where one domain or the other holds: what they have in common, and the alternative of the rest."""
    if FALSE in a or FALSE in b:
        return b if FALSE in a else a
    common = a & b
    rest = [reduce(lambda x, y: Apply("and", (x, y)), sorted(d - common, key=repr)) for d in (a, b) if d - common]
    return common | {Apply("or", (rest[0], rest[1]))} if len(rest) == 2 else common


def is_nothing(e: Expr, nothing: float) -> bool:
    """Whether the expression is that constant."""
    return isinstance(e, Const) and e.kind != "bool" and e.value == nothing


def is_positive(e: Expr) -> bool:
    """Is the value provably greater than 0 and finite, where there are any positions?"""
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
    """All of the predicates in one; None where there are none."""
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
    """The conjuncts of a predicate's negation, in order; of a NaN, neither a < b nor a >= b."""
    match p:
        case Const(False):
            return ()
        case Apply(op="or", args=(x, y)):
            return fails(x) + fails(y)
        case Apply(op="not", args=(x,)):
            return holds(x)
        case Apply(op=op, args=args) if op in _OPPOSITE:
            return (Apply(_OPPOSITE[op], args),)
        case _:
            return (Apply("not", (p,)),)


def ordered(e: Expr, is_int: Callable[[Expr], bool]) -> Expr:
    """The expression with one comparison for the denial of another, of integers: not (a > b) --> a <= b."""
    e = ein.rebuild(e, lambda below: ordered(below, is_int))
    match e:
        case Apply(op="not", args=(Apply(op=op, args=(a, b)),)) if op in NEGATED and is_int(a) and is_int(b):
            return Apply(NEGATED[op], (a, b))
        case _:
            return e
