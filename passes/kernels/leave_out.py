"""Do not read a side of a dot where no row, or column, of the other side counts.

    dot(x in p[row], y),  y = load T[e]   -->   dot(x, y),  y = load T[e] where any[row](p)

Where a side counts at the same rows for every position of the inner axis, the other is left out as a whole or not at
all. That is a condition of its load, which then goes from memory to the matrix units as it is. In a loop, each of the
conditions is looked at by itself, and rows are gone through before it:

    any[row](e(row) >= f and ...)   -->   max[row](e) >= f and ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from einc import tile
from einc.base.types import BOOL
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import unused
from einc.pipeline import Context
from einc.tile import Dot, Elem, Fold, Let, Lit, Load, Ref, Statement, TileType
from einc.tile.masks import conjunction, conjuncts, inside
from einc.tile.sums import sum_of, terms_of
from einc.tile.typing import axes_of, bound_names, dtype_of, scope
from einc.tile.walk import Scope, bindings, every_value, lets, loops, rewritten, tile_axes, walk, walk_values
from einc.tile.windows import read_by_dots


def leave_out(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with these loads masked in place of dots. Where operands lie in a cache, each position is masked."""
    if context.target.cache:
        return kernel
    loads = {s.names[0]: s for s in bindings(kernel) if isinstance(s.value, Load)}
    reads = [v.name for v in every_value(kernel) if isinstance(v, Ref)]
    single = {name for name in read_by_dots(kernel.body) if reads.count(name) == 1}
    found = {
        s.names[0]: left
        for s, here in walk(kernel.body, Scope(scope(kernel)))
        if isinstance(s, Let) and isinstance(s.value, Dot)
        if (left := tuple(x for x in _sides(s.value, here) if x.load in single))
    }
    rows = _Rows(kernel)
    moved = {x.load for left in found.values() for x in left}

    def masked(s: Statement, _: Scope) -> Iterator[Statement]:
        if not isinstance(s, Let) or s.names[0] not in found:
            yield from () if isinstance(s, Let) and s.names[0] in moved else (s,)
            return
        for side in found[s.names[0]]:
            lets_, there = rows.somewhere(side.inside, side.axis)
            counts = rows.name("counts")
            yield from lets_
            yield Let((counts,), (TileType(BOOL),), there)
            let = loads[side.load]
            assert isinstance(let.value, Load)
            terms = [Ref(counts), *(() if let.value.mask is None else (let.value.mask,))]
            yield replace(let, value=replace(let.value, mask=conjunction(terms)))
        assert isinstance(s.value, Dot)
        known = {side.is_left for side in found[s.names[0]]}
        left_in = None if True in known else s.value.left_in
        right_in = None if False in known else s.value.right_in
        yield replace(s, value=replace(s.value, left_in=left_in, right_in=right_in))

    return replace(kernel, body=rewritten(kernel.body, masked)) if found else kernel


@dataclass(frozen=True, slots=True)
class _Side:
    """A loaded side of a dot; where the other counts, the left one or the right one, along its one axis."""

    load: str
    inside: tile.Value
    is_left: bool
    axis: str


def _sides(dot: Dot, here: Scope) -> Iterator[_Side]:
    """The sides of a dot that count as a whole or not at all."""
    for p, other, is_left, axis in (
        (dot.left_in, dot.right, True, dot.row),
        (dot.right_in, dot.left, False, dot.column),
    ):
        if p is not None and isinstance(other, Ref) and axes_of(p, here.names) == {axis}:
            yield _Side(other.name, p, is_left, axis)


class _Rows:
    """Conditions over rows as conditions of a whole tile."""

    def __init__(self, kernel: tile.Kernel) -> None:
        self.taken, self.axes = bound_names(kernel), tile_axes(kernel)
        self.types = {n: t for _, here in walk(kernel.body, Scope(scope(kernel))) for n, t in here.names.items()}
        self.named = {s.names[0]: s.value for s in bindings(kernel) if len(s.names) == 1}
        self.walked = {n for loop in loops(kernel.body) for n in (loop.axis.name, *(c.name for c in loop.carried))}
        self.walked |= {n for loop in loops(kernel.body) for s in lets(loop.body) for n in s.names}

    def name(self, wanted: str) -> str:
        """A name that is free, which is then taken."""
        found = unused(wanted, self.taken)
        self.taken.add(found)
        return found

    def somewhere(self, p: tile.Value, axis: str) -> tuple[list[Let], tile.Value]:
        """Whether a condition holds for some row; of several that a loop changes, whether each of them does."""
        p = self.named.get(p.name, p) if isinstance(p, Ref) else p
        lets: list[Let] = []
        each = [self.extreme(q, axis, lets) for q in conjuncts(p)] if self.changes(p) else []
        apart = [q for q in each if q is not None]
        found = conjunction(apart) if len(apart) == len(each) else None
        somewhere = Fold(MONOIDS["any"], axis, (Elem("and", (inside(self.axes[axis]), p)),))
        return ([], somewhere) if found is None else (lets, found)

    def changes(self, v: tile.Value) -> bool:
        return any(isinstance(x, Ref) and x.name in self.walked for x in walk_values(v))

    def extreme(self, p: tile.Value, axis: str, lets: list[Let]) -> tile.Value | None:
        """A comparison for the row for which it holds first; None for what compares no sum with what rows decide."""
        if not isinstance(p, Elem) or p.op not in ("lt", "le", "gt", "ge"):
            return None
        terms = [*terms_of(p.args[0]), *((not plus, v) for plus, v in terms_of(p.args[1]))]
        own = [(plus, v) for plus, v in terms if axis in axes_of(v, self.types)]
        rest = [(not plus, v) for plus, v in terms if axis not in axes_of(v, self.types)]
        if not own or any(self.changes(v) for _, v in own) or any(axes_of(v, self.types) for _, v in rest):
            return None
        monoid, value = MONOIDS["max" if p.op in ("gt", "ge") else "min"], sum_of(own)
        name, t = self.name(f"{monoid.name}_{axis}"), dtype_of(value, self.types)
        there = Elem("where", (inside(self.axes[axis]), value, Lit(monoid.identity[0], t)))
        lets.append(Let((name,), (TileType(t),), Fold(monoid, axis, (there,))))
        return Elem(p.op, (Ref(name), sum_of(rest)))
