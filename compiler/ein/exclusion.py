"""What a reduction does not read: at positions where one part of a term decides, its other parts do not count.

    where(p, x, 0) * y           -->   where(p, x, 0) * where(p, y, 0)
    where(p, x, 0) / y           -->   where(p, x, 0) / where(p, y, 1)
    where(p, x, -inf) + y        -->   where(p, x, -inf) + where(p, y, 0)

A position that a mask excludes contributes nothing, whatever lies there: 0 * NaN and inf - inf do not come up. Masks
are found through the tensors that are read (`ein.domains`), and guard reads where they can. Parts that do not vary
along the reduced axes are there whatever position is looked at: they follow IEEE, unless the mask does not vary either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from einc.base.types import DType, compute
from einc.ein import ONE, ZERO, Apply, AxisValue, Cast, Equation, Expr, Read, Scalar, axes_of, rebuild, walk
from einc.ein.domains import Domain, Domains, conjunction
from einc.ein.guards import conjoin, in_range_by_form
from einc.ein.inference import dtype_of

_INFINITIES = (float("-inf"), float("inf"))


@dataclass(frozen=True, slots=True)
class Exclusion:
    """The guards of a reduction over some axes: its parts as they are read at positions that count."""

    over: frozenset[str]
    domains: Domains
    dtypes: Mapping[str, DType]
    told: Callable[[Expr], Expr | None] = lambda p: p  # a predicate as the reduction's kernel can tell it, if it can

    def guarded(self, e: Expr) -> Expr:
        """The expression with what does not count left out; itself where everything does."""
        match e:
            case Apply(op="mul", args=(x, y)):
                on_x, on_y = self.zero(x), self.zero(y)
                return self._with(e, self.under(self.guarded(x), on_y, on_x), self.under(self.guarded(y), on_x, on_y))
            case Apply(op="div" | "floordiv" | "mod", args=(x, y)):
                return self._with(e, self.guarded(x), self.under(self.guarded(y), self.zero(x), stand=ONE))
            case Apply(op="add" | "sub", args=(x, y)):
                on_x, on_y = self.infinite(x), self.infinite(y)
                return self._with(e, self.under(self.guarded(x), on_y, on_x), self.under(self.guarded(y), on_x, on_y))
            case Read():
                return self.read(e)
            case _:
                return rebuild(e, self.guarded)

    def _with(self, e: Apply, x: Expr, y: Expr) -> Expr:
        return e if x is e.args[0] and y is e.args[1] else replace(e, args=(x, y))

    def zero(self, e: Expr) -> Domain:
        """What must hold lest the value is 0 by a mask. A value tells itself where it is all that is left of one."""
        found = self.domains.of(e, 0)
        told = frozenset(q for p in found if (q := self.told(p)) is not None)
        return told if len(told) == len(found) else told | {Apply("ne", (e, ZERO))}

    def infinite(self, e: Expr) -> Domain:
        """What must hold lest the value is an infinity, one or the other."""
        found = (p for c in _INFINITIES for p in self.domains.of(e, c))
        return frozenset(q for p in found if (q := self.told(p)) is not None)

    def read(self, e: Read) -> Expr:
        """A read; of a tensor in which something would not count if it stood here, what that consists of."""
        source = self.domains.named.get(e.tensor)
        if source is None or source.monoid is not None or len(source.outputs) > 1 or e.guard is not None:
            return e
        if not all(map(in_range_by_form, e.index, source.dims)):
            return e
        found = self.guarded(source.body)
        if found is source.body:
            return e
        stored = source.outputs[0].dtype
        return found if dtype_of(found, self.dtypes) == stored == compute(stored) else Cast(stored, found)

    def under(self, e: Expr, needed: Iterable[Expr], own: Domain = frozenset(), stand: Expr = ZERO) -> Expr:
        """A part where others need these predicates: what stands for it elsewhere, where `own` does not say that."""
        found = self.relevant(e, needed, own)
        if not found:
            return e
        narrow = {a for p in found for a in axes_of(p)} <= set(axes_of(e))
        if isinstance(e, Read) and e.tensor not in self.domains.named and narrow and stand == ZERO:
            return replace(e, guard=conjoin(e.guard, conjunction(found)))
        p = conjunction(found)
        assert p is not None
        return Apply("where", (p, e, stand))

    def relevant(self, e: Expr, needed: Iterable[Expr], own: Domain = frozenset()) -> list[Expr]:
        """Which of the predicates that others need keep a part from being read, in order."""
        varies = not self.over.isdisjoint(axes_of(e))
        counts = [p for p in needed if p not in own and _is_about_data(p)]
        counts = [p for p in counts if varies or self.over.isdisjoint(axes_of(p))]
        if not counts or not any(isinstance(n, Read | Scalar) for n in walk(e)):
            return []
        if not dtype_of(e, self.dtypes).is_float:
            return []  # no integer is infinite or NaN
        return sorted(counts, key=repr)


def _is_about_data(p: Expr) -> bool:
    """Is it more than one of extents, which tells whether there is anything at all?"""
    return any(isinstance(n, AxisValue | Read | Scalar) for n in walk(p))


def guarded(e: Equation, named: Mapping[str, Equation], dtypes: Mapping[str, DType]) -> Equation:
    """A reduction with what does not count left out; other equations as they are."""
    if e.monoid is None:
        return e
    exclusion = Exclusion(frozenset(e.over), Domains(named), dtypes)
    bodies = tuple(map(exclusion.guarded, e.bodies))
    return e if all(a is b for a, b in zip(bodies, e.bodies, strict=True)) else replace(e, bodies=bodies)
