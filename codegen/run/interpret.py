"""Run kernels by Triton's interpreter, in the same process as compiled ones.

Triton interprets a kernel by patching `triton.language` for the whole process while it runs. Here Triton stays as it
is: a kernel's code runs with globals of its own, in which the language's functions are bound to the interpreter's
semantics. So runs may nest or overlap in threads, and other kernels compile as usual. Reductions are vectorised,
whatever their combine function.
"""

from __future__ import annotations

import inspect
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import triton.language as tl
from triton.language import core
from triton.runtime.interpreter import InterpretedFunction, TensorHandle
from triton.runtime.jit import JITFunction, mangle_type

from einc.codegen.run.arrays import PLACE, Tensor, bits_of, bound, from_array

# ---------------------------------------------------------------------------------------------------------------------
# What a kernel sees


class _Language:
    """A module of the language, with its functions translated at their first use."""

    def __init__(self, module: types.ModuleType) -> None:
        self.__dict__["module"] = module

    def __getattr__(self, name: str) -> Any:
        value = _translated(getattr(self.module, name))
        self.__dict__[name] = value
        return value


class _Device:
    """The device's library of functions, as NumPy has them under the same names."""

    def __getattr__(self, name: str) -> Any:
        return lambda *xs: from_array(getattr(np, name)(*(x.handle.data for x in xs)), xs[0].dtype)


_DEVICE = _Device()


def _range(start: Any, stop: Any = None, step: Any = 1, **options: object) -> Iterator[int]:
    """Positions of a loop; the options of `tl.range` for the compiler do not matter here."""
    del options
    first, last = (0, start) if stop is None else (start, stop)
    return iter(range(*(int(x.value if isinstance(x, tl.constexpr) else x) for x in (first, last, step))))


def _assert(condition: Any, message: str = "") -> None:
    assert condition, message


def _same(x: Any, *hint: object) -> Any:
    del hint
    return x


def _reduce(x: Any, axis: Any, combine: Callable[..., Any], keep_dims: bool = False) -> Any:
    """`tl.reduce`: neighbours are combined until one is left, which keeps the order of operands."""
    inputs = x if isinstance(x, tuple | tl.tuple) else (x,)
    axis = axis.value if isinstance(axis, tl.constexpr) else axis
    arrays = [t.handle.data.reshape(-1) if axis is None else t.handle.data for t in inputs]
    at = 0 if axis is None else axis
    if combine is _function(tl.standard._sum_combine) and not bits_of(inputs[0].handle):
        arrays = [np.sum(arrays[0], axis=at, keepdims=True, dtype=arrays[0].dtype)]
    while arrays[0].shape[at] > 1:
        even, odd = (np.s_[(slice(None),) * (at % arrays[0].ndim) + (slice(k, None, 2),)] for k in (0, 1))
        halves = [from_array(a[part], t.dtype) for part in (even, odd) for a, t in zip(arrays, inputs, strict=True)]
        combined = combine(*halves)
        arrays = [c.handle.data for c in (combined if isinstance(combined, tuple) else (combined,))]
    if not keep_dims:
        arrays = [np.squeeze(a, axis=at) for a in arrays]
    elif axis is None:
        arrays = [a.reshape((1,) * len(inputs[0].shape)) for a in arrays]
    found = tuple(from_array(a, t.dtype) for a, t in zip(arrays, inputs, strict=True))
    return found if isinstance(x, tuple | tl.tuple) else found[0]


def _reduce_with_indices(x: Any, axis: Any, combine: Callable[..., Any], keep_dims: bool = False) -> Any:
    """The reduction behind `tl.argmax` and the like: values with their positions along the axis."""
    places = np.arange(x.handle.data.shape[axis], dtype=np.int32)
    places = places.reshape(-1, *(1,) * (x.handle.data.ndim - axis - 1))
    return _reduce((x, from_array(np.broadcast_to(places, x.handle.data.shape), tl.int32)), axis, combine, keep_dims)


