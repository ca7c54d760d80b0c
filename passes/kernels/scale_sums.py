"""Scale what a loop adds up behind the loop, and not its terms.

    loop t: o = o + dot(c * x, y);  f(o)   -->   loop t: o = o + dot(x, y);  f(c * o)      c of numbers alone

A factor that is the same for all terms of a sum comes out of it. What is multiplied stays in its type, of whose digits
none are lost by that, where its range is that of f32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

from einc import tile
from einc.base.types import BF16, F32
from einc.tile import Carried, Dot, Elem, Fill, Let, Lit, Loop, Ref, Value
from einc.tile.walk import loops, over_values, rebuild, values_in, walk_values


def scale_sums(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with factors of numbers alone taken out of the sums of its outer loops."""
    uses = Counter(v.name for v in values_in(kernel.body) if isinstance(v, Ref))
    uses.update(c.after for x in loops(kernel.body) for c in x.carried)
    body: list[tile.Statement] = []
    scales: dict[str, Value] = {}  # of states, by their names

    def scaled(v: Value) -> Value:
        return Elem("mul", (scales[v.name], v)) if isinstance(v, Ref) and v.name in scales else rebuild(v, scaled)

    for s in kernel.body:
        found = over_values(s, scaled) if scales else s
        if isinstance(found, Loop) and (found.full is None or not found.full.body):
            sums = _Sums(found, uses)
            scales |= sums.scales
            found = sums.unscaled()
        body.append(found)
    return replace(kernel, body=tuple(body)) if scales else kernel


def is_closed(v: Value) -> bool:
    """Is it made of numbers, extents and scalars alone?"""
    return all(isinstance(x, Elem | Lit | tile.Convert | tile.ExtentOf | tile.ScalarArg) for x in walk_values(v))


class _Sums:
    """What a loop adds up: the factors of its states, and its bindings without them."""

    def __init__(self, loop: Loop, uses: Mapping[str, int]) -> None:
        self.loop, self.uses = loop, uses
        self.lets = {s.names[0]: s for s in loop.body if isinstance(s, Let) and len(s.names) == 1}
        self.values = {n: s.value for n, s in self.lets.items()}
        self.scales: dict[str, Value] = {}
        for c in loop.carried:
            v = self.values.get(c.after)
            if not isinstance(v, Dot) or not self.adds(c, v):
                continue
            factors, left = self.apart(v.left)
            if factors:
                self.scales[c.name] = reduce(lambda a, b: Elem("mul", (a, b)), factors)
                self.values[c.after] = replace(v, left=left)

    def unscaled(self) -> Loop:
        """The loop without these factors."""

        def changed(s: tile.Statement) -> tile.Statement:
            return replace(s, value=self.values[s.names[0]]) if isinstance(s, Let) and len(s.names) == 1 else s

        return replace(self.loop, body=tuple(map(changed, self.loop.body))) if self.scales else self.loop

    def adds(self, c: Carried, v: Dot) -> bool:
        """Is a state the sum of what a dot gives in each step, and read for nothing else in the loop?"""
        reads = sum(x == Ref(c.name) for x in values_in(self.loop.body))
        return v.acc == Ref(c.name) and reads == 1 and c.init == Fill(Lit(0, F32)) and c.type.dtype == F32

    def apart(self, v: Value) -> tuple[list[Value], Value]:
        """The factors of a product that are made of numbers alone, and the product without them."""
        match v:
            case Ref(name=name) if name in self.lets and self.uses[name] == 1:
                factors, self.values[name] = self.apart(self.values[name])
                return factors, v
            case tile.Convert(arg=x) if v.dtype in (BF16, F32):
                factors, rest = self.apart(x)
                return factors, replace(v, arg=rest)
            case Elem(op="where", args=(p, x, Lit(value=0) as other)):
                factors, rest = self.apart(x)
                return factors, Elem("where", (p, rest, other))
            case Elem(op="mul", args=(c, x)) if is_closed(c):
                factors, rest = self.apart(x)
                return [c, *factors], rest
            case Elem(op="mul", args=(x, c)) if is_closed(c):
                factors, rest = self.apart(x)
                return [*factors, c], rest
            case Elem(op="mul", args=(x, y)):
                (ahead, x), (behind, y) = self.apart(x), self.apart(y)
                return [*ahead, *behind], Elem("mul", (x, y))
            case _:
                return [], v
