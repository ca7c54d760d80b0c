"""Choices that a user or a tuner makes in place of the heuristics: `BI=64`, `O.warps=8`, `O.K=pointer`.

A choice is for one kernel, or for all that have what it names: a tile axis, by the name of its size in emitted code, or
`parts`, `warps`, `stages`, `section`, `folds`, or a tensor that is loaded; where torch computes the grid in boxes,
`box` and `workers`. `plan` is for the program: what shares a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from einc.base.errors import CallError, nearest
from einc.base.types import F32, PRECISIONS, DType
from einc.tile import WHOLE, Block, Kernel
from einc.tile.choices import FOLDS_EARLY, FOLDS_LATE, MOST_SECTION, POINTER, is_way
from einc.tile.walk import tile_axes

MOST_PARTS = 1024
FOLDS = "folds"  # when a walk folds what it has found
PLAN = "plan"  # which equations share a kernel: 1 is what is predicted to take least, then what was looked at beside it
EARLY = (PLAN, "parts")  # choices that are made before there are kernels
_LONGEST = 40  # the most characters of a text that is quoted
_COUNTS: dict[str, Sequence[int]] = {
    "parts": range(1, MOST_PARTS + 1),
    "warps": (1, 2, 4, 8, 16, 32),
    "stages": range(1, 9),
    "section": range(1, MOST_SECTION + 1),
    "box": tuple(1 << n for n in range(8, 31)),
    "workers": range(1, 1025),
    PLAN: range(1, 65),
}
_EXAMPLE = "BI=64, BJ=16..64, parts=8, warps=8, stages=2, section=8, K=pointer; O.BI=64 for kernel O alone"

Value = Block | int | str


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice: its name, its value, and the kernel that it is for, or all kernels if that is empty."""

    name: str
    value: Value
    kernel: str = ""

    def __str__(self) -> str:
        return f"{self.kernel}.{self.name}={self.value}" if self.kernel else f"{self.name}={self.value}"

    def is_of(self, *kernels: str) -> bool:
        """Is it for a kernel with one of these names?"""
        return not self.kernel or self.kernel in kernels


def choice(key: str, value: object) -> Choice:
    """The choice of `O.BI` or `BI` as 64, "64", "16..64" or "pointer". Raises `CallError` for anything else."""
    kernel, _, name = str(key).rpartition(".")
    text = str(value).strip()
    if name in _COUNTS:
        number, allowed = int(text) if text.isdecimal() else None, _COUNTS[name]
        if number is None or number not in allowed or isinstance(value, bool):
            span = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
            raise CallError(f"{name} cannot be {_clip(text)}", fact=f"it is one of {span}", hint=f"{name}={allowed[1]}")
        return Choice(name, number, kernel)
    if name == FOLDS and text not in (FOLDS_EARLY, FOLDS_LATE):
        fact = f"they are {FOLDS_EARLY} or {FOLDS_LATE}"
        raise CallError(f"folds cannot be {_clip(text)}", fact=fact, hint=f"{FOLDS}={FOLDS_LATE}")
    if is_way(text) or name == FOLDS:
        return Choice(name, text, kernel)
    least, dots, most = text.partition("..")
    sizes = [WHOLE if n == "whole" else int(n) for n in (least, most or least) if n.isdecimal() or n == "whole"]
    if not name or len(sizes) != 2 or (dots and not most):
        what = _clip(f"{key}={text}")
        raise CallError(f"'{what}' is not a choice", fact="a choice has a name and a value", hint=_EXAMPLE)
    if not all(0 < n <= WHOLE and n & (n - 1) == 0 for n in sizes) or sizes[0] > sizes[1]:
        fact = "sizes are powers of two, the least first"
        raise CallError(f"a tile has no {_clip(text)} positions", fact=fact, hint=f"{_clip(name)}=64, or 16..64")
    return Choice(name, Block(*sizes), kernel)


def choices_written(choices: Iterable[Choice]) -> list[list[str]]:
    """Choices as values of JSON."""
    return [[f"{c.kernel}.{c.name}" if c.kernel else c.name, str(c.value)] for c in choices]


def choices_read(values: Iterable[tuple[str, str]]) -> tuple[Choice, ...]:
    """The choices that were written."""
    return tuple(choice(key, value) for key, value in values)


def precision(value: object) -> DType:
    """What contractions of f32 multiply in, by its name. Raises `CallError` for anything else."""
    if isinstance(value, str) and value in PRECISIONS:
        return PRECISIONS[value]
    known = ", ".join(PRECISIONS)
    hint = nearest(value, PRECISIONS) if isinstance(value, str) else ""
    raise CallError(f"no precision is called {value!r:.40}", fact=f"there are {known}", hint=hint or 'precision="tf32"')


def named_precision(t: DType) -> str:
    """The name that `precision` takes for what contractions multiply in."""
    return next(name for name, known in PRECISIONS.items() if known == t)


