"""Tile programs executed by torch: kernels in order, and the memory of the tensors that they store."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from einc import ein, tile
from einc.binding import Bindings, completed
from einc.codegen.executor.executable import Executable
from einc.codegen.executor.kernel import executable
from einc.codegen.executor.ops import STORED
from einc.ein.arithmetic import ScalarValue

Outputs = tuple[Tensor, ...]

_LARGE = 1 << 22  # bytes of a tensor that is worth asking for large pages


@lru_cache(maxsize=1)
def _advise() -> Callable[[int, int, int], int] | None:
    """Linux's `madvise`, where there is one."""
    if not sys.platform.startswith("linux"):
        return None
    found = getattr(ctypes.CDLL(None), "madvise", None)
    if found is not None:
        found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


def fresh(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for a tensor that is written as a whole: on a CPU in large pages, where the system has these for who asks.

    Writing to fresh memory first costs a fault for each page, which for pages of 4 KiB takes as long as reading it
    four times.
    """
    made = torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cpu" and made.nbytes >= _LARGE and (advise := _advise()) is not None:
        start = -(-made.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(start, made.data_ptr() + made.nbytes - start, mmap.MADV_HUGEPAGE)
    return made


def _as_written(home: torch.device) -> AbstractContextManager[object]:
    """A context in which torch computes in the types that it is given."""
    return torch.autocast(home.type, enabled=False) if torch.is_autocast_enabled(home.type) else nullcontext()


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel ready to run: the tensors that it writes first, all that it uses, and those that it uses last."""

    kernel: Executable
    makes: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    touches: tuple[str, ...]
    drops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executor:
    """A masked, tiled schedule at known extents and integers, on a device."""

    launches: tuple[Launch, ...]
    results: tuple[str, ...]
    device: torch.device

    @property
    def small(self) -> bool:
        """Is every kernel one box, and does deciding what to do take a visible share of the time?"""
        return self.device.type == "cpu" and all(launch.kernel.at_once for launch in self.launches)

    def run(self, operands: Mapping[str, Tensor], scalars: Mapping[str, ScalarValue], out: Outputs) -> Outputs:
        """The results in order, written to the tensors in `out` where it has them.

        Operands have the program's types, and the shapes that the extents were found from. The program decides the type
        that a contraction multiplies in: `torch.autocast` does not apply.
        """
        tensors = {**operands, **dict(zip(self.results, out, strict=False))}
        with _as_written(self.device):
            for launch in self.launches:
                for name, shape, dtype in launch.makes:
                    if name not in tensors:
                        tensors[name] = fresh(shape, dtype, self.device)
                launch.kernel.run({name: tensors[name] for name in launch.touches}, scalars)
                for name in launch.drops:
                    del tensors[name]
        return tuple([tensors[name] for name in self.results])


def executor(
    program: ein.Program,
    schedule: tile.Schedule,
    bindings: Bindings,
    device: torch.device,
    changing: frozenset[str] = frozenset(),
) -> Executor:
    """The executor of a schedule at the extents and integers of a call; seeds, and integers that are `changing`, may
    differ between runs."""
    whole = completed(program, bindings)
    known = {name: value for name, value in whole.scalars.items() if name not in changing}
    return Executor(_launches(program, schedule, Bindings(whole.extents, known), device), program.results, device)


def _launches(
    program: ein.Program, schedule: tile.Schedule, bindings: Bindings, device: torch.device
) -> tuple[Launch, ...]:
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
        found.append(Launch(executable(kernel, extents, bindings.scalars, device), tuple(makes), names, drops))
    return tuple(found)
