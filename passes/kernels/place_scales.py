"""Scale once for each row, or once for all, what would be scaled at every element.

    s = c * x;  m = max(m, max[j](s));  s - m     -->   m = max(m, c * max[j](x));  c * x - m      c > 0
    dot[i, e : j](...) / l[i]                     -->   dot[i, e : j](...) * (1 / l[i])
    loop t: o = o + dot(c * x, y)                 -->   loop t: o = o + dot(x, y);  ... c * o      c of no axis
    loop t: ... f(c) * x ...                      -->   k = f(c);  loop t: ... k * x ...           c of no axis

A positive number does not change which element is the greatest, so that the maximum of a block is scaled once for each
row. A difference then takes the product up in one operation, which rounds once: with a maximum that is scaled the same
way, exponents stay differences of equal numbers up to that rounding, and it is the same for all terms of a row. Where
x is masked by minus infinity, c times it is minus infinity still. On a CPU the product of matrices takes the scale up,
and a difference does not: there the tiles keep theirs.

A quotient takes as long as ten products. The inverse of a divisor is rounded once more; it overflows only where the
divisor is below the normal range of its type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from einc import tile
from einc.base.types import F32
from einc.passes.kernels.scale_sums import is_closed, scale_sums
from einc.pipeline import Context
from einc.tile import Elem, Lit, Ref, TileType, Value
from einc.tile.live import live
from einc.tile.typing import axes_of, bound_names, dtype_of, scope
from einc.tile.walk import (
    Scope,
    each,
    every_value,
    lets,
    loops,
    over_values,
    own_values,
    rebuild,
    values_of,
    walk,
    walk_values,
)

_STEM = "scale"

Names = dict[str, TileType]


def place_scales(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its scales placed."""
    deferred = _Deferred(kernel)
    if deferred.scales and not context.target.cache:
        kernel = replace(kernel, body=live(tuple(map(deferred.statement, kernel.body))))
    if any(isinstance(v, tile.Dot) for v in every_value(kernel)):
        kernel = scale_sums(kernel)
        kernel = replace(kernel, body=tuple(_inverted(kernel)))
    return _before_loops(kernel)


def _inverted(kernel: tile.Kernel) -> Iterator[tile.Statement]:
    """The statements around loops, where tiles are multiplied by the inverses of divisors of fewer axes."""
    here = Scope(scope(kernel))

    def value(v: Value) -> Value:
        match rebuild(v, value):
            case Elem(op="div", args=(x, y)) if dtype_of(y, here.names) == F32 and axes_of(y, here.names) < axes_of(
                x, here.names
            ):
                return Elem("mul", (x, Elem("div", (Lit(1.0, F32), y))))
            case made:
                return made

    for s in kernel.body:
        yield s if isinstance(s, tile.Loop) else over_values(s, value)
        here.bind(s)


class _Deferred:
    """The tiles whose scales are deferred, by name: the scale, and the tile without it.

    Maxima and minima, differences and masks are all that reads them; a tile that only a mask reads is deferred with it.
    """

    def __init__(self, kernel: tile.Kernel) -> None:
        self.scales: dict[str, Value] = {}
        self.bare: dict[str, Value] = {}
        self.masked: dict[str, str] = {}  # the name that a masked one is made of
        for s, here in walk(kernel.body, Scope(scope(kernel))):
            if isinstance(s, tile.Let) and len(s.names) == 1:
                self.learn(s.names[0], s.value, here.names)
        uses = _Uses(kernel.body, self.masked)
        while lost := {n for n in self.scales if not self.gains(n, uses)}:
            for name in lost:
                del self.scales[name]

    def learn(self, name: str, v: Value, names: Names) -> None:
        found = self.taken_apart(v, names)
        if found is None:
            return
        self.scales[name], self.bare[name] = found
        match v:
            case Elem(op="where", args=(_, Ref(name=source), _)):
                self.masked[name] = source

    def taken_apart(self, v: Value, names: Names) -> tuple[Value, Value] | None:
        """A positive scale of no axis and the tile that it scales, masked or not; None for any other value."""
        match v:
            case Ref(name=name) if name in self.scales:
                return self.scales[name], self.unnamed(v)
            case Elem(op="mul", args=(c, x)) if not axes_of(c, names) and axes_of(x, names) and _is_positive(c):
                return c, x
            case Elem(op="where", args=(p, x, Lit(value=out) as other)) if out == -math.inf:
                found = self.taken_apart(x, names)
                return None if found is None else (found[0], Elem("where", (p, found[1], other)))
            case _:
                return None

    def gains(self, name: str, uses: _Uses) -> bool:
        above = self.masked.get(name)
        if name in uses.others or (above is not None and above not in self.scales):
            return False
        masks = [n for n, source in self.masked.items() if source == name]
        if not all(n in self.scales for n in masks):
            return False
        return bool(masks) or (name in uses.extremes and name in uses.differences)

    def statement(self, s: tile.Statement) -> tile.Statement:
        match s:
            case tile.Let(names=(name,)) if name in self.scales:
                return replace(s, value=self.bare[name])
            case tile.Let(value=value):
                return replace(s, value=self.value(value))
            case tile.Store(value=value):
                return replace(s, value=self.value(value))
            case tile.Loop(body=body):
                return replace(s, body=tuple(map(self.statement, body)))
            case _:
                assert_never(s)

    def value(self, v: Value) -> Value:
        match v:
            case tile.Fold(args=(Ref(name=name) as x,)) if name in self.scales:
                return Elem("mul", (self.scales[name], replace(v, args=(self.unnamed(x),))))
            case Ref(name=name) if name in self.scales:
                return Elem("mul", (self.scales[name], self.unnamed(v)))
            case _:
                return rebuild(v, self.value)

    def unnamed(self, x: Ref) -> Value:
        """The tile without its scale by the name that it has already, if it has one."""
        bare = self.bare[x.name]
        return bare if isinstance(bare, Ref) else x


