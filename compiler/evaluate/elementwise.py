"""What each operation of `base.ops` means on NumPy arrays: floats in double precision, integers exactly as typed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einc.base.ops import FUNCTIONS, OPS, Rule, result_type
from einc.base.types import INT, DType, join
from einc.evaluate.philox import uniform

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Value:
    """An array and the type that its elements have in the language."""

    array: Array
    dtype: DType


def storage(t: DType) -> np.dtype[Any]:
    """The NumPy type that holds a type's values: float64 for floats of any width, complex128 for complex numbers."""
    if t.is_bool:
        return np.dtype(bool)
    if t.is_int:
        return np.dtype(f"{'u' if t.kind == 'u' else ''}int{t.bits or 64}")
    return np.dtype(np.complex128 if t.is_complex else np.float64)


def convert(v: Value, t: DType) -> Value:
    """The value in another type: floats are not rounded, integers truncate floats and wrap, a truth value is `!= 0`."""
    if v.dtype == t:
        return v
    return Value(as_stored(v.array, t), t)


def as_stored(x: Array, t: DType) -> Array:
    """The array in the storage of a type."""
    to = storage(t)
    if x.dtype == to:
        return x
    if x.dtype.kind == "c" and to.kind != "c":
        x = x.real
    if to.kind == "b":
        return np.asarray(x != 0)
    if x.dtype.kind == "f" and to.kind in "iu" and to.itemsize < 8:
        x = x.astype(np.int64)  # converting a float that does not fit a narrow type is undefined
    return x.astype(to)


def apply(op: str, args: Sequence[Value], wide: DType | None = None) -> Value:
    """`op` on arguments that are broadcast against each other.

    `wide` is the type of the sum around the operation, whose terms are computed at least as wide.
    """
    t = result_type(op, tuple(a.dtype for a in args))
    if wide is not None and t.is_int:
        t = join(t, wide)
    arrays = [a.array for a in args]
    match OPS[op].rule:
        case Rule.TRUTH:
            return Value(_TRUTH[op](*arrays), t)
        case Rule.LOGIC:
            return Value(_LOGIC[op](*arrays), t)
        case Rule.SELECT:
            condition, a, b = arrays
            return Value(np.where(condition, as_stored(a, t), as_stored(b, t)), t)
        case Rule.RANDOM:
            seed, *index = (as_stored(x, INT) for x in arrays)
            return Value(np.asarray(uniform(seed, index)), t)
        case Rule.PART:
            return Value(np.asarray(arrays[0].real if op == "re" else arrays[0].imag), t)
        case Rule.COMPLEX:
            return Value(_complex(*arrays), t)
        case Rule.SIZE:
            return Value(np.asarray(np.abs(arrays[0] if arrays[0].dtype.kind == "c" else as_stored(arrays[0], t))), t)
        case _:
            return Value(np.asarray(_NUMERIC[op](*(as_stored(x, t) for x in arrays))), t)


def _erf(x: Array) -> Array:
    found = np.empty(x.shape)
    flat, given = found.reshape(-1), x.reshape(-1)
    for start in range(0, flat.size, 1 << 16):
        part = slice(start, start + (1 << 16))
        flat[part] = [math.erf(v) for v in given[part].tolist()]
    return found


def _pow(a: Array, b: Array) -> Array:
    """Powers; an integer to a negative power is rounded to zero, and so 1, -1 or 0."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.power(a, b))
    odd = b % 2 != 0
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0)).astype(a.dtype)
    return np.where(b < 0, inverse, np.power(a, np.maximum(b, 0)))


def _floor_divide(a: Array, b: Array) -> Array:
    return np.asarray(a // b)


def _complex(re: Array, im: Array) -> Array:
    """A complex number, part by part: in re + i * im, an infinite part would make the other NaN."""
    found = np.empty(np.broadcast_shapes(re.shape, im.shape), np.complex128)
    found.real, found.imag = re, im
    return found


def _whole(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A rounding function that leaves integers as they are."""
    return lambda x: f(x) if x.dtype.kind == "f" else x


_TRUTH: dict[str, Callable[..., Array]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip
_LOGIC: dict[str, Callable[..., Array]] = {"and": np.logical_and, "or": np.logical_or, "not": np.logical_not}
_NUMERIC: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "exactdiv": _floor_divide,
    "floordiv": _floor_divide, "mod": np.remainder, "pow": _pow, "neg": np.negative,
    "conj": np.conj, "floor": _whole(np.floor), "ceil": _whole(np.ceil), "round": _whole(np.rint),
    "max": np.maximum, "min": np.minimum,
    "rsqrt": lambda x: 1 / np.sqrt(x), "erf": _erf, "atan2": np.arctan2,
    **{name: getattr(np, name) for name in FUNCTIONS if name not in ("rsqrt", "erf")},
}  # fmt: skip
