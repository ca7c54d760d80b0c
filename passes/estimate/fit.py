"""What a plan's tiles take at least: with the fewest rows, the shortest walked block, and all of what is held whole.

A contraction that a dot takes has a tile for each side and one for its result, any other equation one of all its axes.
A tile axis has a power of two of positions, and at least 16 where a dot has it as a row, a column or its inner axis.
Where dots have a batch axis, few rows fill a processor: its registers with results, its shared memory with operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

from einc import ein
from einc.base.targets import TARGETS
from einc.base.types import DType
from einc.ein import Equation
from einc.ein.dealing import Shape
from einc.passes.estimate.sides import fills, sides, tile_axes
from einc.passes.streaming.walks import upstream
from einc.pipeline import Context
from einc.pipeline.plan import Planned
from einc.tile import Sides
from einc.tile.blocks import power

WHOLE_DOT = 512  # the longest axis held whole in a tile that others cross
_WHOLE_SCORE = 128  # the longest axis held whole along which a contraction's results are reduced
_WHOLE_ROW = 16384  # the longest row held whole by itself
_TILE = 1 << 15  # elements of the largest tile value
_RESULT = 1 << 13  # of the largest result of a dot: it and what is made of it stay in registers
_CROSSED = 1 << 14  # of the largest that no dot takes or makes, where dots have a batch axis
_RESULTS = 3 << 14  # of all results together where a dot has a batch axis: three quarters of the registers
_LEAST = 16
_CROWDED = 64  # rows of a contraction with which a walk multiplies at its rate


def overflow(plan: Planned, shapes: Mapping[str, Shape], context: Context, dtypes: Mapping[str, DType]) -> str | None:
    """What does not fit, where equations are contractions of these shapes; None if all does."""
    longest = WHOLE_DOT * 2 if shapes else _WHOLE_ROW
    for a in plan.whole:
        if context.size(a) > longest:
            return f"{a} would be held, and {context.size(a)} positions are too many"
    named = {t.name: eq for eq in plan.equations for t in eq.outputs}
    for name, shape in shapes.items():
        for side in (shape.rows, shape.columns):
            held = [a for a in side if a in plan.whole]
            if prod(map(context.size, held)) <= _WHOLE_SCORE:
                continue
            scored = {a for eq in plan.equations if name in upstream(eq, named) for a in eq.over}
            row = [a for a in held if a in scored]
            if prod(map(context.size, row)) > _WHOLE_SCORE:
                return f"{name} would hold {', '.join(row)}, along which it is reduced later, in one tile"
    tiles = Tiles(plan, shapes, context)
    within = {eq.name for eq in plan.equations if plan.walks_within(eq)}
    if flat := sorted(within & shapes.keys() - tiles.dots.keys()):
        return f"{flat[0]} would be summed up within the walk, but not as a product of matrices"
    return tiles.too_large() or tiles.too_many(dtypes)


def crowds(plan: Planned, shapes: Mapping[str, Shape], context: Context, dtypes: Mapping[str, DType]) -> bool:
    """Does a reduction that meets rows with columns hold so much of an axis that too few rows have room on chip?

    It is the inner axis of a contraction from which no other is computed, since that one's results crowd it as well; or
    any axis of a reduction that reads two sides alike but is none.
    """
    if prod(map(context.size, plan.whole)) <= WHOLE_DOT:
        return False
    room = min(context.target.shared, TARGETS["sm_90"].shared) // 2
    named = {t.name: eq for eq in plan.equations for t in eq.outputs}
    products = [name for name, shape in shapes.items() if shape.rows and shape.columns]
    for eq in plan.equations:
        shape = shapes.get(eq.name)
        if shape is None and (eq.monoid is None or not crosses(eq)):
            continue
        if shape is not None and any(eq.name in upstream(named[name], named) for name in products):
            continue
        axes = (*eq.over, *eq.axes) if shape is None else shape.inner
        length = prod(context.size(a) for a in axes if a in plan.whole)
        size = max((dtypes[r.tensor].size for r in ein.reads(eq.body)), default=1)
        if length > WHOLE_DOT and _CROWDED * length * size > room:
            return True
    return False


def crosses(eq: Equation) -> bool:
    """Does a reduction have several sides, each of which it reads for every position of another?"""
    along = [set(ein.axes_of(r)) & set(eq.axes) for r in ein.reads(eq.body) if set(eq.over) & set(ein.axes_of(r))]
    return len(along) > 1 and all(any(a - b and b - a for b in along) for a in along)


class Tiles:
    """The tiles of a plan's kernel."""

    def __init__(self, plan: Planned, shapes: Mapping[str, Shape], context: Context) -> None:
        self.plan, self.shapes, self.context = plan, shapes, context
        self.groups = tile_axes(plan, context)
        self.of = {a: t for t, group in self.groups.items() for a in group}
        self.dots = {name: s for name, shape in shapes.items() if (s := self.sides(shape)) is not None}
        self.batched = any(s.batch for s in self.dots.values())
        self.multiplied = {t for s in self.dots.values() for t in (s.row, s.column, s.inner)}

    def tiles(self, axes: Iterable[str]) -> list[str]:
        """The tile axes that a group of axes extends over."""
        found = {self.of[a] for a in axes if a in self.of}
        return [t for t in self.groups if t in found]

    def sides(self, shape: Shape) -> Sides | None:
        return sides(shape, self.tiles, fills(shape.inner, self.plan, self.context))

    def positions(self, tiles: Iterable[str]) -> int:
        return prod(map(self.least, tiles))

    def least(self, t: str) -> int:
        """The fewest positions of a tile axis."""
        least = _LEAST if t in self.multiplied else 1
        if t in self.plan.whole:
            return max(least, power(prod(map(self.context.size, self.groups[t]))))
        return _LEAST if self.shapes else 1

    def too_large(self) -> str | None:
        """A tile that is."""
        walked = self.tiles(self.plan.walked)
        across = {t for s in self.dots.values() for t in s.result if t not in self.plan.whole}
        for eq in self.plan.equations:
            for tile, most in self.needed(eq):
                held = [a for t in tile for a in self.groups[t] if a in self.plan.whole]
                solid = held and set(walked) & set(tile) and across - set(walked) & set(tile)
                n = self.positions(tile)
                if n > (most // 2 if solid else most):  # beside what a dot of the kernel takes
                    return f"{eq.name} would hold all of {', '.join(held)}, and {n} elements are too many"
        return None

    def needed(self, eq: Equation) -> Iterator[tuple[tuple[str, ...], int]]:
        """The axes of each tile that an equation needs, and its most elements."""
        dot = self.dots.get(eq.name)
        if dot is None:
            tile = tuple(self.tiles((*eq.axes, *eq.over)))
            lone = self.shapes and set(eq.axes) & set(self.plan.batch) and set(tile) <= set(self.plan.whole)
            most = _CROSSED if self.batched else _TILE
            yield tile, most // _LEAST if lone else most  # a program's only row costs what others take for theirs
        else:
            yield dot.over(dot.row, dot.inner), _TILE
            yield dot.over(dot.inner, dot.column), _TILE
            yield dot.result, _TILE if dot.batch else _RESULT

    def too_many(self, dtypes: Mapping[str, DType]) -> str | None:
        """What fills a processor, where dots have a batch axis."""
        if not self.batched:
            return None
        results = sum(self.positions(dot.result) for dot in self.dots.values())
        if results > _RESULTS:
            return f"{', '.join(self.dots)} would be held, and {results} elements are too many together"
        made = {t.name for eq in self.plan.equations for t in eq.outputs}
        found = {r for eq in self.plan.equations for e in eq.computed() for r in ein.reads(e) if r.tensor not in made}
        tiles = {(r.tensor, *self.tiles(a for x in r.index for a in ein.axes_of(x))) for r in found}
        taken = sum(self.positions(axes) * dtypes[name].size for name, *axes in tiles)
        room = min(self.context.target.shared, TARGETS["sm_90"].shared) * 7 // 8
        return f"what is multiplied would take {taken} bytes, {room} at most" if taken > room else None
