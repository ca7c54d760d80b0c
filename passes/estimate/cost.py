"""What a plan costs, as far as it can be known before it runs: bytes, operations by unit, and a time.

    time = launch + max(bytes / memory, arithmetic) / the share of the processors that have a program, and waits

`units` says what arithmetic takes, `instructions` how many operations functions are, `waits` what programs wait for.
On a CPU all of these take their turns, and their times add up.

Every tensor from outside is read once a walk it varies in, every stored one written once. A walk within a walk reads
its operands for every block of the other: those that the cache does not keep, from memory; and what is made of its
result waits for it, so that nothing of that is hidden. An equation that lacks an
axis of the grid is computed again in every block along it, and again in every walk that needs it; so is what a
contraction computes of its operands, a side that lacks the rows or the columns. Dots with a batch axis have few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, TypeVar

from einc import ein
from einc.ein import Equation, Program
from einc.ein.conditions import added_at
from einc.ein.dealing import Shape
from einc.ein.origins import Products
from einc.passes.algebra.contraction import contraction, operand_type
from einc.passes.estimate.again import overhang, read_again, repeated, through_cache
from einc.passes.estimate.fit import exposure, narrowness
from einc.passes.estimate.instructions import counted
from einc.passes.estimate.moved import moved
from einc.passes.estimate.sides import fills, follow_each_other, line, shapes_of, sides, steps, tile_axes
from einc.passes.estimate.units import arithmetic, overlapped, reached
from einc.passes.estimate.visited import masked_axes
from einc.passes.estimate.waits import elements, is_hidden, loading, masking, multiplying, port, scattering, walking
from einc.passes.streaming.prefix import prefix
from einc.passes.streaming.walks import walks
from einc.pipeline import Context, kept, positions
from einc.pipeline.plan import Planned

T = TypeVar("T")

_STEP = 64  # positions of a walked axis that dots which follow each other take at once
_MATRIX = 2  # bytes of the widest type that matrix units multiply
_TILE = 4096  # elements of a program's tile where there is no dot
_WIDEST = 4096  # positions of a walked axis in such a tile
WALKING = 8  # the same where programs only walk rows
_GROWN = 4  # times as large are tiles of walks where programs are few


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes moved, FLOPs on the matrix units in units of f16 ones, vector operations, special functions, seconds.

    `limit` is what takes longest: `memory`, `matrix`, `vector` or `special`, or the `launch` itself.
    """

    bytes: float
    dots: float
    vector: float
    special: float
    seconds: float
    limit: str


