"""Launches that were made once, made again: what Triton compiled, enqueued with other pointers and numbers.

    launcher(A, B)  -->  [kernel, programs, arguments], ...  -->  the same kernels for other tensors of the same layout

A launcher finds extents, sizes of tiles and the type of indices, and Triton finds the binary that is specialised for
such arguments. For operands of equal shapes, strides, types and alignment, and integers that are equal where extents
depend on them, and of as many digits elsewhere, all of this comes out the same. What is left for every call is memory
for the results, the pointers, and the scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from triton import knobs

from einc.codegen.run.load import Launched
from einc.pipeline.emitted import Signature
from einc.tile import Kernel

Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]  # shape, strides and type of a tensor


@dataclass(frozen=True, slots=True)
class Step:
    """A kernel to enqueue: its binary, and its arguments.

    `pointers` are positions among the tensors of the call, and if the kernel `counts`, there is a zero in memory after
    them; `numbers` follow. `scalars` come next, each the position of one that the call gives, or None and a value.
    `constants` are what the kernel was compiled for. `described` are those of the pointers, by their places here, that
    a descriptor holds, with all else that it does.
    """

    run: Callable[..., None]
    programs: int
    function: Any
    metadata: Any
    pointers: tuple[int, ...]
    numbers: tuple[Any, ...]
    scalars: tuple[tuple[int | None, Any], ...]
    constants: tuple[Any, ...]
    described: tuple[tuple[int, Any], ...] = ()
    counts: bool = False

    def addresses(self, pointers: Sequence[int], device: int) -> list[Any]:
        """Where the kernel finds its tensors, for those of a call, and from where it counts."""
        found: list[Any] = [pointers[k] for k in self.pointers]
        for n, descriptor in self.described:
            found[n] = _Described(_Address(found[n]), descriptor)
        return [*found, torch.zeros(1, dtype=torch.int32, device=f"cuda:{device}")] if self.counts else found


class _Address:
    """Memory, as a descriptor asks for it."""

    __slots__ = ("pointer",)

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer

    def data_ptr(self) -> int:
        return self.pointer


class _Described:
    """A descriptor of other memory of the same layout."""

    __slots__ = ("base", "block_shape", "padding", "round_f32_to_tf32", "shape", "strides")

    def __init__(self, base: _Address, like: Any) -> None:
        self.base, self.shape, self.strides, self.block_shape = base, like.shape, like.strides, like.block_shape
        self.padding, self.round_f32_to_tf32 = like.padding, False


@dataclass(frozen=True, slots=True)
class Replay:
    """The launches of a call, for operands that differ from those of the first in their memory only.

    `makes` are the results to allocate, whose addresses come after those of the operands, and `order` is how they are
    returned; where a call gives memory for its results, their addresses are there. What lies between kernels comes
    last, at these `offsets` in a block of memory of so many `bytes`.
    `launcher` does all of it anew, for those who watch launches.
    """

    launcher: Callable[[Sequence[Tensor], Sequence[Any]], Sequence[Tensor]]
    device: int
    makes: tuple[Layout, ...]
    order: tuple[int, ...]
    offsets: tuple[int, ...]
    bytes: int
    steps: tuple[Step, ...]

    def run(self, tensors: Sequence[Tensor], addresses: Sequence[int], scalars: Sequence[Any]) -> Sequence[Tensor]:
        """The results that are made, in order, for a call's tensors, their addresses, and the scalars that vary."""
        if _hooked():
            return self.launcher(tensors, scalars)
        if torch._C._cuda_getDevice() != self.device:
            with torch.cuda.device(self.device):
                return self.run(tensors, addresses, scalars)
        made = [_empty(shape, strides, dtype, self.device) for shape, strides, dtype in self.makes]
        pointers = [*addresses, *[t.data_ptr() for t in made]]
        if self.bytes:
            between = _empty((self.bytes,), (1,), torch.uint8, self.device)
            start = between.data_ptr()
            pointers += [start + offset for offset in self.offsets]
        stream = torch._C._cuda_getCurrentRawStream(self.device)
        for s in self.steps:
            s.run(
                s.programs, 1, 1, stream, s.function, s.metadata, None, None, None,
                *(s.addresses(pointers, self.device) if s.described or s.counts else [pointers[k] for k in s.pointers]),
                *s.numbers, *[x if k is None else scalars[k] for k, x in s.scalars], *s.constants,
            )  # fmt: skip
        return [made[k] for k in self.order]


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
    given: bool = False,
) -> Replay | None:
    """The launches of a call, to be made again; None where they cannot be told apart from the call's own tensors.

    `operands` are the names of the call's tensors, `results` the distinct tensors that it made, `order` the results as
    they are returned, and `varying` the scalars that a further call gives anew, all others being as in this call. If
    results are `given`, each call gives memory for them, after its operands and in this order.
    `launcher` makes a call with other tensors and varying scalars from the start.
    """
    if not launches or not set(order) <= results.keys() or not results.keys().isdisjoint(operands):
        return None
    kernels = {s.name: s.kernel for s in signatures}
    counting = {s.name for s in signatures if s.counter}
    places = {name: k for k, name in enumerate((*operands, *results))}
    offsets, size = list[int](), 0
    for launched in launches:
        for b, t in zip(kernels[launched.name].buffers, launched.args, strict=False):
            if b.name not in places:
                places[b.name] = len(places)
                offsets.append(size)
                t = _tensor(t)
                size += -(-t.untyped_storage().nbytes() // _ALIGNED) * _ALIGNED
    return Replay(
        launcher,
        _tensor(launches[0].args[0]).device.index,
        () if given else tuple((tuple(t.shape), t.stride(), t.dtype) for t in results.values()),
        () if given else tuple(list(results).index(name) for name in order),
        tuple(offsets),
        size,
        tuple(_step(x, kernels[x.name], places, varying, x.name in counting) for x in launches),
    )


def _step(launched: Launched, kernel: Kernel, places: Mapping[str, int], varying: Sequence[str], counts: bool) -> Step:
    """A launch with the places of its tensors and of the scalars that vary."""
    rest = launched.args[len(kernel.buffers) + counts :]
    numbers, last = rest[: len(rest) - len(kernel.scalars)], rest[len(rest) - len(kernel.scalars) :]
    given = {name: k for k, name in enumerate(varying)}
    described = tuple((n, _Described(_Address(0), x)) for n, x in enumerate(launched.args) if _tensor(x) is not x)
    return Step(
        launched.compiled.run,
        launched.programs,
        launched.compiled.function,
        launched.compiled.packed_metadata,
        tuple(places[b.name] for b in kernel.buffers),
        numbers,
        tuple((given.get(name), x) for (name, _), x in zip(kernel.scalars, last, strict=True)),
        launched.constants,
        described,
        counts,
    )


def _tensor(arg: Any) -> Any:
    """The argument of a launch, or the tensor that it describes."""
    return getattr(arg, "base", arg)


_ALIGNED = 512  # bytes, as torch aligns what it allocates
_EMPTY: Callable[..., Tensor] | None = getattr(torch._C._dynamo.guards, "_empty_strided_cuda", None)


def _empty(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, device: int) -> Tensor:
    """Memory on the current device, which is this one."""
    if _EMPTY is not None:
        return _EMPTY(shape, strides, dtype)
    return torch.empty_strided(shape, strides, dtype=dtype, device=f"cuda:{device}")
