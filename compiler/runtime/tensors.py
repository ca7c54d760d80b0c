"""Callers' tensors as torch tensors with facts, and results as the callers' kind of tensor.

NumPy arrays are viewed, not copied, where torch can express them; others (negative strides, foreign byte order,
misaligned data) are copied. Python numbers and nested lists are read by `numpy.asarray`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from einc.base import types
from einc.base.errors import CallError, DTypeError
from einc.base.facts import MOST_ALIGNED, Fact, Layout
from einc.base.source import Span
from einc.base.types import DType

if TYPE_CHECKING:
    import torch

_NUMPY = {
    **{np.dtype(f"{'u' if t.kind == 'u' else ''}int{t.bits}"): t for t in types.ALL if t.is_int},
    **{np.dtype(f"float{t.bits}"): t for t in (types.F16, types.F32, types.F64)},
    **{np.dtype(f"complex{t.bits}"): t for t in (types.C64, types.C128)},
    np.dtype(bool): types.BOOL,
}
_TORCH_NAMES = {
    "bool": "bool",
    "bf16": "bfloat16",
    "f8e4m3": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
    "c64": "complex64",
    "c128": "complex128",
    **{t.name: f"{'u' if t.kind == 'u' else ''}int{t.bits}" for t in types.ALL if t.is_int},
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_BY_TORCH_NAME = {name: types.BY_NAME[ours] for ours, name in _TORCH_NAMES.items()}


def is_torch(value: object) -> bool:
    """Is it a torch tensor? This does not import torch."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(value, torch_module.Tensor)


def wants_gradient(value: object) -> bool:
    """Would torch differentiate what is computed of it now? This does not import torch."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and torch_module.is_grad_enabled() and getattr(value, "requires_grad", False)


def compiling() -> bool:
    """Is torch.compile or torch.export tracing this call? This does not import torch."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and torch_module.compiler.is_compiling()


def watched(operands: Sequence[object]) -> bool:
    """Is a call to be seen by torch: by a mode, a transformation, a trace, or tensors that are more than memory?"""
    import torch

    return bool(
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or torch._C._is_any_autocast_enabled()
        or any(isinstance(t, torch.Tensor) and (t.device.type == "meta" or _more_than_memory(t)) for t in operands)
    )


def _more_than_memory(t: torch.Tensor) -> bool:
    import torch

    keys = torch._C._dispatch_keys(t)
    return type(t) is not torch.Tensor and keys.has(torch._C.DispatchKey.Python)


def torch_dtype(t: DType) -> torch.dtype:
    import torch

    return cast("torch.dtype", getattr(torch, _TORCH_NAMES[t.name]))


def numpy_dtype(t: DType) -> np.dtype[Any]:
    """The NumPy type that holds the values of t: t itself, or float32 for the narrow floats that NumPy lacks."""
    own = next((n for n, ours in _NUMPY.items() if ours == t), None)
    return own if own is not None else np.dtype(np.float32)


@cache
def _own(dtype: torch.dtype | np.dtype[Any]) -> DType | None:
    """The language's type of a torch or NumPy type, if it has one."""
    if isinstance(dtype, np.dtype):
        return _NUMPY.get(dtype.newbyteorder("="))
    return _BY_TORCH_NAME.get(str(dtype).removeprefix("torch."))


def dtype_of(value: torch.Tensor | np.ndarray[Any, Any], name: str, place: Span | None = None) -> DType:
    """The element type; raises `DTypeError` for a type that the language does not have."""
    found = _own(value.dtype)
    if found is None:
        raise DTypeError(
            f"operand '{name}' has elements of type {value.dtype}",
            place,
            fact=f"tensors have one of the types {', '.join(t.name for t in types.ALL)}",
            hint="convert it to one of them",
        )
    return found


def is_meta(value: object) -> bool:
    """Is it a torch tensor that has a shape and no memory?"""
    return is_torch(value) and cast("torch.Tensor", value).device.type == "meta"


def as_array(
    value: object, name: str, place: Span | None = None, shaped: bool = False
) -> torch.Tensor | np.ndarray[Any, Any]:
    """A torch tensor as it is; anything else as an array by `numpy.asarray`. Raises `CallError` where that fails.

    `shaped` allows meta tensors, which have a shape and a type and no memory.
    """
    if is_torch(value):
        tensor = cast("torch.Tensor", value)
        return tensor if shaped and is_meta(tensor) else _dense(tensor, name, place)
    if isinstance(value, str | bytes | dict | set) or value is None:
        made = None
    else:
        try:
            made = np.asarray(value)
        except Exception:  # a foreign object may raise anything
            made = None
    if made is None:
        raise CallError(
            f"operand '{name}' is not a tensor",
            place,
            fact=f"it is a {type(value).__name__}",
            hint="pass a torch tensor, a NumPy array, a number or a nested list of numbers",
        )
    return made


