"""Do not read a side of a dot where no row, or column, of the other side counts.

    dot(x in p[row], y),  y = load T[e]   -->   dot(x, y),  y = load T[e] where any[row](p)

Where a side counts at the same rows for every position of the inner axis, the other is left out as a whole or not at
all. That is a condition of its load, which then goes from memory to the matrix units as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from einc import tile
from einc.base.types import BOOL
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import unused
from einc.pipeline import Context
from einc.tile import Dot, Fold, Let, Load, Ref, Statement, TileType
from einc.tile.masks import conjunction
from einc.tile.typing import axes_of, bound_names, scope
from einc.tile.walk import Scope, lets, rewritten, values_in, walk
from einc.tile.windows import read_by_dots


def leave_out(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with these loads masked in place of dots. Where operands lie in a cache, each position is masked."""
    if context.target.cache:
        return kernel
    loads = {s.names[0]: s for s in lets(kernel.body) if isinstance(s.value, Load)}
    reads = [v.name for v in values_in(kernel.body) if isinstance(v, Ref)]
    single = {name for name in read_by_dots(kernel.body) if reads.count(name) == 1}
    found = {
        s.names[0]: left
        for s, here in walk(kernel.body, Scope(scope(kernel)))
        if isinstance(s, Let) and isinstance(s.value, Dot)
        if (left := tuple(x for x in _sides(s.value, here) if x.load in single))
    }
    taken = bound_names(kernel)
    moved = {x.load for left in found.values() for x in left}

    def masked(s: Statement, _: Scope) -> Iterator[Statement]:
        if not isinstance(s, Let) or s.names[0] not in found:
            yield from () if isinstance(s, Let) and s.names[0] in moved else (s,)
            return
        for side in found[s.names[0]]:
            counts = unused("counts", taken)
            taken.add(counts)
            yield Let((counts,), (TileType(BOOL),), Fold(MONOIDS["any"], side.axis, (side.inside,)))
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
