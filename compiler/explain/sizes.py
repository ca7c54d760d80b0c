"""Extents for axes that are given none."""

from __future__ import annotations

from collections.abc import Mapping

from einc import ein
from einc.base.errors import Error
from einc.ein import Program
from einc.ein.arithmetic import ScalarValue, evaluate_formula
from einc.explain.counts import Sizes

USUAL, USUAL_BATCH = 64, 4  # the extents of axes that are given none


def usual(program: Program) -> dict[str, int]:
    """The usual extent of every axis: few positions for a batch axis, which is one that all of several operands and
    every result have and no reduction is over."""
    shapes = program.shapes()
    tensors = [*(p.dims for p in program.operands), *(shapes[name] for name in program.results)]
    everywhere = set.intersection(*({a for d in dims for a in d} for dims in tensors)) if tensors else set()
    batch = everywhere - {a for e in program.equations for a in e.over} if len(program.operands) > 1 else set()
    return {a.name: USUAL_BATCH if a.name in batch else USUAL for a in program.axes if a.extent is None}


def extents(program: ein.Program, sizes: Sizes, scalars: Mapping[str, ScalarValue], usual: int = 1) -> dict[str, int]:
    """The extent of every axis, also of those that passes added; the usual one if nothing decides it."""
    found = dict(sizes)
    for a in program.axes:
        if a.name not in found:
            try:
                found[a.name] = usual if a.extent is None else int(evaluate_formula(a.extent, found, scalars))
            except (Error, KeyError):
                found[a.name] = usual
    return found
