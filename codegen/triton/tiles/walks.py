"""Tiles of walks whose folds wait.

A thread has a state for each of its positions of a block, in registers: few, so that a processor has all the threads
that keep memory busy. Nothing is exchanged before the end, so that any number of warps may share a block: of rows all
go along one, of columns they are as many as read whole lines, one behind the other.
"""

from __future__ import annotations

from math import prod

from einc.codegen.triton.tiles.sizing import Sizing, Tiles
from einc.tile import Block, TileAxis
from einc.tile.blocks import power
from einc.tile.choices import EARLY, LATE
from einc.tile.walk import loops, segments

_EACH = 8  # positions of a thread
_CARRIED = 32  # registers of a thread for states
_REGISTER = 4  # bytes
_LINE = 128  # bytes of neighbours in memory
_WARPS = 8
_MOST_WARPS = 16
_BUSY = 16  # warps of a processor that keep memory busy


def late_tiles(k: Sizing, early: Tiles) -> Tiles | None:
    """Tiles of a walk whose folds wait, in place of others; None where they do not, or where it comes to an end in two
    of their steps."""
    axis = walked(k)
    if not k.on_cuda or axis is None or k.folds == EARLY:
        return None
    if k.longest <= 2 * k.sizes(early.blocks)[axis.name] and k.folds != LATE:
        return None
    beside = [a for a in k.axes if a.name != axis.name]
    each = min(_EACH, max(_CARRIED // registers(k, axis), 1))
    warps, counts = _WARPS, {a.role: 1 for a in beside}
    if len(beside) == 1 and k.lines == {beside[0].name}:
        counts = {beside[0].role: k.spread({beside[0].role: min(_neighbours(k), k.hints[beside[0].name])})}
    given = {a.role: min(block.cap, k.hints[a.name]) for a in k.axes if (block := k.given(a)) is not None}
    counts |= {role: n for role, n in given.items() if role in counts}
    count = prod(counts.values())
    if axis.role in given:
        warps = min(max(power(count * given[axis.role] // (32 * each)), 1), _MOST_WARPS)
    else:
        while warps < _MOST_WARPS and k.programs(counts) * warps < _BUSY * k.target.rates.processors:
            warps *= 2
    steps = min(max(32 * warps * each // count, 1), power(k.longest))
    blocks = {role: Block(1, n) for role, n in (*counts.items(), (axis.role, steps))}
    return Tiles(early.blocks | blocks, warps, folds=LATE)


def walked(k: Sizing) -> TileAxis | None:
    """The axis of the walks whose folds can wait, if all that a kernel does is to walk it beside at most one other."""
    found = {s.axis.name for s in loops(k.kernel.body) if s.carried}
    plain = not (k.dots or k.kernel.whole or k.within or segments(k.kernel))
    if not plain or len(found) != 1 or len(k.axes) > 2 or k.waiting.keys() != found:
        return None
    return next((a for a in k.axes if a.name in found and a.role == "reduced"), None)


def registers(k: Sizing, axis: TileAxis) -> int:
    """The registers that the states of one position take."""
    types = (t.dtype for w in k.waiting[axis.name] for t in w.types)
    return sum(-(-max(t.size, _REGISTER) // _REGISTER) for t in types)


def _neighbours(k: Sizing) -> int:
    """The elements of a line of memory, by the widest that are read."""
    return _LINE // max((b.dtype.size for b in k.kernel.buffers if not b.written), default=_REGISTER)
