"""A kernel at known extents as a list of functions of a frame: compiled once, run box by box over its grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import assert_never, cast

import torch
from torch import Tensor

from einc import tile
from einc.codegen.executor.boxes import WORTH_SHARING, Dim, blocks, box, largest, parts
from einc.codegen.executor.executable import Executable
from einc.codegen.executor.frames import Affine, Frame, Node
from einc.codegen.executor.memory import add, store
from einc.codegen.executor.names import Step, bind, looks_first, repeated
from einc.codegen.executor.scales import multiply_less, scale_early
from einc.codegen.executor.values import Values
from einc.ein.arithmetic import ScalarValue
from einc.tile.peel import peeled
from einc.tile.walk import loops, repeated_axes, segments, tile_axes, values_in

_MOST_OFFSETS = 64  # the most offsets of a window that are walked one by one
_ALIGNED = 64  # positions that blocks of a walk are a multiple of, as matrix products are faster then
_QUICK = 1 << 22  # positions of all axes together that take less time than waking another thread


def executable(
    kernel: tile.Kernel, extents: Mapping[str, int], scalars: Mapping[str, ScalarValue], device: torch.device
) -> Executable:
    """The kernel compiled for these extents and integers; floats, seeds and other scalars are taken at each run."""
    made = Compiler(kernel, dict(extents), scalars, device).compiled()
    if made.at_once and (straight := peeled(kernel)) is not kernel:
        found = Compiler(straight, dict(extents), scalars, device).compiled()
        return found if found.at_once else made
    return made


def seeds(kernel: tile.Kernel) -> frozenset[str]:
    """The integer scalars that serve only as seeds: no kernel need be compiled for their values."""
    every: list[str] = []
    alone: list[str] = []
    for v in values_in(kernel.body):
        match v:
            case tile.ScalarArg(name=name):
                every.append(name)
            case tile.Elem(op="rand", args=(tile.ScalarArg(name=name), *_)):
                alone.append(name)
            case tile.Elem(op="rand", args=(tile.Convert(arg=tile.ScalarArg(name=name)), *_)):
                alone.append(name)
    return frozenset(n for n in alone if alone.count(n) == every.count(n))


class Compiler:
    """The compilation of one kernel into boxes that do not leave any extent.

    `parts`, `boxed` and `span` cut it into boxes; `makes` makes its values. A walk whose states have all positions of a
    block takes one block.
    """

    makes: type[Values] = Values

    def __init__(
        self, kernel: tile.Kernel, extents: dict[str, int], scalars: Mapping[str, ScalarValue], device: torch.device
    ) -> None:
        self.kernel = kernel
        self.extents = extents
        self.sizes: list[int] = []  # of a box, once the statements are known; loops read them when they run
        self.statements = multiply_less(kernel, scale_early(kernel.body))
        self.pruned = self.adds = False
        self.small = False
        self.bounded, self.held = _bounded(kernel.body), _carried(kernel.body)
        dims: list[Dim] = []
        positions: dict[str, Affine] = {}
        members: dict[str, tuple[int, ...]] = {}
        in_grid = {a.name for a in kernel.grid}
        kinds = dict.fromkeys(segments(kernel), "segment") | dict.fromkeys(self.held, "whole")
        for axis in tile_axes(kernel).values():
            first = len(dims)
            for name, extent in self.parts(axis):
                alone = "batch" if axis.name in in_grid else "single"
                kind = kinds.get(axis.name, axis.role if axis.blocked else alone)
                dims.append(Dim(axis.name, name, extent, kind))
            members[axis.name] = tuple(range(first, len(dims)))
            strides = [prod(d.extent for d in dims[n + 1 :]) for n in members[axis.name]]
            factors = zip(members[axis.name], strides, strict=True)
            positions[axis.name] = Affine(0, tuple((d, s) for d, s in factors if dims[d].extent != 1 and s))
        self.dims = dims
        self.grid = tuple(d for a in kernel.grid for d in members[a.name])
        fixed = {n: cast("int | bool", scalars[n]) for n, t in kernel.scalars if not t.is_float and n in scalars}
        for name in seeds(kernel):
            fixed.pop(name, None)
        self.values = self.makes(
            positions, members, tuple(max(d.extent, 1) for d in dims), extents, fixed, dict(kernel.scalars),
            {b.name: b for b in kernel.buffers}, device,
        )  # fmt: skip

    def parts(self, axis: tile.TileAxis) -> list[tuple[str, int]]:
        """The dims of a tile axis, each named by the first of its axes, with its number of positions."""
        groups = [axis.axes] if axis.name in self.bounded else [(a,) for a in axis.axes]
        return [(g[0], prod(self.extents[a] for a in g)) for g in groups]

    def compiled(self) -> Executable:
        """The kernel, ready to run."""
        steps = self.body(self.statements)
        self.sizes += self.boxed()
        work = prod(max(d.extent, 1) for d in self.dims)
        few = largest(self.sizes, self.values.shapes) < WORTH_SHARING and work < _QUICK
        workers = self.kernel.choices.workers
        self.small = (few and not workers) or self.adds  # workers would add at the same time
        repeated = frozenset(d for name in repeated_axes(self.kernel) for d in self.values.members[name])
        sizes, dims = tuple(self.sizes), tuple(self.dims)
        return Executable(self.values, dims, self.grid, repeated, sizes, self.small, workers, steps)

    def boxed(self) -> Sequence[int]:
        """The most positions of each dim in a box."""
        self.unroll()
        self.dims[:] = [replace(d, fast=n in self.values.fast) for n, d in enumerate(self.dims)]
        dots = any(isinstance(v, tile.Dot) for v in values_in(self.kernel.body))
        workers, most = self.kernel.choices.workers or torch.get_num_threads(), self.kernel.choices.box
        return box(self.dims, self.values.shapes, dots, self.pruned, self.grid, workers, most)

    def unroll(self) -> None:
        """Walk the offsets of small windows one by one: shifted views take no memory, a window of all offsets does.

        Where the result of a product varies along them, that takes as much already.
        """
        folds = [v.monoid for v in values_in(self.kernel.body) if isinstance(v, tile.Fold)]
        held = {v.axis for v in values_in(self.kernel.body) if isinstance(v, tile.Scan)}
        held |= {a for v in values_in(self.kernel.body) if isinstance(v, tile.Dot) for a in (v.row, v.column)}
        offsets = [n for n in self.values.sliding if self.dims[n].kind == "reduced" and self.dims[n].tile not in held]
        count = prod(self.dims[n].extent for n in offsets)
        if count <= _MOST_OFFSETS and all(m.commutative for m in folds):
            self.dims[:] = [replace(d, kind="single") if n in offsets else d for n, d in enumerate(self.dims)]

    # Statements ------------------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[tile.Statement]) -> tuple[Step, ...]:
        """The steps of the statements in order, each after those for values that it shares with later ones."""
        steps: list[Step] = []
        names = self.values.names
        names.shared.append(repeated(statements))
        for s in looks_first(statements):
            made = self.statement(s)
            after = names.close()
            steps += [*names.steps(), *made, *after]
        names.shared.pop()
        return tuple(steps)

    def statement(self, s: tile.Statement) -> list[Step]:
        match s:
            case tile.Let(value=tile.Fold() | tile.Scan() as several):
                return [self.components(s, several)]
            case tile.Let():
                return self.let(s)
            case tile.Loop():
                return self.loop(s)
            case tile.Store():
                access = self.values.access(s.tensor, s.part, s.index, s.mask)
                if s.adds:
                    return [add(access, self.values.node(s.value), self.added(s))]
                return [store(access, self.values.node(s.value))]
            case _:
                assert_never(s)

    def added(self, s: tile.Store) -> frozenset[int]:
        """The dims at each position of which a store adds something."""
        self.adds = True
        own = {d for a in s.type.axes for d in self.values.members[a]}
        return frozenset(own | {n for n, d in enumerate(self.dims) if d.kind in ("batch", "single")})

    def let(self, s: tile.Let) -> list[Step]:
        """Bind a value; one that is affine or fixed is computed where it is used."""
        node = self.values.node(s.value)
        name = self.values.names.bind(s.names[0], node)
        return [] if node.inlined else [bind(name, node)]

    def components(self, s: tile.Let, v: tile.Fold | tile.Scan) -> Step:
        """Bind the components of a reduction or of prefixes."""
        many = self.values.fold(v) if isinstance(v, tile.Fold) else self.values.scan(v)
        names = [self.values.names.bind(n, self.unknown(t)) for n, t in zip(s.names, s.types, strict=True)]

        def run(frame: Frame) -> None:
            for name, (part, owned) in zip(names, many(frame), strict=True):
                if not owned:
                    frame.share(part)
                frame.place(name.slot, part, owned)

        return run

    def unknown(self, t: tile.TileType) -> Node:
        """A node for a value of which only the type is known: it may vary over the batch and its own axes."""
        own = {d for a in t.axes for d in self.values.members[a]}
        batch = {n for n, d in enumerate(self.dims) if d.kind in ("batch", "single")}
        return Node(t.dtype, frozenset(own | batch), lambda _: (False, False))

    # Loops -----------------------------------------------------------------------------------------------------------

    def loop(self, s: tile.Loop) -> list[Step]:
        names = self.values.names
        span, cuts = self.span(s), self.cuts(s)
        starts = [self.values.node(c.init) for c in s.carried]
        names.close()
        before = names.steps()
        names.depth += 1
        states = [names.bind(c.name, self.unknown(c.type)) for c in s.carried]
        steps = self.body(s.body)
        ends = [names.bound[c.after] for c in s.carried]
        for end in ends:
            end.keep()
        names.depth -= 1
        results = [names.bind(c.name, self.unknown(c.type)) for c in s.carried]
        members = self.values.members[s.axis.name]
        own = [e.depth > names.depth and ends.count(e) == 1 for e in ends]
        late = [e for e in ends if e.node.inlined]

        def run(frame: Frame) -> None:
            for state, start in zip(states, starts, strict=True):
                bind(state, start)(frame)
            spans, sizes = span(frame), [self.sizes[d] for d in members]
            places = [p for part in parts(spans, cuts(frame)) for p in blocks(sizes, part)] if all(spans) else []
            for ranges in reversed(places) if s.reverse else places:
                frame.move(members, ranges)
                for step in steps:
                    step(frame)
                for end in late:
                    bind(end, end.node)(frame)
                after = [frame.passed(e.slot, mine) for e, mine in zip(ends, own, strict=True)]
                for state, (value, owned) in zip(states, after, strict=True):
                    frame.place(state.slot, value, owned)
            for state, result in zip(states, results, strict=True):
                frame.place(result.slot, *frame.passed(state.slot, True))

        return [*before, run]

    def span(self, s: tile.Loop) -> Callable[[Frame], list[range]]:
        """The positions that a loop walks in this box, dim by dim."""
        members = self.values.members[s.axis.name]
        whole = [range(self.dims[d].extent) for d in members]
        if s.start is None and s.stop is None:
            return lambda _: whole
        start = None if s.start is None else self.values.node(s.start)
        stop = None if s.stop is None else self.values.node(s.stop)
        for node in (start, stop):
            self.pruned = self.pruned or (node is not None and node.fixed is None)
            self.dims[:] = [_single(d) if node and n in node.dims else d for n, d in enumerate(self.dims)]

        def run(frame: Frame) -> list[range]:
            first = 0 if start is None else max(0, _least(start.compute(frame)[0], torch.amin))
            last = whole[0].stop if stop is None else min(whole[0].stop, _least(stop.compute(frame)[0], torch.amax))
            return [range(first, max(first, last))]

        return run

    def cuts(self, loop: tile.Loop) -> Callable[[Frame], list[int]]:
        """The positions that no block of a walk extends over: where its unmasked segment begins and ends.

        A block of which only a part needs the mask would be masked as a whole.
        """
        full = loop.full
        if full is None or (loop.start is None and loop.stop is None) or loop.axis.name in self.held:
            return lambda _: []
        stop = self.values.node(full.stop)
        start = None if full.start is None else self.values.node(full.start)

        def run(frame: Frame) -> list[int]:
            if self.small:
                return []
            begins = [] if start is None else [-(-_least(start.compute(frame)[0], torch.amax) // _ALIGNED) * _ALIGNED]
            return [*begins, _least(stop.compute(frame)[0], torch.amin) // _ALIGNED * _ALIGNED]

        return run


def _single(d: Dim) -> Dim:
    """The dim with one position a box, since programs that may walk different spans are not computed together."""
    return replace(d, kind="single") if d.kind == "batch" else d


def _least(value: Tensor | bool, which: Callable[[Tensor], Tensor]) -> int:
    return int(which(cast(Tensor, value)))


def _carried(body: tuple[tile.Statement, ...]) -> frozenset[str]:
    """The axes of loops whose states have all positions of a block."""
    return frozenset(s.axis.name for s in loops(body) if any(s.axis.name in c.type.axes for c in s.carried))


def _bounded(body: Sequence[tile.Statement]) -> frozenset[str]:
    """The tile axes that some loop walks only in part: they stay one index."""
    return frozenset(s.axis.name for s in loops(body) if s.start is not None or s.stop is not None)
