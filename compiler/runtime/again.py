"""Calls that were made before: found by all that decides how they run, and run without being looked at again.

    shapes, strides, types, alignment, devices, integers  -->  one look-up  -->  what ran the first such call

Tensors that are more than memory (fake, batched, traced, sparse, conjugated), modes that watch operations, and
arguments of any other kind are left to the long way, which decides what to do with each or what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from einc.base.types import DType
from einc.codegen.emit.index_width import digits
from einc.runtime.prepared import NOTHING, Deciding

Run = Callable[[list[Tensor], list[int], list[Any]], Sequence[Tensor]]
"""Gives the results for the operands, their addresses, and the scalars that vary."""

_MOST_KEPT = 1024  # of one program

_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._functorch.peek_interpreter_stack
_autocast = torch._C._is_any_autocast_enabled
_traced = torch._C._get_tracing_state


class Absent:
    """Stands for a scalar that is not given."""


_ABSENT = Absent()
Key = tuple[Any, ...]


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
        self.known: dict[Key, Run] = {}

    def __call__(self, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The result of a call that was made before, or None."""
        found = self.read(given, named)
        if found is None:
            return None
        key, tensors, pointers, numbers = found
        known = self.known.get(key)
        if known is None:
            return None
        results = known(tensors, pointers, numbers)
        return results[0] if len(results) == 1 else tuple(results)

    def read(
        self, given: Sequence[Any], named: Mapping[str, Any]
    ) -> tuple[Key, list[Tensor], list[int], list[Any]] | None:
        """The key of a call, its tensors, their addresses and the scalars that vary; None for the long way.

        The last operands are the scalars, and may be missing.
        """
        watched = _modes() or _transforms() is not None or _autocast() or _traced() is not None
        if watched or forward_ad._current_level >= 0:
            return None
        if named:
            placed = self.placed(given, named)
            if placed is None:
                return None
            given = placed
        key: list[Any] = []
        grad = torch.is_grad_enabled()
        pointers = []
        tensors = list(given[: self.count])
        for t in tensors:
            kind = t.__class__
            if (kind is not Tensor and kind is not Parameter) or t.is_neg() or t.is_conj():
                return None
            try:
                pointer = t.data_ptr()
                key.append((t.dtype, t.shape, t.stride(), t.layout, t.device, pointer & 15, grad and t.requires_grad))
            except RuntimeError:  # it is no plain memory
                return None
            pointers.append(pointer)
        if len(tensors) < self.count or len(given) > len(self.names):
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
        return tuple(key), tensors, pointers, numbers

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

    def keep(self, key: Key, run: Run) -> None:
        """What further calls with this key run."""
        if len(self.known) >= _MOST_KEPT:
            self.known.clear()
        self.known[key] = run


_KINDS = {"f": (float, Absent), "i": (int, Absent), "u": (int, Absent), "b": (bool, Absent)}


def _on_cpu(tensors: Sequence[Tensor]) -> bool:
    """Do calls with these tensors run on the CPU?"""
    return not tensors or tensors[0].is_cpu
