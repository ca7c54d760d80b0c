"""What a kernel of contractions takes of a multiprocessor: shared memory for operands, registers for states.

What a side of a dot is loaded from lies in shared memory, once for every stage in flight if the loop moves it; a
computed right side lies there once, and a left side of four bytes, or one that no loop moves; results, states and the
rest are in registers. A
tile of three axes or more goes through shared memory when its threads hold it in another order, and a fold when several
warps hold its row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from einc.base.targets import Target
from einc.base.types import DType
from einc.tile import Dot, Fold, Kernel, Let, Load, Loop, Ref, Sides, Statement, TileType, Value
from einc.tile.live import before_loops
from einc.tile.typing import multiplied
from einc.tile.walk import lets, loops, values_in, walk_values
from einc.tile.windows import read_by_dots

_LATENCY = 1e-6  # seconds from a load to its bytes, while memory is busy
_STREAMS = 4  # times as long as its products take a walk waits for memory, if it does little else
_TOGETHER = 4  # programs that hide each other's waits, as blocks in flight do otherwise
WORD = 4  # bytes of an element in a register of its own
_THREAD = 512  # bytes of registers that a thread of such a program takes
RESERVED = 1024  # bytes of shared memory that each program takes for the system
MOST_PRODUCTS = 512  # of a thread in a dot on vector units, before CUDA 12.8's assembler spills

Extents = Mapping[str, int]  # positions of a tile by its axis
Body = tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class _Space:
    """What a tile takes over these axes, an element so many bytes; once for every stage in flight, if `staged`, but for
    the last one if it is read `early`, before the dots."""

    axes: tuple[str, ...]
    element: int
    staged: bool = False
    early: bool = False

    def bytes(self, sizes: Extents, stages: int = 1) -> int:
        count = max(stages - self.early, 1) if self.staged else 1
        return prod([sizes[a] for a in self.axes]) * self.element * count


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A value that threads exchange: its results, the axes folded away, and whether all of the tile goes."""

    results: tuple[_Space, ...]
    folded: tuple[str, ...]
    whole: bool

    def bytes(self, sizes: Extents, warps: int) -> int:
        result = sum(r.bytes(sizes) for r in self.results)
        whole = result * prod([sizes[a] for a in self.folded])
        return whole if self.whole else min(whole, result * warps)


