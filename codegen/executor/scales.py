"""Contractions that are only ever multiplied by one number are scaled where they are made, which costs nothing there.

s = dot(x, y);  ... c * s ...   -->   s = c * dot(x, y);  ... s ...      c a number, and no other use of s
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from einc import tile
from einc.tile import Elem, Let, Loop, Ref, Statement, Store, Value
from einc.tile.walk import rebuild, values_of

_Lets = Mapping[str, Value]


def scale_early(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements with such factors moved, those of loops included."""
    lets = [s for s in _flat(body) if isinstance(s, Let)]
    products = {s.names[0] for s in lets if isinstance(s.value, tile.Dot) and _starts_at_0(s.value)}
    if not products:
        return body
    numbers = {
        s.names[0]: s.value for s in lets if not s.types[0].axes and not isinstance(s.value, tile.Dot | tile.Fold)
    }
    used: dict[str, set[Value | None]] = {name: set() for name in products}
    for root in (v for s in _flat(body) for v in _roots(s)):
        for name, factor in _uses(root, numbers):
            if name in used:
                used[name].add(factor)
    factors = {name: c for name, found in used.items() if len(found) == 1 for c in found if c is not None}
    return tuple(_moved(s, factors) for s in body) if factors else body


def _starts_at_0(v: tile.Dot) -> bool:
    start = v.acc.value if isinstance(v.acc, tile.Fill) else v.acc
    return isinstance(start, tile.Lit) and start.value == 0


def _flat(body: tuple[Statement, ...]) -> Iterator[Statement]:
    for s in body:
        yield s
        if isinstance(s, Loop):
            yield from _flat(s.body)


def _roots(s: Statement) -> tuple[Value, ...]:
    """Every value that a statement reads, bodies of loops apart."""
    match s:
        case Let(value=value):
            return (value,)
        case Store(index=index, value=value, mask=mask):
            return (*index, value) if mask is None else (*index, value, mask)
        case Loop(carried=carried, start=start, stop=stop):
            bounds = (v for v in (start, stop) if v is not None)
            return (*(c.init for c in carried), *(Ref(c.after) for c in carried), *bounds)
        case _:
            assert_never(s)


def _uses(v: Value, numbers: _Lets) -> Iterator[tuple[str, Value | None]]:
    """The names that a value reads, each with the number it is multiplied by there, or None."""
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
    """The value in terms of extents, scalars and literals, if it is made of nothing else."""
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
    def change(v: Value) -> Value:
        match v:
            case Elem(op="mul", args=(_, Ref(name=name) as kept)) | Elem(op="mul", args=(Ref(name=name) as kept, _)):
                if name in factors:
                    return kept
        return rebuild(v, change)

    match s:
        case Let(names=(name,), value=value) if name in factors:
            return replace(s, value=Elem("mul", (factors[name], value)))
        case Let(value=value):
            return replace(s, value=change(value))
        case Store(index=index, value=value, mask=mask):
            there = None if mask is None else change(mask)
            return replace(s, index=tuple(map(change, index)), value=change(value), mask=there)
        case Loop():
            return replace(
                s,
                carried=tuple(replace(c, init=change(c.init)) for c in s.carried),
                body=tuple(_moved(inner, factors) for inner in s.body),
            )
        case _:
            assert_never(s)
