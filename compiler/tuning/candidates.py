"""What is worth timing: choices around those of a kernel, those first that the model likes best.

A generator that can tell the time of a kernel's tiles ranks them (`Backend.predicted`), and leaves out what does not
fit. Where it cannot tell, the model's own choice is taken to be close, and fewer changes come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product, zip_longest
from math import inf

from einc.base.errors import Error
from einc.driver import Compiled
from einc.passes.planning.partition import others
from einc.pipeline import Context, positions
from einc.tile import WHOLE, Block, Dot, Kernel
from einc.tile.asked import FOLDS, PLAN, Choice, block_name, check_heeded, counts
from einc.tile.blocks import power
from einc.tile.choices import FOLDS_EARLY, FOLDS_LATE, POINTER
from einc.tile.walk import tile_axes, values_in
from einc.tuning.entries import kernels_of

_SCALES = (0.5, 2.0)
_WIDE = (0.25, 0.5, 2.0, 4.0)  # where a model ranks what results, and where nothing is contracted
_LEAST = 16  # positions of a tile that are worth less of
_LARGEST = 1024
_BOX = 1 << 19  # elements, about what boxes have without a choice
_SECTIONS = (1, 4, 8, 16)
_FAR = 2  # changes at once where no model ranks
_SELDOM = 4  # times as often as other kernels those have a turn that contract
_HOPELESS = 2.0  # times as long as the model's plan one is predicted to take that is not worth timing


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to compute a program: its kernels, what is chosen that the model does not, and the predicted seconds."""

    compiled: Compiled
    chosen: tuple[Choice, ...] = ()
    predicted: float | None = None

    @property
    def words(self) -> str:
        """What is chosen, as one asks for it."""
        return " ".join(map(str, self.chosen))


def around(base: Candidate, wide: bool) -> Iterator[Candidate]:
    """The ways that differ from one in the choices of one kernel, the best first; `wide` has more than tiles."""
    compiled = base.compiled
    sized, context = _sized(compiled)
    own = kernels_of(compiled)
    seldom = 1 if all(map(_has_no_dot, own)) else _SELDOM
    found = [
        ((n + 1) * (seldom if _has_no_dot(k) else 1), choices, predicted)
        for k in own
        for n, (choices, predicted) in enumerate(_of_kernel(k, sized.get(k.name, k), context, wide))
    ]
    if wide:
        parts = ((n + 1, (Choice("parts", m, p.name),)) for p in compiled.state.plans for n, m in _parts(p.splits))
        found += [(after, choices, None) for after, choices in parts]
    for _, choices, predicted in sorted(found, key=lambda f: f[0]):
        made = chosen(compiled, (*_without(base.chosen, choices), *choices))
        if made is not None and made.state != compiled.state:
            yield Candidate(made, (*_without(base.chosen, choices), *choices), predicted)


def plans(compiled: Compiled, most: int) -> Iterator[Candidate]:
    """The program by other plans, then with walks in other parts."""
    before = next(
        (a for a, b in zip(compiled.stages, compiled.stages[1:], strict=False) if b.name == "partition"), None
    )
    if before is None:
        return
    times = others(before.state, compiled.context)[: most + 1]
    for number, seconds in enumerate(times, 1):
        if seconds > _HOPELESS * times[0]:
            break
        choice = (Choice(PLAN, number),)
        made = chosen(compiled, choice) if number > 1 else None
        if made is not None:
            yield Candidate(made, choice, seconds)
    for plan in compiled.state.plans:
        for _, parts in _parts(plan.splits):
            made = chosen(compiled, (Choice("parts", parts, plan.name),))
            if made is not None and made.state != compiled.state:
                yield Candidate(made, (Choice("parts", parts, plan.name),))


