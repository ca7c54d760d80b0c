"""Multiply fewer tiles: scale what is smaller, and take products that are there.

s = dot(x, y);  ... c * s ...        -->   s = c * dot(x, y);  ... s ...      c a number, and no other use of s
2 * x * l[i]                         -->   x * (2 * l[i])
y = w * x;  ... x * l[i] * w ...     -->   y = w * x;  ... y * l[i] ...

A contraction takes a number up as it is computed. Of other numbers only literals of about 1 change their place: what
other factors are, and so whether a product of a few of them is in range, is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce

from einc import tile
from einc.base.types import F32, F64
from einc.tile import Elem, Let, Ref, Statement, TileType, Value
from einc.tile.typing import axes_of, dtype_of, scope
from einc.tile.walk import Scope, lets, loops, over_values, rebuild, rewritten, roots, values_of

_Lets = Mapping[str, Value]

_ABOUT_1 = 1024.0  # a factor up to this, or down to its inverse, leaves what it multiplies in range


def scale_early(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements with such factors moved, those of loops included."""
    bound = list(lets(body))
    products = {s.names[0] for s in bound if isinstance(s.value, tile.Dot) and _starts_at_0(s.value)}
    if not products:
        return body
    numbers = {
        s.names[0]: s.value for s in bound if not s.types[0].axes and not isinstance(s.value, tile.Dot | tile.Fold)
    }
    used: dict[str, set[Value | None]] = {name: set() for name in products}
    for root in (*roots(body), *(Ref(c.after) for loop in loops(body) for c in loop.carried)):
        for name, factor in _uses(root, numbers):
            if name in used:
                used[name].add(factor)
    factors = {name: c for name, found in used.items() if len(found) == 1 for c in found if c is not None}
    if not factors:
        return body
    return rewritten((_moved(s, factors) for s in body), lambda s, _: _scaled(s, factors))


def _starts_at_0(v: tile.Dot) -> bool:
    start = v.acc.value if isinstance(v.acc, tile.Fill) else v.acc
    return isinstance(start, tile.Lit) and start.value == 0


def _uses(v: Value, numbers: _Lets) -> Iterator[tuple[str, Value | None]]:
    """The names that a value reads, each with the number that multiplies it there, or None."""
    match v:
        case Ref(name=name):
            yield name, None
        case Elem(op="mul", args=(c, Ref(name=name))) | Elem(op="mul", args=(Ref(name=name), c)) if name not in numbers:
            yield name, _number(c, numbers)
            yield from _uses(c, numbers)
        case _:
            for below in values_of(v):
                yield from _uses(below, numbers)


def _number(v: Value, numbers: _Lets) -> Value | None:
    """The value written out over extents, scalars and literals, if it is made of nothing else."""
    match v:
        case Ref(name=name):
            return _number(numbers[name], numbers) if name in numbers else None
        case tile.Lit() | tile.ExtentOf() | tile.ScalarArg():
            return v
        case Elem() | tile.Convert():
            below = [_number(a, numbers) for a in values_of(v)]
            if any(b is None for b in below):
                return None
            found = iter(below)
            return rebuild(v, lambda _: next(found) or v)
        case _:
            return None


def _moved(s: Statement, factors: _Lets) -> Statement:
    """The statement with the factors left out, in the body of a loop too."""

    def change(v: Value) -> Value:
        match v:
            case Elem(op="mul", args=(_, Ref(name=name) as kept)) | Elem(op="mul", args=(Ref(name=name) as kept, _)):
                if name in factors:
                    return kept
        return rebuild(v, change)

    return over_values(s, change)


def _scaled(s: Statement, factors: _Lets) -> tuple[Statement, ...]:
    """The statement with its value multiplied by its factor, if it has one."""
    if isinstance(s, Let) and s.names[0] in factors:
        return (replace(s, value=Elem("mul", (factors[s.names[0]], s.value))),)
    return (s,)


def multiply_less(kernel: tile.Kernel, body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements of a kernel with products of fewer tiles."""
    return rewritten(body, _Products().statement, Scope(scope(kernel)))


class _Products:
    """The products that have names, by what they multiply."""

    def __init__(self) -> None:
        self.known: dict[str, Counter[Value]] = {}

    def statement(self, s: Statement, here: Scope) -> tuple[Statement, ...]:
        if isinstance(s, tile.Loop):
            return (s,)
        made = over_values(s, lambda v: self.value(v, here.names))
        if isinstance(made, Let) and len(factors := _factors(made.value)) > 1:
            self.known[made.names[0]] = Counter(factors)
        return (made,)

    def value(self, v: Value, names: Mapping[str, TileType]) -> Value:
        v = rebuild(v, lambda x: self.value(x, names))
        if not isinstance(v, Elem) or v.op != "mul" or dtype_of(v, names) not in (F32, F64):
            return v
        axes, factors = axes_of(v, names), _factors(v)
        found = self.taken(factors, axes, names)
        small = min((f for f in found if not _is_about_1(f)), key=lambda f: len(axes_of(f, names)), default=None)
        if small is not None and axes_of(small, names) < axes and any(map(_is_about_1, found)):
            scale = reduce(_times, (*filter(_is_about_1, found), small))
            rest = [f for f in found if not _is_about_1(f)]
            rest[rest.index(small)] = scale
            return reduce(_times, rest)
        return v if found == factors else reduce(_times, found)

    def taken(self, factors: list[Value], axes: frozenset[str], names: Mapping[str, TileType]) -> list[Value]:
        """The factors with names for products of some of them."""
        for name, own in self.known.items():
            if name in names and frozenset(names[name].axes) == axes and own <= Counter(factors):
                left = Counter(factors) - own
                factors = [Ref(name), *left.elements()]
        return factors


def _factors(v: Value) -> list[Value]:
    return [f for a in v.args for f in _factors(a)] if isinstance(v, Elem) and v.op == "mul" else [v]


def _times(x: Value, y: Value) -> Value:
    return Elem("mul", (x, y))


def _is_about_1(v: Value) -> bool:
    return isinstance(v, tile.Lit) and isinstance(v.value, float) and 1 / _ABOUT_1 <= abs(v.value) <= _ABOUT_1
