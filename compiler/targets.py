"""The machines code is made for: one table of figures that schedules are chosen by and compiled code is checked against."""

from __future__ import annotations

from dataclasses import dataclass

from einc.errors import TargetError, nearest
from einc.types import DType


@dataclass(frozen=True, slots=True)
class Target:
    """A machine. `shared` is bytes of shared memory a program may use; `tile` is the most elements that one tile value
    should have; `dot` caps rows, columns and inner length of a contraction's tile; `vendor` is `cuda`, `hip` or `cpu`;
    `dots` names the operand types of `tl.dot`."""

    name: str
    vendor: str
    arch: int | str
    warp: int
    shared: int
    tile: int
    dot: tuple[int, int, int]
    dots: frozenset[str]

    def takes_dot(self, dtype: DType) -> bool:
        """Does `tl.dot` compile for two operands of this type?"""
        return dtype.name in self.dots

    def least_inner(self, dtype: DType) -> int:
        """The shortest inner length of a dot over this type: 256 bits of a row or a column, and at least 16."""
        return 32 if dtype.bits == 8 else 16


# Found by compiling, with Triton 3.6.0 and 3.7.1 alike: floats sum in f32 (f64 in f64), i8 in i32. No target takes
# unsigned or wider integers. f32 (exact, "ieee") runs on the vector units of NVIDIA's chips, and f64 on those of sm_100.
_DOTS = frozenset(("f16", "bf16", "f32", "f64", "i8", "f8e5m2"))
_ALL_DOTS = _DOTS | {"f8e4m3"}

# Shared memory a block may opt in to: CUDA programming guide, compute capabilities table; AMD: LDS a workgroup.
_TABLE = (
    Target("sm_80", "cuda", 80, 32, 166_912, 4096, (128, 128, 32), _DOTS),
    Target("sm_90", "cuda", 90, 32, 232_448, 4096, (128, 128, 64), _ALL_DOTS),
    Target("sm_100", "cuda", 100, 32, 232_448, 4096, (128, 128, 64), _ALL_DOTS),
    Target("gfx942", "hip", "gfx942", 64, 65_536, 4096, (128, 128, 32), _ALL_DOTS),
    Target("gfx950", "hip", "gfx950", 64, 163_840, 4096, (128, 128, 64), _ALL_DOTS),
    # Triton's interpreter: its cost is per operation, so tiles are as large as memory likes.
    Target("interpret", "cpu", 0, 32, 1 << 62, 1 << 18, (256, 256, 256), _ALL_DOTS),
)
TARGETS = {t.name: t for t in _TABLE}
INTERPRETER = TARGETS["interpret"]


def target(name: str) -> Target:
    """The target of that name; raises `TargetError` for any other."""
    if name in TARGETS:
        return TARGETS[name]
    raise TargetError(
        f"unknown target '{name}'",
        fact=f"known targets: {', '.join(TARGETS)}",
        hint=nearest(name, TARGETS) or "one of the known targets",
    )
