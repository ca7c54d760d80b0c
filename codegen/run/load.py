"""Emitted files as modules in memory, their kernels run where the tensors are: on a GPU, or interpreted."""

from __future__ import annotations

import hashlib
import linecache
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from einc.base.errors import RoomError
from einc.codegen.emit.names import identifier
from einc.codegen.run.compiling import watch

_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Launched:
    """A launch as it was made on a GPU: the kernel that Triton compiled for it, and all arguments.

    `args` are those that the kernel takes at run time, `constants` those that it was compiled for.
    """

    name: str
    compiled: Any
    programs: int
    args: tuple[Any, ...]
    constants: tuple[Any, ...]


class _Noted(threading.local):
    """What launches of this thread are noted in, if anywhere."""

    launches: list[Launched] | None = None


_NOTED = _Noted()


@contextmanager
def noted() -> Iterator[list[Launched]]:
    """The launches that this thread makes on a GPU inside of the context, in order; a context around it knows none of
    them if this one ends by an error."""
    before, found = _NOTED.launches, list[Launched]()
    _NOTED.launches = found
    try:
        yield found
    finally:
        _NOTED.launches = before
    if before is not None:
        before += found


@lru_cache(maxsize=1024)
def load(source: str, name: str) -> ModuleType:
    """An emitted file as a module; `inspect.getsource` works although there is no file on disk."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    filename = f"<einc {identifier(name, ascii_only=True)} {digest}>"  # assemblers see the name too
    with _LOCK:
        linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
    module = ModuleType(f"einc_{digest}")
    module.__file__ = filename
    exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)  # emitted by `einc.codegen`
    module.__dict__["launch"] = launch
    watch(module, source)
    return module


def launcher(source: str, name: str) -> Callable[..., Any]:
    """The launcher `name` of an emitted file, for tensors on any device."""
    found: Callable[..., Any] = getattr(load(source, name), name)
    return found


def launch(kernel: Any, programs: int, *args: Any, **meta: Any) -> None:
    """Run a kernel over a 1-D grid: interpreted for tensors on the CPU, compiled for all others.

    Raises `RoomError` for a kernel that needs more of a resource than the machine has.
    """
    if not programs:
        return
    device = getattr(args[0], "base", args[0]).device  # of a tensor, or of what a descriptor describes
    if device.type == "cpu":
        from einc.codegen.run import interpret

        interpret.run(kernel, programs, *args, **meta)
        return
    import torch
    from triton.runtime.errors import OutOfResources

    try:
        with nullcontext() if device.index == torch.cuda.current_device() else torch.cuda.device(device):
            compiled = kernel[(programs,)](*args, **meta)
    except OutOfResources as error:
        raise RoomError(
            f"kernel '{kernel.fn.__name__}' needs more {error.name} than this GPU has",
            fact=f"{error.required} of {error.limit}",
            hint="use smaller extents for the axes that a tile holds whole, or narrower types",
        ) from error
    if _NOTED.launches is not None:
        constants = tuple(meta[name] for name in kernel.arg_names[len(args) :])
        _NOTED.launches.append(Launched(kernel.fn.__name__, compiled, programs, args, constants))
