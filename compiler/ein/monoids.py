"""The monoids of the language."""

from __future__ import annotations

from dataclasses import dataclass

from einc.ein.expressions import Apply, Expr, Scalar


@dataclass(frozen=True, slots=True)
class Monoid:
    """An associative combination with an identity, over one or more components carried together.

    `combine[k]` gives component k from the scalars `a0, a1, ...` (earlier) and `b0, b1, ...` (later). `identity` may be
    `lowest` or `highest`: the least or greatest value of the component's type. `results` says which components the
    reduction gives: argmax carries a value and an index and gives the index. `inverse` undoes a combine, if it can.
    """

    name: str
    identity: tuple[bool | int | str, ...]
    combine: tuple[Expr, ...]
    results: tuple[int, ...] = (0,)
    commutative: bool = True
    inverse: Expr | None = None

    @property
    def components(self) -> int:
        return len(self.identity)


_A, _B = Scalar("a0"), Scalar("b0")


_I, _J = Scalar("a1"), Scalar("b1")


def _call(op: str, *args: Expr) -> Expr:
    return Apply(op, args)


def _first(better: str) -> tuple[Expr, Expr]:
    """The better value with its index, the smaller index among equals; a NaN wins, as in NumPy."""
    a_nan, b_nan = _call("ne", _A, _A), _call("ne", _B, _B)
    tie = _call("or", _call("eq", _A, _B), _call("and", a_nan, b_nan))
    wins = _call("or", _call(better, _A, _B), _call("and", a_nan, _call("not", b_nan)))
    takes_a = _call("or", wins, _call("and", tie, _call("lt", _I, _J)))
    return _call("where", takes_a, _A, _B), _call("where", takes_a, _I, _J)


MONOIDS: dict[str, Monoid] = {
    m.name: m
    for m in (
        Monoid("sum", (0,), (_call("add", _A, _B),), inverse=_call("sub", _A, _B)),
        Monoid("prod", (1,), (_call("mul", _A, _B),)),
        Monoid("max", ("lowest",), (_call("max", _A, _B),)),
        Monoid("min", ("highest",), (_call("min", _A, _B),)),
        Monoid("any", (False,), (_call("or", _A, _B),)),
        Monoid("all", (True,), (_call("and", _A, _B),)),
        Monoid("argmax", ("lowest", "highest"), _first("gt"), results=(1,)),
        Monoid("argmin", ("highest", "highest"), _first("lt"), results=(1,)),
    )
}
