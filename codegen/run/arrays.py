"""Triton's operations on NumPy arrays: those of its own interpreter, corrected.

Floats narrower than 32 bits compute as on a GPU (the interpreter would compute on the bits of bf16), integers keep the
signedness of their type and wrap around, and each thread has its own place in the grid.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime.interpreter import InterpreterBuilder, InterpreterOptions, TensorHandle

from einc.base.types import PRECISIONS, DType
from einc.codegen.executor.contract import precisely

Array = np.ndarray[Any, Any]

# ---------------------------------------------------------------------------------------------------------------------
# Narrow floats: NumPy holds their bits, arithmetic is done in float32

_PRECISE = {name: t for name, t in PRECISIONS.items() if t != t.held}
_NARROW = {
    "bf16": (torch.bfloat16, torch.uint16, np.uint16),
    "fp8e5": (torch.float8_e5m2, torch.uint8, np.uint8),
    "fp8e4nv": (torch.float8_e4m3fn, torch.uint8, np.uint8),
}


def _widen(bits: Array, name: str) -> Array:
    """Narrow floats as float32."""
    if name == "bf16":  # the upper half of a float32
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    wide = torch.from_numpy(np.ascontiguousarray(bits)).view(_NARROW[name][0]).float()
    return wide.numpy().reshape(bits.shape)


def _narrow(data: Array, name: str) -> Array:
    """The bits of the nearest narrow floats, ties to even."""
    if name == "bf16" and data.dtype == np.float32:
        whole = np.ascontiguousarray(data).view(np.uint32).reshape(data.shape)
        rounded = (whole + np.uint32(0x7FFF) + ((whole >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        return np.where(np.isnan(data), np.uint32(0x7FC0), rounded).astype(np.uint16)
    dtype, bits, _ = _NARROW[name]
    data = np.ascontiguousarray(data)
    return torch.from_numpy(data).to(dtype).view(bits).numpy().reshape(data.shape)


def bits_of(handle: TensorHandle) -> str:
    """The name of the narrow type whose bits the handle holds, or nothing."""
    name: str = handle.dtype.scalar.name
    return name if name in _NARROW and handle.data.dtype == _NARROW[name][2] else ""


def _wide(handle: TensorHandle) -> TensorHandle:
    name = bits_of(handle)
    return TensorHandle(_widen(handle.data, name), tl.float32) if name else handle


def _precisely(x: Array, y: Array, product: DType) -> tuple[Array, Array]:
    """Both sides of a dot of f32 as they are multiplied less precisely."""
    left, right = (torch.from_numpy(np.ascontiguousarray(a)) for a in (x[..., None], y[..., None, :, :]))
    axis = left.ndim - 2
    sizes = tuple(left.shape[d] if d == axis else 1 for d in range(left.ndim))
    first, second, _ = precisely(left, right, (axis,), sizes, product)
    return first[..., 0].numpy(), second[..., 0, :, :].numpy()


# ---------------------------------------------------------------------------------------------------------------------
# The interpreter's operations


class Builder(InterpreterBuilder):  # type: ignore[misc]  # untyped
    """Triton's operations on NumPy arrays; the position in the grid is each thread's own."""

    def __init__(self) -> None:
        super().__init__()
        self.options = replace(
            InterpreterOptions(),
            sanitize_overflow=False,
            default_dot_input_precision="ieee",
            allowed_dot_input_precisions=("ieee", *_PRECISE),
        )
        self.place = threading.local()

    def create_get_program_id(self, axis: int) -> TensorHandle:
        return TensorHandle(np.array([self.place.program if axis == 0 else 0], np.int32), tl.int32)

    def create_get_num_programs(self, axis: int) -> TensorHandle:
        return TensorHandle(np.array([self.place.programs if axis == 0 else 1], np.int32), tl.int32)

    def binary_op(self, lhs: TensorHandle, rhs: TensorHandle, op: Callable[[Array, Array], Array]) -> TensorHandle:
        name = bits_of(lhs)
        if not name:
            return super().binary_op(lhs, rhs, op)
        result = op(_widen(lhs.data, name), _widen(rhs.data, name))
        return TensorHandle(result if result.dtype == np.bool_ else _narrow(result, name), lhs.dtype.scalar)

    def unary_op(self, arg: TensorHandle, op: Callable[[Array], Array]) -> TensorHandle:
        name = bits_of(arg)
        if not name:
            return super().unary_op(arg, op)
        return TensorHandle(_narrow(op(_widen(arg.data, name)), name), arg.dtype.scalar)

    def create_rsqrt(self, arg: TensorHandle) -> TensorHandle:
        return TensorHandle((1 / np.sqrt(arg.data)).astype(arg.data.dtype), arg.dtype.scalar)

    def create_erf(self, arg: TensorHandle) -> TensorHandle:
        return self.unary_op(arg, lambda x: torch.erf(torch.from_numpy(np.ascontiguousarray(x))).numpy())

    def create_umulhi(self, lhs: TensorHandle, rhs: TensorHandle) -> TensorHandle:
        """The upper half of a product of 32-bit integers; for 64-bit integers, Triton's own."""
        if lhs.data.dtype.itemsize == 8:
            return super().create_umulhi(lhs, rhs)
        upper = (lhs.data.astype(np.uint64) * rhs.data.astype(np.uint64)) >> np.uint64(32)
        return TensorHandle(upper.astype(np.uint32), lhs.dtype.scalar)

    def get_bf16(self, value: float) -> TensorHandle:
        return TensorHandle(_narrow(np.array([value], np.float32), "bf16"), tl.bfloat16)

    def cast_impl(self, src: TensorHandle, dst_type: Any) -> TensorHandle:
        dst = dst_type.scalar
        if bits_of(src):
            src = _wide(src)
        if dst.name not in _NARROW:
            return super().cast_impl(src, dst)
        data = src.data if src.data.dtype in (np.float16, np.float64) else src.data.astype(np.float32)
        return TensorHandle(_narrow(data, dst.name), dst)

    def create_fp_to_fp(self, src: TensorHandle, dst_type: Any, rounding_mode: object) -> TensorHandle:  # noqa: ARG002
        return self.cast_impl(src, dst_type)

    def create_fp_to_ui(self, src: TensorHandle, dst_type: Any) -> TensorHandle:
        return super().cast_impl(TensorHandle(src.data.astype(np.uint64), tl.uint64), dst_type)

    def create_dot(
        self, a: TensorHandle, b: TensorHandle, d: TensorHandle, input_precision: object, max_num_imprecise_acc: int
    ) -> TensorHandle:
        del max_num_imprecise_acc  # every sum is in the accumulator's type
        x, y = (_wide(h).data.astype(d.data.dtype, copy=False) for h in (a, b))
        product = _PRECISE.get(str(input_precision).rpartition(".")[2].lower())
        if product is not None and x.dtype == np.float32:
            x, y = _precisely(x, y, product)
        return TensorHandle(np.matmul(x, y) + d.data, d.dtype.scalar)


