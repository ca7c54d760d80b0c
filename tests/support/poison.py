"""Kernels with everything poisoned that no result may depend on: values at positions beyond an extent.

    fold[t](x)     -->   fold[t](where t < |t| or x is the identity then x else poison), and so for prefixes
    dot[t](x, y)   -->   the same of both sides, whose identity is 0
    x = e          -->   x = where every axis of x is in range, or e is 0 or infinite, then e else poison

What a load gives beyond an extent is 0, as its mask says, and what follows from zeros alone needs no mask of its own: a
sum of them may be taken over the whole tile. Any other number there is an accident. The poison of floats is `bad`, not
a number as a rule: no sum, product, maximum or minimum forgets that, though a test whether it is finite does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from einc import tile
from einc.base.types import BOOL, DType
from einc.tile import Elem, Lit, Ref, Value
from einc.tile.masks import conjunction, inside
from einc.tile.typing import dtype_of, scope
from einc.tile.walk import loop_position, rebuild

_INFINITE = (math.inf, -math.inf)


def poisoned(kernel: tile.Kernel, bad: float = math.nan) -> tile.Kernel:
    """The kernel, masked already, with what lies beyond its extents poisoned."""
    return _Poison(kernel, bad).kernel_poisoned()


def poison(t: DType, bad: float) -> Lit:
    """What nothing may depend on; an integer far outside of every tensor."""
    return Lit(bad, t) if t.is_float else Lit(1, t) if t.is_bool else Lit((1 << min(t.bits or 32, 32) - 2) + 1, t)


class _Poison:
    def __init__(self, kernel: tile.Kernel, bad: float) -> None:
        self.kernel, self.bad = kernel, bad
        self.names = scope(kernel)
        self.edges: dict[str, Value] = {}
        self.each: set[str] = set()  # states of every position of a block, which lie beyond no extent

    def kernel_poisoned(self) -> tile.Kernel:
        self.edges = {a.name: inside(a) for a in (*self.kernel.grid, *self.kernel.whole) if a.blocked}
        return replace(self.kernel, body=tuple(self.body(self.kernel.body)))

    def body(self, statements: Sequence[tile.Statement]) -> Iterator[tile.Statement]:
        for s in statements:
            match s:
                case tile.Let():
                    yield from self.let(s)
                case tile.Store(index=index, value=value, mask=mask):
                    at = tuple(map(self.value, index))
                    where = None if mask is None else self.value(mask)
                    yield replace(s, index=at, value=self.value(value), mask=where)
                case tile.Loop():
                    yield self.loop(s)

    def let(self, s: tile.Let) -> Iterator[tile.Statement]:
        """The binding, and for each of its names what is left of it beyond extents."""
        raw = tuple(f"{n}_raw" for n in s.names)
        found = replace(s, value=self.value(s.value))
        clean = [
            None if n in self.each else self.beyond(Ref(r), t) for n, r, t in zip(s.names, raw, s.types, strict=True)
        ]
        self.names.update(zip((*raw, *s.names), (*s.types, *s.types), strict=True))
        if all(v is None for v in clean):
            yield found
            return
        yield replace(found, names=raw)
        for name, type_, was, value in zip(s.names, s.types, raw, clean, strict=True):
            yield tile.Let((name,), (type_,), Ref(was) if value is None else value)

    def beyond(self, v: Value, type_: tile.TileType) -> Value | None:
        """The value with what is no identity poisoned where any of its axes is beyond its extent; None to leave it."""
        t = type_.dtype
        kept = conjunction([self.edges[a] for a in type_.axes if a in self.edges])
        if kept is None or t.is_bool or (t.is_int and 0 < t.bits < 32):
            return None
        units = (0.0, *_INFINITE) if t.is_float else (0, "lowest", "highest")
        for unit in units:
            kept = Elem("or", (kept, Elem("eq", (v, Lit(unit, t)))))
        return Elem("where", (kept, v, poison(t, self.bad)))

    def loop(self, s: tile.Loop) -> tile.Loop:
        carried = tuple(replace(c, init=self.value(c.init)) for c in s.carried)
        start, stop = (None if v is None else self.value(v) for v in (s.start, s.stop))
        full = s.full
        if full is not None:
            first = None if full.start is None else self.value(full.start)
            full = replace(full, start=first, stop=self.value(full.stop))
        self.names[s.axis.name] = loop_position(s.axis)
        self.names.update({c.name: c.type for c in s.carried})
        self.each |= {n for c in s.carried if s.axis.name in c.type.axes for n in (c.name, c.after)}
        if s.axis.blocked:
            self.edges[s.axis.name] = inside(s.axis, s.stop if s.exact else None)
        if full is not None:
            full = replace(full, body=tuple(self.body(full.body)))
        return replace(s, carried=carried, body=tuple(self.body(s.body)), start=start, stop=stop, full=full)

    def value(self, v: Value) -> Value:
        """The value with what it folds, scans and contracts poisoned beyond the axis that it does so along."""
        made = rebuild(v, self.value)
        match made:
            case tile.Fold(monoid=monoid, axis=axis, args=args) | tile.Scan(monoid=monoid, axis=axis, args=args):
                if all(isinstance(a, Ref) and a.name in self.each for a in args):
                    return made
                units = zip(args, monoid.identity, strict=True)
                return replace(made, args=tuple(self.unless(axis, a, u) for a, u in units))
            case tile.Dot(left=left, right=right, inner=inner):
                return replace(made, left=self.unless(inner, left, 0), right=self.unless(inner, right, 0))
            case _:
                return made

    def unless(self, axis: str, v: Value, unit: bool | int | float | str) -> Value:
        """The value, poisoned beyond an axis where it is not the unit."""
        t = dtype_of(v, self.names)
        if axis not in self.edges or t == BOOL:  # a truth value that is not the unit is as bad as any
            return v
        kept = Elem("or", (self.edges[axis], Elem("eq", (v, Lit(unit, t)))))
        return Elem("where", (kept, v, poison(t, self.bad)))
