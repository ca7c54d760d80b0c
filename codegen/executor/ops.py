"""The scalar operations of the language on torch tensors, as the emitted kernels compute them.

Tensors hold elements in a type that torch computes in: narrow floats as float32, rounded after every operation, and
unsigned integers that torch lacks as int64, u64 by its bits. Division by an integer zero gives 0 and never traps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from einc.base.ops import FUNCTIONS
from einc.base.types import F32, DType, ranged
from einc.evaluate.philox import FOLD

Function = Callable[..., Tensor]

_LEAST = -(1 << 63)

HELD = {
    "bool": torch.bool, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
    "int": torch.int64, "u8": torch.uint8, "u16": torch.int64, "u32": torch.int64, "u64": torch.int64,
    "f8e4m3": torch.float32, "f8e5m2": torch.float32, "f16": torch.float32, "bf16": torch.float32,
    "f32": torch.float32, "float": torch.float32, "f64": torch.float64,
}  # fmt: skip
NARROW = {
    "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2, "f16": torch.float16, "bf16": torch.bfloat16,
}  # fmt: skip
STORED = {name: held for name, held in HELD.items() if name not in ("int", "float")} | NARROW | {
    "u16": torch.uint16, "u32": torch.uint32, "u64": torch.uint64, "c64": torch.complex64, "c128": torch.complex128,
}  # fmt: skip
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_EXACT = ("neg", "abs", "floor", "ceil", "round", "max", "min", "where")  # no narrow float needs rounding after these


def held(x: Tensor, t: DType) -> Tensor:
    """A tensor from memory in the type that its elements are computed in."""
    if x.dtype in _SIGNED:
        return wrapped(x.view(_SIGNED[x.dtype]).to(torch.int64), t)
    return x.to(HELD[t.name])


def writable(x: Tensor) -> Tensor:
    """The tensor to write to, viewed in a type that torch converts to."""
    return x.view(_SIGNED[x.dtype]) if x.dtype in _SIGNED else x


def wrapped(x: Tensor, t: DType) -> Tensor:
    """Integers held in a wider type, wrapped to the width of their own."""
    return x & ((1 << t.bits) - 1) if t.kind == "u" and 8 < t.bits < 64 else x


def rounded(x: Tensor, t: DType) -> Tensor:
    """Float32 values rounded to a narrower float type, and still held as float32."""
    return x.to(NARROW[t.name]).to(torch.float32) if t.name in NARROW else x


def sums_finitely(x: Tensor) -> bool:
    """Is the sum finite? Then all elements are, which one pass tells; a sum of finite numbers may not be."""
    return bool(x.sum().abs() < math.inf)


def common_shape(xs: Sequence[Tensor]) -> list[int]:
    """The shape that tensors of one rank, or of none, broadcast to."""
    shapes = [x.shape for x in xs if x.ndim]
    return [next((n for n in sizes if n != 1), 1) for sizes in zip(*shapes, strict=True)]


def literal(value: bool | float | str, t: DType) -> bool | int | float:
    """A literal as a Python value; `lowest` and `highest` are those of the type."""
    if isinstance(value, str):
        high = value == "highest"
        if t.is_float:
            return math.inf if high else -math.inf
        if t.is_bool:
            return high
        return -1 if high and t.name == "u64" else t.limits[high]
    if t.is_int:
        n = int(value) & ((1 << (t.bits or 64)) - 1)
        signed = t.kind != "u" or t.bits == 64
        return n - (1 << (t.bits or 64)) if signed and n >> ((t.bits or 64) - 1) else n
    return ranged(float(value), t) if t.is_float else bool(value)


def convert(x: Tensor, have: DType, want: DType) -> Tensor:
    """The elements in another type: floats round to nearest even, floats to integers truncate, integers wrap."""
    if want.is_bool:
        return x != 0
    if want.is_float:
        x = _from_u64(x) if have.name == "u64" else x
        return rounded(x.to(HELD[want.name]), want)
    if want.name == "u64" and have.is_float:
        return torch.where(x >= 2.0**63, (x - 2.0**63).to(torch.int64) ^ _LEAST, x.to(torch.int64))
    return wrapped(x.to(HELD[want.name]), want)


def _from_u64(x: Tensor) -> Tensor:
    half = ((x >> 1) & ~_LEAST) | (x & 1)
    return torch.where(x < 0, half.to(torch.float64) * 2, x.to(torch.float64))


_PLAIN: dict[str, Function] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "max": torch.maximum, "min": torch.minimum,
    "neg": torch.neg, "abs": torch.abs, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
    "atan2": torch.atan2, **{name: getattr(torch, name) for name in FUNCTIONS},
}  # fmt: skip
_TRUTH: dict[str, Function] = {
    "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne,
    "and": torch.logical_and, "or": torch.logical_or, "not": torch.logical_not,
}  # fmt: skip


def function(op: str, t: DType) -> Function:
    """The operation on arguments of a type (except `where` and `rand`)."""
    if op in _TRUTH:
        return _unsigned(_TRUTH[op]) if t.name == "u64" and op not in ("eq", "ne") else _TRUTH[op]
    if t.name == "u64" and op in ("max", "min"):
        return _unsigned(_PLAIN[op], True)
    if op in ("floordiv", "mod", "exactdiv"):
        return _unsigned_divide(op) if t.name == "u64" else _divide(op, t.kind == "i")
    f = _power if op == "pow" and t.is_int else torch.pow if op == "pow" else _PLAIN[op]
    if op in _EXACT and op != "neg":
        return f
    if t.kind == "u" and 8 < t.bits < 64:
        return lambda *args: wrapped(f(*args), t)
    if t.name in NARROW:
        return lambda *args: rounded(f(*args), t)
    return f


def in_place(op: str, t: DType) -> bool:
    """Does `function(op, t)` take `out=`, which may be one of its arguments?"""
    return op in _PLAIN and not (t.kind == "u" and t.bits > 8) and t.name not in NARROW


def _unsigned(f: Function, back: bool = False) -> Function:
    """A function that depends on order, on the bits of u64."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        found = f(a ^ _LEAST, b ^ _LEAST)
        return found ^ _LEAST if back else found

    return run


