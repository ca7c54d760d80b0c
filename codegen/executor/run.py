"""Tile programs executed by torch: vectorised over the grid, streamed over loops, the memory of what they store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from einc import ein, tile
from einc.binding import Bindings, completed
from einc.codegen.executor.kernel import Executable, executable, seeds
from einc.codegen.executor.ops import STORED
from einc.ein.arithmetic import ScalarValue

_MOST_KEPT = 512  # schedules at known extents

_Key = tuple[int, torch.device, tuple[int, ...], tuple[ScalarValue, ...]]
_integers: OrderedDict[int, tuple[tile.Schedule, tuple[str, ...]]] = OrderedDict()
_prepared: OrderedDict[_Key, _Prepared] = OrderedDict()


def run(
    program: ein.Program,
    schedule: tile.Schedule,
    operands: Mapping[str, Tensor],
    bindings: Bindings,
    out: Mapping[str, Tensor] | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, ...]:
    """The results of a masked, tiled schedule, in the program's order; those named in `out` are written there.

    Operands have the program's types and the shapes that the bindings were made from. A program without operands runs
    on `device`.
    """
    first = next(iter(operands.values()), None)
    home = first.device if first is not None else device or torch.device("cpu")
    tensors = dict(operands)
    if out:
        tensors |= out
    for launch in prepared(program, schedule, bindings, home).launches:
        for name, shape, dtype in launch.makes:
            if name not in tensors:
                tensors[name] = torch.empty(shape, dtype=dtype, device=home)
        launch.kernel.run({name: tensors[name] for name in launch.touches}, bindings.scalars)
        for name in launch.drops:
            del tensors[name]
    return tuple([tensors[name] for name in program.results])


@dataclass(frozen=True, slots=True)
class _Launch:
    """A kernel ready to run: the tensors it is the first to write, all that it touches, and those it is the last to."""

    kernel: Executable
    makes: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    touches: tuple[str, ...]
    drops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A schedule at known extents and integers; it is kept, lest another takes its place in memory."""

    schedule: tile.Schedule
    launches: tuple[_Launch, ...]


def prepared(program: ein.Program, schedule: tile.Schedule, bindings: Bindings, device: torch.device) -> _Prepared:
    """The schedule compiled for these extents and integers, kept for the next call that has them."""
    scalars = bindings.scalars
    integers = tuple([scalars[name] for name in _fixed(program, schedule)]) if scalars else ()
    key = (id(schedule), device, tuple(bindings.extents.values()), integers)
    found = _prepared.get(key)
    if found is None:
        found = _Prepared(schedule, _launches(program, schedule, completed(program, bindings), device))
        _prepared[key] = found
        if len(_prepared) > _MOST_KEPT:
            _prepared.popitem(last=False)
    return found


def _fixed(program: ein.Program, schedule: tile.Schedule) -> tuple[str, ...]:
    """The integer scalars whose values kernels are compiled for: all but seeds."""
    found = _integers.get(id(schedule))
    if found is None:
        seen = {n for k in schedule.kernels for n in dict(k.scalars)}
        seen -= {n for k in schedule.kernels for n in dict(k.scalars) if n not in seeds(k)}
        names = {p.name for p in program.scalars if not p.dtype.is_float} - seen
        found = _integers[id(schedule)] = schedule, tuple(sorted(names))
        if len(_integers) > _MOST_KEPT:
            _integers.popitem(last=False)
    return found[1]


def _launches(
    program: ein.Program, schedule: tile.Schedule, bindings: Bindings, device: torch.device
) -> tuple[_Launch, ...]:
    extents = bindings.extents
    given = {p.name for p in program.operands}
    last = {b.name: n for n, k in enumerate(schedule.kernels) for b in k.buffers}
    between = {b.name for b in schedule.intermediates}
    found = []
    for n, kernel in enumerate(schedule.kernels):
        makes = []
        for b in kernel.buffers:
            if b.name not in given:
                shape = tuple(prod(extents[a] for a in dim) for dim in b.dims)
                makes.append((b.name, shape, STORED[b.dtype.name]))
        names = tuple(b.name for b in kernel.buffers)
        drops = tuple(name for name in names if name in between and last[name] == n)
        found.append(_Launch(executable(kernel, extents, bindings.scalars, device), tuple(makes), names, drops))
    return tuple(found)


def forget() -> None:
    """Drop everything that was kept."""
    _prepared.clear()
    _integers.clear()