def _dense(value: torch.Tensor, name: str, place: Span | None) -> torch.Tensor:
    import torch

    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta" or value.is_nested:
        kind = "quantized" if value.is_quantized else "meta" if value.device.type == "meta" else f"{value.layout}"
        instead = "explain and source take it" if kind == "meta" else "pass a dense tensor: .to_dense(), .dequantize()"
        raise CallError(
            f"operand '{name}' has no plain memory to read", place, fact=f"it is a {kind} tensor", hint=instead
        )
    if compiling() or not (value.is_conj() or value.is_neg()):
        return value
    return value.resolve_conj().resolve_neg()


def fact(value: torch.Tensor | np.ndarray[Any, Any], name: str, place: Span | None = None) -> Fact:
    return Fact(tuple(value.shape), dtype_of(value, name, place))


def layout(value: torch.Tensor) -> Layout:
    """How the tensor lies in memory; of one without memory as far as shape and strides tell."""
    steps = [
        (1 << 62 if n == 1 else abs(s), k) for k, (n, s) in enumerate(zip(value.shape, value.stride(), strict=True))
    ]
    order = tuple(k for _, k in sorted(steps, key=lambda step: (-step[0], step[1])))
    strides = [value.stride(k) for k in order if value.shape[k] != 1]
    packed = bool(strides) and strides[-1] == 1 and 0 not in strides and all(0 < n < 1 << 31 for n in value.shape)
    start = 0 if value.device.type == "meta" else value.data_ptr()
    size = value.element_size()
    aligned = gcd(MOST_ALIGNED, start, *(s * size for s in (strides[:-1] if packed else strides)))
    pairs = pairwise(order)
    joined = tuple(1 in (value.shape[k], value.shape[n]) or _follows(value, k, n) for k, n in pairs)
    return Layout(order, packed, aligned, joined)


def _follows(value: torch.Tensor, k: int, n: int) -> bool:
    """Is a step along dimension k as long as all of dimension n?"""
    return value.stride(k) == value.shape[n] * value.stride(n)


class _Writable:
    """The memory of a read-only array behind an interface that hides this: torch would warn, but einc only reads."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        interface = dict(array.__array_interface__)
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def as_torch(value: torch.Tensor | np.ndarray[Any, Any]) -> torch.Tensor:
    """The same elements as a torch tensor, which shares memory where it can."""
    import torch

    if is_torch(value):
        return cast("torch.Tensor", value).detach()
    array = cast("np.ndarray[Any, Any]", value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not _viewable(array):
        array = array.copy()
    if not array.flags.writeable:
        array = np.asarray(_Writable(array))
    return torch.from_numpy(array)


def _viewable(array: np.ndarray[Any, Any]) -> bool:
    """Can torch express the array's strides and alignment?"""
    return array.flags.aligned and all(s >= 0 and s % array.itemsize == 0 for s in array.strides)


def as_numpy(value: torch.Tensor) -> np.ndarray[Any, Any]:
    """A result as a NumPy array; narrow floats that NumPy lacks as float32, which holds them exactly."""
    import torch

    if value.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        value = value.float()
    return cast("np.ndarray[Any, Any]", value.numpy())


def span_of_memory(value: torch.Tensor) -> tuple[int, int]:
    """The bytes [start, end) between the first and the last element."""
    if value.numel() == 0:
        return value.data_ptr(), value.data_ptr()
    reach = sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    return value.data_ptr(), value.data_ptr() + (reach + 1) * value.element_size()


def may_overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """May two tensors share an element? This is decided by the bytes that they span."""
    if a.device != b.device:
        return False
    (a_start, a_end), (b_start, b_end) = span_of_memory(a), span_of_memory(b)
    return a_start < b_end and b_start < a_end


def overlaps_itself(value: torch.Tensor | np.ndarray[Any, Any]) -> bool:
    """May two positions be the same element (an expanded tensor, a sliding window)?"""
    strides = tuple(s // value.itemsize for s in value.strides) if isinstance(value, np.ndarray) else value.stride()
    if 0 in value.shape:
        return False
    reach = 0
    for stride, extent in sorted((abs(s), n) for s, n in zip(strides, value.shape, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += stride * (extent - 1)
    return False


def device_of(tensors: Sequence[torch.Tensor], names: Sequence[str]) -> torch.device:
    """The device that all operands are on; raises `CallError` where they are not on one."""
    import torch

    if not tensors:
        return torch.device("cpu")
    first = tensors[0].device
    for name, t in zip(names, tensors, strict=True):
        if t.device != first:
            raise CallError(
                "the operands are on different devices",
                fact=f"{names[0]} is on {first}, {name} on {t.device}",
                hint=f"move them: {name}.to('{first}')",
            )
    return first
