"""Triton as a generator: its own passes, and what kernels are spared for it.

What Triton 3.6 and 3.7 get wrong, or the assembler of CUDA 12.8 with what they make, and where that is seen to:

    a dot of Hopper that shares a load in flight with other work reads what a copy overwrites      `separate_loads`
    dots that follow each other with less than 16 rows a warp                                      `options`
    a computed tile of narrow types, multiplied, with less than whole swizzled rows                `choose_tiles`
    a loop that adds up folds of the last of three axes reshapes as if their order did not matter  `_FOLDS_FIRST`
    a negation of what is known at compile time is no mask                                         `expressions`
    large products on vector units spill, large tiles beside dots take minutes to assemble         `choose_tiles`
"""

from __future__ import annotations

from einc.codegen.triton.choose_tiles import choose_tiles
from einc.codegen.triton.contracted import block, multiplies
from einc.codegen.triton.file import emit
from einc.codegen.triton.separate_loads import separate_loads
from einc.pipeline import Backend, Pass, on_kernels

_FOLDS_FIRST = 3  # axes

CHOOSE_TILES = Pass(
    "choose-tiles",
    "axis t[?]  -->  axis t[least .. cap]",
    "a tile is as large as the target's registers and shared memory bear",
    on_kernels(choose_tiles),
    needs=("lowered",),
    gives=("sized-tiles",),
)
SEPARATE_LOADS = Pass(
    "separate-loads",
    "x = load T[e]; f(x); dot(x, y)  -->  x, z = load T[e]; f(x); dot(z, y)      in a loop",
    "a dot reads its operands from shared memory, where copies in flight have to know their only reader",
    on_kernels(lambda kernel, _: separate_loads(kernel)),
    needs=("placed-loads",),
    gives=("lowered",),
)

TRITON = Backend(
    "triton",
    multiplies,
    block,
    {"lower": (CHOOSE_TILES,), "place-loads": (SEPARATE_LOADS,)},
    emit,
    _FOLDS_FIRST,
)
