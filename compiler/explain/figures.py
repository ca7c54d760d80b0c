"""What a compiled program comes to, in figures: by kernel, and in total at its optimisation level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from einc.explain.transition import Derivation, Open
from einc.explain.visits import Visits


@dataclass(frozen=True, slots=True)
class Decision:
    """Kernels, each as what it stores, that were joined or left apart: predicted seconds apart and together.

    `together` is None where they cannot share a kernel, for `reason`. `spared` are tensors that are not stored once
    they are joined: for the sake of those, or of the joins that it leads to, a join may take longer.
    """

    kernels: tuple[tuple[str, ...], ...]
    joined: bool
    apart: float
    together: float | None
    reason: str
    spared: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Do they take longer together?"""
        return self.together is not None and self.together > self.apart


@dataclass(frozen=True, slots=True)
class State:
    """A value carried from block to block, after equal ones were joined; `axes` are those of one program's tile."""

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intermediate:
    """A tensor that lives in memory between two kernels."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Formula:
    """An equation that a kernel computes, as mathematics, and the tensors that it reads."""

    name: str
    text: str
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelFigures:
    """One kernel: what it computes, how it lies over the axes, what it carries, and what that costs.

    `moved` are the bytes of each tensor that it reads or writes in memory. `running` are the states of which one's
    update depends on another. `domains` are the blocks of walked axes by row: `EMPTY`, `MIXED` or `FULL` of
    `visits`; `part_starts` says in which of them a part of the walk starts. `choices` are written as they
    are asked for. `limit` is what the predicted time is
    spent on.
    """

    name: str
    equations: tuple[Formula, ...]
    moved: dict[str, int]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    grid: tuple[str, ...]
    streamed: tuple[str, ...]
    held: tuple[str, ...]
    derivations: tuple[Derivation, ...]
    state: tuple[State, ...]
    state_bytes_per_row: int
    running: tuple[State, ...]
    tiles: dict[str, Visits]
    domains: dict[str, Any]
    part_starts: dict[str, Any]
    choices: dict[str, int | str]
    splits: int
    flops: int
    bytes: int
    predicted_us: float
    limit: str


@dataclass(frozen=True, slots=True)
class Level:
    """A program at one optimisation level, in figures for a `machine`.

    `decisions` are those of `partition`, for extents rounded up to powers of two.
    """

    level: int
    target: str
    machine: str
    equations: int
    kernels: tuple[KernelFigures, ...]
    sweeps: dict[str, int]
    intermediates: tuple[Intermediate, ...]
    not_closed: tuple[Open, ...]
    decisions: tuple[Decision, ...]

    @property
    def flops(self) -> int:
        return sum(k.flops for k in self.kernels)

    @property
    def bytes(self) -> int:
        return sum(k.bytes for k in self.kernels)

    @property
    def predicted_us(self) -> float:
        return sum(k.predicted_us for k in self.kernels)

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def intermediate_bytes(self) -> int:
        return sum(t.bytes for t in self.intermediates)
