"""Calls that were made before: found by all that decides how they run, and run without being looked at again.

    shapes, strides, types, alignment, devices, integers  -->  one look-up  -->  what ran the first such call

Arrays of NumPy are taken as tensors on the same memory. A call that is given tensors for its results has their layouts
in its key too. It goes the long way where these share memory with operands or with each other. So do calls with tensors
that are more than memory (fake, batched, traced, sparse, conjugated), in modes that watch operations, and with other
kinds of arguments: the long way decides what to do with each or what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from einc.base.types import DType
from einc.codegen.emit.index_width import digits
from einc.runtime.prepared import NOTHING, Deciding
from einc.runtime.results import several, unpacked
from einc.runtime.tensors import span_of_memory

Run = Callable[[list[Tensor], list[int], list[Any]], Sequence[Tensor]]
"""Gives the results for the tensors of a call, their addresses, and the scalars that vary.

The tensors are the operands, and after them those that the results are written to, if the call has them.
"""

_MOST_KEPT = 1024  # of one program

_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._functorch.peek_interpreter_stack
_autocast = torch._C._is_any_autocast_enabled
_traced = torch._C._get_tracing_state


class Absent:
    """Stands for a scalar that is not given."""


_ABSENT = Absent()
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What further calls run. If tensors are written to, `detaches` says whether gradients have to end before that, and
    `lengths` are those of the memory of all tensors, in bytes."""

    run: Run
    detaches: bool
    lengths: tuple[int, ...]


class Calls:
    """The calls of one program that were made before.

    `scalars` are the names and types of its scalars, `deciding` those of them that decide how it runs.
    """

    __slots__ = ("count", "kinds", "known", "names", "places")

    def __init__(
        self,
        operands: Sequence[str],
        scalars: Mapping[str, DType] | None = None,
        deciding: Deciding = NOTHING,
    ) -> None:
        scalars = scalars or {}
        self.count = len(operands)
        self.names = (*operands, *scalars)
        self.places = {name: k for k, name in enumerate(self.names)}
        self.kinds = {  # of each scalar, on the CPU or elsewhere: what it may be, and whether it decides
            on_cpu: tuple((_KINDS.get(t.kind, ()), name in decide) for name, t in scalars.items())
            for on_cpu, decide in ((True, deciding.of("torch")), (False, deciding.of("triton")))
        }
        self.known: dict[Key, Known] = {}

    def __call__(self, given: Sequence[Any], named: Mapping[str, Any], out: Any = None) -> Any:
        """The result of a call that was made before, which is `out` if that is given; or None."""
        found = self.read(given, named, out)
        if found is None:
            return None
        key, tensors, pointers, numbers, arrays = found
        known = self.known.get(key)
        if known is None:
            return None
        if out is not None:
            if self.unfit(tensors, pointers, known.lengths):
                return None
            known.run([t.detach() for t in tensors] if known.detaches else tensors, pointers, numbers)
            return out
        results = known.run(tensors, pointers, numbers)
        if arrays:
            return unpacked(tuple(results), torch=False)
        return results[0] if len(results) == 1 else tuple(results)

    def unfit(self, tensors: Sequence[Tensor], starts: Sequence[int], lengths: Sequence[int]) -> bool:
        """Does one of the tensors to write to require a gradient, or share bytes with an operand or another of them?"""
        for k in range(self.count, len(tensors)):
            start, end = starts[k], starts[k] + lengths[k]
            if tensors[k].requires_grad:
                return True
            for n in range(k):
                if starts[n] < end and start < starts[n] + lengths[n]:
                    return True
        return False

    def read(
        self, given: Sequence[Any], named: Mapping[str, Any], out: Any = None
    ) -> tuple[Key, list[Tensor], list[int], list[Any], bool] | None:
        """The key of a call, its tensors, their addresses, the scalars that vary, and whether the tensors are arrays of
        NumPy, as all or none must be; None for the long way.

        The last operands are the scalars, and may be missing. The tensors of `out` follow the operands.
        """
        watched = _modes() or _transforms() is not None or _autocast() or _traced() is not None
        if watched or forward_ad._current_level >= 0:
            return None
        if named:
            placed = self.placed(given, named)
            if placed is None:
                return None
            given = placed
        tensors = list(given[: self.count])
        if len(tensors) < self.count or len(given) > len(self.names):
            return None
        key: list[Any] = []
        grad = torch.is_grad_enabled()
        pointers: list[int] = []
        arrays = 0
        if out is not None:
            key.append("out")
            tensors += several(out)
        for t in tensors:
            kind = t.__class__
            if kind is ndarray:
                viewed = _viewed(t)
                if viewed is None:
                    return None
                tensors[len(pointers)] = t = viewed
                arrays += 1
            elif (kind is not Tensor and kind is not Parameter) or t.is_neg() or t.is_conj():
                return None
            try:
                pointer = t.data_ptr()
                key.append((t.dtype, t.shape, t.stride(), t.layout, t.device, pointer & 15, grad and t.requires_grad))
            except RuntimeError:  # it is no plain memory
                return None
            pointers.append(pointer)
        if arrays and arrays != len(tensors):
            return None
        numbers: list[Any] = []
        kinds = self.kinds[_on_cpu(tensors)]
        for x, (accepted, decides) in zip(given[self.count :], kinds, strict=False):
            kind = x.__class__
            if kind not in accepted:
                return None
            if decides:
                key.append((kind, x))
            else:
                key.append(digits(x) if kind is int else kind)
                if kind is not Absent:
                    numbers.append(x)
        return tuple(key), tensors, pointers, numbers, bool(arrays)

    def varying(self, tensors: Sequence[Tensor], scalars: Mapping[str, Any]) -> list[str]:
        """Those of the given scalars that vary, in order, for calls with such tensors."""
        kinds = zip(self.names[self.count :], self.kinds[_on_cpu(tensors)], strict=True)
        return [name for name, (_, decides) in kinds if not decides and name in scalars]

    def placed(self, given: Sequence[Any], named: Mapping[str, Any]) -> list[Any] | None:
        """All arguments by position, `Absent` where there are none; None if one has no place, or two."""
        placed = [*given, *[_ABSENT] * (len(self.names) - len(given))]
        for name, value in named.items():
            k = self.places.get(name, -1)
            if k < len(given):
                return None
            placed[k] = value
        while placed and placed[-1] is _ABSENT:
            placed.pop()
        return placed

    def keep(self, key: Key, run: Run, tensors: Sequence[Tensor] = ()) -> None:
        """What further calls with this key run, on such tensors if some of them are written to."""
        if len(self.known) >= _MOST_KEPT:
            self.known.clear()
        detaches = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        ends = map(span_of_memory, tensors)
        self.known[key] = Known(run, detaches, tuple(end - start for start, end in ends))


def _viewed(array: Any) -> Tensor | None:
    """An array as a tensor on the same memory; None where that takes more than looking at it."""
    if not array.flags.behaved:  # aligned and writable
        return None
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):  # strides, types and orders of bytes that torch does not have
        return None


_KINDS = {"f": (float, Absent), "i": (int, Absent), "u": (int, Absent), "b": (bool, Absent)}


def _on_cpu(tensors: Sequence[Tensor]) -> bool:
    """Do calls with these tensors run on the CPU?"""
    return not tensors or tensors[0].is_cpu
