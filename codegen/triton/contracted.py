"""What `tl.dot` takes, and the tiles that it is given by target.

Found by compiling, with Triton 3.6.0 and 3.7.1 alike: floats sum in f32 (f64 in f64), i8 in i32. No target takes
unsigned or wider integers. f32 (exact, "ieee") runs on the vector units of NVIDIA's chips, f64 on those of sm_100.
Matrix units take f32 as tf32, of which they read the first 10 bits of the mantissa, or in three products of tf32 or
bf16. On sm_80 Triton 3.6 converts f8e5m2, but in the smallest tiles, by instructions that are not there. Of AMD's chips
only gfx942 has units of tf32, and none takes three products of them.
"""

from __future__ import annotations

from einc.base.targets import Target
from einc.base.types import DType

LEAST = 16  # rows, columns and inner length
_TYPES = frozenset(("f16", "bf16", "f32", "f64", "i8", "bf16x3"))
_WITHOUT = {  # the others, and who lacks them
    "f8e4m3": ("sm_80",),
    "f8e5m2": ("sm_80",),
    "tf32": ("gfx950",),
    "tf32x3": ("gfx942", "gfx950"),
}
_ROWS = 128  # of a program, and columns


def multiplies(target: Target, dtype: DType) -> bool:
    """Does `tl.dot` compile for two operands of this type?"""
    return dtype.name in _TYPES or target.name not in _WITHOUT.get(dtype.name, (target.name,))


def least_inner(dtype: DType) -> int:
    """The shortest inner length of a dot over this type: 256 bits of a row or a column, and at least 16."""
    return 32 if dtype.bits == 8 else LEAST


def block(target: Target, chained: bool) -> int:
    """Rows, and columns, of a contraction that share a program; half as many on NVIDIA's chips where it is chained.

    Both results are then held in registers, with room for a second program.
    """
    return _ROWS // 2 if chained and target.vendor == "cuda" else _ROWS
