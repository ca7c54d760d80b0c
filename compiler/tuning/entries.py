"""What was measured of a call, and the kernels that follow from it.

    Compiled by the model, Entry  -->  the same program with the plan, parts, tiles, warps, stages and ways of the entry

Choices are held by place, a line for each kernel: `tiles=64,128 warps=8 stages=3 section=8 ways=descriptor,pointer`.
They are given names again by the kernels that there are, first those that decide which kernels these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from einc.base.errors import CallError
from einc.driver import Compiled
from einc.tile import Block, Kernel
from einc.tile.asked import FOLDS, PLAN, Choice, block_name, check_heeded, choice
from einc.tile.walk import tile_axes

_COUNTS = ("parts", "warps", "stages", "section", "box", "workers")


@dataclass(frozen=True, slots=True)
class Measured:
    """One of the ways to compute a program that were timed: what is chosen, in words, and seconds.

    `predicted` is what the model says of it, if it can tell; of the model's own choice, what is chosen is empty.
    """

    chosen: str
    seconds: float
    predicted: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """The fastest of what was timed: its plan, and the choices of each of its kernels, none where the model's stay.

    `model` is the model's choice, `best` what was faster, or the same, and `next` what came closest, if anything did.
    `of` says what was measured, and `tried` how many ways were timed.
    """

    plan: int
    kernels: tuple[str, ...]
    best: Measured
    model: Measured
    next: Measured | None = None
    of: str = ""
    tried: int = 0

    @property
    def gain(self) -> float:
        """How many times as fast as the model's choice it is."""
        return self.model.seconds / self.best.seconds if self.best.seconds else 1.0

    def data(self) -> dict[str, Any]:
        """The entry as values of JSON, times in microseconds."""
        found: dict[str, Any] = {"of": self.of, "plan": self.plan, "kernels": list(self.kernels), "tried": self.tried}
        for name, m in (("best", self.best), ("model", self.model), ("next", self.next)):
            if m is not None:
                found[name] = {"chosen": m.chosen, "us": round(1e6 * m.seconds, 2)}
                found[name] |= {} if m.predicted is None else {"predicted_us": round(1e6 * m.predicted, 2)}
        return found


def entry(data: Mapping[str, Any]) -> Entry:
    """The entry of values of JSON."""

    def measured(name: str) -> Measured | None:
        m = data.get(name)
        if m is None:
            return None
        predicted = m.get("predicted_us")
        return Measured(m["chosen"], 1e-6 * m["us"], None if predicted is None else 1e-6 * predicted)

    best, model = measured("best"), measured("model")
    assert best is not None
    assert model is not None
    kernels = tuple(map(str, data["kernels"]))
    return Entry(int(data["plan"]), kernels, best, model, measured("next"), str(data["of"]), int(data["tried"]))


# ---------------------------------------------------------------------------------------------------------------------
# Choices by place


def pinned(compiled: Compiled) -> tuple[str, ...]:
    """All choices of a program's kernels, a line for each."""
    return tuple(map(_line, kernels_of(compiled)))


def kernels_of(compiled: Compiled) -> tuple[Kernel, ...]:
    assert compiled.state.schedule is not None
    return compiled.state.schedule.kernels


def _line(kernel: Kernel) -> str:
    c = kernel.choices
    counts = [(name, getattr(c, name)) for name in _COUNTS]
    words = [f"tiles={','.join(str(b) for _, b in _tiles(kernel))}"] if _tiles(kernel) else []
    words += [f"{name}={n}" for name, n in counts if n]
    words += [f"{FOLDS}={c.folds}"] if c.folds else []
    words += [f"ways={','.join(way for _, way in _ways(kernel))}"] if c.ways else []
    return " ".join(words)


def _ways(kernel: Kernel) -> list[tuple[str, str]]:
    found = ((b.name, kernel.choices.way(b.name)) for b in kernel.buffers)
    return [(name, way) for name, way in found if way is not None]


def _tiles(kernel: Kernel) -> list[tuple[str, Block]]:
    found = ((a, kernel.choices.tile(a)) for a in tile_axes(kernel))
    return [(a, block) for a, block in found if block is not None]


def _named(kernel: Kernel, line: str) -> Iterator[Choice]:
    """The choices of a line for the kernel; raises `ValueError` where it has others to make."""
    words = dict(word.split("=", 1) for word in line.split())
    tiles, ways = _tiles(kernel), _ways(kernel)
    for what, own in (("tiles", [block_name(a) for a, _ in tiles]), ("ways", [name for name, _ in ways])):
        values = [v for v in words.pop(what, "").split(",") if v]
        for name, value in zip(own, values, strict=True):
            yield choice(f"{kernel.name}.{name}", value)
    for name, value in words.items():
        if name != "parts":
            yield choice(f"{kernel.name}.{name}", value)


def _parts(line: str) -> int:
    return int(dict(word.split("=", 1) for word in line.split()).get("parts", "1"))


def choosing(compiled: Compiled, choices: tuple[Choice, ...]) -> Compiled:
    """The same program with these choices, all of which some kernel has. Raises `CallError` where none has one."""
    made = compiled.choosing(choices)
    check_heeded(choices, kernels_of(made))
    return made


def applied(compiled: Compiled, found: Entry) -> Compiled:
    """The program with what was measured to be fastest; as it is where such kernels are no longer made."""
    if not found.kernels:
        return compiled
    first: tuple[Choice, ...] = (Choice(PLAN, found.plan),) if found.plan > 1 else ()
    try:
        made = choosing(compiled, first) if first else compiled
        if [k.choices.parts for k in kernels_of(made)] != [*map(_parts, found.kernels)]:
            first += tuple(_divided(made, found.kernels))
            made = choosing(compiled, first)
        pairs = zip(kernels_of(made), found.kernels, strict=True)
        rest = tuple(c for kernel, line in pairs for c in _named(kernel, line))
        made = choosing(compiled, (*first, *rest))
    except (CallError, ValueError):
        return compiled
    return made if pinned(made) == found.kernels else compiled


def _divided(made: Compiled, lines: tuple[str, ...]) -> Iterator[Choice]:
    """The parts of each plan's walk: a walk in parts has a line for the parts, and one for what merges them."""
    rest = iter(lines)
    for plan in made.state.plans:
        parts = _parts(next(rest, ""))
        if parts > 1:
            next(rest, "")
        if parts != plan.splits:
            yield Choice("parts", parts, plan.name)
