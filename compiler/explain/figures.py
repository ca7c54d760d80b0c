"""The figures of a compiled program at an optimisation level, by kernel and in total."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from einc.explain.transition import Derivation, Open
from einc.explain.visits import Visits


@dataclass(frozen=True, slots=True)
class Decision:
    """Kernels, each given by the tensors it stores, that were joined or left apart, with the predicted seconds of both.

    `together` is None if they cannot share a kernel, for `reason`. `spared` are tensors that the joined kernel need not
    store: to spare these, or as a step to further joins, a join may take longer.
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
    """A value carried from block to block, equal ones counted once; `axes` are those of one program's tile."""

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
    """One kernel: what it computes, the roles of its axes, what it carries, and what that costs.

    `moved` are the bytes of each tensor that it reads or writes in memory. `running` are states whose updates depend on
    each other. `domains` are the blocks of walked axes by row: `EMPTY`, `MIXED` or `FULL` of `visits`; `part_starts`
    marks those in which a part of the walk starts. `choices` are written as a user asks for them. `limit` is the
    resource that the predicted time is spent on. `account` is what the generator says that it made of it.
    """

    name: str
    equations: tuple[Formula, ...]
    moved: dict[str, int]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    grid: tuple[str, ...]
    streamed: tuple[str, ...]
    within: tuple[str, ...]
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
    account: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Level:
    """A program at one optimisation level, in figures for a `machine`.

    `decisions` are those of `partition`, made for extents rounded up to powers of two. `by_model` says whether nothing
    was chosen in place of the model's choices.
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
    by_model: bool = True

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
        """Operations per byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def intermediate_bytes(self) -> int:
        return sum(t.bytes for t in self.intermediates)
