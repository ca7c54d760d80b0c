"""Kernels run by Triton's interpreter, in this process, beside compiled ones.

Triton interprets a kernel by rewriting `triton.language` for everybody while it runs. Here nothing of Triton changes: a
kernel's code runs with globals of its own, in which the language's functions are bound to the interpreter's semantics.
So runs may nest and may overlap in threads, and other kernels compile as ever.

Beyond Triton's interpreter: floats narrower than 32 bits compute as on a GPU (it computes on the bits of bf16),
reductions are vectorised for every combine function, and integers wrap around.
"""

from __future__ import annotations

import inspect
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, InterpreterOptions, TensorHandle
from triton.runtime.jit import JITFunction, mangle_type

Array = np.ndarray[Any, Any]

# ---------------------------------------------------------------------------------------------------------------------
# Narrow floats: NumPy holds their bits, arithmetic is done in float32

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


def _bits_of(handle: TensorHandle) -> str:
    """The name of the narrow type whose bits the handle holds, or nothing."""
    name: str = handle.dtype.scalar.name
    return name if name in _NARROW and handle.data.dtype == _NARROW[name][2] else ""


def _wide(handle: TensorHandle) -> TensorHandle:
    name = _bits_of(handle)
    return TensorHandle(_widen(handle.data, name), tl.float32) if name else handle


# ---------------------------------------------------------------------------------------------------------------------
# The interpreter's operations


class _Builder(InterpreterBuilder):  # type: ignore[misc]  # untyped
    """Triton's operations on NumPy arrays; the position in the grid is each thread's own."""

    def __init__(self) -> None:
        super().__init__()
        self.options = replace(InterpreterOptions(), sanitize_overflow=False, default_dot_input_precision="ieee")
        self.place = threading.local()

    def create_get_program_id(self, axis: int) -> TensorHandle:
        return TensorHandle(np.array([self.place.program if axis == 0 else 0], np.int32), tl.int32)

    def create_get_num_programs(self, axis: int) -> TensorHandle:
        return TensorHandle(np.array([self.place.programs if axis == 0 else 1], np.int32), tl.int32)

    def binary_op(self, lhs: TensorHandle, rhs: TensorHandle, op: Callable[[Array, Array], Array]) -> TensorHandle:
        name = _bits_of(lhs)
        if not name:
            return super().binary_op(lhs, rhs, op)
        result = op(_widen(lhs.data, name), _widen(rhs.data, name))
        return TensorHandle(result if result.dtype == np.bool_ else _narrow(result, name), lhs.dtype.scalar)

    def unary_op(self, arg: TensorHandle, op: Callable[[Array], Array]) -> TensorHandle:
        name = _bits_of(arg)
        if not name:
            return super().unary_op(arg, op)
        return TensorHandle(_narrow(op(_widen(arg.data, name)), name), arg.dtype.scalar)

    def create_rsqrt(self, arg: TensorHandle) -> TensorHandle:
        return TensorHandle((1 / np.sqrt(arg.data)).astype(arg.data.dtype), arg.dtype.scalar)

    def create_erf(self, arg: TensorHandle) -> TensorHandle:
        return self.unary_op(arg, lambda x: torch.erf(torch.from_numpy(np.ascontiguousarray(x))).numpy())

    def create_umulhi(self, lhs: TensorHandle, rhs: TensorHandle) -> TensorHandle:
        """The upper half of a product of 32-bit integers; of 64-bit ones as Triton does it."""
        if lhs.data.dtype.itemsize == 8:
            return super().create_umulhi(lhs, rhs)
        upper = (lhs.data.astype(np.uint64) * rhs.data.astype(np.uint64)) >> np.uint64(32)
        return TensorHandle(upper.astype(np.uint32), lhs.dtype.scalar)

    def get_bf16(self, value: float) -> TensorHandle:
        return TensorHandle(_narrow(np.array([value], np.float32), "bf16"), tl.bfloat16)

    def cast_impl(self, src: TensorHandle, dst_type: Any) -> TensorHandle:
        dst = dst_type.scalar
        if _bits_of(src):
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
        del input_precision, max_num_imprecise_acc  # every product is exact, every sum in the accumulator's type
        x, y = (_wide(h).data.astype(d.data.dtype, copy=False) for h in (a, b))
        return TensorHandle(np.matmul(x, y) + d.data, d.dtype.scalar)


class Tensor(core.tensor):  # type: ignore[misc]  # untyped
    """A Triton tensor whose operators know the interpreter's semantics."""

    def __init__(self, handle: TensorHandle, type: Any) -> None:  # noqa: A002
        super().__init__(_signed(handle, type), type)

    def __bool__(self) -> bool:
        return bool(self.handle.data.item()) if self.handle.data.size == 1 else True

    def __index__(self) -> int:
        return int(self.handle.data.item())


