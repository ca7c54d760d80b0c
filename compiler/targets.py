"""The machines code is made for: one table of figures that schedules are chosen by and compiled code is checked against."""

from __future__ import annotations

from dataclasses import dataclass

from einc.errors import TargetError, nearest


@dataclass(frozen=True, slots=True)
class Target:
    """A machine. `shared` is bytes of shared memory a program may use; `tile` is the most elements that one tile value
    should have; `dot` caps rows, columns and inner length of a contraction's tile; `vendor` is `cuda`, `hip` or `cpu`."""

    name: str
    vendor: str
    arch: int | str
    warp: int
    shared: int
    tile: int
    dot: tuple[int, int, int]


# Shared memory a block may opt in to: CUDA programming guide, compute capabilities table; AMD: LDS a workgroup.
_TABLE = (
    Target("sm_80", "cuda", 80, 32, 166_912, 4096, (128, 128, 32)),
    Target("sm_90", "cuda", 90, 32, 232_448, 4096, (128, 128, 64)),
    Target("sm_100", "cuda", 100, 32, 232_448, 4096, (128, 128, 64)),
    Target("gfx942", "hip", "gfx942", 64, 65_536, 4096, (128, 128, 32)),
    Target("gfx950", "hip", "gfx950", 64, 163_840, 4096, (128, 128, 64)),
    # Triton's interpreter: its cost is per operation, so tiles are as large as memory likes.
    Target("interpret", "cpu", 0, 32, 1 << 62, 1 << 18, (256, 256, 256)),
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
