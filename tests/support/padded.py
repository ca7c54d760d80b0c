"""Tile programs executed by torch as a GPU executes them: block by block, each whole although it overhangs an extent.

Memory is as hostile as it can be. Intermediates and results begin as poison, what lies beyond extents is poison
(`tests.poison`), and to reach outside a tensor where a mask allows it is a failure. Loops run in the segments that
are emitted, those without masks included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from einc import ein, tile
from einc.base.types import INT
from einc.binding import Bindings, completed
from einc.codegen.executor.elementwise import computed
from einc.codegen.executor.frames import Frame, Node, Result
from einc.codegen.executor.kernel import Compiler
from einc.codegen.executor.memory import Access
from einc.codegen.executor.names import Step
from einc.codegen.executor.ops import HELD, STORED, common_shape, held, literal, writable
from einc.codegen.executor.values import Values
from einc.driver import Compiled
from einc.ein.arithmetic import ScalarValue
from einc.tile import Elem, Lit, Ref, Value
from einc.tile.blocks import block_size
from einc.tile.masks import extent
from einc.tile.walk import repeated_axes, tile_axes
from tests.support.poison import poison, poisoned

_FEW = 16  # positions of an axis that is cut into blocks


def run_compiled(
    compiled: Compiled, operands: Mapping[str, Tensor], bindings: Bindings, bad: float = math.nan
) -> tuple[Tensor, ...]:
    """The results of a compiled program, in order; `bad` is the poison of floats."""
    assert compiled.state.schedule is not None
    return run(compiled.state.program, compiled.state.schedule, operands, bindings, bad)


def run(
    program: ein.Program,
    schedule: tile.Schedule,
    operands: Mapping[str, Tensor],
    bindings: Bindings,
    bad: float = math.nan,
) -> tuple[Tensor, ...]:
    """The results of a masked, tiled schedule, in the program's order."""
    known = completed(program, bindings)
    tensors = dict(operands)
    for kernel in schedule.kernels:
        for b in kernel.buffers:
            if b.name not in tensors:
                shape = [prod(known.extents[a] for a in dim) for dim in b.dims]
                filling = literal(poison(b.dtype.part, bad).value, b.dtype.part)
                tensors[b.name] = torch.full(shape, filling, dtype=STORED[b.dtype.name])
        compiled = padded(kernel, known.extents, known.scalars, bad).compiled()
        compiled.run({b.name: tensors[b.name] for b in kernel.buffers}, known.scalars)
    return tuple(tensors[name] for name in program.results)


def padded(kernel: tile.Kernel, extents: Mapping[str, int], scalars: Mapping[str, ScalarValue], bad: float) -> _Blocks:
    """The kernel at known extents, poisoned."""
    sizes = {a.name: size(kernel, a, extents) for a in tile_axes(kernel).values() if a.blocked}
    made = poisoned(kernel, bad)
    made = replace(made, body=tuple(_segmented(made.body, sizes)))
    return _Blocks(made, dict(extents), scalars, torch.device("cpu"))


def size(kernel: tile.Kernel, a: tile.TileAxis, extents: Mapping[str, int]) -> int:
    """The positions in a block: as launchers choose them, but few, lest one block be all that is ever walked."""
    block = kernel.choices.tile(a.name)
    assert block is not None
    n = prod(extents[x] for x in a.axes)
    most = block.cap if block.cap == tile.WHOLE else min(block.cap, _FEW)
    return block_size(tile.Block(block.least, max(most, block.least)), n)


def _segmented(body: Sequence[tile.Statement], sizes: Mapping[str, int]) -> Iterator[tile.Statement]:
    """The statements with every loop as the segments it is emitted in: masked, not masked, and masked again."""
    for s in body:
        if not isinstance(s, tile.Loop):
            yield s
            continue
        inner = tuple(_segmented(s.body, sizes))
        if s.full is None or not s.full.body or not s.axis.blocked:
            yield replace(s, body=inner, full=None)
            continue
        zero, block = Lit(0, INT), Lit(sizes[s.axis.name], INT)
        start = zero if s.start is None else s.start
        stop = extent(s.axis.axes) if s.stop is None else s.stop
        first = start
        if s.full.start is not None:
            less_one = Elem("sub", (block, Lit(1, INT)))
            first = _plus(start, _blocks(Elem("add", (Elem("sub", (s.full.start, start)), less_one)), block))
        mixed = _plus(first, _blocks(Elem("max", (Elem("sub", (s.full.stop, first)), zero)), block))
        again = tuple(replace(c, init=Ref(c.name)) for c in s.carried)
        full = tuple(_segmented(s.full.body, sizes))
        yield replace(s, body=inner, start=start, stop=first, full=None)
        yield replace(s, carried=again, body=full, start=first, stop=mixed, full=None)
        yield replace(s, carried=again, body=inner, start=mixed, stop=stop, full=None)


