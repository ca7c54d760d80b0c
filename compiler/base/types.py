"""Element types and how they combine: NumPy's promotion for einsum strings, the language's own for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from struct import Struct
from typing import Literal

Kind = Literal["b", "i", "u", "f", "c"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: `name` as programs write it (`bf16`), `kind`, width in bits."""

    name: str
    kind: Kind
    bits: int

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        """Bytes of one element in memory."""
        return max(self.bits // 8, 1)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def is_int(self) -> bool:
        return self.kind in "iu"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def limits(self) -> tuple[int, int]:
        """The least and greatest integer of an integer type; positions are as in 64 bits."""
        bits = self.bits or 64
        return (0, (1 << bits) - 1) if self.kind == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)

    @property
    def part(self) -> DType:
        """The type of the real and imaginary part of a complex type; any other type is its own part."""
        return {"c64": F32, "c128": F64}.get(self.name, self)

    @property
    def held(self) -> DType:
        """The type of the values that are multiplied in this one: f32 for a precision of f32, else the type itself."""
        return F32 if self in PRECISIONS.values() else self


BOOL = DType("bool", "b", 8)
I8, I16, I32, I64 = (DType(f"i{n}", "i", n) for n in (8, 16, 32, 64))
U8, U16, U32, U64 = (DType(f"u{n}", "u", n) for n in (8, 16, 32, 64))
F16, F32, F64 = (DType(f"f{n}", "f", n) for n in (16, 32, 64))
BF16 = DType("bf16", "f", 16)
F8E4M3, F8E5M2 = DType("f8e4m3", "f", 8), DType("f8e5m2", "f", 8)
C64, C128 = DType("c64", "c", 64), DType("c128", "c", 128)

# What contractions of f32 may multiply in; no value has such a type. Sides are cut to the 10 bits of a mantissa that
# the units of tf32 take, or are each two numbers of such a type, of whose four products the least is left out.
TF32, TF32X3, BF16X3 = (DType(name, "f", 32) for name in ("tf32", "tf32x3", "bf16x3"))

# Literals, axis values, extents and scalar parameters are weak: they take the type of what they combine with.
INT, FLOAT = DType("int", "i", 0), DType("float", "f", 0)

ALL = (BOOL, I8, I16, I32, I64, U8, U16, U32, U64, F8E4M3, F8E5M2, F16, BF16, F32, F64, C64, C128)
_SINGLE, _LARGEST = Struct("<f"), float.fromhex("0x1.fffffep127")
BY_NAME = {t.name: t for t in ALL}
PRECISIONS = {"exact": F32, "tf32": TF32, "tf32x3": TF32X3, "bf16x3": BF16X3}  # by the names that users give them


def settle(t: DType) -> DType:
    """The type that a weak type becomes if it meets no strong one: i64 or f32."""
    return {"int": I64, "float": F32}.get(t.name, t)


def compute(t: DType) -> DType:
    """The type that arithmetic is done in: f32 for narrow floats, else the type itself."""
    return F32 if t.is_float and t.bits < 32 else t.held


def ranged(value: float, t: DType) -> float:
    """A number in the range of arithmetic in a float type, which one beyond it rounds to."""
    if compute(t) != F32:
        return value
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return value if rounded and abs(value) <= _LARGEST else rounded


def accumulator(t: DType) -> DType:
    """The type that a sum or product accumulates in: floats at least f32, integers at least i32, booleans i64."""
    if t.is_bool:
        return I64
    if t.is_int and t.bits < 32:
        return I32
    return compute(t)


def join(a: DType, b: DType) -> DType:
    """The common type of two operands of a program: floats of any width win over integers, the wider over the narrower.

    Weak types give way to strong ones of their kind or a higher one. bf16 and f16 join to f32, a signed and an unsigned
    integer to a signed one that holds both (at most i64).
    """
    if a == b:
        return a
    order = "biufc"
    if INT in (a, b) and a.is_int and b.is_int:
        return a if b == INT else b
    if a.is_int and b.is_int and a.kind != b.kind:
        signed, unsigned = (a, b) if a.kind == "i" else (b, a)
        bits = max(signed.bits, min(2 * unsigned.bits, 64))
        return BY_NAME[f"i{bits}"]
    if a.kind != b.kind:
        low, high = sorted((a, b), key=lambda t: order.index(t.kind))
        return C128 if high == C64 and low == F64 else high
    if a.bits == b.bits:  # bf16 with f16, or the two 8-bit floats
        return F32 if a.bits == 16 else F16
    return a if a.bits > b.bits else b


def numpy_join(a: DType, b: DType) -> DType:
    """NumPy's `promote_types`. bf16 and the 8-bit floats, which NumPy lacks, win over integers, as in PyTorch."""
    if a == b:
        return a
    if a.kind == b.kind or a.is_bool or b.is_bool:
        return join(a, b)
    low, high = sorted((a, b), key=lambda t: "biufc".index(t.kind))
    if low.is_int and high in (BF16, F8E4M3, F8E5M2):
        return high
    if low.is_int and high.is_int:
        return join(a, b) if high.bits < 64 else F64
    if low.is_int:
        need = F16 if low.bits == 8 else F32 if low.bits == 16 else F64
        if high.is_complex:
            return C128 if need == F64 else high
        return join(need, high)
    return join(low, high) if low != F64 else C128


def numpy_result(types: Iterable[DType]) -> DType:
    """NumPy's `result_type`: the highest kind joins first, so that i16, u16 and f32 give f32 and not f64."""
    return reduce(numpy_join, sorted(types, key=lambda t: "biufc".index(t.kind), reverse=True))
