"""What a reduction does not read: where one part of a term decides its value, the other parts do not count.

    where(p, x, 0) * y           -->   where(p, x, 0) * where(p, y, 0)
    where(p, x, 0) / y           -->   where(p, x, 0) / where(p, y, 1)
    where(p, x, -inf) + y        -->   where(p, x, -inf) + where(p, y, 0)

A position that a mask excludes contributes nothing, whatever values it has: 0 * NaN and inf - inf do not arise. Masks
are found through the tensors that are read (`ein.domains`), and guard reads where possible. Parts that do not vary
along the reduced axes are read at any position: they follow IEEE, unless the mask does not vary either. A tensor whose
sources are not in memory is read as it was stored, where its own mask lets something count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from einc.base.types import DType, compute
from einc.ein import (
    ONE,
    ZERO,
    Apply,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Read,
    Scalar,
    axes_of,
    rebuild,
    tensors_of,
    walk,
)
from einc.ein.domains import Domain, Domains, conjunction
from einc.ein.guards import conjoin, in_range_by_form
from einc.ein.inference import dtype_of

_INFINITIES = (float("-inf"), float("inf"))


@dataclass(frozen=True, slots=True)
class Exclusion:
    """The guards of a reduction over some axes, by which its parts are read only at positions that count.

    `told` is a predicate as the reduction's kernel can evaluate it, or None. `absent` are tensors that it cannot read:
    those of earlier kernels that these did not store.
    """

    over: frozenset[str]
    domains: Domains
    dtypes: Mapping[str, DType]
    told: Callable[[Expr], Expr | None] = lambda p: p
    absent: Collection[str] = frozenset()

    def guarded(self, e: Expr) -> Expr:
        """The expression guarded where a part does not count; itself if everything counts."""
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
        """What holds unless a mask makes the value 0: predicates, or that it is not 0 where these cannot be told."""
        found = self.domains.of(e, 0)
        told = frozenset(q for p in found if (q := self.told(p)) is not None)
        return told if len(told) == len(found) else told | {Apply("ne", (e, ZERO))}

    def infinite(self, e: Expr) -> Domain:
        """What holds unless a mask makes the value infinite, of either sign."""
        found = (p for c in _INFINITIES for p in self.domains.of(e, c))
        return frozenset(q for p in found if (q := self.told(p)) is not None)

    def read(self, e: Read) -> Expr:
        """A read, or the body of its tensor if part of that does not count where it stands."""
        source = self.domains.named.get(e.tensor)
        if source is None or source.monoid is not None or len(source.outputs) > 1 or e.guard is not None:
            return e
        if not all(map(in_range_by_form, e.index, source.dims)):
            return e
        found = self.guarded(source.body)
        if found is source.body:
            return e
        if not tensors_of(found).isdisjoint(self.absent):
            return self.masked(e)
        stored = source.outputs[0].dtype
        return found if dtype_of(found, self.dtypes) == stored == compute(stored) else Cast(stored, found)

    def masked(self, e: Read) -> Expr:
        """A read of what was made elsewhere, with what its mask makes of it where parts of its body do not count."""
        found: Expr = e
        for value in (0, *_INFINITIES):
            told = (q for p in self.domains.of(e, value) if (q := self.told(p)) is not None)
            found = self.under(found, told, stand=Const(value))
        return found

    def under(self, e: Expr, needed: Iterable[Expr], own: Domain = frozenset(), stand: Expr = ZERO) -> Expr:
        """A part where the predicates that others need hold, and `stand` elsewhere, unless they are its `own`."""
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
        """Which of the predicates that others need keep a part from being read, sorted."""
        varies = not self.over.isdisjoint(axes_of(e))
        counts = [p for p in needed if p not in own and _is_about_data(p)]
        counts = [p for p in counts if varies or self.over.isdisjoint(axes_of(p))]
        if not counts or not any(isinstance(n, Read | Scalar) for n in walk(e)):
            return []
        if not dtype_of(e, self.dtypes).is_float:
            return []  # integers are neither infinite nor NaN
        return sorted(counts, key=repr)


def _is_about_data(p: Expr) -> bool:
    """Is it about more than extents, which only tell whether an axis is empty?"""
    return any(isinstance(n, AxisValue | Read | Scalar) for n in walk(p))


def guarded(e: Equation, named: Mapping[str, Equation], dtypes: Mapping[str, DType]) -> Equation:
    """A reduction guarded where a part does not count; other equations as they are."""
    if e.monoid is None:
        return e
    exclusion = Exclusion(frozenset(e.over), Domains(named), dtypes)
    bodies = tuple(map(exclusion.guarded, e.bodies))
    return e if all(a is b for a, b in zip(bodies, e.bodies, strict=True)) else replace(e, bodies=bodies)