def _parts(n: int) -> Iterator[tuple[int, int]]:
    """Other parts of a walk, in turn."""
    other = dict.fromkeys(m for m in (2 * n, n // 2, 4 * n, 1) if m != n and m in counts("parts"))
    return enumerate(other)


def chosen(compiled: Compiled, choices: tuple[Choice, ...]) -> Compiled | None:
    """The program with these choices in place of its own; None where they are not possible."""
    try:
        made = compiled.trying(choices)
        check_heeded(choices, kernels_of(made))
    except Error:
        return None
    return made


def _without(own: Iterable[Choice], others: Iterable[Choice]) -> Iterator[Choice]:
    names = {(c.name, c.kernel) for c in others}
    return (c for c in own if (c.name, c.kernel) not in names)


def _has_no_dot(kernel: Kernel) -> bool:
    return not any(isinstance(v, Dot) for v in values_in(kernel.body))


def _sized(compiled: Compiled) -> tuple[dict[str, Kernel], Context]:
    """The kernels as their tiles are sized, before anything is placed or peeled, and what they are sized by."""
    sized = next((s.state for s in compiled.stages if s.name == "choose-tiles"), None)
    if sized is None or sized.schedule is None:
        return {}, compiled.context
    given = {a.name for a in compiled.program.axes}
    context = compiled.context.knowing(a for a in sized.program.axes if a.name not in given)
    return {k.name: k for k in sized.schedule.kernels}, context


# ---------------------------------------------------------------------------------------------------------------------
# One kernel

_Found = tuple[tuple[Choice, ...], float | None]


def _of_kernel(kernel: Kernel, sized: Kernel, context: Context, wide: bool) -> Iterator[_Found]:
    if context.target.cache:
        yield from (((c,), None) for c in _boxed(kernel, context.target.rates.processors))
        return
    predicted = context.backend.predicted
    is_ranked = predicted is not None and predicted(sized, context) is not None
    ranked: list[tuple[tuple[float, ...], tuple[Choice, ...], float | None]] = []
    for changes in _tiled(sized, _SCALES if not is_ranked and not _has_no_dot(sized) else _WIDE, context):
        moves, far = _distance(sized, changes)
        time = None if predicted is None else predicted(_with(sized, changes), context)
        if changes and time != inf and (is_ranked or moves <= _FAR):
            choices = tuple(replace(c, kernel=kernel.name) for c in changes)
            ranked.append(((0.0 if time is None else time, moves, far, len(ranked)), choices, time))
    ranked.sort(key=lambda r: r[0])
    ordered = _different(((choices, time) for _, choices, time in ranked), is_ranked)
    beside = [((c,), None) for c in _beside(kernel)] if wide else []
    yield from (x for xs in zip_longest(ordered, beside) for x in xs if x is not None) if wide else ordered


def _different(ranked: Iterable[_Found], is_ranked: bool) -> Iterator[_Found]:
    """Where a model ranks, the best stages for each tile before all others: it tells them apart least."""
    if not is_ranked:
        yield from ranked
        return
    later, seen = [], set[frozenset[Choice]]()
    for choices, time in ranked:
        tile = frozenset(c for c in choices if c.name != "stages")
        if tile in seen:
            later.append((choices, time))
        else:
            seen.add(tile)
            yield choices, time
    yield from later


def _tiled(kernel: Kernel, scales: Sequence[float], context: Context) -> Iterator[tuple[Choice, ...]]:
    """Changes of tile sizes, warps and stages, each with all others."""
    axes: list[list[Choice | None]] = []
    for name, a in tile_axes(kernel).items():
        block = kernel.choices.tile(name)
        if block is not None and block.cap < WHOLE:
            whole = power(positions(a.axes, context))
            axes.append([None, *(Choice(block_name(name), b) for b in _scaled(block, scales, whole))])
    c = kernel.choices
    warps = [Choice("warps", n) for n in (c.warps // 2, c.warps * 2) if n in counts("warps")]
    near = {c.stages - 1, c.stages + 1, 2, 3, 4} - {c.stages}
    stages = [Choice("stages", n) for n in sorted(near, key=lambda n: abs(n - c.stages)) if n in counts("stages")]
    if _has_no_dot(kernel):
        stages = []  # loads are in flight ahead of dots
    for found in product(*axes, [None, *warps], [None, *stages[:3]]):
        yield tuple(x for x in found if x is not None)


def _scaled(block: Block, scales: Sequence[float], whole: int) -> Iterator[Block]:
    """Sizes near one, which differ from it along an axis of so many positions."""
    for s in scales:
        cap = int(block.cap * s)
        is_other = min(cap, whole) != min(block.cap, whole)
        if is_other and min(block.cap, _LEAST) <= cap <= max(_LARGEST, block.cap):
            yield Block(min(block.least, cap), cap)


def _with(kernel: Kernel, changes: Iterable[Choice]) -> Kernel:
    names = {block_name(a): a for a in tile_axes(kernel)}
    tiles = {names[c.name]: c.value for c in changes if isinstance(c.value, Block)}
    numbers = {c.name: c.value for c in changes if isinstance(c.value, int)}
    return replace(kernel, choices=kernel.choices.sized(tiles).counted(numbers))


def _distance(kernel: Kernel, changes: Iterable[Choice]) -> tuple[int, float]:
    """How many moves choices are from those of a kernel, and how far: doublings of tiles, half as much for a stage.

    Warps that double with the rows, so that each has as much to do as before, are no move of their own; nor is what one
    axis of a tile gives to another.
    """
    roles = {block_name(name): (a.role, kernel.choices.tile(name)) for name, a in tile_axes(kernel).items()}
    steps: list[int] = []
    moves, far, taller, more = 0, 0.0, 0, 0
    for c in changes:
        if isinstance(c.value, Block):
            role, own = roles[c.name]
            steps.append(c.value.cap.bit_length() - own.cap.bit_length() if own is not None else 0)
            taller += steps[-1] if role == "row" else 0
        elif c.name == "warps" and isinstance(c.value, int):
            more = c.value.bit_length() - kernel.choices.warps.bit_length()
        elif isinstance(c.value, int):
            moves, far = moves + 1, far + 0.5 * abs(c.value - kernel.choices.stages)
    is_exchange = len(steps) == 2 and sum(steps) == 0
    apart = abs((0 if is_exchange else taller) - more)
    moves += 1 if is_exchange else len(steps)
    return moves + (1 if more and apart else 0), far + sum(map(abs, steps)) / (2 if is_exchange else 1) + 0.5 * apart


def _beside(kernel: Kernel) -> Iterator[Choice]:
    """Other sections of the grid, pointers to what is reached by copy engines, and folds at the other time."""
    yield from (Choice("section", n, kernel.name) for n in _SECTIONS if n != kernel.choices.section)
    yield from (Choice(name, POINTER, kernel.name) for name, way in kernel.choices.ways if way != POINTER)
    if own := kernel.choices.folds:
        yield Choice(FOLDS, FOLDS_LATE if own == FOLDS_EARLY else FOLDS_EARLY, kernel.name)


def _boxed(kernel: Kernel, threads: int) -> Iterator[Choice]:
    """Other boxes than torch computes tiles in, and other workers."""
    own = kernel.choices.box or _BOX
    boxes = [own * 2, own // 2, own * 4, own // 4, own * 8, own // 8]
    workers = [n for n in dict.fromkeys((1, threads // 2, threads)) if n and n != kernel.choices.workers]
    one = [Choice("box", n, kernel.name) for n in boxes if n in counts("box")]
    other = [Choice("workers", n, kernel.name) for n in workers]
    return chain(x for xs in zip_longest(one, other) for x in xs if x is not None)
