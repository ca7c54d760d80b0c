"""Make the heads that share a key rows of one contraction.

    S[h, i, j] = sum[d](Q[h, i, d] * K[h // (|h| / |g|), j, d])
    -->   S[g, r, i, j] = sum[d](Q[g * |r| + r, i, d] * K[g, j, d])        |r| = |h| / |g|

An axis h that indexes some tensor by `h // (|h| / |g|)` is a group g and a position r in it, as the division is exact.
Intermediate tensors get both axes as dimensions; a result keeps its one dimension, of both. A tensor read at g alone is
read once for all r, which become further rows. That pays while there are fewer rows than a matrix unit takes, as in
decoding, where there is one; a longer prompt has enough rows, and is read with fewer divisions as it is.

Axes that the factors of a contraction treat alike need no law: where the kernel is made, rows, columns and inner axes
are each flattened into one.
"""

from __future__ import annotations

from math import prod

from einc.ein import Program
from einc.passes.algebra.contraction import contraction
from einc.passes.algebra.grouping import Split, exactly, grouped, split
from einc.pipeline import Context


def merge_axes(program: Program, context: Context) -> Program:
    """The program with grouped axes split where that fills the rows of a contraction."""
    program = exactly(program)
    for h, g in grouped(program).items():
        parts = split(program, h, g)
        merged = parts.program()
        if merged is not None and _gains(merged, parts, context):
            program = merged
    return program


def _gains(program: Program, split: Split, context: Context) -> bool:
    """Does some contraction have fewer rows for each position of the group than a matrix unit takes?"""

    def size(axis: str) -> int:
        if axis == split.group:
            return context.size(split.groups)
        return -(-context.size(split.axis) // context.size(split.groups)) if axis == split.place else context.size(axis)

    for eq in program.equations:
        if eq.monoid is None or eq.monoid.op != "add":
            continue
        found = contraction(eq, eq.body, size)
        if found is not None and split.place in found.shape.rows and split.group in found.shape.batch:
            rows = prod(size(a) for a in found.shape.rows if a != split.place)
            if rows < context.block():
                return True
    return False
