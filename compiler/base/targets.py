"""The machines code is made for: the figures that schedules are chosen by and compiled code is checked against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from einc.base.errors import TargetError, nearest
from einc.base.types import BF16X3, DType


@dataclass(frozen=True, slots=True)
class Rates:
    """What a machine does in a second: FLOPs of f16 on its matrix units and of f32 on its vector units, special
    functions (an exponential is one), bytes to and from memory; the processors that share this between them, each
    with a program of its own; the seconds that a launch costs; whether they do all this `in_turn`, on units that
    contract all floats of up to 32 bits alike, or each on units of its own at the same time; and the bytes of the last
    cache before memory, which they share."""

    matrix: float
    vector: float
    special: float
    memory: float
    processors: int
    launch: float = 4e-6
    in_turn: bool = False
    last_cache: int = 32 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A machine: `vendor` is `cuda`, `hip` or `cpu`, `warp` the threads of a warp; `shared` is bytes of shared memory a
    program may use, `registers` bytes of registers there are for it; `rates` are what plans are compared by. The tiles
    of a program are in these, or in a `cache` of so many bytes, if there is one."""

    name: str
    vendor: str
    arch: int | str
    warp: int
    shared: int
    rates: Rates
    registers: int = 262_144
    cache: int = 0

    @property
    def has_copies(self) -> bool:
        """Does it copy from memory to shared memory while it computes, by vectors or descriptors?"""
        return self.vendor == "cuda"

    @property
    def has_descriptors(self) -> bool:
        """Does it copy blocks of tensors that are described by their shape and strides?"""
        return self.vendor == "cuda" and isinstance(self.arch, int) and self.arch >= 90

    @property
    def has_warpgroups(self) -> bool:
        """Do four warps multiply tiles together, which go on by themselves?"""
        return self.vendor == "cuda" and self.arch == 90

    def dot_rate(self, dtype: DType) -> float:
        """FLOPs a second of a dot over this type: f32 is exact, on the vector units, and f64 there at half the rate.

        Less precise products of f32 go through matrix units, those of tf32 at half the rate of f16, and three of them
        in the place of one take three times as long.
        """
        passes = _PASSES.get(dtype.name, 1)
        if self.rates.in_turn:
            return self.rates.matrix / (2 if dtype.bits == 64 else passes)
        if dtype != dtype.held:
            return self.rates.matrix / passes / (1 if dtype == BF16X3 else 2)
        if dtype.bits >= 32:
            return self.rates.vector / (2 if dtype.bits == 64 else 1)
        return self.rates.matrix * (2 if dtype.bits == 8 else 1)


_PASSES = {"tf32x3": 3, "bf16x3": 3}  # products that take the place of one

# Dense peaks of the vendors' data sheets; special functions: 16 a clock on each multiprocessor.
_A100 = Rates(312e12, 19.5e12, 2.4e12, 2.0e12, 108, last_cache=40 << 20)
_H100 = Rates(989e12, 67e12, 3.7e12, 3.35e12, 132, last_cache=50 << 20)
_B200 = Rates(2250e12, 75e12, 4.5e12, 8.0e12, 148, last_cache=126 << 20)
_MI300X = Rates(1307e12, 163e12, 10e12, 5.3e12, 304, last_cache=256 << 20)
_MI355X = Rates(2500e12, 157e12, 10e12, 8.0e12, 256, last_cache=256 << 20)
# One core of a server's processor with vectors of 256 bits, as torch uses it: measured.
_CHANNELS = 8  # cores that use all of the memory's bandwidth
_CORE = Rates(95e9, 10e9, 3e9, 10e9, 1, 5e-5, in_turn=True)

# Shared memory a block may opt in to: CUDA programming guide, compute capabilities table; AMD: LDS a workgroup.
_TABLE = (
    Target("sm_80", "cuda", 80, 32, 166_912, _A100),
    Target("sm_90", "cuda", 90, 32, 232_448, _H100),
    Target("sm_100", "cuda", 100, 32, 232_448, _B200),
    Target("gfx942", "hip", "gfx942", 64, 65_536, _MI300X, 524_288),
    Target("gfx950", "hip", "gfx950", 64, 163_840, _MI355X, 524_288),
    # A CPU that interprets: what shares a kernel is decided as for an H100, so that what is seen without a GPU is what
    # runs on one.
    Target("interpret", "cpu", 0, 32, 1 << 62, _H100, 1 << 62),
    Target("cpu", "cpu", 0, 32, 1 << 62, _CORE, 1 << 62, 1 << 22),
)
TARGETS = {t.name: t for t in _TABLE}
INTERPRETER = TARGETS["interpret"]


@lru_cache(maxsize=16)
def cores(count: int) -> Target:
    """So many cores of a CPU, which share its memory."""
    one = TARGETS["cpu"]
    r = one.rates
    each = replace(r, matrix=r.matrix * count, vector=r.vector * count, special=r.special * count)
    return replace(one, rates=replace(each, memory=r.memory * min(count, _CHANNELS), processors=count))


def target(name: str) -> Target:
    """The target of that name; raises `TargetError` for any other."""
    if name in TARGETS:
        return TARGETS[name]
    raise TargetError(
        f"unknown target '{name}'",
        fact=f"known targets: {', '.join(TARGETS)}",
        hint=nearest(name, TARGETS) or "one of the known targets",
    )