class Tensor(core.tensor):  # type: ignore[misc]  # untyped
    """A Triton tensor whose operators have the interpreter's semantics."""

    def __init__(self, handle: TensorHandle, type: Any) -> None:  # noqa: A002
        super().__init__(_signed(handle, type), type)

    def __bool__(self) -> bool:
        return bool(self.handle.data.item()) if self.handle.data.size == 1 else True

    def __index__(self) -> int:
        return int(self.handle.data.item())


class _Semantic(TritonSemantic):  # type: ignore[misc]  # untyped
    tensor = Tensor


_BUILDER = Builder()
PLACE = _BUILDER.place  # this thread's program, and the number of programs
_SEMANTIC = _Semantic(_BUILDER)


def _signed(handle: TensorHandle, type_: Any) -> TensorHandle:
    """The handle with the data type of its type: Triton's IR drops signedness, and truth values may be numbers."""
    scalar = type_.scalar
    if not isinstance(handle, TensorHandle) or not scalar.is_int():
        return handle
    data = handle.data
    if scalar.is_bool():
        return handle if data.dtype == np.bool_ and handle.dtype == scalar else TensorHandle(data != 0, scalar)
    wanted = np.dtype(f"{'u' if scalar.is_int_unsigned() else 'i'}{data.dtype.itemsize}")
    return handle if data.dtype in (wanted, np.bool_) else TensorHandle(data.view(wanted), scalar)


def _adopted(result: Any) -> Any:
    """The result with every plain tensor in it as a `Tensor` of this module."""
    if type(result) is core.tensor:
        result.__class__ = Tensor
        result.handle = _signed(result.handle, result.type)
    elif type(result) is tuple:
        return tuple(_adopted(r) for r in result)
    return result


def bound(builtin: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the language, bound to the interpreter's semantics."""

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs["_semantic"] = _SEMANTIC
        return _adopted(builtin(*args, **kwargs))

    return call


for _name, _member in inspect.getmembers(core.tensor, core.is_builtin):
    setattr(Tensor, _name, bound(_member))


def _transposed(self: Tensor) -> Any:
    return bound(core.permute)(self, *reversed(range(len(self.shape))))


Tensor.T = property(_transposed)


def from_array(data: Array, dtype: Any) -> Tensor:
    """An array as a tensor; without dimensions, a scalar."""
    if data.ndim == 0:
        return Tensor(TensorHandle(data.reshape(1), dtype), dtype)
    return Tensor(TensorHandle(data, dtype), tl.block_type(dtype, list(data.shape)))
