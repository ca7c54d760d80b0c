"""Prefixes along a walked axis: block after block, carrying the monoid's total of all blocks before.

    C[i] = monoid[t : t <= i](f(t))   -->   loop t: C = combine(total, prefixes(f));  total = C at the end of the block

A suffix, over t >= i, walks from the last block to the first.
"""

from __future__ import annotations

from dataclasses import replace

from einc import tile
from einc.base.types import DType
from einc.ein import Equation, Monoid
from einc.ein.monoids import MONOIDS
from einc.passes.lowering.following import Following
from einc.passes.lowering.kernel import Kernel, component, stored_types
from einc.passes.lowering.operations import of_states
from einc.passes.lowering.statements import Block
from einc.passes.streaming.prefix import prefix
from einc.passes.streaming.walks import Walk
from einc.tile import Elem, Lit, Ref, TileType, Value


def goes_backwards(kernel: Kernel, walk: Walk) -> bool:
    """Does the walk make suffixes?"""
    found = (prefix(eq, kernel.program) for eq in walk.scans)
    return any(p is not None and p.reverse for p in found)


def prefixes(kernel: Kernel, axis: str, eq: Equation, block: Block) -> None:
    """Define an equation's prefixes within a loop over the axis, and carry its total."""
    b, p = kernel.b, prefix(eq, kernel.program)
    assert p is not None
    eq = replace(eq, domain=p.domain)
    rows = tuple(t for t in kernel.order if t != axis and t in {b.tile_of[a] for a in eq.axes})
    inside = (*rows, axis)
    follows = None if p.running is None else Following(kernel, eq, p.running, inside)
    monoid, args, types = _plain(kernel, eq, inside) if follows is None else follows.terms()
    names = b.names(eq.name, monoid.components)
    b.types.update({name: TileType(t, rows) for name, t in zip(names, types, strict=True)})
    states: tuple[Value, ...] = tuple(Ref(n) for n in names)
    within = b.several(f"{eq.name}_within", tile.Scan(of_states(monoid), axis, args, p.reverse), inside, types)
    known = tuple(b.bind(eq.name, v, inside) for v in b.combine(monoid, states, within))
    found = [known[k] for k in monoid.results] if follows is None else follows.results(known)
    for n, (v, t) in enumerate(zip(found, stored_types(eq), strict=True)):
        kernel.known[component(eq, n)] = b.rounded(v, t)
    ends = _last(kernel, axis, p.reverse)
    units = monoid.identity if follows is None else follows.zeros()
    at_end = tuple(Elem("where", (ends, v, Lit(u, t))) for v, u, t in zip(known, units, types, strict=True))
    after = b.fold(eq, axis, at_end, inside, types) if follows is None else follows.chosen(axis, at_end)
    for name, t, unit, value in zip(names, types, monoid.identity, after, strict=True):
        block.carry(name, TileType(t, rows), tile.Fill(Lit(unit, t)), value)


def _plain(
    kernel: Kernel, eq: Equation, inside: tuple[str, ...]
) -> tuple[Monoid, tuple[Value, ...], tuple[DType, ...]]:
    """The monoid of prefixes whose body does not depend on their ends, the values that it combines, and their types."""
    assert eq.monoid is not None
    args = tuple(kernel.b.bind(f"{eq.name}_term", a, inside) for a in kernel.terms(eq, inside))
    return eq.monoid, args, kernel.state_types(eq)


def _last(kernel: Kernel, axis: str, reverse: bool) -> Value:
    """Where a block of the axis ends: the prefix there is the block's total, which need not be added up again."""
    position = Ref(axis)
    last = tile.Fold(MONOIDS["min" if reverse else "max"], axis, (position,))
    return Elem("eq", (position, kernel.b.bind(f"{axis}_last", last, ())))
