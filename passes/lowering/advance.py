"""How states advance: a `step` takes in a block of the walked axes, a `merge` the states of other parts of the walk.

    step     Phi  <-  move(Phi) (+) fold of phi(r; d') over a block
    merge    Phi  <-  move(Phi) (+) fold of move(Psi_p) over parts p

Both go through the chain link by link: the advanced values of earlier links give the references d', and all states are
moved to these before they are combined. So one derivation gives both the loop and the merge of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einc import ein, tile
from einc.base.types import DType
from einc.ein import Expr
from einc.passes.lowering.statements import Block
from einc.passes.lowering.states import TALLY, Moment, States
from einc.passes.streaming.movement import prime
from einc.passes.streaming.sweep import Accumulator, Reference
from einc.tile import Elem, Lit, Ref, Value

Combine = Callable[[Accumulator, list[list[Value]]], list[Value]]


def step(s: States, block: Block) -> None:
    """Take in one more block of the walked axes."""

    def folded(a: Accumulator, moved: list[list[Value]]) -> list[Value]:
        return s.k.reduce(s.equations[a.name], moved[0], s.order(a))

    _follow(s, [s.held("old")], folded, block)


def merge(s: States, parts: Moment, block: Block) -> None:
    """Take in the states of other parts of the walk."""
    (axis,) = parts.along

    def combined(a: Accumulator, moved: list[list[Value]]) -> list[Value]:
        left, right = moved
        folded = s.b.fold(s.equations[a.name], axis, tuple(right), (axis, *s.order(a)), s.types(a))
        return list(s.b.combine(a.monoid, tuple(left), folded))

    _follow(s, [s.held("old"), parts], combined, block)


def _follow(s: States, pasts: Sequence[Moment], combine: Combine, block: Block) -> None:
    """Carry round the loop the combination of past states, moved to references that earlier links have advanced."""
    new = Moment("new")
    units = s.units()
    done: dict[tuple[str, ...], list[Value]] = {}

    def advance(a: Accumulator) -> None:
        names = s.names[a.name]
        if names not in done:
            values = combine(a, [move(s, a, past) for past in pasts])
            done[names] = [
                Ref(block.carry(name, s.b.types[name], tile.Fill(units[name]), v))
                for name, v in zip(names, values, strict=True)
            ]
        new.held[a.name] = done[names]

    if s.counts:
        advance(TALLY)
        for moment in (*pasts, new):
            s.define(moment.of(TALLY.name), moment.held[TALLY.name][0])
    for past in pasts:
        for link in s.chain:
            s.settle(link, past)
    for link in s.chain:
        for r in link.references:
            _refer(s, r, pasts, new)
        for a in link.accumulators:
            advance(a)
        s.settle(link, new)


# ---------------------------------------------------------------------------------------------------------------------
# Movement


def _refer(s: States, r: Reference, pasts: Sequence[Moment], new: Moment) -> None:
    """Define a reference before and after. If it was not finite, it has not moved; a scale that was 0 moves from 1."""
    if prime(r.name) in s.k.known:
        return
    order = s.k.extends(r.axes)

    def bound(mark: str, value: Value, along: tuple[str, ...] = ()) -> Value:
        return s.b.bind(f"{r.name}_{mark}", value, (*along, *order))

    now = bound(new.mark, s.reference(r, new, order))
    here = bound("ref", Elem("where", (s.usable(now, r), now, Lit(r.hat, s.real))))
    s.define(prime(r.name), here)
    for past in pasts:
        then = bound(past.mark, s.reference(r, past, (*past.along, *order)), past.along)
        was = Elem("where", (s.usable(then, r), then, Lit(r.hat, s.real) if r.hat else here))
        s.define(past.before(r.name), bound("was", was, past.along))


def move(s: States, a: Accumulator, past: Moment) -> list[Value]:
    """An accumulator's states at a past moment, moved to the new references."""
    first, *others = past.held[a.name]
    order, t = (*past.along, *s.order(a)), s.b.type_of(first)
    if a.shift is not None and a.shift != ein.ZERO:
        first = Elem("add", (first, s.b.typed(s.moving(a.shift, past), order, t)))
    elif a.count is not None:
        ((coefficient, _),) = a.moves
        factor = s.b.typed(s.moving(coefficient, past), order, t)
        first = Elem("mul", (first, Elem("pow", (factor, s.b.convert(past.held[a.count][0], t)))))
    elif a.moves:
        first = _mixed(s, a, past, t)
    return [first, *others]


def _mixed(s: States, a: Accumulator, past: Moment, t: DType) -> Value:
    """The sum of an accumulator's moves: each a coefficient times an accumulator.

    One that holds the unit is not scaled: a coefficient may overflow, and 0 times an infinite unit is NaN.
    """
    whole: Value | None = None
    for coefficient, name in a.moves:
        term = s.b.convert(past.held[name][0], t)
        if coefficient != ein.ONE:
            moved = Elem("mul", (term, _coefficient(s, coefficient, past, s.order(a), t)))
            unit = Lit(a.monoid.identity[0], t)
            guards = s.scales(coefficient) or a.monoid.identity[0] != 0
            term = Elem("where", (Elem("eq", (term, unit)), unit, moved)) if guards else moved
        whole = term if whole is None else Elem("add", (whole, term))
    assert whole is not None
    return whole


def _coefficient(s: States, coefficient: Expr, past: Moment, order: tuple[str, ...], t: DType) -> Value:
    """A coefficient bound to a name, since many accumulators share it."""
    e = s.moving(coefficient, past)
    axes = {s.b.tile_of[x] for x in ein.axes_of(e)}
    bound = s.b.blocks[-1].bound
    if (e, t) not in bound:
        inside = (*past.along, *(o for o in order if o in axes))
        bound[e, t] = s.b.bind("rescale", s.b.typed(e, inside, t), (*past.along, *order))
    return bound[e, t]
