"""Whether a program is better computed slice by slice, and along which axis.

What kernels pass on between them is there as a whole if all is computed at once. Where that is huge, and larger than
all that the program is given and gives, a slice of it at a time takes less memory: along the axis that leaves least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from einc.ein import Program
from einc.passes.streaming.slices import sliced
from einc.pipeline.parts import Sliced
from einc.tile import Buffer

HUGE = 1 << 28  # elements of a tensor between kernels, a gigabyte of f32
MOST = 32  # slices of an axis
_LEAST_GAIN = 4  # the least ratio of the bytes of what is passed on at once to what is there in slices
UNIT = 1024  # positions that a slice has a multiple of: whole tiles, and enough of them to keep a machine busy

Axes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slicing:
    """A program over slices of an axis, of `length` positions each but the last, `count` in all.

    `passed` are the bytes that kernels pass on if all is computed at once, and `held` those in slices, sums included.
    """

    sliced: Sliced
    axis: str
    length: int
    count: int
    passed: int
    held: int


def is_large(program: Program, extents: Mapping[str, int]) -> bool:
    """May a program pass on what is huge?"""
    return any(_size(e.axes, extents) >= HUGE for e in program.equations)


def slicing(program: Program, extents: Mapping[str, int], between: Iterable[Buffer]) -> Slicing | None:
    """The slices that a program is computed in, given what its kernels pass on; None where that is all at once."""
    if not is_large(program, extents):
        return None
    ends = [*(p.dims for p in program.operands), *(program.shapes()[r] for r in program.results)]
    most = max(HUGE, *(_size((a for dim in dims for a in dim), extents) for dims in ends))
    passed = {b: axes for b in between if _size(axes := tuple(a for d in b.dims for a in d), extents) > most}
    every = dict.fromkeys(a for axes in passed.values() for a in axes if a in extents)
    found = [s for axis in every if (s := _along(axis, program, extents, passed)) is not None]
    least = min(found, key=lambda s: s.held, default=None)
    return None if least is None or _LEAST_GAIN * least.held > least.passed else least


def _along(axis: str, program: Program, extents: Mapping[str, int], passed: Mapping[Buffer, Axes]) -> Slicing | None:
    made = sliced(program, axis)
    length = -(-extents[axis] // (MOST * UNIT)) * UNIT
    if made is None or length >= extents[axis]:
        return None
    whole = {b: _size(axes, extents) * b.dtype.size for b, axes in passed.items()}
    held = sum(n * length // extents[axis] if axis in passed[b] else n for b, n in whole.items())
    for p in (p for p in made.program.operands if p.name in made.sums.values()):
        held += _size((a for dim in p.dims for a in dim), extents) * p.dtype.size
    return Slicing(made, axis, length, -(-extents[axis] // length), sum(whole.values()), held)


def _size(axes: Iterable[str], extents: Mapping[str, int]) -> int:
    return prod(extents.get(a, 1) for a in axes)
