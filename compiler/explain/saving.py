"""What a program of gradients finds saved and what it computes again, with bytes and reasons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from einc.ein import Program
from einc.pipeline.fates import Fate

_REASONS = {
    "result": "a result, there anyway",
    "beside": "comes with {than}, a result",
    "smaller": "smaller than {than}, which is written",
    "written": "written anyway, from kernel to kernel",
    "dearer": "as large as {than}, which is written, and dearer to compute again",
    "pointwise": "pointwise in what is there",
    "cheaper": "as large as {than}, which is written, but cheaper to compute again",
    "larger": "may be larger than all that is written: nothing there is over {axes}",
}


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor of the forward program that gradients read: `saved` in memory, or computed again; and the reason.

    `bytes` are what it takes, or would.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    saved: bool
    reason: str


def saving(program: Program, fates: Iterable[Fate], sizes: Mapping[str, int]) -> tuple[Saved, ...]:
    """What became of the tensors that a program of gradients takes or computes: first what was saved."""
    found = list(_each(program, fates, sizes))
    return tuple(sorted(found, key=lambda s: not s.saved))


def _each(program: Program, fates: Iterable[Fate], sizes: Mapping[str, int]) -> Iterator[Saved]:
    dims, dtypes = program.shapes(), program.dtypes()
    operands = {p.name for p in program.operands}
    for f in fates:
        if f.tensor not in dims or f.saved != (f.tensor in operands):
            continue
        axes = tuple(a for group in dims[f.tensor] for a in group)
        shape = tuple(sizes[a] for a in axes)
        dtype = dtypes[f.tensor]
        reason = _REASONS[f.reason].format(than=f.than, axes=", ".join(axes))
        yield Saved(f.tensor, axes, shape, dtype.name, math.prod(shape) * dtype.size, f.saved, reason)
