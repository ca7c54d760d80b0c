"""Extents for axes that are given none."""

from __future__ import annotations

from collections.abc import Mapping

from einc import ein
from einc.base.errors import Error
from einc.ein import Program, tensors_of
from einc.ein.arithmetic import ScalarValue, evaluate_formula
from einc.explain.counts import Sizes

USUAL, USUAL_BATCH = 64, 4  # the extents of axes that are given none
_LONG, _MANY = 4096, 16  # of an axis that any number of positions may be given, and of such a batch axis


def usual(program: Program) -> dict[str, int]:
    """The usual extent of every axis: few positions for a batch axis, which is one that all of several operands and
    every result have and no reduction is over."""
    batch = _batch(program)
    return {a: USUAL_BATCH if a in batch else USUAL for a in _free(program)}


def likely(program: Program, given: Mapping[str, int]) -> dict[str, int]:
    """The extents that kernels are planned for where they may be called with any: the given ones, and long ones.

    Where contractions are reduced again, as scores and hidden layers are, only axes of these are long; the others are
    widths, like the widest given one.
    """
    batch, scores = _batch(program), _scores(program)
    width = max((n for a, n in given.items() if a not in batch | scores), default=USUAL)
    lengths = {a: _LONG if not scores or a in scores else width for a in _free(program)}
    return lengths | dict.fromkeys(batch, _MANY) | dict(given)


def _scores(program: Program) -> set[str]:
    """The axes of tensors that are contractions, or made of them, and are reduced."""
    made: dict[str, frozenset[str]] = {}
    found: set[str] = set()
    for e in program.equations:
        read = {name for x in e.computed() for name in tensors_of(x)}
        within = [made[t] for t in read if t in made]
        if e.monoid is not None:
            found |= {a for axes in within if not axes.isdisjoint(e.over) for a in axes}
        if len(read) > 1 if e.monoid is not None else within:
            made |= {t.name: frozenset(e.axes) for t in e.outputs if len(e.axes) > 1}
    return found - _batch(program)


def _free(program: Program) -> list[str]:
    """The axes whose extents operands decide."""
    return [a.name for a in program.axes if a.extent is None]


def _batch(program: Program) -> set[str]:
    """The axes that all of several operands and every result have and no reduction is over."""
    shapes = program.shapes()
    tensors = [*(p.dims for p in program.operands), *(shapes[name] for name in program.results)]
    everywhere = set.intersection(*({a for d in dims for a in d} for dims in tensors)) if tensors else set()
    return everywhere - {a for e in program.equations for a in e.over} if len(program.operands) > 1 else set()


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