def _plus(a: Value, b: Value) -> Value:
    return Elem("add", (a, b))


def _blocks(n: Value, block: Value) -> Value:
    """The positions in so many whole blocks."""
    return Elem("mul", (Elem("floordiv", (n, block)), block))


class _Values(Values):
    """Values whose loads and stores keep to their masks, and to nothing else."""

    def access(self, tensor: str, part: int | None, index: tuple[Value, ...], mask: Value | None) -> Access:
        terms = () if mask is None else (self.node(mask),)
        return Access(tensor, part, tuple(map(self.node, index)), terms, False)

    def load(self, v: tile.Load) -> Node:
        access, stored = self.access(v.tensor, v.part, v.index, v.mask), self.buffers[v.tensor].dtype.part

        def run(frame: Frame) -> Result:
            memory, index, mask = reached(access, frame)
            if not memory.numel():
                return torch.zeros(mask.shape, dtype=HELD[stored.name]), True
            found = held(writable(memory)[tuple(index)].view(memory.dtype), stored)
            return torch.where(mask, found, torch.zeros((), dtype=found.dtype)), True

        return self.convert(Node(stored, access.dims, run), v.dtype)


class _Blocks(Compiler):
    """A kernel cut into the blocks that its programs and the steps of its loops compute."""

    makes = _Values

    def block(self, axis: str) -> int:
        """The positions of a tile axis in a block; one where it is not blocked."""
        found = tile_axes(self.kernel)[axis]
        return size(self.kernel, found, self.extents) if found.blocked else 1

    def parts(self, axis: tile.TileAxis) -> list[tuple[str, int]]:
        """All of a tile axis, as many positions as its blocks have; a loop may begin anywhere, and end beyond them."""
        n, block = prod(self.extents[a] for a in axis.axes), self.block(axis.name)
        blocks = max(-(-n // block), axis.name in {*repeated_axes(self.kernel), *(a.name for a in self.kernel.whole)})
        looped = axis.name not in {a.name for a in (*self.kernel.grid, *self.kernel.whole)}
        return [(axis.axes[0] if axis.axes else axis.name, (blocks + (looped and axis.blocked)) * block)]

    def boxed(self) -> Sequence[int]:
        return [max(d.extent, 1) if d.kind == "batch" else self.block(d.tile) for d in self.dims]

    def statement(self, s: tile.Statement) -> list[Step]:
        if not isinstance(s, tile.Store):
            return super().statement(s)
        access, value = self.values.access(s.tensor, s.part, s.index, s.mask), self.values.node(s.value)
        return [store(access, value, self.added(s) if s.adds else None)]

    def span(self, s: tile.Loop) -> Callable[[Frame], list[range]]:
        """The positions that a loop walks in this block, whole steps of it."""
        block = self.block(s.axis.name)
        stop = extent(s.axis.axes) if s.stop is None else s.stop
        known = super().span(replace(s, start=s.start or Lit(0, INT), stop=stop))

        def run(frame: Frame) -> list[range]:
            (found,) = known(frame)
            return [range(found.start, found.start + -(-len(found) // block) * block)]

        return run

    def cuts(self, loop: tile.Loop) -> Callable[[Frame], list[int]]:
        """None: a GPU's blocks begin where a loop does."""
        del loop
        return lambda _: []


def reached(access: Access, frame: Frame) -> tuple[Tensor, list[Tensor], Tensor]:
    """The memory that a block reaches, at which index a dimension, 0 where it does not, and where it does."""
    memory = access.memory(frame)
    mask = torch.as_tensor(access.mask(frame))
    shape = frame.shape(access.dims)
    mask = mask.expand(shape)
    index = [computed(n, frame).expand(shape) for n in access.index]
    for at, n in zip(index, memory.shape, strict=True):
        assert not (mask & ((at < 0) | (at >= n))).any(), f"{access.tensor} is reached outside of it"
    return memory, [torch.where(mask, at, 0).long() for at in index], mask


def store(access: Access, value: Node, added: frozenset[int] | None) -> Step:
    """The store of a block where the mask holds; one that adds does so at every position of these dims."""

    def run(frame: Frame) -> None:
        memory, index, mask = reached(access, frame)
        values, into = computed(value, frame), writable(memory)
        shape = common_shape([values, mask, *index]) if added is None else frame.shape(added)
        mask = mask.expand(shape)
        at = tuple(at.expand(shape)[mask] for at in index)
        found = values.expand(shape)[mask].to(into.dtype)
        if added is None:
            into[at] = found
        else:
            into.index_put_(at, found, accumulate=True)

    return run
