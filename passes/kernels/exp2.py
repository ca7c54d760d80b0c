"""Take powers of two, which the hardware knows, in place of those of e.

    exp(x)                                -->   exp2(x * log2(e))      f32, over a tile
    m = max(m, max[j](c * y)); exp(c * y - m)   -->   m = max(m, max[j](c' * y)); exp2(c * y - m)     c' = c * log2(e)

`exp` is made of the same product and the same power, with care for results below the normal range added to every
element; here those are 0. Where exponents are differences of scores and references to them, the scores and all that
follows them are kept in units of log2(e) inside a loop, so that the factor joins the scale they have; what the loop
leaves is divided by it once.

    exp(c * y - r)                            -->   exp2(c' * y - r * log2(e))     r has fewer axes: one operation less
    exp(c * y + x - r)                        -->   exp2((c * y + x) * log2(e) - r * log2(e))

A score and its reference in other units are rounded once more each, by the last place of the score, where their
difference is exact. So they change units only in kernels that read or write types with fewer digits than f32.

A CPU computes both powers by operations over tiles that lie in its cache, where the product would be one more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from einc import tile
from einc.base.types import F32
from einc.pipeline import Context
from einc.tile import Elem, Lit, Ref, TileType, Value
from einc.tile.live import live
from einc.tile.sums import called_by_name, total
from einc.tile.typing import axes_of, dtype_of, is_narrow, scope
from einc.tile.walk import every_value, lets, loop_position, over_values, rebuild, values_of, walk_values

_LOG2_E = Lit(math.log2(math.e), F32)
_LOG_2 = Lit(math.log(2), F32)

Names = dict[str, TileType]


def exp2(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its exponentials taken to base 2, where that is what a machine has."""
    if context.target.cache or not any(isinstance(v, Elem) and v.op == "exp" for v in every_value(kernel)):
        return kernel
    values = {s.names[0]: s.value for s in lets(kernel.body) if len(s.names) == 1}
    return replace(kernel, body=live(tuple(_statements(kernel.body, scope(kernel), values, is_narrow(kernel)))))


def _statements(
    body: tuple[tile.Statement, ...], names: Names, values: Mapping[str, Value], narrow: bool
) -> Iterator[tile.Statement]:
    left: dict[str, Value] = {}  # states that loops leave in units of log2(e)
    for s in (_read(s, left) for s in body):
        match s:
            case tile.Let(value=value):
                yield replace(s, value=_powers(value, names, values, narrow))
                names.update(zip(s.names, s.types, strict=True))
            case tile.Store(value=value):
                yield replace(s, value=_powers(value, names, values, narrow))
            case tile.Loop(axis=axis, carried=carried):
                states = {c.name: c.type for c in carried}
                inner = {**names, axis.name: loop_position(axis), **states}
                units = _Units(s, inner)
                pay = narrow and units.pay
                done = tuple(map(units.rescaled, s.body)) if pay else s.body
                yield replace(s, body=tuple(_statements(done, inner, values, narrow)))
                names.update(states)
                left |= {c.name: Elem("mul", (Ref(c.name), _LOG_2)) for c in carried if pay and c.name in units.kept}
            case _:
                assert_never(s)


def _powers(v: Value, names: Names, values: Mapping[str, Value], narrow: bool) -> Value:
    made = rebuild(v, lambda below: _powers(below, names, values, narrow))
    match made:
        case Elem(op="exp", args=(x,)) if dtype_of(x, names) == F32 and axes_of(x, names):
            return Elem("exp2", ((_scaled(x, names, values) if narrow else None) or _times(x),))
        case _:
            return made


