"""Scale a contraction that is only ever multiplied by one number where it is computed, which costs nothing there.

s = dot(x, y);  ... c * s ...   -->   s = c * dot(x, y);  ... s ...      c a number, and no other use of s
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from einc import tile
from einc.tile import Elem, Let, Ref, Statement, Value
from einc.tile.walk import lets, loops, over_values, rebuild, rewritten, roots, values_of

_Lets = Mapping[str, Value]


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
