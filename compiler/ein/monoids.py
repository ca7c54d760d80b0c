"""The monoids of the language, and the properties of a monoid that follow from its combination.

Passes and generators ask for these properties and never for a name, so that a monoid is defined by its value alone.
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
    reduction gives: argmax carries a value and an index, and gives the index. `inverse`, if there is one, undoes a
    combination. `name` is the word for it in texts, and `meaning` its result in a line. All else follows from these.
    """

    name: str
    identity: tuple[bool | int | str, ...]
    combine: tuple[Expr, ...]
    results: tuple[int, ...] = (0,)
    commutative: bool = True
    inverse: Expr | None = None
    meaning: str = field(default="", compare=False, repr=False)
    # The operation that combines two values, if there is one component and it is a single operation.
    op: str | None = field(init=False, compare=False, repr=False)
    # Is every component a sum?
    adds: bool = field(init=False, compare=False, repr=False)
    # `max` or `min` if the first component is that of the terms, where NaN comes first; argmax has one as well.
    order: str | None = field(init=False, compare=False, repr=False)
    # Do all components come from one term, so that the others belong to the first?
    chooses: bool = field(init=False, compare=False, repr=False)
    # Does it compute values that none of its terms has, which need a wider type and are rounded?
    accumulates: bool = field(init=False, compare=False, repr=False)
    # The constant that every component of an empty reduction of floats or truth values is; none if one is a position.
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
        return self._hash  # computed once: equations are looked up all the time

    @property
    def components(self) -> int:
        return len(self.identity)

    @property
    def extreme(self) -> str | None:
        """`max` or `min` if the result is that of the terms, not its position."""
        return None if self.chooses else self.order

    @property
    def truths(self) -> bool:
        """Does it combine truth values?"""
        return self.op in ("and", "or")

    @property
    def product(self) -> str | None:
        """The operation that distributes over `op` and keeps its identity."""
        return None if self.op is None else _DISTRIBUTES.get(self.op)


def _operation(combine: tuple[Expr, ...]) -> str | None:
    """The operation that combines the only components of two states."""
    match combine:
        case (Apply(op, args),) if args == _pair(0):
            return op
        case _:
            return None


def _chooses(combine: tuple[Expr, ...]) -> bool:
    """Are there several components, all chosen from one state or the other by the same condition?"""
    condition = combine[0].args[0] if isinstance(combine[0], Apply) else None
    if condition is None or len(combine) < 2:
        return False
    one = tuple(Apply("where", (condition, *_pair(k))) for k in range(len(combine)))
    other = tuple(Apply("where", (condition, *reversed(_pair(k)))) for k in range(len(combine)))
    return combine in (one, other)


def _is_term(e: Expr) -> bool:
    """Is the value always one of the terms, so that it needs no wider type and is not rounded?"""
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
    """The better value with its index, the smaller index of equals; a NaN wins, as in NumPy."""
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
    meaning = f"the position of the {of}, the first of several; an error over an axis of extent 0"
    return Monoid(name, (unit, "highest"), _first(better), results=(1,), meaning=meaning)


MONOIDS: dict[str, Monoid] = {
    m.name: m
    for m in (
        _single("sum", 0, "add", "the sum; 0 over nothing", inverse="sub"),
        _single("prod", 1, "mul", "the product; 1 over nothing"),
        _single("max", "lowest", "max", "the greatest; -inf over nothing"),
        _single("min", "highest", "min", "the least; inf over nothing"),
        _single("any", False, "or", "whether any is true; false over nothing"),
        _single("all", True, "and", "whether all are true; true over nothing"),
        _place("argmax", "lowest", "gt", "greatest"),
        _place("argmin", "highest", "lt", "least"),
    )
}