def _scaled(x: Value, names: Names, values: Mapping[str, Value]) -> Value | None:
    """The exponent in units of log2(e), where a scale takes the factor up, and what has fewer axes is multiplied."""
    match x:
        case Elem(op="mul", args=(c, y)) if not axes_of(c, names) and axes_of(y, names):
            return Elem("mul", (_in_units(c), y))
        case Elem(op="mul", args=(y, c)) if not axes_of(c, names) and axes_of(y, names):
            return Elem("mul", (y, _in_units(c)))
        case Ref(name=name) if isinstance(own := values.get(name), Elem) and own.op in ("mul", "add", "sub"):
            return _scaled(own, names, values)
        case Elem(op="where", args=(p, y, Lit(value=e) as out)) if e == -math.inf:
            found = _scaled(y, names, values)
            return None if found is None else Elem("where", (p, found, out))
        case Elem(op="sub" | "add"):
            return _scaled_sum(x, names, values)
        case _:
            return None


def _scaled_sum(x: Elem, names: Names, values: Mapping[str, Value]) -> Value | None:
    """The sum of its terms in units of log2(e), where scores are among them.

    Terms with fewer axes are multiplied by it once for all of the same axes; those with all of them each by itself, if
    all take it up, or else as a whole.
    """
    whole: list[tuple[bool, Value]] = []
    fewer: dict[frozenset[str], list[tuple[bool, Value]]] = {}
    for plus, term in called_by_name(x, values):
        axes = axes_of(term, names)
        (whole if axes == axes_of(x, names) else fewer.setdefault(axes, [])).append((plus, term))
    if not any(_is_score(term, names, values) for _, term in whole):
        return None
    free = [(plus, found) for plus, term in whole if (found := _scaled(term, names, values)) is not None]
    if len(free) < len(whole):
        free = [(plus, _times(term)) for plus, term in (total(whole),)]
    plus, found = total([*free, *((plus, _times(term)) for plus, term in map(total, fewer.values()))])
    return found if plus else Elem("neg", (found,))


def _is_score(v: Value, names: Names, values: Mapping[str, Value]) -> bool:
    """Is it a multiple of a tile by a number, or of a dot, or such with something added, masked or not?"""
    match v:
        case Ref(name=name):
            return name in values and _is_score(values[name], names, values)
        case Elem(op="where", args=(_, y, Lit(value=e))) if e == -math.inf:
            return _is_score(y, names, values)
        case Elem(op="add" | "sub", args=args):
            return any(_is_score(a, names, values) for a in args)
        case Elem(op="mul", args=(a, b)):
            return bool(axes_of(v, names)) and not (axes_of(a, names) and axes_of(b, names))
        case _:
            return isinstance(v, tile.Dot)


def _times(v: Value) -> Value:
    return Elem("mul", (v, _LOG2_E))


def _in_units(c: Value) -> Value:
    """A scale, times log2(e)."""
    match c:
        case Lit(value=int() | float() as value, dtype=t):
            return Lit(value * math.log2(math.e), t)
        case _:
            return _times(c)


def _read(s: tile.Statement, left: dict[str, Value]) -> tile.Statement:
    """The statement with what loops before it have left in their units."""

    def value(v: Value) -> Value:
        return left.get(v.name, v) if isinstance(v, Ref) else rebuild(v, value)

    return over_values(s, value) if left else s