class _Semantic(TritonSemantic):  # type: ignore[misc]  # untyped
    tensor = Tensor


_BUILDER = _Builder()
_SEMANTIC = _Semantic(_BUILDER)


def _signed(handle: TensorHandle, type_: Any) -> TensorHandle:
    """The handle as its type says: signedness is nothing that Triton's IR keeps, truth may come as numbers."""
    scalar = type_.scalar
    if not isinstance(handle, TensorHandle) or not scalar.is_int():
        return handle
    data = handle.data
    if scalar.is_bool():
        return handle if data.dtype == np.bool_ and handle.dtype == scalar else TensorHandle(data != 0, scalar)
    wanted = np.dtype(f"{'u' if scalar.is_int_unsigned() else 'i'}{data.dtype.itemsize}")
    return handle if data.dtype in (wanted, np.bool_) else TensorHandle(data.view(wanted), scalar)


def _adopted(result: Any) -> Any:
    """The result with every plain tensor in it made one of ours."""
    if type(result) is core.tensor:
        result.__class__ = Tensor
        result.handle = _signed(result.handle, result.type)
    elif type(result) is tuple:
        return tuple(_adopted(r) for r in result)
    return result


def _bound(builtin: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the language, bound to the interpreter's semantics."""

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs["_semantic"] = _SEMANTIC
        return _adopted(builtin(*args, **kwargs))

    return call


for _name, _member in inspect.getmembers(core.tensor, core.is_builtin):
    setattr(Tensor, _name, _bound(_member))


def _transposed(self: Tensor) -> Any:
    return _bound(core.permute)(self, *reversed(range(len(self.shape))))


Tensor.T = property(_transposed)

# ---------------------------------------------------------------------------------------------------------------------
# What a kernel sees


class _Language:
    """A module of the language, its functions translated when first asked for."""

    def __init__(self, module: types.ModuleType) -> None:
        self.__dict__["module"] = module

    def __getattr__(self, name: str) -> Any:
        value = _translated(getattr(self.module, name))
        self.__dict__[name] = value
        return value


def _range(start: Any, stop: Any = None, step: Any = 1, **options: object) -> Iterator[int]:
    """Positions of a loop; what `tl.range` tells the compiler besides is of no use here."""
    del options
    first, last = (0, start) if stop is None else (start, stop)
    return iter(range(*(int(x.value if isinstance(x, tl.constexpr) else x) for x in (first, last, step))))


def _assert(condition: Any, message: str = "") -> None:
    assert condition, message


def _same(x: Any, *hint: object) -> Any:
    del hint
    return x


def _reduce(x: Any, axis: Any, combine: Callable[..., Any], keep_dims: bool = False) -> Any:
    """`tl.reduce`: neighbours are combined until one is left, so the order of operands is kept."""
    inputs = x if isinstance(x, tuple | tl.tuple) else (x,)
    axis = axis.value if isinstance(axis, tl.constexpr) else axis
    arrays = [t.handle.data.reshape(-1) if axis is None else t.handle.data for t in inputs]
    at = 0 if axis is None else axis
    if combine is _function(tl.standard._sum_combine) and not _bits_of(inputs[0].handle):
        arrays = [np.sum(arrays[0], axis=at, keepdims=True, dtype=arrays[0].dtype)]
    while arrays[0].shape[at] > 1:
        even, odd = (np.s_[(slice(None),) * (at % arrays[0].ndim) + (slice(k, None, 2),)] for k in (0, 1))
        halves = [_tensor(a[part], t.dtype) for part in (even, odd) for a, t in zip(arrays, inputs, strict=True)]
        combined = combine(*halves)
        arrays = [c.handle.data for c in (combined if isinstance(combined, tuple) else (combined,))]
    if not keep_dims:
        arrays = [np.squeeze(a, axis=at) for a in arrays]
    elif axis is None:
        arrays = [a.reshape((1,) * len(inputs[0].shape)) for a in arrays]
    found = tuple(_tensor(a, t.dtype) for a, t in zip(arrays, inputs, strict=True))
    return found if isinstance(x, tuple | tl.tuple) else found[0]


def _reduce_with_indices(x: Any, axis: Any, combine: Callable[..., Any], keep_dims: bool = False) -> Any:
    """What `tl.argmax` and its like are made of: values with their positions along the axis."""
    places = np.arange(x.handle.data.shape[axis], dtype=np.int32)
    places = places.reshape(-1, *(1,) * (x.handle.data.ndim - axis - 1))
    return _reduce((x, _tensor(np.broadcast_to(places, x.handle.data.shape), tl.int32)), axis, combine, keep_dims)


def _tensor(data: Array, dtype: Any) -> Tensor:
    """An array as a tensor; without dimensions, a scalar."""
    if data.ndim == 0:
        return Tensor(TensorHandle(data.reshape(1), dtype), dtype)
    return Tensor(TensorHandle(data, dtype), tl.block_type(dtype, list(data.shape)))


_REPLACED: dict[Any, Any] = {
    core.reduce: _reduce,
    core._reduce_with_indices: _reduce_with_indices,
    core.range: _range,
    core.static_range: _range,
    core.static_assert: _assert,
    core.device_assert: _assert,
    core.static_print: print,
    core.multiple_of: _same,
    core.max_contiguous: _same,
    core.max_constancy: _same,
    core.assume: _same,
}
_FUNCTIONS: weakref.WeakKeyDictionary[types.FunctionType, Callable[..., Any]] = weakref.WeakKeyDictionary()
_MAKING: dict[types.FunctionType, Callable[..., Any]] = {}
_LANGUAGES: dict[str, _Language] = {}
_LOCK = threading.RLock()


def _translated(value: Any) -> Any:
    """A global of a kernel as the interpreter has it."""
    if isinstance(value, types.ModuleType) and value.__name__.startswith("triton.language"):
        return _LANGUAGES.setdefault(value.__name__, _Language(value))
    if isinstance(value, JITFunction | InterpretedFunction):
        return _function(value)
    if isinstance(value, tl.constexpr):
        return value.value
    try:
        if value in _REPLACED:
            return _REPLACED[value]
    except TypeError:  # not hashable
        return value
    return _bound(value) if core.is_builtin(value) else value


def _function(jit: Any) -> Callable[..., Any]:
    """The Python function of a `@triton.jit` function over translated globals."""
    raw: types.FunctionType = jit.fn
    found = _FUNCTIONS.get(raw)
    if found is None:
        with _LOCK:
            found = _FUNCTIONS.get(raw) or _MAKING.get(raw) or _made(raw)
    return found


def _made(raw: types.FunctionType) -> Callable[..., Any]:
    """A new function; it, and those it calls, are seen by others once all of them are complete."""
    outermost = not _MAKING
    scope: dict[str, Any] = {"__builtins__": __builtins__, "__name__": raw.__module__}
    function = types.FunctionType(raw.__code__, scope, raw.__name__, raw.__defaults__, raw.__closure__)
    function.__kwdefaults__, function.__annotations__ = raw.__kwdefaults__, raw.__annotations__
    _MAKING[raw] = function
    try:
        for name in _names(raw.__code__) & raw.__globals__.keys():
            scope[name] = _translated(raw.__globals__[name])
        if outermost:
            _FUNCTIONS.update(_MAKING)
    finally:
        if outermost:
            _MAKING.clear()
    return function


def _names(code: types.CodeType) -> set[str]:
    """The names that code refers to, in functions within it too."""
    below = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*below)