def _scan(x: Any, axis: Any, combine: Callable[..., Any], reverse: bool = False) -> Any:
    """`tl.associative_scan`: each position is combined with those 1, 2, 4, ... before it, which keeps the order."""
    inputs = x if isinstance(x, tuple | tl.tuple) else (x,)
    at = axis.value if isinstance(axis, tl.constexpr) else axis
    back = reverse.value if isinstance(reverse, tl.constexpr) else reverse
    arrays = [np.flip(t.handle.data, at) if back else t.handle.data for t in inputs]
    lead = (slice(None),) * (at % arrays[0].ndim)
    step = 1
    while step < arrays[0].shape[at]:
        earlier = [from_array(np.roll(a, step, at), t.dtype) for a, t in zip(arrays, inputs, strict=True)]
        later = [from_array(a, t.dtype) for a, t in zip(arrays, inputs, strict=True)]
        combined = combine(*earlier, *later)
        ends = [c.handle.data for c in (combined if isinstance(combined, tuple) else (combined,))]
        first, rest = (*lead, slice(None, step)), (*lead, slice(step, None))
        arrays = [np.concatenate([a[first], end[rest]], at) for a, end in zip(arrays, ends, strict=True)]
        step *= 2
    arrays = [np.flip(a, at) if back else a for a in arrays]
    found = tuple(from_array(a, t.dtype) for a, t in zip(arrays, inputs, strict=True))
    return found if isinstance(x, tuple | tl.tuple) else found[0]


_REPLACED: dict[Any, Any] = {
    core.reduce: _reduce,
    core.associative_scan: _scan,
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
    """A global of a kernel, translated for the interpreter."""
    if isinstance(value, types.ModuleType) and value.__name__.endswith(".libdevice"):
        return _DEVICE
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
    return bound(value) if core.is_builtin(value) else value


def _function(jit: Any) -> Callable[..., Any]:
    """The Python function of a `@triton.jit` function, with translated globals."""
    raw: types.FunctionType = jit.fn
    found = _FUNCTIONS.get(raw)
    if found is None:
        with _LOCK:
            found = _FUNCTIONS.get(raw) or _MAKING.get(raw) or _made(raw)
    return found


def _made(raw: types.FunctionType) -> Callable[..., Any]:
    """A new function; other threads see it and the functions that it calls once all of them are complete."""
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
    """The names that code refers to, also in functions within it."""
    below = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*below)


# ---------------------------------------------------------------------------------------------------------------------
# Running


def run(kernel: Any, programs: int, *args: Any, **meta: Any) -> None:
    """Run a `@triton.jit` kernel on CPU tensors, one program of the 1-D grid after another.

    `meta` gives constexpr arguments by name; launch options (`num_warps` and the like) do not matter here.
    """
    function = _function(kernel)
    names = inspect.signature(function).parameters
    given = dict(zip(names, args, strict=False)) | {k: v for k, v in meta.items() if k in names}
    values = {k: v if _is_constexpr(names[k]) else _argument(v, names[k].annotation) for k, v in given.items()}
    before = PLACE.__dict__.copy()
    try:
        with np.errstate(all="ignore"):
            PLACE.programs = programs
            for PLACE.program in range(programs):
                function(**values)
    finally:
        PLACE.__dict__.clear()
        PLACE.__dict__.update(before)


class _Described:
    """A descriptor as a kernel sees it: blocks of a tensor, with zeros where it has ended."""

    def __init__(self, descriptor: Any) -> None:
        import torch

        base = descriptor.base
        self.dtype = tl.str_to_ty(mangle_type(base).removeprefix("*"), None)
        self.bits = base.view(torch.int16) if base.dtype == torch.bfloat16 else base
        self.sides = tuple(descriptor.block_shape)

    def load(self, offsets: Any) -> Tensor:
        import torch

        there = self.bits[tuple(slice(int(o), int(o) + n) for o, n in zip(offsets, self.sides, strict=True))]
        block = torch.zeros(self.sides, dtype=self.bits.dtype)
        block[tuple(map(slice, there.shape))] = there
        found = block.numpy()
        return from_array(found.view(np.uint16) if self.dtype is tl.bfloat16 else found, self.dtype)


def _is_constexpr(parameter: inspect.Parameter) -> bool:
    return "constexpr" in str(parameter.annotation)


def _argument(value: Any, annotation: Any) -> Any:
    """An argument as the tensor that a compiled kernel would receive."""
    if value is None:
        return None
    if hasattr(value, "block_shape"):
        return _Described(value)
    dtype = annotation if isinstance(annotation, tl.dtype) else tl.str_to_ty(mangle_type(value), None)
    if hasattr(value, "data_ptr"):
        return Tensor(TensorHandle(np.array([value.data_ptr()], np.uint64), dtype), dtype)
    return bound(core.full)((), value, dtype)