class _Units:
    """The names of a loop's body that can be `kept` in units of log2(e): scores, and what is made of them alone.

    Every use of them must follow from the units: a difference under an exponential, a test whether one is finite.
    """

    def __init__(self, loop: tile.Loop, names: Names) -> None:
        self.lets = [s for s in loop.body if isinstance(s, tile.Let)]
        self.names = {**names, **{n: t for s in self.lets for n, t in zip(s.names, s.types, strict=True)}}
        self.values = {s.names[0]: s.value for s in self.lets if len(s.names) == 1}
        self.kept: set[str] = set()
        self.scores = set(self.found()) if len(self.lets) == len(loop.body) else set()
        states = {c.name for c in loop.carried if c.type.dtype == F32 and self.is_fixed(c.init)}
        while self.scores:
            self.kept = self.scores | states
            for name, value in self.values.items():
                if self.follows(value) and self.mentions(value):
                    self.kept.add(name)
            fitting = {c.name for c in loop.carried if c.name in states and c.after in self.kept}
            if fitting == states:
                break
            states = fitting
        afters = {c.after for c in loop.carried if c.name not in states}
        powers = any(v.op == "exp" and self.follows(v.args[0]) for v in self.elements())
        self.pay = (
            powers and not afters & self.kept and all(self.is_free(s.value) for s in self.lets if self.is_outside(s))
        )

    def elements(self) -> Iterator[Elem]:
        return (v for s in self.lets for v in walk_values(s.value) if isinstance(v, Elem))

    def found(self) -> Iterator[str]:
        """Results of dots and multiples of tiles by a number, of which a maximum or minimum is taken, masked or not."""
        for v in (v for s in self.lets for v in walk_values(s.value)):
            match v:
                case tile.Fold(monoid=monoid, args=(Ref(name=name),)) if monoid.extreme:
                    match self.values.get(name):
                        case Elem(op="where", args=(_, Ref(name=inner), Lit() as other)) if self.is_fixed(other):
                            name = inner
                    if name in self.values and self.names[name].dtype == F32 and self.scaled(self.values[name]):
                        yield name

    def scaled(self, v: Value) -> Value | None:
        """The multiple in units of log2(e), if the number takes the factor up."""
        match v:
            case Elem(op="mul", args=(c, x)) if not axes_of(c, self.names) and axes_of(x, self.names):
                return Elem("mul", (_in_units(c), x))
            case tile.Dot():
                return Elem("mul", (_LOG2_E, v))
            case Elem(op="where", args=(mask, x, Lit() as other)) if self.is_fixed(other):
                found = self.scaled(x)
                return None if found is None else Elem("where", (mask, found, other))
            case _:
                return None

    def is_outside(self, s: tile.Let) -> bool:
        return s.names[0] not in self.kept or s.names[0] in self.scores

    def is_fixed(self, v: Value) -> bool:
        """Is it the same in any units?"""
        match v:
            case tile.Fill(value=value) | (Lit() as value):
                return value.dtype == F32 and value.value in (0, math.inf, -math.inf, "lowest", "highest")
            case _:
                return False

    def mentions(self, v: Value) -> bool:
        return any(isinstance(x, Ref) and x.name in self.kept for x in walk_values(v))

    def follows(self, v: Value) -> bool:
        """Is it in the units that the kept names are in?"""
        match v:
            case Ref(name=name):
                return name in self.kept
            case tile.Fold(monoid=monoid, args=(x,)):
                return monoid.extreme is not None and self.follows(x)
            case Elem(op="max" | "min" | "add" | "sub" | "neg", args=args):
                return all(self.follows(x) or self.is_fixed(x) for x in args) and self.mentions(v)
            case Elem(op="where", args=(p, x, y)):
                fits = all(self.follows(z) or self.is_fixed(z) for z in (x, y))
                return self.is_free(p) and fits and (self.mentions(x) or self.mentions(y))
            case _:
                return False

    def is_free(self, v: Value) -> bool:
        """Is it the same whatever units the kept names are in?"""
        match v:
            case Ref(name=name):
                return name not in self.kept
            case Elem(op="exp", args=(x,)) if self.follows(x):
                return True
            case Elem(op="lt", args=(Elem(op="abs", args=(x,)), y)) if self.is_fixed(y) and self.follows(x):
                return True
            case Elem(op="eq" | "ne", args=(x, y)) if self.is_fixed(y) and self.follows(x):
                return True
            case _:
                return all(map(self.is_free, values_of(v)))

    def rescaled(self, s: tile.Statement) -> tile.Statement:
        """A statement of the body in these units."""
        if not isinstance(s, tile.Let):
            return s
        if s.names[0] in self.scores:
            value = self.scaled(s.value)
            assert value is not None
            return replace(s, value=value)
        return replace(s, value=self.powers(s.value))

    def powers(self, v: Value) -> Value:
        if isinstance(v, Elem) and v.op == "exp" and self.follows(v.args[0]):
            return Elem("exp2", v.args)
        return rebuild(v, self.powers)
