"""Launches that were made once, made again: what Triton compiled, enqueued with other pointers and numbers.

    launcher(A, B)  -->  [kernel, programs, arguments], ...  -->  the same kernels for other tensors of the same layout

A launcher finds extents, sizes of tiles and the type of indices, and Triton finds the binary that is specialised for
such arguments. For operands of equal shapes, strides, types and alignment, and equal integers, all of this comes out
the same. What is left for every call is memory for the results, the pointers, and floats and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from triton import knobs

from einc.codegen.run.load import Launched
from einc.pipeline.emitted import Signature

Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]  # shape, strides and type of a tensor


@dataclass(frozen=True, slots=True)
class Step:
    """A kernel to enqueue: its binary, and its arguments.

    `pointers` are positions among the tensors of the call; `numbers` follow them. `scalars` come next, each the
    position of one that the call gives, or None and a value. `constants` are what the kernel was compiled for.
    """

    run: Callable[..., None]
    programs: int
    function: Any
    metadata: Any
    pointers: tuple[int, ...]
    numbers: tuple[Any, ...]
    scalars: tuple[tuple[int | None, Any], ...]
    constants: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """The launches of a call, for operands that differ from those of the first in their memory only.

    `makes` are the tensors to allocate, which come after the operands; `results` are positions among them. `launcher`
    does all of it again, for those who watch launches.
    """

    launcher: Callable[[Sequence[Tensor], Sequence[Any]], Sequence[Tensor]]
    device: int
    makes: tuple[Layout, ...]
    results: tuple[int, ...]
    steps: tuple[Step, ...]

    def run(self, tensors: Sequence[Tensor], addresses: Sequence[int], scalars: Sequence[Any]) -> Sequence[Tensor]:
        """The results in order, for operands and their addresses, and the scalars that vary."""
        if _hooked():
            return self.launcher(tensors, scalars)
        if torch._C._cuda_getDevice() != self.device:
            with torch.cuda.device(self.device):
                return self.run(tensors, addresses, scalars)
        made = [_empty(shape, strides, dtype, self.device) for shape, strides, dtype in self.makes]
        pointers = [*addresses, *[t.data_ptr() for t in made]]
        stream = torch._C._cuda_getCurrentRawStream(self.device)
        for s in self.steps:
            s.run(
                s.programs, 1, 1, stream, s.function, s.metadata, None, None, None,
                *[pointers[k] for k in s.pointers], *s.numbers,
                *[x if k is None else scalars[k] for k, x in s.scalars], *s.constants,
            )  # fmt: skip
        return [made[k] for k in self.results]


def _hooked() -> bool:
    """Does someone watch launches of Triton, as profilers do?"""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def replay(
    launcher: Callable[[Sequence[Tensor], Sequence[Any]], Sequence[Tensor]],
    launches: Sequence[Launched],
    signatures: Sequence[Signature],
    operands: Sequence[str],
    results: dict[str, Tensor],
    varying: Sequence[str],
    order: Sequence[str],
) -> Replay | None:
    """The launches of a call, to be made again; None where they cannot be told apart from the call's own tensors.

    `operands` are the names of the call's tensors, `results` the distinct tensors that it made, `order` the results as
    they are returned, and `varying` the scalars that a further call gives anew, all others being as in this call.
    `launcher` makes a call with other operands and varying scalars from the start.
    """
    by_name = {s.name: s for s in signatures}
    places = {name: k for k, name in enumerate(operands)}
    makes: list[Layout] = []
    for name, t in results.items():
        places[name] = len(operands) + len(makes)
        makes.append((tuple(t.shape), t.stride(), t.dtype))
    steps = []
    device = None
    for launched in launches:
        kernel = by_name[launched.name].kernel
        tensors = launched.args[: len(kernel.buffers)]
        for b, t in zip(kernel.buffers, tensors, strict=True):
            device = t.device.index
            if b.name not in places:
                places[b.name] = len(operands) + len(makes)
                makes.append((tuple(t.shape), t.stride(), t.dtype))
        rest = launched.args[len(kernel.buffers) :]
        numbers, last = rest[: len(rest) - len(kernel.scalars)], rest[len(rest) - len(kernel.scalars) :]
        given = {name: k for k, name in enumerate(varying)}
        steps.append(
            Step(
                launched.compiled.run, launched.programs, launched.compiled.function, launched.compiled.packed_metadata,
                tuple(places[b.name] for b in kernel.buffers), numbers,
                tuple((given.get(n), x) for (n, _), x in zip(kernel.scalars, last, strict=True)), launched.constants,
            )
        )  # fmt: skip
    first = len(operands)
    if device is None or any(name not in results for name in order):
        return None
    return Replay(launcher, device, tuple(makes), tuple(places[name] - first for name in order), tuple(steps))


_EMPTY: Callable[..., Tensor] | None = getattr(torch._C._dynamo.guards, "_empty_strided_cuda", None)


def _empty(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, device: int) -> Tensor:
    """Memory on the current device, which is this one."""
    if _EMPTY is not None:
        return _EMPTY(shape, strides, dtype)
    return torch.empty_strided(shape, strides, dtype=dtype, device=f"cuda:{device}")
