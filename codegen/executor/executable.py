"""A compiled kernel, run box by box over its grid: step by step, or by the operations that an equal box made.

Between the operations of a box it is decided what lies where, which takes as long as operations on tiles that fit the
cache of a core. Most boxes of a kernel decide the same.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from einc.codegen.executor.boxes import WORTH_SHARING, Dim, blocks, largest
from einc.codegen.executor.frames import Frame
from einc.codegen.executor.names import Step
from einc.codegen.executor.ops import HELD, literal
from einc.codegen.executor.values import Values
from einc.codegen.executor.workers import by_one, share_out
from einc.codegen.tape import Again, record
from einc.ein.arithmetic import ScalarValue


@dataclass(slots=True)
class Executable:
    """A compiled kernel: its dims, the size of a box in each, and its statements.

    It runs even if `repeated` dims have no positions. What boxes do is `known` for the sizes of a box and the layout of
    operands: None where it differs between boxes.
    """

    values: Values
    dims: tuple[Dim, ...]
    grid: tuple[int, ...]
    repeated: frozenset[int]
    sizes: tuple[int, ...]
    small: bool
    workers: int
    steps: tuple[Step, ...]
    known: dict[_Key, _Recording | None] = field(default_factory=dict)

    @property
    def at_once(self) -> bool:
        """Is it computed in one box, of tensors that are not large?"""
        few = largest(self.sizes, self.values.shapes) < WORTH_SHARING
        return few and all(self.sizes[d] >= self.dims[d].extent for d in self.grid)

    def run(self, operands: Mapping[str, Tensor], scalars: Mapping[str, ScalarValue]) -> None:
        """Compute the kernel: read and write these tensors."""
        spans = [range(self.dims[d].extent) for d in self.grid]
        if not all(span or d in self.repeated for d, span in zip(self.grid, spans, strict=True)):
            return
        given = {
            name: torch.full((), literal(scalars[name], t), dtype=HELD[t.name], device=self.values.device)
            for name, t in self.values.scalars.items()
        }
        boxes = list(blocks([self.sizes[d] for d in self.grid], spans))
        records = torch.is_grad_enabled() and any(x.requires_grad for x in operands.values())
        if records or self.values.device.type != "cpu":
            box = self.worker(operands, given, not records)
            for ranges in boxes:
                box(ranges)
        elif self.small:
            by_one(boxes, self.worker(operands, given, True))
        else:
            share_out(boxes, lambda: self.worker(operands, given, True), self.workers)

    def worker(
        self, operands: Mapping[str, Tensor], scalars: dict[str, Tensor], reuse: bool
    ) -> Callable[[tuple[range, ...]], None]:
        """A function that computes boxes of the grid in a frame of its own."""
        frame = self.frame(operands, scalars, reuse)
        again = _Again(self, frame) if reuse and self.values.device.type == "cpu" else None

        def box(ranges: tuple[range, ...]) -> None:
            frame.move(self.grid, ranges)
            if again is None or not again.box():
                self.compute(frame)

        return box

    def frame(self, operands: Mapping[str, Tensor], scalars: dict[str, Tensor], reuse: bool) -> Frame:
        """A frame in which nothing is computed yet."""
        frame = Frame([d.extent for d in self.dims], self.values.names.slots, dict(scalars), reuse, self.grid)
        frame.operands = dict(operands)
        return frame

    def compute(self, frame: Frame) -> None:
        """Compute the box of a frame."""
        for step in self.steps:
            step(frame)


_Key = tuple[object, ...]

_MOST_KNOWN = 16  # sizes of boxes and layouts of operands of which it is known what boxes do
_ROOM = 1 << 26  # bytes that a box may make while it is written down
_KEPT = 1 << 23  # bytes that a thread keeps for the tiles of boxes to come


class _Tiles(threading.local):
    """The memory that boxes write tiles to in a thread, one box after another: fresh memory costs a fault a page."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, torch.dtype], list[Tensor]] = defaultdict(list)
        self.room = _KEPT

    def give(self, needed: Sequence[tuple[int, torch.dtype]]) -> list[Tensor]:
        """Distinct memory of so many elements and types each, for the next boxes of this thread."""
        found: list[Tensor] = []
        for n, dtype in needed:
            kept = self.kept[n, dtype]
            place = sum(x.dtype == dtype and x.numel() == n for x in found)
            if place < len(kept):
                found.append(kept[place])
                continue
            with torch.inference_mode(False):  # else it could be written to in this mode alone
                made = torch.empty(n, dtype=dtype)
            found.append(made)
            if made.nbytes <= self.room:
                self.room -= made.nbytes
                kept.append(made)
        return found


_TILES = _Tiles()


@dataclass(frozen=True, slots=True)
class _Recording:
    """What a box did: the operations, and the elements and types of the memory that they write tiles to."""

    operations: Again
    memory: tuple[tuple[int, torch.dtype], ...]


class _Again:
    """Computes the boxes of one worker by what another box did.

    Boxes of the same sizes differ in where their windows are, unless something else depends on where they are. The
    first is computed step by step, the second is written down meanwhile, with all others that this worker and later
    ones compute.
    """

    def __init__(self, kernel: Executable, frame: Frame) -> None:
        self.kernel, self.frame = kernel, frame
        self.inputs = [*frame.operands.values(), *frame.scalars.values()]
        self.layout = tuple((x.dtype, x.shape, x.stride(), x.storage_offset()) for x in self.inputs)
        self.seen: set[_Key] = set()
        self.found: dict[_Key, _Recording | None] = {}
        self.memory: dict[_Key, list[Tensor]] = {}

    def box(self) -> bool:
        """Compute the box of the frame, if it is known what it does; the frame is as it was before."""
        frame, known = self.frame, self.kernel.known
        sizes = tuple(map(frame.size, self.kernel.grid))
        found = self.found.get(sizes)
        if found is None and sizes not in self.found:
            key = (*self.layout, *sizes)
            if key in known:
                found = self.found[sizes] = known[key]
                self.memory[sizes] = [] if found is None else _TILES.give(found.memory)
            elif sizes not in self.seen:
                self.seen.add(sizes)
            elif not frame.asked and len(known) < _MOST_KNOWN:
                found = self.found[sizes] = known[key] = self.recorded(sizes)
                return found is not None
            else:
                self.found[sizes] = None
        if found is None:
            return False
        return found.operations(*self.inputs, *self.memory[sizes], frame.first) is not None

    def recorded(self, sizes: _Key) -> _Recording | None:
        """Compute the box of the frame and write down its operations; None if that is not possible."""
        frame, kernel = self.frame, self.kernel
        memory = [x for idle in frame.left().values() for x in idle]
        names, scalars = list(frame.operands), list(frame.scalars)

        def run(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
            operands, rest = given[: len(names)], given[len(names) :]
            values, tiles = rest[: len(scalars)], rest[len(scalars) :]
            own = kernel.frame(
                dict(zip(names, operands, strict=True)), dict(zip(scalars, values, strict=True)), frame.reuse
            )
            own.first, own.stop, own.notes = frame.first, frame.stop, True
            for x in tiles:
                own.idle.setdefault((x.numel(), x.dtype), []).append(x)
            kernel.compute(own)
            frame.asked = own.asked
            return ()

        _, operations = record(run, [*self.inputs, *memory], (frame.first,), _ROOM)
        if operations is None or frame.asked:
            return None
        self.memory[sizes] = memory
        return _Recording(operations, tuple((x.numel(), x.dtype) for x in memory))
