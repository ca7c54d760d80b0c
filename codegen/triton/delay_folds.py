"""Fold what a walk has found once after it, in place of every block.

    loop t: s = s (+) fold[t](x)   -->   loop t: z[t] = z[t] (+) x;  s = fold[t](z)

Lanes that hold positions of a block go on by themselves: what they exchange, and wait for, comes once. It may be done
where a state does nothing but combine with folds of blocks, so that nothing else in the loop reads it, and where terms
may be combined in any order. The state then is a tile as large as a block, in registers: beside dots there is no room.

Positions that a walk chooses from are as wide as positions are (`INT`) while they are carried, half as wide as those
that are stored: the extent is the position of nothing.

    z[t] = z[t] (+) where(t < |t|, i64(t), highest)   -->   z[t] = z[t] (+) where(t < |t|, t, |t|)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from einc import tile
from einc.base.types import I64, INT
from einc.codegen.triton.contractions import combined
from einc.ein import Monoid
from einc.ein.rewriting import unused
from einc.pipeline import Context
from einc.tile import Carried, Convert, Elem, Fill, Fold, Let, Lit, Loop, Ref, TileAxis, TileType, Value
from einc.tile.choices import FOLDS_LATE
from einc.tile.live import live
from einc.tile.masks import extent
from einc.tile.typing import axes_of, bound_names, scope
from einc.tile.walk import Scope, loops, once_for_all, own_values, rewritten, values_in, walk_values

_NOWHERE = Lit("highest", I64)


def delay_folds(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with a state for each position of a block in walks whose folds can wait, where it has chosen so."""
    found = waiting(kernel) if kernel.choices.folds == FOLDS_LATE else ()
    taken = bound_names(kernel)

    def delayed(s: tile.Statement, here: Scope) -> tuple[tile.Statement, ...]:
        own = next((states for loop, states in found if loop == s), ())
        if not isinstance(s, Loop) or not own:
            return (s,)
        return tuple(_Delayed(s, own, here, taken, context.backend.folds_before).statements())

    return replace(kernel, body=live(rewritten(kernel.body, delayed, Scope(scope(kernel))))) if found else kernel


# ---------------------------------------------------------------------------------------------------------------------
# Which folds can wait


@dataclass(frozen=True, slots=True)
class Waiting:
    """States of a loop, one for each component of a monoid, that combine with a fold of each block and do nothing else.

    `terms` are what the fold is of, as it may be carried; `places` says which of them are positions as wide as these
    are.
    """

    monoid: Monoid
    states: tuple[Carried, ...]
    blocks: tuple[str, ...]
    terms: tuple[Value, ...]
    places: tuple[bool, ...]

    @property
    def types(self) -> tuple[TileType, ...]:
        """The types of what is carried, without the axis that is folded at the end."""
        pairs = zip(self.states, self.places, strict=True)
        return tuple(TileType(INT if place else c.type.dtype, c.type.axes) for c, place in pairs)

    @property
    def names(self) -> frozenset[str]:
        """The names that nothing else may read."""
        return frozenset((*self.blocks, *(n for c in self.states for n in (c.name, c.after))))


@once_for_all
def waiting(kernel: tile.Kernel) -> tuple[tuple[Loop, tuple[Waiting, ...]], ...]:
    """The loops whose states can all wait, each with these states."""
    return tuple((s, found) for s in loops(kernel.body) if (found := _waiting(s)))


def _waiting(loop: Loop) -> tuple[Waiting, ...]:
    """The states of a loop, none unless all can wait."""
    plain = all(isinstance(s, Let | tile.Store) for s in loop.body)
    if not loop.axis.blocked or not plain or any(isinstance(v, tile.Dot) for v in values_in(loop.body)):
        return ()
    after = {s.names[0]: s.value for s in loop.body if isinstance(s, Let) and len(s.names) == 1}
    found = [w for s in loop.body if isinstance(s, Let) and (w := _combining(loop, s, after)) is not None]
    ends = {c.after for w in found for c in w.states}
    others = [v for s in loop.body if not (isinstance(s, Let) and ends.issuperset(s.names)) for v in own_values(s)]
    read = _read(*others, *(() if loop.full is None else loop.full.holds))
    whole = len(ends) == len(loop.carried) and read.isdisjoint({n for w in found for n in w.names})
    return tuple(found) if whole else ()


def _combining(loop: Loop, s: Let, after: Mapping[str, Value]) -> Waiting | None:
    """The states that go on as their combinations with a fold of a block, if that is what is bound."""
    v = s.value
    if not isinstance(v, Fold) or v.axis != loop.axis.name or not v.monoid.commutative:
        return None
    states = tuple(c for c in loop.carried if c.after in after and not _read(after[c.after]).isdisjoint(s.names))
    if [c.type for c in states] != [*s.types]:
        return None
    found = combined(v.monoid, [Ref(c.name) for c in states], [Ref(n) for n in s.names], [t.dtype for t in s.types])
    if [after[c.after] for c in states] != found:
        return None
    ordered = v.monoid.chooses and v.monoid.order is not None
    places = [_place(a, loop.axis) if ordered else None for a in v.args]
    terms = tuple(a if p is None else p for a, p in zip(v.args, places, strict=True))
    return Waiting(v.monoid, states, s.names, terms, tuple(p is not None for p in places))


