"""What a plan costs, as far as it can be known before it runs: bytes, operations by unit, and a time.

    time = launch + max(bytes / memory, arithmetic) / the share of the processors that have a program
    arithmetic = the slowest of dots / matrix units, operations / vector units, special functions / their rate, and an
                 eighth of the others: what hides behind the slowest is not free

On a CPU all of these take their turns, and their times add up.

Every tensor from outside is read once a walk it varies in, every stored one written once. A walk within a walk reads
its operands for every block of the other: those that the cache does not keep, from memory; and what is made of its
result waits for it, so that nothing of that is hidden. An equation that lacks an
axis of the grid is computed again in every block along it, and again in every walk that needs it; so is what a
contraction computes of its operands, a side that lacks the rows or the columns. Dots with a batch axis have few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod

from einc import ein
from einc.base.ops import TRANSCENDENTAL
from einc.base.targets import Rates
from einc.ein import Apply, Const, Equation, Program
from einc.ein.dealing import Shape
from einc.ein.origins import Products
from einc.passes.algebra.contraction import contraction, operand_type
from einc.passes.estimate.again import overhang, read_again, repeated, through_cache
from einc.passes.estimate.fit import narrowness
from einc.passes.estimate.sides import fills, line, shapes_of, sides, steps, tile_axes
from einc.passes.streaming.prefix import prefix
from einc.passes.streaming.sweep import Accumulator
from einc.passes.streaming.walks import can_split, upstream, walks
from einc.pipeline import Context, positions
from einc.pipeline.plan import Planned

_SPECIAL = TRANSCENDENTAL | {"div", "pow", "rand"}
_MULTIPLIED = 64  # the largest power that is made of products
_UNHIDDEN = 1 / 8  # of the time that other units than the slowest take
_MATRIX = 2  # bytes of the widest type that matrix units multiply
_TILE = 4096  # elements of a program's tile where there is no dot
_WIDEST = 1024  # positions of a walked axis in such a tile
_LEAST_PART = 64  # positions of a walked axis that are worth a program
_RESIDENT = 2  # programs that a processor needs at once to keep memory busy
_STARTING = 1e-6  # seconds until the first loads of a program have arrived
_MOST_PARTS = 128


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


class Model:
    """The costs of one program's plans on one target; what an equation takes is worked out once and kept in `works`."""

    def __init__(
        self, program: Program, context: Context, works: dict[Equation, tuple[Work, ...]] | None = None
    ) -> None:
        self.program, self.context = program, context
        self.shapes, self.dtypes = program.shapes(), program.dtypes()
        self.given = {p.name for p in program.operands}
        self.products = Products(program)
        self.known = {} if works is None else works

    def cost(self, plan: Planned, share: float = 1.0) -> Cost:
        """The predicted cost of a kernel that visits this share of the blocks it walks over, in parts or not."""
        rates = self.context.target.rates
        count = max(len(walks(plan)), 1)
        dots = vector = special = 0.0
        by_dots = self.by_dots(plan)
        for eq in plan.equations:
            summed = eq.monoid is not None and eq.monoid.adds and eq.name not in by_dots
            for work in self.by_position(eq) if summed else self.works(eq):
                n = self.times(plan, eq, work.axes, count, share)
                dots, vector, special = dots + n * work.dots, vector + n * work.vector, special + n * work.special
        dots *= self.narrowness(plan)
        moved = self.bytes(plan, count) + self.again(plan)(plan.splits) * count * share
        waiting = self.waiting(plan, count, share)
        computing, slowest = arithmetic(rates, dots + waiting, vector, special, _unhidden(plan))
        moving = moved / rates.memory
        seconds = _busy(plan, rates, computing, moving) * overhang(plan, plan.splits, self.context)
        seconds /= self.utilisation(plan, plan.splits)
        limit = "launch" if seconds < rates.launch else "memory" if moving > computing else slowest
        return Cost(moved, dots, vector, special, rates.launch + seconds, limit)

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
        shapes = shapes_of(plan.equations, self.context)
        types = [self.products.product(eq) for eq in plan.equations if eq.name in shapes]
        exact = all(t is None or t.size > _MATRIX for t in types)
        return 1.0 if exact else narrowness(plan, shapes, self.context)

    # ----------------------------------------------------------------------------------------------------------- parts

    def is_chained(self, plan: Planned) -> bool:
        """Is one contraction of a plan computed from another?"""
        return follow_each_other(plan.equations, self.contracted(plan))

    def contracted(self, plan: Planned) -> frozenset[str]:
        """The results of contractions on the matrix units."""
        return frozenset(t.name for eq in plan.equations if self.operations(eq)[0] for t in eq.outputs)

    def utilisation(self, plan: Planned, splits: int) -> float:
        """The share of the processors that have a program, on average over the rounds that parts take."""
        rounds = self.programs(plan) * splits / self.context.target.rates.processors
        return min(rounds, 1.0) if splits == 1 and not repeated(plan) else rounds / ceil(rounds)

    def programs(self, plan: Planned) -> int:
        """The number of programs that share a walk's work by their place in the grid."""
        batch = max(positions(plan.batch, self.context), 1)
        if self.contracted(plan):
            block = self.context.block(self.is_chained(plan))
            return batch * prod(max(-(-positions(g, self.context) // block), 1) for g in (plan.rows, plan.columns))
        inner = positions(plan.whole, self.context) * min(positions(plan.walked, self.context), _WIDEST)
        rows = max(_TILE // max(inner, 1), line(plan, (*plan.rows, *plan.columns), self.context))
        return batch * max(-(-positions((*plan.rows, *plan.columns), self.context) // rows), 1)

    def splits(self, plan: Planned, share: float = 1.0) -> tuple[int, float]:
        """The number of parts that a plan's walk takes least time in, and the seconds that all of it takes.

        The walk visits this share of its blocks. Parts come in rounds of as many as there is room for, each of which
        has to wait for its first loads.
        """
        alone = self.cost(plan, share)
        whole = alone.seconds
        rates = self.context.target.rates
        most = min(positions(plan.walked, self.context) // _LEAST_PART, _MOST_PARTS) if plan.walked else 1
        if (
            most < 2
            or steps(plan, self.context)
            or self.utilisation(plan, 1) == 1
            or not can_split(plan)
            or not self.can_merge(plan)
        ):
            return 1, whole
        waiting = self.waiting(plan, 1, share)
        computing, _ = arithmetic(rates, alone.dots + waiting, alone.vector, alone.special, _unhidden(plan))
        again = self.again(plan)
        once = alone.bytes - again(1) * share
        state = self.state(plan)
        resident = 1 if alone.limit in ("matrix", "vector", "special") else _RESIDENT

        def seconds(n: int) -> float:
            rounds = self.programs(plan) * n / (rates.processors * resident)
            work = _busy(plan, rates, computing, (once + again(n) * share) / rates.memory)
            work *= overhang(plan, n, self.context)
            taken = work * ceil(rounds) / rounds + ceil(rounds) * _STARTING
            return 2 * rates.launch + taken + 2 * n * state / rates.memory

        best = min(range(2, most + 1), key=seconds)
        return (best, seconds(best)) if seconds(best) < whole else (1, whole)

    def can_merge(self, plan: Planned) -> bool:
        """Do parts of a plan's one walk store states over the axes of what it stores alone, and over no others?"""
        stored = {a for eq in plan.equations if any(t.name in plan.stores for t in eq.outputs) for a in eq.axes}
        return all(stored.issuperset(a.axes) for a in self.accumulators(plan))

    def state(self, plan: Planned) -> float:
        """Bytes of the states of a plan's one walk, over all of the grid."""
        return sum(4.0 * a.monoid.components * positions(a.axes, self.context) for a in self.accumulators(plan))

    def accumulators(self, plan: Planned) -> list[Accumulator]:
        """What a plan's one walk carries, equal ones once."""
        (walk,) = walks(plan)
        return list({a.bodies: a for link in walk.links for a in link.accumulators}.values())

    def repeats(self, plan: Planned, count: int, share: float = 1.0) -> dict[str, float]:
        """How often each equation is computed, in so many walks that visit this share of the blocks."""
        return {eq.name: self.times(plan, eq, frozenset((*eq.axes, *eq.over)), count, share) for eq in plan.equations}

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

    def bytes(self, plan: Planned, count: int) -> float:
        """Bytes read from outside and stored, in so many walks."""
        return sum(self.traffic(plan, count).values())

    def traffic(self, plan: Planned, count: int) -> dict[str, float]:
        """The bytes of each tensor that is read from outside or stored, in so many walks."""
        own = {t.name for eq in plan.equations for t in eq.outputs}
        read: dict[str, dict[tuple[str, ...], int]] = {}
        for r in (r for eq in plan.equations for e in eq.expressions() for r in ein.reads(e) if r.tensor not in own):
            at = tuple(dict.fromkeys(a for e in r.index for a in ein.axes_of(e)))
            read.setdefault(r.tensor, {})[at] = positions(at, self.context)
        found: dict[str, float] = {}
        for name in (*sorted(read), *plan.stores):
            axes = tuple(a for dim in self.shapes[name] for a in dim)
            again = count if name in read and plan.along & set(axes) else 1
            size = positions(axes, self.context)
            elements = min(size, sum(read[name].values())) if name in read else size  # what is picked is less than all
            found[name] = float(elements * self.dtypes[name].size * again)
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
        if eq not in self.known:
            self.known[eq] = tuple(self._works(eq))
        return self.known[eq]

    def by_dots(self, plan: Planned) -> frozenset[str]:
        """The equations of a kernel that dots compute; other sums of products have their axes in tiles of no dot.

        On a GPU all count as dots: few tiles of other products fit there.
        """
        if not self.context.target.rates.in_turn:
            return frozenset(eq.name for eq in plan.equations)
        shapes = shapes_of(plan.equations, self.context)
        tiles = {a: t for t, group in tile_axes(plan, self.context).items() for a in group}

        def of(axes: Iterable[str]) -> list[str]:
            return list(dict.fromkeys(tiles[a] for a in axes if a in tiles))

        def is_dot(s: Shape) -> bool:
            return sides(s, of, fills(s.inner, plan, self.context), self.context) is not None

        return frozenset(name for name, s in shapes.items() if is_dot(s))

    def by_position(self, eq: Equation) -> tuple[Work, ...]:
        """What there is to do for an equation that no dot computes."""
        scans = prefix(eq, self.program) is not None
        axes = frozenset(eq.axes if scans else (*eq.axes, *eq.over))
        v, s = _counted(eq.bodies, self.context)
        return (Work(axes, 0.0, v + (positions(tuple(axes), self.context) if eq.monoid else 0), s),)

    def _works(self, eq: Equation) -> Iterator[Work]:
        scans = prefix(eq, self.program) is not None
        axes = frozenset(eq.axes if scans else (*eq.axes, *eq.over))
        if eq.monoid is not None and eq.monoid.adds and not scans:
            found = contraction(eq, eq.body, self.context.size)
            t = None if found is None else operand_type(found.terms[0], self.products.product(eq), self.dtypes)
            if found is not None and t is not None and self.context.multiplies(t):
                share = self.context.target.rates.matrix / self.context.target.dot_rate(t)
                space = positions(tuple(axes), self.context)
                yield Work(axes, 2.0 * space * len(found.terms) * share, 0.0, 0.0)
                for side in (s for term in found.terms for s in (term.left, term.right)):
                    made = tuple(f for f in side if not isinstance(f, ein.Read))
                    if made:
                        along = frozenset(a for f in side for a in ein.axes_of(f))
                        yield Work(along, 0.0, *_counted(made, self.context))
                return
        yield from self.by_position(eq)


def _unhidden(plan: Planned) -> float:
    """The share of the time that other units than the slowest take: all, where these wait for a walk within a walk."""
    return 1.0 if repeated(plan) else _UNHIDDEN


def _busy(plan: Planned, rates: Rates, computing: float, moving: float) -> float:
    """Seconds that all processors take for what a plan computes and moves.

    What a walk within a walk reads it reads through the cache, which it shares with what it reads again.
    """
    if rates.in_turn:
        return computing + moving
    longer, shorter = max(computing, moving), min(computing, moving)
    return longer + _UNHIDDEN * shorter if repeated(plan) else longer


def arithmetic(
    rates: Rates, dots: float, vector: float, special: float, unhidden: float = _UNHIDDEN
) -> tuple[float, str]:
    """Seconds of all processors for so many operations, and the unit that most of them pass in."""
    units = {"matrix": dots / rates.matrix, "vector": vector / rates.vector, "special": special / rates.special}
    slowest = max(units, key=lambda unit: units[unit])
    unhidden = 1 if rates.in_turn else unhidden
    return units[slowest] + unhidden * (sum(units.values()) - units[slowest]), slowest


def _counted(expressions: tuple[ein.Expr, ...], context: Context) -> tuple[float, float]:
    """Vector operations and special functions of some expressions."""
    vector = special = 0.0
    for n in (n for e in expressions for n in ein.walk(e) if isinstance(n, Apply)):
        size = float(positions(ein.axes_of(n), context))
        match n:
            case Apply(op="pow", args=(_, Const(value=int() as power))) if 0 < power <= _MULTIPLIED:
                vector += size * (power.bit_length() + power.bit_count() - 2)  # squares, and products of them
            case Apply(op=op) if op in _SPECIAL:
                special += size
            case _:
                vector += size
    return vector, special


@lru_cache(maxsize=1024)
def follow_each_other(equations: tuple[Equation, ...], dots: frozenset[str]) -> bool:
    """Whether one dot is computed from another."""
    named = {t.name: eq for eq in equations for t in eq.outputs}
    return any(dots & upstream(named[name], named) for name in dots)
