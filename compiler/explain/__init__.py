"""The story of a program, computed from its IR: what it is, what each level adds, and what that costs.

`story` gives a `Story` as data; `einc.present` makes JSON, tables and a page of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from einc.base.errors import Error
from einc.base.types import F32
from einc.driver import Compiled
from einc.ein import Program
from einc.ein.arithmetic import ScalarValue, evaluate_formula
from einc.ein.origins import contractions
from einc.explain.accounts import level
from einc.explain.character import character
from einc.explain.derivation import open_reductions
from einc.explain.figures import Level
from einc.explain.saving import Saved, saving
from einc.explain.sizes import extents
from einc.explain.system import Step, boundary, optimised, parallel, step_of, walked
from einc.explain.transition import Open
from einc.passes.scatter.ways import Way, ways
from einc.passes.streaming.slicing import slicing
from einc.pipeline.fates import Fate
from einc.tuning.entries import Entry


@dataclass(frozen=True, slots=True)
class Stage:
    """What a level adds to the text of the program."""

    level: int
    stage: str
    says: str
    adds: str


@dataclass(frozen=True, slots=True)
class InSlices:
    """Slices of an axis in which gradients are computed, one after the other: `count` of `length` positions each.

    `bytes` are what kernels pass on then, with the sums over slices, `at_once` what they would pass on otherwise.
    """

    axis: str
    count: int
    length: int
    bytes: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Story:
    """A program as a system: its boundary, its mathematics, its state, its parallelism, and figures by level.

    `products` gives for each contraction the type that it multiplies in, and what decides it; `unheeded` is a precision
    that is asked for, and that no contraction has. `chosen` is the level
    that was asked for; `not_closed` are the reductions that need a walk of their own, whichever kernel they are in.
    `saving`, of a program of gradients, are the tensors of the program that they are of which it reads. `measured` is
    what was measured for such sizes, and on which machine, if it was. `scatters` are the sums whose terms data sends to
    their places; `slices` are those in which torch has gradients computed, if it does not have all of them at once.
    """

    name: str
    text: str
    boundary: str
    kind: str
    einsums: tuple[str, ...]
    products: dict[str, str]
    unheeded: str
    dependences: int
    optimised: str
    parallel: str
    tested: str
    steps: tuple[Step, ...]
    reuse: dict[str, int]
    sizes: dict[str, int]
    stages: tuple[Stage, ...]
    not_closed: tuple[Open, ...]
    levels: tuple[Level, ...]
    chosen: int
    operands: tuple[str, ...]
    results: tuple[str, ...]
    saving: tuple[Saved, ...] = ()
    measured: tuple[str, Entry] | None = None
    scatters: tuple[Way, ...] = ()
    slices: InSlices | None = None

    @property
    def level(self) -> Level:
        """The figures of the level that was asked for."""
        return next(f for f in self.levels if f.level == self.chosen)


def story(
    text: str,
    compiled: Sequence[Compiled],
    sizes: Mapping[str, int],
    chosen: int | None = None,
    scalars: Mapping[str, ScalarValue] | None = None,
    operands: Mapping[str, Any] | None = None,
    fates: Sequence[Fate] = (),
    measured: tuple[str, Entry] | None = None,
    behind: bool = False,
) -> Story:
    """The story of a program compiled at one or more levels (in order), with figures for axes of these sizes.

    `operands` are values, as NumPy arrays, that the bounds of loops may read. `fates`, of a program of gradients, are
    those of what it reads; `measured` is what was measured for such sizes, by machine. If the program is `behind` one,
    torch has it give gradients: it is then told how that is done, which may be in other ways than a call of it.
    """
    program = compiled[-1].state.program
    scalars = _defaults(program, sizes, scalars or {})
    every = extents(program, sizes, scalars)
    kind = character(program)
    steps = tuple(step_of(e) for e in program.equations)
    reuse = {
        p.name: math.prod(every[a] for a in walked(program, p.name) if all(a not in d for d in p.dims))
        for p in program.operands
    }
    figures = tuple(level(c, sizes, scalars, operands) for c in compiled)
    pipeline = len(steps) > 1
    waiting = {o.reduction: o for f in figures for o in f.not_closed}
    waiting = {o.reduction: o for o in open_reductions(program)} | waiting
    return Story(
        name=program.name,
        text=text,
        boundary=boundary(program, steps),
        kind=kind.kind,
        einsums=tuple(s.einsum for s in steps if s.einsum),
        products={name: str(found) for name, found in contractions(compiled[-1].program)},
        unheeded=_unheeded(compiled[-1].program),
        dependences=sum(1 for s in steps for name in s.reads if name not in {p.name for p in program.operands}),
        optimised=optimised(pipeline, reuse),
        parallel=parallel(program),
        tested="accuracy, throughput and latency" if pipeline else "numerical accuracy",
        steps=steps,
        reuse=reuse,
        sizes={a.name: every[a.name] for a in compiled[-1].program.axes},
        stages=tuple(_stages(text, figures)),
        not_closed=tuple(waiting.values()),
        levels=figures,
        chosen=figures[-1].level if chosen is None else chosen,
        operands=tuple(p.name for p in program.operands),
        results=program.results,
        saving=saving(compiled[-1].program, fates, every),
        measured=measured,
        scatters=tuple(_scatters(compiled[-1], every, behind)),
        slices=_slices(compiled[-1], every) if behind else None,
    )


def _scatters(c: Compiled, extents: Mapping[str, int], behind: bool) -> list[Way]:
    """How the terms come to their places that data sends there."""
    added = {e.name for e in c.state.program.equations if e.added}
    return ways(c.program, extents, added, behind, c.request.deterministic)


def _slices(c: Compiled, extents: Mapping[str, int]) -> InSlices | None:
    """The slices in which gradients are computed; None if that is at once."""
    assert c.state.schedule is not None
    found = slicing(c.program, extents, c.state.schedule.intermediates)
    if found is None or c.target.vendor == "cpu":
        return None
    return InSlices(found.axis, found.count, found.length, found.held, found.passed)


def _unheeded(program: Program) -> str:
    """The precision that is asked for of a program without contractions of f32; none where it is heeded, or exact."""
    held = {of.dtype.held for _, of in contractions(program)}
    return "" if program.precision == F32 or F32 in held else str(program.precision)


def _defaults(program: Program, sizes: Mapping[str, int], scalars: Mapping[str, ScalarValue]) -> dict[str, ScalarValue]:
    """The scalars given, and the others that have a default."""
    found = dict(scalars)
    for p in program.scalars:
        if p.name not in found and p.default is not None:
            with suppress(Error, KeyError):
                found[p.name] = evaluate_formula(p.default, sizes, found)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# What each level adds

_STAGES = ("one kernel per equation", "fused and streamed", "scheduled")


def _stages(text: str, figures: Sequence[Level]) -> Iterator[Stage]:
    before: Level | None = None
    for f in figures:
        added = _first(f) if before is None else _added(before, f)
        says = text.strip() if before is None else "the same text"
        yield Stage(f.level, _STAGES[f.level], says, "; ".join(added) or "nothing more")
        before = f


def _first(f: Level) -> list[str]:
    if f.equations == 1:
        return ["only tiling: one equation is the whole program; stateless"]
    if f.intermediates:
        return [f"nothing: {_listed([t.name for t in f.intermediates])} written to memory"]
    return ["only tiling"]


def _added(before: Level, f: Level) -> list[str]:
    """The differences from the level below: what it no longer writes or visits, and what it carries."""
    found = []
    for k in f.kernels:
        old = {s.name for other in before.kernels for s in other.running}
        if k.running and not old.issuperset(s.name for s in k.running):
            names = ", ".join(s.name for s in k.running)
            found.append(f"streaming over {', '.join(k.streamed)}: running state ({names})")
        for axis, v in k.tiles.items():
            if v.visited < v.total and not any(o.tiles[axis].share < 1 for o in before.kernels if axis in o.tiles):
                found.append(f"domain pruning: {100 * v.share:.0f}% of the blocks of {axis} are visited")
        if k.splits > 1 and all(o.splits == 1 for o in before.kernels):
            found.append(f"{', '.join(k.streamed)} split in {k.splits} parts, merged by the transition")
    gone = [t.name for t in before.intermediates if t.name not in {x.name for x in f.intermediates}]
    if gone:
        found.append(f"{_listed(gone, 'no longer')} in memory")
    if len(f.kernels) != len(before.kernels):
        found.append(_became(len(before.kernels), len(f.kernels)))
    return found


def _became(before: int, after: int) -> str:
    return f"1 kernel becomes {after}" if before == 1 else f"{before} kernels become {after}"


def _listed(names: Sequence[str], how: str = "") -> str:
    """`S is`, `S and P are no longer`."""
    if len(names) == 1:
        return f"{names[0]} is {how}".rstrip()
    return f"{', '.join(names[:-1])} and {names[-1]} are {how}".rstrip()