def _divide(op: str, signed: bool) -> Function:
    """Division of integers that rounds down; by -1 separately, since dividing the least integer by it traps."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        if b.ndim == 0 and int(b) not in (0, -1):
            return torch.remainder(a, b) if op == "mod" else torch.div(a, b, rounding_mode="floor")
        opposite = b == (-1 if signed else 0)
        safe = torch.where((b == 0) | opposite, 1, b)
        if op == "mod":
            return torch.where((b == 0) | opposite, 0, torch.remainder(a, safe))
        found = torch.div(a, safe, rounding_mode="floor")
        return torch.where(b == 0, 0, torch.where(opposite, -a, found))

    return run


def _unsigned_divide(op: str) -> Function:
    """Division of u64, by halving the dividend first."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        safe = torch.where(b == 0, 1, b)
        quotient = torch.div((a >> 1) & ~_LEAST, safe, rounding_mode="trunc") << 1
        quotient = quotient + ((a - quotient * safe) ^ _LEAST).ge(safe ^ _LEAST)
        quotient = torch.where(safe < 0, ((a ^ _LEAST) >= (safe ^ _LEAST)).to(torch.int64), quotient)
        found = quotient if op != "mod" else a - quotient * safe
        return torch.where(b == 0, 0, found)

    return run


def _power(x: Tensor, n: Tensor) -> Tensor:
    """Integer powers, which wrap; a negative exponent gives 1, -1 or 0."""
    inverse = torch.where(x == 1, 1, torch.where(x == -1, 1 - 2 * (n & 1), 0)).to(x.dtype)
    result, base, rest = torch.ones_like(x), x, n.clamp(min=0)
    while bool((rest > 0).any()):
        result = torch.where((rest & 1) != 0, result * base, result)
        base, rest = base * base, rest >> 1
    return torch.where(n < 0, inverse, result)


# ---------------------------------------------------------------------------------------------------------------------
# Random numbers

_WORD = 0xFFFFFFFF
_ROUND_A, _ROUND_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_SCALE = 4.6566127342e-10


def uniform(seed: Tensor, index: Sequence[Tensor]) -> Tensor:
    """The numbers in [0, 1) that `evaluate.philox` defines at these indices."""
    words = [i.to(torch.int64) & _WORD for i in index]
    while len(words) > 4:
        words[:2] = [(words[0] * FOLD + words[1]) & _WORD]
    zero = torch.zeros((), dtype=torch.int64, device=seed.device)
    c0, c1, c2, c3 = (*words, *[zero] * (4 - len(words)))
    seed = seed.to(torch.int64)
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(10):
        a, b = c0 * _ROUND_A, c2 * _ROUND_B  # modulo 2**64, whose halves are all that is wanted
        c0, c1 = ((b >> 32) & _WORD) ^ c1 ^ k0, b & _WORD
        c2, c3 = ((a >> 32) & _WORD) ^ c3 ^ k1, a & _WORD
        k0, k1 = (k0 + _KEY_A) & _WORD, (k1 + _KEY_B) & _WORD
    signed = c0.to(torch.int32)
    return torch.where(signed < 0, -signed - 1, signed).to(HELD[F32.name]) * _SCALE
