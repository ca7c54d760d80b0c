"""The monoids of the language, and what is true of a monoid by what it combines to.

Passes and generators ask for these properties and never for a name: a monoid is a value, and nothing else knows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from einc.ein.expressions import Apply, Const, Expr, Scalar

_DISTRIBUTES = {"add": "mul", "or": "and", "and": "or", "max": "add", "min": "add"}
_BOUNDS = {"lowest": -math.inf, "highest": math.inf}
_ORDERS = ("max", "min")


@dataclass(frozen=True, slots=True)
class Monoid:
    """An associative combination with an identity, over one or more components carried together.

    `combine[k]` gives component k from the scalars `a0, a1, ...` (earlier) and `b0, b1, ...` (later). `identity` may be
    `lowest` or `highest`: the least or greatest value of the component's type. `results` says which components the
    reduction gives: argmax carries a value and an index and gives the index. `inverse` undoes a combine, if it can.
    `name` is the word for it in texts, and `meaning` says in a line what it gives. The rest is read off these, once.
    """

    name: str
    identity: tuple[bool | int | str, ...]
    combine: tuple[Expr, ...]
    results: tuple[int, ...] = (0,)
    commutative: bool = True
    inverse: Expr | None = None
    meaning: str = field(default="", compare=False, repr=False)
    # The operation that combines two values, where there is one component and one operation.
    op: str | None = field(init=False, compare=False, repr=False)
    # Is every component a sum?
    adds: bool = field(init=False, compare=False, repr=False)
    # `max` or `min` where the first component is that of the terms', a NaN before all; argmax has one as well.
    order: str | None = field(init=False, compare=False, repr=False)
    # Do all components come from the one term that is chosen, so that the others go with the first?
    chooses: bool = field(init=False, compare=False, repr=False)
    # Does it make what none of its terms is, which takes room and is rounded?
    accumulates: bool = field(init=False, compare=False, repr=False)
    # The constant that a reduction of floats or truth values over nothing is in every component; a position is none.
    unit: Const | None = field(init=False, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        op = _operation(self.combine)
        units = tuple(Const(_BOUNDS[u] if isinstance(u, str) else u) for u in self.identity)
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "adds", all(e == Apply("add", _pair(k)) for k, e in enumerate(self.combine)))
        object.__setattr__(self, "order", op if op in _ORDERS else _FIRST.get(self.combine))
        object.__setattr__(self, "chooses", _chooses(self.combine))
        object.__setattr__(self, "accumulates", not all(map(_is_term, self.combine)))
        alike = not self.chooses and all(u == units[0] for u in units)
        object.__setattr__(self, "unit", units[0] if alike else None)
        object.__setattr__(self, "_hash", hash((self.name, self.identity, self.combine, self.results)))

    def __hash__(self) -> int:
        return self._hash  # worked out once: equations are looked up all the time

    @property
    def components(self) -> int:
        return len(self.identity)

    @property
    def extreme(self) -> str | None:
        """`max` or `min` where that of the terms is what it gives, not where it is."""
        return None if self.chooses else self.order

    @property
    def truths(self) -> bool:
        """Does it combine truth values?"""
        return self.op in ("and", "or")

    @property
    def product(self) -> str | None:
        """The operation that distributes over `op` and leaves the identity as it is."""
        return None if self.op is None else _DISTRIBUTES.get(self.op)


def _operation(combine: tuple[Expr, ...]) -> str | None:
    """The operation that is applied to the only component of two states."""
    match combine:
        case (Apply(op, args),) if args == _pair(0):
            return op
        case _:
            return None


def _chooses(combine: tuple[Expr, ...]) -> bool:
    """Is there one condition for all components, several, by which they are those of one state or of the other?"""
    condition = combine[0].args[0] if isinstance(combine[0], Apply) else None
    if condition is None or len(combine) < 2:
        return False
    one = tuple(Apply("where", (condition, *_pair(k))) for k in range(len(combine)))
    other = tuple(Apply("where", (condition, *reversed(_pair(k)))) for k in range(len(combine)))
    return combine in (one, other)


def _is_term(e: Expr) -> bool:
    """Is what it gives always one of the terms, which takes no more room, and rounds nothing?"""
    match e:
        case Scalar():
            return True
        case Apply("where", (_, *args)) | Apply("max" | "min" | "and" | "or", args):
            return all(map(_is_term, args))
        case _:
            return False


def _pair(k: int) -> tuple[Scalar, Scalar]:
    """Component k of the earlier state and of the later."""
    return Scalar(f"a{k}"), Scalar(f"b{k}")


def _call(op: str, *args: Expr) -> Expr:
    return Apply(op, args)


def _first(better: str) -> tuple[Expr, ...]:
    """The better value with its index, the smaller index among equals; a NaN wins, as in NumPy."""
    (a, b), places = _pair(0), _pair(1)
    a_nan, b_nan = _call("ne", a, a), _call("ne", b, b)
    tie = _call("or", _call("eq", a, b), _call("and", a_nan, b_nan))
    wins = _call("or", _call(better, a, b), _call("and", a_nan, _call("not", b_nan)))
    takes_a = _call("or", wins, _call("and", tie, _call("lt", *places)))
    return _call("where", takes_a, a, b), _call("where", takes_a, *places)


_FIRST = {_first("gt"): "max", _first("lt"): "min"}


def _single(name: str, unit: bool | int | str, op: str, meaning: str, inverse: str | None = None) -> Monoid:
    undone = None if inverse is None else _call(inverse, *_pair(0))
    return Monoid(name, (unit,), (_call(op, *_pair(0)),), inverse=undone, meaning=meaning)


def _place(name: str, unit: str, better: str, of: str) -> Monoid:
    meaning = f"the position of the {of}, the first of several; over an axis of extent 0 an error"
    return Monoid(name, (unit, "highest"), _first(better), results=(1,), meaning=meaning)


MONOIDS: dict[str, Monoid] = {
    m.name: m
    for m in (
        _single("sum", 0, "add", "the sum; of nothing 0", inverse="sub"),
        _single("prod", 1, "mul", "the product; of nothing 1"),
        _single("max", "lowest", "max", "the greatest; of nothing -inf"),
        _single("min", "highest", "min", "the least; of nothing inf"),
        _single("any", False, "or", "is any true? of nothing false"),
        _single("all", True, "and", "are all true? of nothing true"),
        _place("argmax", "lowest", "gt", "greatest"),
        _place("argmin", "highest", "lt", "least"),
    )
}
