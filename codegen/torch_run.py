"""Tile programs executed by torch: vectorised over the grid, streamed over loops, the memory of what they store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from einc import ein, tile
from einc.arithmetic import ScalarValue, evaluate_formula
from einc.binding import Bindings
from einc.codegen.torch_kernel import Executable, executable, seeds
from einc.codegen.torch_ops import STORED

_MOST_KEPT = 512  # compiled kernels

_Facts = tuple[tuple[str, ...], tuple[str, ...]]
_Key = tuple[int, torch.device, tuple[int, ...], tuple[ScalarValue, ...]]
_known: OrderedDict[int, tuple[tile.Kernel, _Facts]] = OrderedDict()
_compiled: OrderedDict[_Key, tuple[tile.Kernel, Executable]] = OrderedDict()


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
    bindings = completed(program, bindings)
    first = next(iter(operands.values()), None)
    home = first.device if first is not None else device or torch.device("cpu")
    tensors = dict(operands) | dict(out or {})
    last = {b.name: n for n, k in enumerate(schedule.kernels) for b in k.buffers}
    for n, kernel in enumerate(schedule.kernels):
        for b in kernel.buffers:
            if b.name not in tensors:
                shape = [prod(bindings.extents[a] for a in dim) for dim in b.dims]
                tensors[b.name] = torch.empty(shape, dtype=STORED[b.dtype.name], device=home)
        touched = {b.name: tensors[b.name] for b in kernel.buffers}
        compiled_kernel(kernel, bindings, home).run(touched, bindings.scalars)
        del touched
        for b in schedule.intermediates:
            if last.get(b.name) == n:
                del tensors[b.name]
    return tuple(tensors[name] for name in program.results)


def completed(program: ein.Program, bindings: Bindings) -> Bindings:
    """The bindings with the extents of axes that passes have added, in the order they were."""
    added = [a for a in program.axes if a.name not in bindings.extents]
    if not added:
        return bindings
    extents = dict(bindings.extents)
    for a in added:
        assert a.extent is not None
        extents[a.name] = int(evaluate_formula(a.extent, extents, bindings.scalars))
    return Bindings(extents, bindings.scalars)


def compiled_kernel(kernel: tile.Kernel, bindings: Bindings, device: torch.device) -> Executable:
    """The kernel compiled for these extents and integers, kept for the next call that has them."""
    axes, integers = _facts(kernel)
    key = (
        id(kernel),
        device,
        tuple(bindings.extents[a] for a in axes),
        tuple(bindings.scalars[name] for name in integers),
    )
    if key in _compiled:
        _compiled.move_to_end(key)
        return _compiled[key][1]
    made = executable(kernel, {a: bindings.extents[a] for a in axes}, bindings.scalars, device)
    _compiled[key] = kernel, made  # with the kernel, lest another takes its place in memory
    if len(_compiled) > _MOST_KEPT:
        _compiled.popitem(last=False)
    return made


def _facts(kernel: tile.Kernel) -> _Facts:
    """The axes and the integer scalars whose values a kernel is compiled for."""
    if id(kernel) not in _known:
        axes = {a for t in tile.tile_axes(kernel).values() for a in t.axes} | set(kernel.extents)
        axes |= {a for b in kernel.buffers for dim in b.dims for a in dim}
        free = seeds(kernel)
        integers = tuple(name for name, t in kernel.scalars if not t.is_float and name not in free)
        _known[id(kernel)] = kernel, (tuple(sorted(axes)), integers)
        if len(_known) > _MOST_KEPT:
            _known.popitem(last=False)
    return _known[id(kernel)][1]


def forget() -> None:
    """Drop every compiled kernel."""
    _compiled.clear()
    _known.clear()
