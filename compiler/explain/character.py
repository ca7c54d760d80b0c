"""The mathematical kind of a cascade: linear, bilinear, polynomial or non-linear in each of its operands.

Every value has a degree in each operand: the [least, most] power that the operand enters with, None if it enters in any
other way. `ALL` stands for all operands together: A·B has degree 1 in each and 2 in ALL, A + B has degree 1 in ALL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from einc.base.ops import COMPARISONS
from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Program, Read, Scalar, walk

Degree = tuple[int, int] | None
ALL = "*"

_MULTIPLES = ("linear", "bilinear", "trilinear")
_CONDITIONS = (*COMPARISONS, "and", "or", "not")
_POWERS = {2: "quadratic", 3: "cubic"}


@dataclass(frozen=True, slots=True)
class _Value:
    """Degrees by operand; operands not named have degree 0. `zero` marks the constant 0, which has any degree."""

    degrees: dict[str, Degree]
    zero: bool = False

    def degree(self, name: str) -> Degree:
        return self.degrees.get(name, (0, 0))


@dataclass(frozen=True, slots=True)
class Character:
    """The degree of each operand, the operations that make it non-linear, and whether it has conditions."""

    degrees: dict[str, Degree]
    causes: tuple[str, ...]
    conditional: bool

    @property
    def kind(self) -> str:
        """One phrase: `bilinear in A, B`; `non-linear (exp, max, quotient) in Q, K; linear in V; conditional`."""
        operands = [name for name in self.degrees if name != ALL]
        whole = self.degrees.get(ALL, (0, 0))
        if not operands or whole == (0, 0):
            phrase = "constant"
        elif whole == (1, 1):
            phrase = f"linear in {', '.join(operands)}"
        elif all(self.degrees[name] == (1, 1) for name in operands):
            count = len(operands)
            phrase = f"{_MULTIPLES[count - 1] if count <= 3 else 'multilinear'} in {', '.join(operands)}"
        else:
            phrase = "; ".join(self._grouped(operands))
        return phrase + ("; conditional" if self.conditional else "")

    def _grouped(self, operands: list[str]) -> list[str]:
        groups: dict[str, list[str]] = {}
        for name in operands:
            groups.setdefault(_word(self.degrees[name], self.causes), []).append(name)
        order = sorted(groups, key=lambda word: not word.startswith("non-linear"))
        return [f"{word} in {', '.join(groups[word])}" for word in order]


def _word(d: Degree, causes: tuple[str, ...]) -> str:
    if d is None:
        return f"non-linear ({', '.join(causes)})" if causes else "non-linear"
    if d == (1, 1):
        return "linear"
    if d[1] == 1:
        return "affine"
    return _POWERS.get(d[1], f"a polynomial of degree {d[1]}") if d[1] else "constant"


def character(program: Program) -> Character:
    """The character of all results together."""
    values = {p.name: _Value({p.name: (1, 1), ALL: (1, 1)}) for p in program.operands}
    causes: dict[str, None] = {}
    for e in program.equations:
        values |= dict.fromkeys([t.name for t in e.outputs], _equation(e, values, causes))
    results = _either(*(values[name] for name in program.results))
    degrees = {p.name: results.degree(p.name) for p in program.operands}
    chosen = any(
        e.domain is not None or any(isinstance(n, Apply) and n.op == "where" for b in e.bodies for n in walk(b))
        for e in program.equations
    )
    return Character({**degrees, ALL: results.degree(ALL)}, tuple(causes), chosen)


def _equation(e: Equation, values: dict[str, _Value], causes: dict[str, None]) -> _Value:
    body = _either(*(_expr(b, values, causes) for b in e.bodies))
    if e.domain is not None:
        body = _either(body, _broken(_expr(e.domain, values, causes), "", causes))
    if e.monoid is None or e.monoid.adds:
        return body
    return _broken(body, e.monoid.name, causes)


def _broken(v: _Value, cause: str, causes: dict[str, None]) -> _Value:
    """The operands enter, but not as powers, because of the operation `cause`; it is empty for a condition."""
    touched = [name for name, d in v.degrees.items() if d != (0, 0)]
    if touched and cause:
        causes.setdefault(cause)
    return _Value(dict.fromkeys(touched))


def _either(*values: _Value) -> _Value:
    """One value or another, or their sum."""
    some = [v for v in values if not v.zero]
    if not some:
        return _Value({}, zero=True)
    return _Value({name: _hull([v.degree(name) for v in some]) for v in some for name in v.degrees})


def _hull(degrees: list[Degree]) -> Degree:
    known = [d for d in degrees if d is not None]
    return None if len(known) < len(degrees) else (min(d[0] for d in known), max(d[1] for d in known))


def _product(a: _Value, b: _Value) -> _Value:
    if a.zero or b.zero:
        return _Value({}, zero=True)

    def add(x: Degree, y: Degree) -> Degree:
        return None if x is None or y is None else (x[0] + y[0], x[1] + y[1])

    return _Value({name: add(a.degree(name), b.degree(name)) for name in (a.degrees | b.degrees)})


def _expr(e: Expr, values: dict[str, _Value], causes: dict[str, None]) -> _Value:
    match e:
        case Const(value):
            return _Value({}, zero=not isinstance(value, bool) and value == 0)
        case Cast(arg=arg):
            return _expr(arg, values, causes)
        case Read(tensor, index, guard):
            below = [_expr(i, values, causes) for i in (*index, *(() if guard is None else (guard,)))]
            selected = [_broken(v, "gather", causes) for v in below if v.degrees]
            return _product_with(values[tensor], selected)
        case Apply(op, args):
            return _apply(op, [_expr(a, values, causes) for a in args], causes)
        case AxisValue() | Extent() | Scalar():
            return _Value({})
        case _:
            assert_never(e)


def _product_with(v: _Value, selected: list[_Value]) -> _Value:
    """A value selected by others: these do not enter as powers, and neither does `ALL`."""
    for s in selected:
        v = _Value(v.degrees | s.degrees)
    return v


def _apply(op: str, args: list[_Value], causes: dict[str, None]) -> _Value:
    match op, args:
        case (("add" | "sub"), [a, b]):
            return _either(a, b)
        case (("neg" | "re" | "im" | "conj"), [a]):
            return a
        case "mul", [a, b]:
            return _product(a, b)
        case "div", [a, b]:
            return _product(a, _broken(b, "quotient", causes))
        case "where", [condition, a, b]:
            chosen = _broken(condition, "", causes)
            return _product_with(_either(a, b), [chosen] if chosen.degrees else [])
        case _:
            joined = _Value({name: (1, 1) for a in args for name, d in a.degrees.items() if d != (0, 0)})
            return _broken(joined, "power" if op == "pow" else "" if op in _CONDITIONS else op, causes)
