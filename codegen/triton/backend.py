"""Triton as a generator: its own passes, and what kernels are spared for it.

What Triton 3.6 and 3.7 get wrong, or the assembler of CUDA 12.8 with what they make, and where that is seen to:

    a dot of Hopper that shares a load in flight with other work reads what a copy overwrites      `separate_loads`
    dots that follow each other with less than 16 rows a warp                                      `options`
    a computed tile of narrow types, multiplied, with less than whole swizzled rows                `choose_tiles`
    dots of a loop that may not run wait for each other, where B is transposed       `kernels`, if a descriptor loads it
    a loop that adds up folds along the last axis of what it loads takes rows for each other      `contractions`,
    `_FOLDS_BEFORE`
    positions that are subtracted are all multiples of what the difference begins with (3.6)       `operations`: `less`
    a negation of what is known at compile time is no mask                                         `expressions`
    threads have as many neighbours as steps between rows allow, though masks let them reach one   `kernels`, by units
    large products on vector units spill, and dots at several positions whose sides and results registers have no
    room for; large tiles beside dots take minutes to assemble                                     `choose_tiles`
"""

from __future__ import annotations

from einc import ein, tile
from einc.base.targets import Target
from einc.codegen.triton.contracted import block, multiplies
from einc.pipeline import SIZED_AFTER, Backend, Context, Pass, Product, on_kernels
from einc.pipeline.emitted import Both, Emitted

_FOLDS_BEFORE = 3  # axes


# What writes kernels is imported when the first is written: source that was kept on disk needs none of it.


def _choose_tiles(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    from einc.codegen.triton.tiles.choose_tiles import choose_tiles

    return choose_tiles(kernel, context)


def _delay_folds(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    from einc.codegen.triton.delay_folds import delay_folds

    return delay_folds(kernel, context)


def _separate_loads(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    from einc.codegen.triton.separate_loads import separate_loads

    return separate_loads(kernel, context)


def _load_ahead(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    from einc.codegen.triton.load_ahead import load_ahead

    return load_ahead(kernel, context)


def _emit(program: ein.Program, schedule: tile.Schedule, target: Target) -> Emitted:
    from einc.codegen.triton.file import emit

    return emit(program, schedule, target)


def _emit_both(both: Both, target: Target) -> Emitted:
    from einc.codegen.triton.file import emit_both

    return emit_both(both, target)


def _seconds(product: Product, target: Target) -> float:
    from einc.codegen.triton.tiles.products import fastest, seconds

    return target.rates.launch + seconds(product, fastest(product, target), target)


def _parts(product: Product, target: Target) -> int:
    from einc.codegen.triton.tiles.products import parts

    return parts(product, target)


def _predicted(kernel: tile.Kernel, context: Context) -> float | None:
    from einc.codegen.triton.tiles.sizing import predicted

    return predicted(kernel, context)


CHOOSE_TILES = Pass(
    "choose-tiles",
    "axis t[?]  -->  axis t[least .. cap]",
    "a tile is as large as the target's registers and shared memory bear",
    on_kernels(_choose_tiles),
    needs=("lowered",),
    gives=("sized-tiles",),
)
DELAY_FOLDS = Pass(
    "delay-folds",
    "loop t: s = s (+) fold[t](x)  -->  loop t: z[t] = z[t] (+) x;  s = fold[t](z)",
    "threads of a walk exchange what they have found once after it, not at every step",
    on_kernels(_delay_folds),
    needs=("sized-tiles",),
    gives=("lowered",),
)
SEPARATE_LOADS = Pass(
    "separate-loads",
    "x = load T[e]; f(x); dot(x, y)  -->  x, z = load T[e]; f(x); dot(z, y)      in a loop",
    "a dot reads its operands from shared memory, where copies in flight have to know their only reader",
    on_kernels(_separate_loads),
    needs=("placed-loads",),
    gives=("lowered",),
)
LOAD_AHEAD = Pass(
    "load-ahead",
    "loop t: x = load T[t]; f(x)  -->  y = load T[0]; loop t: x = y; y = load T[next t]; f(x)",
    "what is computed with a block of dots is there when these are done",
    on_kernels(_load_ahead),
    level=2,
    needs=("sized-tiles", "placed-loads"),
    gives=("lowered", "placed-loads"),
)

TRITON = Backend(
    "triton",
    multiplies,
    block,
    {
        SIZED_AFTER: (CHOOSE_TILES,),
        "mask-edges": (DELAY_FOLDS,),
        "place-loads": (SEPARATE_LOADS,),
        "segment-loops": (LOAD_AHEAD,),
    },
    _emit,
    _emit_both,
    _FOLDS_BEFORE,
    _seconds,
    _parts,
    _predicted,
)