def check_precision(asked: DType, machine: str, multiplies: Callable[[DType], bool]) -> None:
    """Check that a machine multiplies f32 in this. Raises `CallError` where it does not."""
    if asked != F32 and not multiplies(asked):
        there = [name for name, t in PRECISIONS.items() if multiplies(t)]
        what = f"{machine} does not multiply f32 in {named_precision(asked)}"
        raise CallError(what, fact=f"it does in {', '.join(there)}", hint=f'precision="{there[-1]}"')


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def block_name(axis: str) -> str:
    """The name of the tile size along an axis in emitted code."""
    return f"B{axis.upper()}" if len(axis) <= 2 else f"BLOCK_{axis.upper()}"


def asked(choices: Iterable[Choice], name: str, *kernels: str) -> Value | None:
    """The value asked for in a kernel of these names; a choice for the kernel takes precedence over one for all."""
    found = [c for c in choices if c.name == name and c.is_of(*kernels)]
    return max(found, key=lambda c: bool(c.kernel)).value if found else None


def counts_asked(choices: tuple[Choice, ...], kernel: Kernel, *names: str) -> dict[str, int]:
    """The counts of these names that are asked for in a kernel."""
    found = {name: asked(choices, name, kernel.name, kernel.plan) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def tiles_asked(choices: tuple[Choice, ...], kernel: Kernel) -> dict[str, Block]:
    """The sizes that are asked for, by tile axis."""
    axes = [name for name, a in tile_axes(kernel).items() if a.blocked]
    found = {a: asked(choices, block_name(a), kernel.name, kernel.plan) for a in axes}
    return {a: block for a, block in found.items() if isinstance(block, Block)}


def ways_asked(choices: tuple[Choice, ...], kernel: Kernel) -> dict[str, str]:
    """The ways to memory that are asked for, by tensor."""
    found = {b.name: asked(choices, b.name, kernel.name, kernel.plan) for b in kernel.buffers}
    return {name: way for name, way in found.items() if isinstance(way, str)}


def folds_asked(choices: tuple[Choice, ...], kernel: Kernel) -> str:
    """When the folds of walks are asked for in a kernel; empty if it is not said."""
    found = asked(choices, FOLDS, kernel.name, kernel.plan)
    return found if isinstance(found, str) else ""


def counts(name: str) -> Sequence[int]:
    """The values that a count may have."""
    return _COUNTS[name]


# ---------------------------------------------------------------------------------------------------------------------
# The choices of kernels


def chosen(kernel: Kernel) -> dict[str, Value]:
    """All choices of a kernel, by the names under which they are asked for."""
    c = kernel.choices
    counts = {"parts": c.parts, "warps": c.warps, "stages": c.stages, "section": c.section}
    counts |= {name: n for name, n in (("box", c.box), ("workers", c.workers)) if n}
    folds: dict[str, Value] = {FOLDS: c.folds} if c.folds else {}
    tiles: dict[str, Value] = {block_name(a): block for a in tile_axes(kernel) if (block := c.tile(a)) is not None}
    return {**tiles, **counts, **folds, **dict(c.ways)}


def written(kernel: Kernel) -> dict[str, int | str]:
    """The choices of a kernel as they are asked for, without the defaults: one part, one section, pointers."""
    unsaid: set[tuple[str, Value]] = {("parts", 1), ("section", 1), (FOLDS, FOLDS_EARLY)}
    shown = ((n, v) for n, v in chosen(kernel).items() if (n, v) not in unsaid and v != POINTER)
    return {name: str(v) if isinstance(v, Block) else v for name, v in shown}


def check_heeded(choices: Iterable[Choice], kernels: tuple[Kernel, ...]) -> None:
    """Check that some kernel has each choice. Raises `CallError` for the first that none has.

    `parts` and `section` for all kernels apply to those that can be divided so, if there are any.
    """
    for c in (c for c in choices if c.name != PLAN):  # which `partition` has, or refuses
        found = [k for k in kernels if c.is_of(k.name, k.plan)]
        if not found:
            names = list(dict.fromkeys(k.name for k in kernels))
            _unknown(f"there is no kernel '{_clip(c.kernel)}' with {c.name} to choose", c.kernel, names)
        if not c.kernel and c.name in ("parts", "section"):
            continue
        having = [k for k in found if c.name in chosen(k)]
        if not having:
            _unknown(
                f"there is no {_clip(c.name)} to choose",
                c.name,
                list(dict.fromkeys(n for k in found for n in chosen(k))),
            )
        if all(chosen(k)[c.name] != c.value for k in having):
            fact = f"kernel {having[0].name} has {_why(c, having[0])}"
            raise CallError(f"{c} is not possible", fact=fact, hint="leave it out, or choose what is possible")


def _unknown(what: str, name: str, known: list[str]) -> NoReturn:
    raise CallError(what, fact=f"there are {', '.join(known)}", hint=nearest(name, known) or "one of these")


def _why(c: Choice, kernel: Kernel) -> str:
    value = chosen(kernel)[c.name]
    if isinstance(value, Block) and value.cap == WHOLE:
        return "the axis in one block, which holds all of it"
    if isinstance(value, Block) and isinstance(c.value, Block) and value.least > c.value.least:
        return f"{c.name}={value}: a contraction takes {value.least} positions or more"
    return f"{c.name}={value}"