class _Uses:
    """The names that maxima and minima are taken of, those that something is subtracted from, and all others read."""

    def __init__(self, body: tuple[tile.Statement, ...], masked: Mapping[str, str]) -> None:
        self.extremes: set[str] = set()
        self.differences: set[str] = set()
        self.others: set[str] = {c.after for s in loops(body) for c in s.carried}
        for s in lets(body):
            self.others |= {s.value.name} if isinstance(s.value, Ref) else set()
        for v in (v for s in each(body) for v in self.unmasked(s, masked)):
            match v:
                case tile.Fold(monoid=monoid, args=(Ref(name=name),)) if monoid.extreme:
                    self.extremes.add(name)
                case Elem(op="sub", args=(Ref(name=name), y)):
                    self.differences.add(name)
                    self.others |= {y.name} if isinstance(y, Ref) else set()
                case _:
                    self.others |= {x.name for x in values_of(v) if isinstance(x, Ref)}

    def unmasked(self, s: tile.Statement, masked: Mapping[str, str]) -> Iterator[Value]:
        """The values of a statement, of a mask of a scaled tile those of its condition alone."""
        match s:
            case tile.Let(names=(name,), value=Elem(op="where", args=(p, _, _))) if name in masked:
                yield from walk_values(p)
                self.others |= {p.name} if isinstance(p, Ref) else set()
            case _:
                yield from walk_values(*own_values(s))


def _is_positive(v: Value) -> bool:
    """Is a number certainly more than 0, unless it is made of an extent that is 0?"""
    match v:
        case Lit(value=int() | float() as value):
            return 0 < value < math.inf
        case tile.Convert(arg=x) | Elem(op="rsqrt", args=(x,)):
            return isinstance(x, tile.ExtentOf) or _is_positive(x)
        case Elem(op="mul" | "div", args=args):
            return all(map(_is_positive, args))
        case Elem(op="where", args=(_, x, y)):
            return _is_positive(x) and _is_positive(y)
        case _:
            return False


def _before_loops(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with factors that are made of numbers alone bound before the loops that multiply by them."""
    made: dict[Value, tile.Let] = {}
    taken = bound_names(kernel)
    names: Names = dict(scope(kernel))

    def value(v: Value) -> Value:
        match v:
            case Elem(op="mul", args=(Elem() as c, x)) if is_closed(c) and not is_closed(x):
                if c not in made:
                    made[c] = tile.Let((_fresh(taken),), (TileType(dtype_of(c, names), ()),), c)
                return Elem("mul", (Ref(made[c].names[0]), value(x)))
            case _:
                return rebuild(v, value)

    body = tuple(over_values(s, value) if isinstance(s, tile.Loop) else s for s in kernel.body)
    return replace(kernel, body=(*made.values(), *body)) if made else kernel


def _fresh(taken: set[str]) -> str:
    name, k = _STEM, 0
    while name in taken:
        k += 1
        name = f"{_STEM}_{k}"
    taken.add(name)
    return name
