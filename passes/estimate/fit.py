"""What a plan's tiles take at least: with the fewest rows, the shortest walked block, and all of what is held whole.

A contraction that a dot takes has a tile for each side and one for its result, any other equation one of all its axes.
A tile axis has a power of two of positions, and at least 16 where a dot has it as a row, a column or its inner axis.
Where dots have a batch axis, few rows fill a processor: its registers with results, its shared memory with operands.

On a CPU tiles lie in the cache, which has room for far more. There an axis may be held whole in place of being walked,
so that one kernel reduces what it computes along both axes of a contraction. Where a domain leaves few positions, a
walk visits these alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from einc import ein
from einc.base.targets import TARGETS, Target
from einc.base.types import F32, DType
from einc.ein import Equation
from einc.ein.dealing import Shape
from einc.passes.estimate.sides import fills, follow_each_other, line, sides, tile_axes
from einc.passes.streaming.walks import above
from einc.pipeline import Context
from einc.pipeline.plan import Planned
from einc.tile import Sides
from einc.tile.blocks import power

WHOLE_DOT = 512  # the longest axis held whole in a tile that others cross
_WHOLE_SCORE = 128  # the longest axis held whole along which a contraction's results are reduced
_WHOLE_ROW = 32768  # the longest row held whole by itself, by all threads of a program
_HIDDEN = 8  # programs that hold rows, with which a processor reads some while it computes with others
_EXPOSED = 1 / 4  # of the time that memory takes, where a processor has room for the row of one program alone
_HALF_OF_REGISTERS = 1 << 15  # elements that a processor has room for, beside what is made of them
_ALONE = 3.0  # times as long take products at one position of a batch axis as without such an axis
_FEW_ROWS = 4.0  # the same where dots follow each other, whose rows are then fewer than a group's
_GROUP = 3 << 13  # elements of all results of dots that follow each other: three quarters of a group's registers
_RESULTS = 3 << 14  # of all results together where a dot has a batch axis: three quarters of the registers


@dataclass(frozen=True, slots=True)
class Room:
    """The most elements of a `tile` value, of the `result` of a dot, which stays in registers with what is made of it,
    and of what no dot takes or makes where dots have a batch axis (`crossed`); the `least` positions of a blocked axis
    beside a dot."""

    tile: int
    result: int
    crossed: int
    least: int


_LEAST = 16
_CROWDED = 64  # rows of a contraction with which a walk multiplies at its rate
_FULL = 64  # rows and columns with which dots multiply at their rate
_REGISTERS = Room(1 << 15, 1 << 13, 1 << 14, _LEAST)
_BLOCK = 64  # positions of a blocked axis that amortise what is done once a block, by torch operations


def room(target: Target) -> Room:
    """The room that tiles have on a target."""
    n = target.cache // F32.size
    return Room(n, n, n, _BLOCK) if n else _REGISTERS


def overflow(plan: Planned, shapes: Mapping[str, Shape], context: Context, dtypes: Mapping[str, DType]) -> str | None:
    """What does not fit, where equations are contractions of these shapes; None if all does."""
    longest = WHOLE_DOT * 2 if shapes else _WHOLE_ROW
    cached = room(context.target).tile if context.target.cache else 0
    loose = frozenset[str]() if not cached else frozenset(plan.whole) - _pruned(plan)
    for a in plan.whole:
        if context.size(a) > (max(longest, cached) if a in loose else longest):
            return f"{a} would be held, and {context.size(a)} positions are too many"
    known = above(plan.equations)
    for name, shape in shapes.items():
        for side in (shape.rows, shape.columns):
            held = [a for a in side if a in plan.whole and a not in loose]
            if prod(map(context.size, held)) <= _WHOLE_SCORE:
                continue
            scored = {a for eq in plan.equations if name in known[eq.name] for a in eq.over}
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
    known = above(plan.equations)
    products = [name for name, shape in shapes.items() if shape.rows and shape.columns]
    for eq in plan.equations:
        shape = shapes.get(eq.name)
        if shape is None and (eq.monoid is None or not crosses(eq)):
            continue
        if shape is not None and any(eq.name in known[name] for name in products):
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


def _pruned(plan: Planned) -> frozenset[str]:
    """The axes of which a domain leaves some positions only, depending on others."""
    domains = (e for eq in plan.equations for e in (eq.domain, eq.within) if e is not None)
    return frozenset(a for e in domains for a in ein.axes_of(e))


def narrowness(plan: Planned, shapes: Mapping[str, Shape], context: Context) -> float:
    """How many times longer dots take for want of rows.

    Where dots follow each other, groups of warps multiply rows of which all results fit in registers; with several sums
    of them there may be fewer rows, which each warp multiplies on its own. Positions of a batch axis leave few rows and
    columns room on chip; what is read is then multiplied with few of either. At one position there is room, but groups
    of warps do not multiply then, and each holds more of the sides.
    """
    if context.target.cache:
        return 1.0
    if not (here := Tiles(plan, shapes, context)).batched:
        sums = sum(s.inner in here.tiles(plan.walked) for s in here.dots.values())  # one alone has no other kernel
        grouped = context.target.has_warpgroups and follow_each_other(plan.equations, frozenset(here.dots))
        few = grouped and sums > 1 and Tiles(plan, shapes, context, _FULL).results() > _GROUP
        return _FEW_ROWS if few else 1.0
    at_one = here.positions({s.batch for s in here.dots.values()} - {""}) == 1
    alone = _ALONE if at_one else 1.0
    for blocked in (_FULL, _FULL // 2):
        tiles = Tiles(plan, shapes, context, blocked)
        if tiles.operated() < _RESULTS and tiles.crossed() <= tiles.room.crossed // 2:
            return alone * (_FULL / blocked) ** 2
    return alone * (_FULL / _LEAST) ** 2


def exposure(plan: Planned, context: Context) -> float:
    """How many times longer memory takes because processors have room for few of the rows that a kernel holds."""
    if not plan.whole or context.target.cache:
        return 1.0
    held = prod(map(context.size, plan.whole))
    return 1.0 + _EXPOSED * max(held / _HALF_OF_REGISTERS - 1 / _HIDDEN, 0.0)


class Tiles:
    """The tiles of a plan's kernel, with so many positions of blocked axes, or the least."""

    def __init__(self, plan: Planned, shapes: Mapping[str, Shape], context: Context, blocked: int = 0) -> None:
        self.plan, self.shapes, self.context, self.blocked = plan, shapes, context, blocked
        self.groups = tile_axes(plan, context)
        self.room = room(context.target)
        self.of = {a: t for t, group in self.groups.items() for a in group}
        self.dots = {name: s for name, shape in shapes.items() if (s := self.sides(shape)) is not None}
        self.batched = any(s.batch for s in self.dots.values())
        self.multiplied = {t for s in self.dots.values() for t in (s.row, s.column, s.inner)}

    def tiles(self, axes: Iterable[str]) -> list[str]:
        """The tile axes that a group of axes extends over."""
        found = {self.of[a] for a in axes if a in self.of}
        return [t for t in self.groups if t in found]

    def sides(self, shape: Shape) -> Sides | None:
        found = fills(shape.inner, self.plan, self.context)
        return sides(shape, self.tiles, found, self.context)

    def positions(self, tiles: Iterable[str]) -> int:
        return prod(map(self.least, tiles))

    def least(self, t: str) -> int:
        """The fewest positions of a tile axis."""
        least = _LEAST if t in self.multiplied else 1
        if t in self.plan.whole:
            return max(least, power(prod(map(self.context.size, self.groups[t]))))
        return (self.blocked or self.room.least) if self.shapes else line(self.plan, self.groups[t], self.context)

    def results(self) -> int:
        """Elements of the results of all dots."""
        return sum(self.positions(dot.result) for dot in self.dots.values())

    def operated(self) -> int:
        """Elements of these results and of what all dots multiply: warps that multiply on their own have it in
        registers, some of it twice."""
        parts = (
            axes for d in self.dots.values() for axes in (d.result, d.over(d.row, d.inner), d.over(d.inner, d.column))
        )
        return sum(map(self.positions, parts))

    def crossed(self) -> int:
        """Elements of the largest tile that no dot takes or makes."""
        computed = (eq for eq in self.plan.equations if eq.name not in self.dots)
        return max((self.positions(self.tiles((*eq.axes, *eq.over))) for eq in computed), default=0)

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
        dot, cached = self.dots.get(eq.name), self.context.target.cache
        if dot is None:
            tile = tuple(self.tiles((*eq.axes, *eq.over)))
            lone = (
                not cached and self.shapes and set(eq.axes) & set(self.plan.batch) and set(tile) <= set(self.plan.whole)
            )
            most = self.room.crossed if self.batched else self.room.tile if self.shapes or cached else _WHOLE_ROW
            yield tile, most // _LEAST if lone else most  # a program's only row costs what others take for theirs
        else:
            yield dot.over(dot.row, dot.inner), self.room.tile
            yield dot.over(dot.inner, dot.column), self.room.tile
            yield dot.result, self.room.tile if dot.batch else self.room.result

    def too_many(self, dtypes: Mapping[str, DType]) -> str | None:
        """What fills a processor, where dots have a batch axis."""
        if not self.batched or self.context.target.cache:
            return None
        results = self.results()
        if results > _RESULTS:
            return f"{', '.join(self.dots)} would be held, and {results} elements are too many together"
        made = {t.name for eq in self.plan.equations for t in eq.outputs}
        found = {r for eq in self.plan.equations for e in eq.computed() for r in ein.reads(e) if r.tensor not in made}
        tiles = {(r.tensor, *self.tiles(a for x in r.index for a in ein.axes_of(x))) for r in found}
        taken = sum(self.positions(axes) * dtypes[name].size for name, *axes in tiles)
        room = min(self.context.target.shared, TARGETS["sm_90"].shared) * 7 // 8
        return f"what is multiplied would take {taken} bytes, {room} at most" if taken > room else None