@dataclass(frozen=True, slots=True)
class Work:
    """A part of an equation, computed once: its axes, FLOPs on the matrix units, vector and special operations."""

    axes: frozenset[str]
    dots: float
    vector: float
    special: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What there is to do for equations, by dots where they can and by position, what was worked out of plans, by what
    it is, and the least time of equations: that of `computing` each, and with what they store."""

    works: dict[Equation, tuple[Work, ...]] = field(default_factory=dict)
    by_position: dict[Equation, tuple[Work, ...]] = field(default_factory=dict)
    of_plans: dict[str, dict[Planned, Any]] = field(default_factory=dict)
    computing: dict[Equation, tuple[float, float]] = field(default_factory=dict)
    least: dict[tuple[tuple[Equation, ...], tuple[str, ...]], float] = field(default_factory=dict)


def _once(f: Callable[[Model, Planned], T]) -> Callable[[Model, Planned], T]:
    """The method, which works its result out once for a plan."""
    return kept(f, lambda model, plan: (model.kept.of_plans, plan))


class Model:
    """The costs of one program's plans on one target; what is worked out once is kept, for models of the same."""

    def __init__(self, program: Program, context: Context, kept: Kept | None = None) -> None:
        self.program, self.context = program, context
        self.shapes, self.dtypes = program.shapes(), program.dtypes()
        self.given = {p.name for p in program.operands}
        self.products = Products(program)
        self.kept = kept or Kept()

    def cost(self, plan: Planned, share: float = 1.0, masked: float = 0.0) -> Cost:
        """The predicted cost of a kernel that visits this share of the blocks it walks over, in parts or not.

        A mask cuts through the share `masked` of all blocks.
        """
        rates, count = self.context.target.rates, max(len(walks(plan)), 1)
        dots, vector, special = self.computed(plan, share)
        vector += 0.0 if rates.in_turn else masking(plan, self.contracted(plan), masked, self.context)
        moved = sum(self.traffic(plan, count, share).values()) + self.again(plan)(plan.splits) * count * share
        waiting = self.waiting(plan, count, share)
        computing, slowest = arithmetic(rates, dots + waiting, vector, special)
        moving = moved / reached(rates) * (1.0 if self.contracted(plan) else exposure(plan, self.context))
        seconds = max(self.spent(plan, plan.splits, computing, moving, share), self.scattering(plan))
        limit = "launch" if seconds < rates.launch else "memory" if moving > computing else slowest
        return Cost(moved, dots, vector, special, rates.launch + seconds, limit)

    def computed(self, plan: Planned, share: float = 1.0) -> tuple[float, float, float]:
        """What a kernel computes where no mask cuts through blocks: as FLOPs on the matrix units, vector operations and
        special functions."""
        count = max(len(walks(plan)), 1)
        dots = vector = special = 0.0
        by_dots = self.by_dots(plan)
        for eq in plan.equations:
            summed = eq.monoid is not None and eq.monoid.adds and eq.name not in by_dots
            for work in self.by_position(eq) if summed else self.works(eq):
                n = self.times(plan, eq, work.axes, count, share)
                dots, vector, special = dots + n * work.dots, vector + n * work.vector, special + n * work.special
        return dots * self.narrowness(plan), vector + self.following(plan, share), special

    def spent(self, plan: Planned, splits: int, computing: float, moving: float, share: float) -> float:
        """Seconds of a kernel in so many parts, beside its launch, by those that keep all processors busy."""
        rates = self.context.target.rates
        dots = self.contracted(plan)
        busy = overlapped(rates, computing, moving, again=bool(repeated(plan))) * overhang(plan, self.context)(splits)
        hidden = self.hides(plan)
        if rates.in_turn or not dots:
            least = 0.0 if rates.in_turn else self.loading(plan, splits, share)
            return max(busy / self.utilisation(plan, splits), least)
        one_by_one = elements(plan, dots, share, self.context)
        if moving > computing and hidden:
            return (busy + one_by_one) / self.utilisation(plan, splits)
        taken = port(plan, self.is_chained(plan), share, self.context, self.shapes, self.dtypes)
        busy = (max(busy, taken) if hidden else busy + taken) + one_by_one
        chained, loads = self.is_chained(plan), 0.0 if hidden else share
        begun = share if steps(plan, self.context) else 1.0  # of batches, of which masks leave all or none
        return multiplying(plan, self.programs(plan), splits, busy, chained, loads, begun, self.context)

    def following(self, plan: Planned, share: float) -> float:
        """Vector operations by which the states of a plan's walks follow what they are relative to, in every block."""
        if self.context.target.rates.in_turn:
            return 0.0
        steps = positions(plan.walked, self.context) * share / (_STEP if self.contracted(plan) else _WIDEST)
        states = (a for walk in walks(plan) for link in walk.links for a in link.accumulators)
        return steps * sum(len(a.moves) * positions(a.axes, self.context) for a in states)

    def waiting(self, plan: Planned, count: int, share: float) -> float:
        """FLOPs on the matrix units in whose time these wait for the cache, in so many walks with others within."""
        if self.context.target.rates.in_turn:
            return 0.0
        own = sum(self.times(plan, eq, w.axes, count, share) * w.dots for eq in repeated(plan) for w in self.works(eq))
        if not own:
            return 0.0
        read = through_cache(plan, self.is_chained(plan), self.context, self.shapes, self.dtypes)
        return max(read * count * share - own, 0.0)

    def narrowness(self, plan: Planned) -> float:
        """How many times longer a plan's dots take on matrix units for want of rows."""
        return 1.0 if self.is_exact(plan) else narrowness(plan, shapes_of(plan.equations, self.context), self.context)

    @_once
    def is_exact(self, plan: Planned) -> bool:
        """Do vector units multiply all that a plan does?"""
        shapes = shapes_of(plan.equations, self.context)
        types = [self.products.product(eq) for eq in plan.equations if eq.name in shapes]
        return all(t is None or (t.size > _MATRIX and t == t.held) for t in types)

    @_once
    def hides(self, plan: Planned) -> bool:
        """Are operands on their way while programs multiply? Vector units take longer for that than any loads.

        In a walk of one step they are not, which counts where programs follow each other.
        """
        one = positions(plan.walked, self.context) <= (1 if steps(plan, self.context) else _STEP)
        waits = one and self.programs(plan) > self.context.target.rates.processors
        return (is_hidden(plan, self.context) and not waits) or (bool(plan.walked) and self.is_exact(plan))

    # ----------------------------------------------------------------------------------------------------------- parts

    @_once
    def is_chained(self, plan: Planned) -> bool:
        """Is one contraction of a plan computed from another?"""
        return follow_each_other(plan.equations, self.contracted(plan))

    @_once
    def contracted(self, plan: Planned) -> frozenset[str]:
        """The results of contractions on the matrix units."""
        by_dots = self.by_dots(plan)
        dotted = (eq for eq in plan.equations if eq.name in by_dots and self.operations(eq)[0])
        return frozenset(t.name for eq in dotted for t in eq.outputs)

    def is_plain(self, plan: Planned) -> bool:
        """Does a plan have no dots, on a machine whose units work at the same time?"""
        return not self.context.target.rates.in_turn and not self.contracted(plan)

    def utilisation(self, plan: Planned, splits: int) -> float:
        """The share of the processors that have a program, on average over the rounds that parts take.

        A walk of rows has a processor to itself only with several programs there, or with one of larger tiles.
        """
        rounds = self.programs(plan) * splits / self.context.target.rates.processors
        if splits == 1 and plan.walked and self.is_plain(plan):
            return min(rounds * _GROWN / WALKING, 1.0)
        return min(rounds, 1.0) if splits == 1 and not repeated(plan) else rounds / ceil(rounds)

    @_once
    def programs(self, plan: Planned) -> int:
        """The number of programs that share a walk's work by their place in the grid."""
        batch = max(positions(plan.batch, self.context), 1)
        if self.contracted(plan):
            block = self.context.block(self.is_chained(plan))
            return batch * prod(max(-(-positions(g, self.context) // block), 1) for g in (plan.rows, plan.columns))
        return batch * max(-(-positions((*plan.rows, *plan.columns), self.context) // self.rows(plan)), 1)

    @_once
    def held(self, plan: Planned) -> int:
        """The positions that are held whole beside one of a walk: of what one equation extends over."""
        spaces = [{*eq.axes, *eq.over} for eq in plan.equations]
        beside = (
            tuple(a for a in plan.whole if a in space) for space in spaces if not plan.along or plan.along & space
        )
        return max((positions(axes, self.context) for axes in beside), default=1) or 1

    @_once
    def rows(self, plan: Planned) -> int:
        """The positions of a program along what no dot has as rows or columns."""
        inner = self.held(plan) * min(positions(plan.walked, self.context), _WIDEST)
        return max(_TILE // max(inner, 1), line(plan, (*plan.rows, *plan.columns), self.context))

    def loading(self, plan: Planned, splits: int, share: float) -> float:
        """Seconds in which programs that multiply nothing wait for their loads, and threads make them."""
        each = max(_TILE // (self.rows(plan) * self.held(plan)), 1)
        steps = max(positions(plan.walked, self.context) * share / splits / each, 1.0) * max(len(walks(plan)), 1)
        return max(walking(self.programs(plan) * splits, steps, self.context), self.threads(plan))

    @_once
    def threads(self, plan: Planned) -> float:
        """Seconds in which threads make the loads and stores of programs that multiply nothing."""
        return loading(plan, self.context, self.shapes, self.dtypes)

    def scattering(self, plan: Planned) -> float:
        """Seconds in which dots' results are stored one by one between those of other programs."""
        stored = not self.context.target.rates.in_turn and bool(self.contracted(plan))
        return scattering(plan, self.context, self.shapes) if stored else 0.0

    def repeats(self, plan: Planned, count: int, share: float = 1.0) -> dict[str, float]:
        """How often each equation is computed, in so many walks that visit this share of the blocks."""
        return {eq.name: self.times(plan, eq, frozenset(eq.space), count, share) for eq in plan.equations}

    def times(self, plan: Planned, eq: Equation, own: frozenset[str], count: int, share: float) -> float:
        """How often what goes over some axes of an equation is computed."""
        times = float(prod(self.context.size(a) for a in plan.batch if a not in own))
        for group in (plan.rows, plan.columns):
            if group and not own & set(group):
                times *= -(-positions(group, self.context) // self.context.block())
            else:  # a row of the tile each
                times *= positions(tuple(a for a in group if a not in own), self.context)
        if plan.along & set(eq.axes):
            times *= count
        return times * (share if own & plan.along else 1.0)

    def traffic(self, plan: Planned, count: int, share: float = 1.0) -> dict[str, float]:
        """The bytes of each tensor that is read from outside or stored, in so many walks that visit this share of the
        blocks: what has an element for each of their positions is read there alone."""
        found, blocks = dict[str, float](), masked_axes(plan, self.context) if share < 1 else frozenset[str]()
        for name, size in moved(plan.equations, plan.stores, self.shapes, self.dtypes, self.context).items():
            axes = {a for dims in self.shapes[name] for a in dims}
            read = name not in plan.stores
            times = count if read and count > 1 and axes & plan.along else 1
            found[name] = size * times * (share if read and blocks and blocks <= axes else 1.0)
        for eq in (eq for eq in plan.equations if added_at(eq)):  # what is there is read and written for every term
            found[eq.name] += 2.0 * positions(eq.space, self.context) * self.dtypes[eq.name].size
        return found

    def again(self, plan: Planned) -> Callable[[int], float]:
        """Bytes that a plan's walk reads from memory once more for walks within it, by the number of its parts."""
        return read_again(plan, self.context, self.shapes, self.dtypes)

    def operations(self, eq: Equation) -> tuple[float, float, float]:
        """FLOPs on the matrix units, vector operations and special functions of an equation computed once."""
        works = self.works(eq)
        return sum(w.dots for w in works), sum(w.vector for w in works), sum(w.special for w in works)

    def works(self, eq: Equation) -> tuple[Work, ...]:
        """What there is to do for an equation: a contraction's products, and what makes their sides."""
        known = self.kept.works
        if eq not in known:
            known[eq] = tuple(self._works(eq))
        return known[eq]

    @_once
    def by_dots(self, plan: Planned) -> frozenset[str]:
        """The equations of a kernel that dots compute; other sums of products have their axes in tiles of no dot."""
        shapes = shapes_of(plan.equations, self.context)
        tiles = {a: t for t, group in tile_axes(plan, self.context).items() for a in group}

        def of(axes: Iterable[str]) -> list[str]:
            return list(dict.fromkeys(tiles[a] for a in axes if a in tiles))

        def is_dot(s: Shape) -> bool:
            return sides(s, of, fills(s.inner, plan, self.context), self.context) is not None

        return frozenset(name for name, s in shapes.items() if is_dot(s))

    def by_position(self, eq: Equation) -> tuple[Work, ...]:
        """What there is to do for an equation that no dot computes."""
        known = self.kept.by_position
        if eq not in known:
            axes = frozenset(eq.axes if prefix(eq, self.program) is not None else eq.space)
            v, s = counted(eq.bodies, self.context)
            known[eq] = (Work(axes, 0.0, v + (positions(tuple(axes), self.context) if eq.monoid else 0), s),)
        return known[eq]

    def _works(self, eq: Equation) -> Iterator[Work]:
        scans = prefix(eq, self.program) is not None
        axes = frozenset(eq.axes if scans else (*eq.axes, *eq.over))
        if eq.monoid is not None and eq.monoid.adds and not scans:
            found = contraction(eq, eq.body, self.context.size)
            t = None if found is None else operand_type(found.terms[0], self.products.product(eq), self.dtypes)
            t = None if t is None else self.context.unit(t)
            if found is not None and t is not None and self.context.multiplies(t):
                share = self.context.target.rates.matrix / self.context.target.dot_rate(t)
                space = positions(tuple(axes), self.context)
                yield Work(axes, 2.0 * space * len(found.terms) * share, 0.0, 0.0)
                for side in (s for term in found.terms for s in (term.left, term.right)):
                    made = tuple(f for f in side if not isinstance(f, ein.Read))
                    if made:
                        along = frozenset(a for f in side for a in ein.axes_of(f))
                        yield Work(along, 0.0, *counted(made, self.context))
                return
        yield from self.by_position(eq)
