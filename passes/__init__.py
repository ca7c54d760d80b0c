"""The passes, in the order they run: one table, read downward."""

from __future__ import annotations

from einc.passes.inline import inline
from einc.passes.simplify import simplify
from einc.pipeline import Pass, on_program

PIPELINE: tuple[Pass, ...] = (
    Pass(
        "inline",
        "T[i] = f(i);  U[j] = h(T[e])  -->  U[j] = h(f(e))",
        "a mask or a scale that is recomputed is cheaper than an intermediate in memory",
        on_program(inline),
        gives=("inlined",),
    ),
    Pass(
        "simplify",
        "x * 1  -->  x;  where(true, x, y)  -->  x;  T = f; U = f  -->  T = f, U read as T",
        "what is written for clarity or made for uniformity is paid for once a position",
        on_program(simplify),
    ),
)
