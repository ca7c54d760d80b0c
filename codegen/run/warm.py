"""Kernels compiled before there is anything to run them on, in parallel, into the cache that Triton keeps.

    emitted file, operands without memory  --its own launcher-->  launches  --Triton-->  compiled kernels on disk

A launcher that is given tensors of the meta device finds the arguments of a launch and makes none, so what is compiled
is what a call with operands of these shapes, contiguous and aligned to 16 bytes, asks for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from einc.base.errors import Error, RoomError, TargetError
from einc.base.targets import Target
from einc.codegen.run.compiling import check_compilable
from einc.codegen.run.load import load
from einc.pipeline.emitted import Emitted

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_ABSENT = threading.Lock()  # held while Triton has no device


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel over so many programs, with the arguments that its launcher finds."""

    kernel: Any
    programs: int
    args: tuple[Any, ...]
    meta: Mapping[str, Any]

    @property
    def compiled_by(self) -> Hashable:
        """What Triton may compile it for: launches that agree in this share a compiled kernel."""
        return id(self.kernel), tuple(map(_read, self.args)), tuple((n, str(v)) for n, v in self.meta.items())


def _read(arg: Any) -> Hashable:
    """An argument as far as Triton looks at it: the type and size of memory, the divisibility and width of integers."""
    if isinstance(arg, bool | float) or arg is None:
        return type(arg), arg
    if isinstance(arg, int):
        return arg == 1, arg % 16 == 0, arg.bit_length() > 31, arg.bit_length() > 63
    if hasattr(arg, "block_shape"):
        return arg.base.dtype, tuple(arg.block_shape)
    return arg.dtype, arg.untyped_storage().nbytes() < 1 << 31


def launches(emitted: Emitted, arguments: Sequence[Any], device: Mapping[str, torch.device]) -> tuple[Launch, ...]:
    """What the launcher of an emitted file launches for arguments on the meta device."""
    module = load(emitted.source, emitted.launcher)
    found: list[Launch] = []

    def note(kernel: Any, programs: int, *args: Any, **meta: Any) -> None:
        if programs:
            found.append(Launch(kernel, programs, args, meta))

    own: Any = getattr(module, emitted.launcher)
    noting = FunctionType(own.__code__, {**module.__dict__, "launch": note}, own.__name__, own.__defaults__)
    noting.__kwdefaults__ = own.__kwdefaults__
    noting(*arguments, **device)
    return tuple(found)


def compile_all(wanted: Sequence[Launch], where: torch.device | Target) -> list[RoomError | None]:
    """Compile for a device, or for a target that need not be here; for each the error if it takes too much memory.

    Raises `TargetError` for a kernel that does not compile, or if Triton interprets them all.
    """
    found = _in_threads(wanted, where, lambda w, room: _compiled(w, where, room))
    return [found[w.compiled_by] for w in wanted]


def compile_each(
    groups: Sequence[Sequence[Launch]], where: torch.device | Target, seconds: float = inf
) -> list[Error | None]:
    """Compile all that some calls launch, for each call the error if it cannot be launched; none is begun after so
    many seconds."""
    end = time.monotonic() + seconds

    def attempted(wanted: Launch, room: int) -> Error | None:
        if time.monotonic() > end:
            return TargetError("there was no time left to compile it")
        try:
            return _compiled(wanted, where, room)
        except TargetError as error:
            return error

    found = _in_threads([w for group in groups for w in group], where, attempted)
    every = ([found[w.compiled_by] for w in group] for group in groups)
    return [next((e for e in errors if e is not None), None) for errors in every]


def _in_threads(
    wanted: Sequence[Launch], where: torch.device | Target, compiled: Callable[[Launch, int], T]
) -> dict[Hashable, T]:
    """What comes of compiling each that is different, given the shared memory that there is."""
    for w in wanted:
        check_compilable(w.kernel)
        w.kernel.cache_key  # noqa: B018 - Triton finds the functions that kernels share, one thread at a time
    different = {w.compiled_by: w for w in wanted}
    with _device(where) as room, ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return dict(zip(different, threads.map(lambda w: compiled(w, room), different.values()), strict=True))


def _compiled(wanted: Launch, where: torch.device | Target, room: int) -> RoomError | None:
    if isinstance(where, Target):
        made = wanted.kernel.warmup(*wanted.args, grid=(wanted.programs,), **wanted.meta)
    else:
        import torch

        with torch.cuda.device(where):
            made = wanted.kernel.warmup(*wanted.args, grid=(wanted.programs,), **wanted.meta)
    if made.metadata.shared <= room:
        return None
    return RoomError(
        f"kernel '{wanted.kernel.fn.__name__}' needs more shared memory than there is",
        fact=f"{made.metadata.shared} bytes of {room}",
        hint="use smaller extents for the axes that a tile holds whole, or narrower types",
    )


@contextmanager
def _device(where: torch.device | Target) -> Iterator[int]:
    """Triton's device while kernels are compiled, and the bytes of shared memory that a program has there."""
    from triton.runtime.driver import driver

    if not isinstance(where, Target):
        yield driver.active.utils.get_device_properties(where.index or 0)["max_shared_mem"]
        return
    with _ABSENT:
        before = dict(vars(driver))
        driver.set_active(_Absent(where))
        try:
            yield where.shared
        finally:
            vars(driver).update(before)


class _Absent:
    """A device that is not here, as far as Triton asks before it compiles for it."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget(self.target.vendor, self.target.arch, self.target.warp)

    def get_current_device(self) -> str:
        return self.target.name

    def get_current_stream(self, device: object) -> int:  # noqa: ARG002 - as Triton asks
        return 0