class Occupancy:
    """What a kernel takes, for one choice of tile sizes after another."""

    def __init__(self, kernel: Kernel) -> None:
        body, around = kernel.body, list(loops(kernel.body))
        made = dict(_made(body))
        self.operands = _operands(body, made, None)
        self.exchanged = _exchanged(body)
        self.loops = [(_operands(o.body, made, o), _exchanged(o.body)) for o in around]
        self.dots_of = [[v.sides for v in values_in(o.body) if isinstance(v, Dot)] for o in around]
        self.results_of = [[_space(s.types[0]) for s in lets(o.body) if _has_dot(s)] for o in around]
        multiplies = dict(multiplied(kernel))
        self.cleared_of = [list(_cleared(o.body, made, multiplies)) for o in around]
        self.computed = _computed(body)
        self.walked = [axes for o in around for axes in _computed(o.body) if o.axis.name in axes]
        self.exact = [d.sides for d, t in multiplies.items() if t.is_float and t.size >= 4 and t == t.held]
        self.held, self.live = _live(kernel)

    def shared(self, sizes: Extents, stages: int, warps: int) -> int:
        """Bytes of what dots read and what is exchanged: of the statements around the loops, and of the loop with the
        most.

        Around the loops dots come after what is exchanged; in a loop the next block's operands are there meanwhile.
        """

        def taken(spaces: list[_Space]) -> int:
            return sum(x.bytes(sizes, stages) for x in spaces)

        def exchanged(values: list[_Exchange]) -> int:
            return max((x.bytes(sizes, warps) for x in values), default=0)

        inside = max((taken(operands) + exchanged(values) for operands, values in self.loops), default=0)
        return max(taken(self.operands) + inside, exchanged(self.exchanged))

    def registers(self, sizes: Extents) -> int:
        """Bytes of the tiles that are live after a statement, where they are most.

        A loop's states are, what it does not change, and what is still to be read; an operation on elements works in
        place. Tiles of one axis count nothing, nor do loads that dots alone read, which lie in shared memory.
        """
        held = {name: space.bytes(sizes) for name, space in self.held.items()}
        return max((sum([held[n] for n in names]) for names in self.live), default=0)

    def products(self, sizes: Extents, warps: int) -> int:
        """The products that a thread adds up in one dot on vector units, where they are most.

        The assembler reads both sides into registers as it needs them, but with too many products too early.
        """
        return max((sizes[d.row] * sizes[d.column] * sizes[d.inner] // (32 * warps) for d in self.exact), default=0)

    def results(self, sizes: Extents) -> int:
        """Bytes of the results of the dots of one loop, of the loop with the most."""
        return max((sum(x.bytes(sizes) for x in dots) for dots in self.results_of), default=0)

    def operated(self, sizes: Extents) -> int:
        """Bytes of these results and of what the dots multiply, four an element: a warp that multiplies on its own has
        sides of two bytes in registers, and so has another one that multiplies them with others."""

        def elements(d: Sides) -> int:
            return sum(
                prod([sizes[a] for a in axes]) for axes in (d.result, d.over(d.row, d.inner), d.over(d.inner, d.column))
            )

        return WORD * max((sum(map(elements, dots)) for dots in self.dots_of), default=0)

    @property
    def clears(self) -> bool:
        """Does a dot in a loop take a side through registers?"""
        return any(self.cleared_of)

    def crowded(self, sizes: Extents) -> int:
        """Bytes of these results, and of the sides that go through registers beside them."""
        both = zip(self.results_of, self.cleared_of, strict=True)
        return max((sum(x.bytes(sizes) for x in (*dots, *sides)) for dots, sides in both), default=0)

    def streamed(self, sizes: Extents) -> tuple[int, int]:
        """Bytes that dots read of one block of a loop, and their products with it, of the loop with the most bytes."""
        moved = [sum(x.bytes(sizes) for x in operands if x.staged) for operands, _ in self.loops]
        made = [sum(prod([sizes[a] for a in (*d.result, d.inner)]) for d in dots) for dots in self.dots_of]
        return max(zip(moved, made, strict=True), default=(0, 0))

    def largest(self, sizes: Extents, walked: bool = False) -> int:
        """Elements of the largest tile that is computed, but not by a dot, or folded; of those along loops, if
        `walked`."""
        return max((prod([sizes[a] for a in axes]) for axes in (self.walked if walked else self.computed)), default=0)


def _space(t: TileType, staged: bool = False) -> _Space:
    return _Space(t.axes, max(t.dtype.size, 1), staged)


def _cleared(body: Body, made: Mapping[str, Let], types: Mapping[Dot, DType]) -> Iterator[_Space]:
    """The sides of dots that are 0 where the other side does not count and data says so: no load can leave them out."""
    for v in values_in(body):
        if isinstance(v, Dot):
            for counts, axes in ((v.left_in, (v.inner, v.column)), (v.right_in, (v.row, v.inner))):
                if counts is not None and any(isinstance(x, Load) for x in _behind(counts, made)):
                    yield _Space(axes, types[v].size)


def _behind(value: Value, made: Mapping[str, Let]) -> Iterator[Value]:
    """All that a value is computed from, but through dots."""
    seen, stack = set[str](), [value]
    while stack:
        for v in walk_values(stack.pop()):
            yield v
            if isinstance(v, Ref) and v.name in made and v.name not in seen and not _has_dot(made[v.name]):
                seen.add(v.name)
                stack.append(made[v.name].value)


def _has_dot(let: Let) -> bool:
    return any(isinstance(v, Dot) for v in walk_values(let.value))


def _made(body: Body) -> Iterator[tuple[str, Let]]:
    return ((let.names[0], let) for let in lets(body))


def _computed(body: Body) -> list[tuple[str, ...]]:
    """The axes of every tile that no dot makes, and of those that are folded."""
    made = ((s.types[0].axes, s.value) for s in lets(body) if not _has_dot(s))
    return list(dict.fromkeys((*axes, v.axis) if isinstance(v, Fold) else axes for axes, v in made))


# ---------------------------------------------------------------------------------------------------------------------
# Blocks in flight


def stages_needed(
    occupancy: Occupancy, sizes: Extents, warps: int, most: int, target: Target, rate: float, programs: int
) -> int:
    """The stages of a walk whose tiles have these sizes, at most so many; `rate` is FLOPs a second of its dots.

    They are the fewest with which enough bytes are in flight, if these let more programs run at once. Memory is busy
    while a processor waits for as many bytes as arrive in the time that a load takes: programs that run at once times
    blocks in flight times bytes of a block. Programs also compute while others wait, so that where there are more of
    them than run at once, shared memory is better spent on another program than on another block. A kernel that
    multiplies for longer than its loads take keeps its blocks in flight: it has few programs, and each has to wait.

    Dots of few rows read what a block leaves in shared memory at once, which takes the next but one meanwhile: Triton
    has one block fewer than stages there.
    """
    rates = target.rates
    moved, products = occupancy.streamed(sizes)
    if moved / rates.memory < _STREAMS * 2 * products / rate:
        return most

    def resident(n: int) -> int:
        room = target.shared // (occupancy.shared(sizes, n - 1, warps) + RESERVED)
        return min(room, target.registers // (warps * target.warp * _THREAD))

    least, needed = resident(most), _LATENCY * rates.memory / rates.processors
    if programs <= least * rates.processors:
        return most
    enough = max(least + 1, _TOGETHER)
    fewer = (n for n in range(2, most) if resident(n) >= enough and resident(n) * (n - 1) * moved >= needed)
    return next(fewer, most)


# ---------------------------------------------------------------------------------------------------------------------
# Shared memory


def _exchanged(body: Body) -> list[_Exchange]:
    """What is exchanged between threads of the values computed directly in a body."""
    found = []
    for let in (s for s in body if isinstance(s, Let) and not _has_dot(s)):
        folded = tuple(sorted({v.axis for v in walk_values(let.value) if isinstance(v, Fold)}))
        solid = len({*let.types[0].axes, *folded}) > 2
        if solid or folded:
            found.append(_Exchange(tuple(map(_space, let.types)), folded, solid))
    return found


def _operands(body: Body, made: Mapping[str, Let], loop: Loop | None) -> list[_Space]:
    """The operands of dots directly in a body; where a loop moves them, those of every stage."""
    moving = set() if loop is None else {loop.axis.name} if loop.axis.blocked else _moving(loop)
    dots = [v for s in body if not isinstance(s, Loop) for v in values_in((s,)) if isinstance(v, Dot)]
    taken: dict[str, _Space] = {}
    for d in dots:
        for side, right in ((d.left, False), (d.right, True)):
            if not isinstance(side, Ref) or side.name not in made:
                continue
            own = made[side.name].types[0]
            moves = not moving.isdisjoint((side.name, *own.axes))
            loads = _loaded(side.name, made)
            if side.name in loads or right or own.dtype.size >= 4 or not moves:
                taken[side.name] = _space(own, moves and side.name in loads)
            for name in loads - {side.name}:
                type_ = made[name].types[0]
                if not moving.isdisjoint((name, *type_.axes)):
                    taken.setdefault(name, replace(_space(type_, True), early=True))
    return list(taken.values())


def _loaded(name: str, made: Mapping[str, Let]) -> set[str]:
    """The loads that a value is computed from, but not through another dot."""
    found, seen, stack = set[str](), set[str](), [name]
    while stack:
        at = stack.pop()
        if at in seen or at not in made or isinstance(made[at].value, Dot):
            continue
        seen.add(at)
        values = list(values_in((made[at],)))
        if any(isinstance(v, Load) for v in values):
            found.add(at)
        stack += [v.name for v in values if isinstance(v, Ref)]
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Registers


def _live(kernel: Kernel) -> tuple[dict[str, _Space], list[frozenset[str]]]:
    """What the tiles in registers take, and which of them are live together, after one statement or another."""
    body = before_loops(kernel.body)
    types = {name: t for let in lets(body) for name, t in zip(let.names, let.types, strict=True)}
    types |= {c.name: c.type for loop in loops(body) for c in loop.carried}
    apart, loads = read_by_dots(body), {let.names[0] for let in lets(body) if isinstance(let.value, Load)}
    held = {n: _space(t) for n, t in types.items() if len(t.axes) > 1 and n not in apart}
    together = {frozenset(names & held.keys()) for names in _after(body, frozenset(), held, loads)}
    return held, [names for names in together if not any(names < other for other in together)]


def _after(
    body: Body, after: frozenset[str], held: Mapping[str, _Space], loads: Collection[str]
) -> Iterator[frozenset[str]]:
    """What is live after each statement of a body, of which some names are read later; of `loads` that dots alone read
    in a loop, they read what lies in shared memory."""
    live = set(after)
    for s in reversed(body):
        if isinstance(s, Loop):
            live -= {c.name for c in s.carried}
            inside = {c.after for c in s.carried} | _refs(s.body) - _moving(s)
            shared = read_by_dots(s.body, loads) - live
            yield from (names - shared for names in _after(s.body, frozenset(live | inside), held, loads))
            live |= {n for n in _refs((s,)) if n in held} - {n for let in lets(s.body) for n in let.names}
            live -= {c.name for c in s.carried}
        else:
            yield frozenset(live)
            live -= set(s.names) if isinstance(s, Let) else set()
            live |= _refs((s,))
    yield frozenset(live)


def _moving(loop: Loop) -> set[str]:
    """The names bound in a loop that differ from block to block, and its states."""
    moving = {loop.axis.name} | {c.name for c in loop.carried}
    for s in loop.body:
        if isinstance(s, Loop):
            moving |= _moving(s)
        elif isinstance(s, Let) and _refs((s,)) & moving:
            moving |= set(s.names)
    return moving


def _refs(body: Body) -> set[str]:
    return {v.name for v in values_in(body) if isinstance(v, Ref)}
