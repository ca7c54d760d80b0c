"""Tiles of walks whose folds wait.

A thread has a state for each of its positions of a block, in registers: few, so that a processor has all the threads
that keep memory busy. Nothing is exchanged before the end, so that any number of warps may share a block: of rows all
go along one; of columns each has as many as it has lanes, one behind the other. Along rows, what one number is the
state of is exchanged while memory is waited for: what compares several is not.
"""

from __future__ import annotations

from math import prod

from einc.codegen.triton.tiles.sizing import Sizing, Tiles
from einc.tile import Block, TileAxis
from einc.tile.blocks import power
from einc.tile.choices import FOLDS_EARLY, FOLDS_LATE
from einc.tile.walk import lets, loops, segments

_EACH = 8  # positions of a thread
_CARRIED = 32  # registers of a thread for states
_REGISTER = 4  # bytes
_LANES = 32  # neighbours in memory, which a warp reads at once
_WARPS = 8
_ACROSS = 4  # warps of columns
_MOST_WARPS = 16
_BUSY = 16  # warps of a processor that keep memory busy


def late_tiles(k: Sizing, early: Tiles) -> Tiles | None:
    """Tiles of a walk whose folds wait, in place of others; None where they do not: where it comes to an end in two of
    their steps, or one number is the state of a row."""
    axes = walked(k) if k.on_cuda and k.folds != FOLDS_EARLY else None
    if axes is None:
        return None
    axis, beside = axes
    across = any(a.name in k.lines for a in beside)
    compares = any(w.monoid.op is None for _, own in k.waiting for w in own)
    short = k.longest <= 2 * k.sizes(early.blocks)[axis.name]
    if (short or not (across or compares)) and k.folds != FOLDS_LATE:
        return None
    each = _EACH
    while each > 1 and each * registers(k) > _CARRIED:
        each //= 2
    sizes = {a.role: min(block.cap, k.hints[a.name]) for a in (axis, *beside) if (block := k.given(a)) is not None}
    for a in beside:
        lined = {a.role: min(_LANES, k.hints[a.name])} if a.name in k.lines else {a.role: 1}
        sizes.setdefault(a.role, k.spread(lined))
    count = prod(n for role, n in sizes.items() if role != axis.role)
    if axis.role in sizes:
        warps = min(max(power(count * sizes[axis.role] // (32 * each)), 1), _MOST_WARPS)
    else:
        warps, programs = _ACROSS if across else _WARPS, k.programs(sizes)
        while not across and warps < _MOST_WARPS and programs * warps < _BUSY * k.target.rates.processors:
            warps *= 2
        sizes[axis.role] = min(max(32 * warps * each // count, 1), power(k.longest))
    return Tiles(early.blocks | {role: Block(1, n) for role, n in sizes.items()}, warps, folds=FOLDS_LATE)


def walked(k: Sizing) -> tuple[TileAxis, list[TileAxis]] | None:
    """The axis of the walks whose folds can wait, and the one beside it, if there is one; None where a kernel walks
    anything else, or with more than these."""
    walks = [s for s in loops(k.kernel.body) if s.carried]
    found = {s.axis.name for s in walks}
    if k.dots or k.within or len(found) != 1 or walks != [s for s, _ in k.waiting] or segments(k.kernel):
        return None
    there = {a for s in walks for let in lets(s.body) for t in let.types for a in t.axes} - found
    beside = [a for a in k.axes if a.name in there]
    along = [a for a in k.axes if a.name in found and a.role == "reduced"]
    plain = len(beside) <= 1 and not any(a.role == "whole" for a in beside)
    return (along[0], beside) if along and plain else None


def registers(k: Sizing) -> int:
    """The registers that the states of one position take, of the walk with the most."""
    return max(sum(-(-max(t.dtype.size, _REGISTER) // _REGISTER) for w in own for t in w.types) for _, own in k.waiting)