def _read(*values: Value) -> set[str]:
    return {v.name for v in walk_values(*values) if isinstance(v, Ref)}


def _place(v: Value, axis: TileAxis) -> Value | None:
    """A position along an axis as wide as positions are, the extent in place of the greatest integer; None for others.

    No position is the extent, so that both come after all positions, and nothing else is asked of them.
    """
    match v:
        case Convert(dtype=t, arg=Ref(name=name) as position) if t == I64 and name == axis.name:
            return position
        case Elem(op="where", args=(mask, x, other)) if other == _NOWHERE and (place := _place(x, axis)) is not None:
            return Elem("where", (mask, place, extent(axis.axes)))
        case _:
            return None


# ---------------------------------------------------------------------------------------------------------------------
# The loop without them


class _Delayed:
    """A loop that carries a state for each position of a block, and what folds these."""

    def __init__(
        self, loop: Loop, found: tuple[Waiting, ...], here: Scope, taken: set[str], folds_before: int | None
    ) -> None:
        self.loop, self.found, self.taken, self.folds_before = loop, found, taken, folds_before
        inside = here.inside(loop)
        for s in loop.body:
            inside.bind(s)
        self.names = inside.names
        states = [c.name for w in found for c in w.states]
        self.each = {name: self.fresh(f"{name}_each") for name in states}
        self.next = {name: self.fresh(f"{name}_each_next") for name in states}

    def fresh(self, wanted: str) -> str:
        name = unused(wanted, self.taken)
        self.taken.add(name)
        return name

    def over(self, t: TileType) -> TileType:
        """The type of a state at every position of a block, as tiles lie that are folded."""
        axis = self.loop.axis.name
        within = self.folds_before is not None and len(t.axes) + 1 >= self.folds_before
        return TileType(t.dtype, (*t.axes[:-1], axis, *t.axes[-1:]) if within else (*t.axes, axis))

    def statements(self) -> Iterator[tile.Statement]:
        """The loop, and what folds its states."""
        made = {w.blocks: list(self.advanced(w)) for w in self.found}
        gone = {(c.after,) for w in self.found for c in w.states}
        kept = (s for s in self.loop.body if not (isinstance(s, Let) and s.names in gone))
        body = tuple(x for s in kept for x in (made.get(s.names, [s]) if isinstance(s, Let) else [s]))
        yield replace(self.loop, carried=tuple(c for w in self.found for c in self.carried(w)), body=body)
        for w in self.found:
            yield from self.folded(w)

    def carried(self, w: Waiting) -> Iterator[Carried]:
        """The states at every position of a block, before any is walked."""
        for c, t, unit, place in zip(w.states, w.types, w.monoid.identity, w.places, strict=True):
            init: Value = extent(self.loop.axis.axes) if place else Fill(Lit(unit, t.dtype))
            yield Carried(self.each[c.name], self.over(t), init, self.next[c.name])

    def advanced(self, w: Waiting) -> Iterator[Let]:
        """Their combination with what is at each position of one more block, bound if it is read more than once."""
        terms = w.terms
        if w.monoid.op is None:
            for name, t, term in zip(w.blocks, w.types, terms, strict=True):
                extends = axes_of(term, self.names)
                yield Let((name,), (TileType(t.dtype, tuple(a for a in self.over(t).axes if a in extends)),), term)
            terms = tuple(map(Ref, w.blocks))
        states = [Ref(self.each[c.name]) for c in w.states]
        values = combined(w.monoid, states, terms, [t.dtype for t in w.types])
        for c, t, value in zip(w.states, w.types, values, strict=True):
            yield Let((self.next[c.name],), (self.over(t),), value)

    def folded(self, w: Waiting) -> Iterator[Let]:
        """The states after the loop: what they were before it, combined with all that was found."""
        types = [c.type.dtype for c in w.states]
        begun = [c.init for c in w.states] != [Fill(Lit(u, t)) for u, t in zip(w.monoid.identity, types, strict=True)]
        pairs = list(zip(w.states, w.places, strict=True))
        names = [self.fresh(f"{c.name}_found") if begun or place else c.name for c, place in pairs]
        yield Let(tuple(names), w.types, Fold(w.monoid, self.loop.axis.name, tuple(Ref(n) for n in self.each_of(w))))
        found = [self.stored(Ref(n)) if place else Ref(n) for n, place in zip(names, w.places, strict=True)]
        if begun:
            found = combined(w.monoid, [c.init for c in w.states], found, types)
        for c, value in zip(w.states, found, strict=True):
            if value != Ref(c.name):
                yield Let((c.name,), (c.type,), value)

    def each_of(self, w: Waiting) -> Iterator[str]:
        return (self.each[c.name] for c in w.states)

    def stored(self, v: Ref) -> Value:
        """A position as wide as it is stored."""
        return Elem("where", (Elem("lt", (v, extent(self.loop.axis.axes))), Convert(I64, v), _NOWHERE))