# ---------------------------------------------------------------------------------------------------------------------
# Running


def run(kernel: Any, programs: int, *args: Any, **meta: Any) -> None:
    """Run a `@triton.jit` kernel on CPU tensors, one program of the 1-D grid after the other.

    `meta` gives constexpr arguments by name; launch options (`num_warps` and the like) do not matter here.
    """
    function = _function(kernel)
    names = inspect.signature(function).parameters
    given = dict(zip(names, args, strict=False)) | {k: v for k, v in meta.items() if k in names}
    values = {k: v if _is_constexpr(names[k]) else _argument(v, names[k].annotation) for k, v in given.items()}
    place = _BUILDER.place
    before = place.__dict__.copy()
    try:
        with np.errstate(all="ignore"):
            place.programs = programs
            for place.program in range(programs):
                function(**values)
    finally:
        place.__dict__.clear()
        place.__dict__.update(before)


def _is_constexpr(parameter: inspect.Parameter) -> bool:
    return "constexpr" in str(parameter.annotation)


def _argument(value: Any, annotation: Any) -> Any:
    """An argument as the tensor that a compiled kernel would receive."""
    if value is None:
        return None
    dtype = annotation if isinstance(annotation, tl.dtype) else tl.str_to_ty(mangle_type(value), None)
    if hasattr(value, "data_ptr"):
        return Tensor(TensorHandle(np.array([value.data_ptr()], np.uint64), dtype), dtype)
    return _bound(core.full)((), value, dtype)
