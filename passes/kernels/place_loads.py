"""Decide how each load reaches memory, and do once what does not change in a loop.

    loop t: x = e; ...        -->   x = e; loop t: ...        e free of t and of what the loop binds or carries
    x = e; loop; y = e; f(y)  -->   x = e; loop; f(x)         x a number a row
    load T[e]                 -->   load T[e] by pointer, by vectors, or by descriptor

A load may leave a loop that no position is walked of: it is masked, or in bounds whenever its kernel runs (`lower`).
Pointers take any strides. Vectors need neighbours in memory along one dimension, and steps along all others that are
multiples of 4 bytes or more: so much is copied at once. A descriptor needs multiples of 16 bytes; then blocks are
copied to shared memory by an engine of their own, without addresses or masks in registers. That pays for what dots read
as it lies in memory: what is computed with goes to registers anyway, and a chain of dots has other work that hides its
loads. Of what is held whole it pays where a loop takes one position after another, so that all sides of its dots are
loaded anew in each step. A kernel of few blocks is over before the engine has its descriptors. Where rows are no
multiples of 16 elements, a generator would copy one element at a time by pointers: what it is not told to be more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from einc import tile
from einc.base.facts import row_major
from einc.pipeline import Context
from einc.tile import Dot, Load, Ref
from einc.tile.asked import ways_asked
from einc.tile.choices import POINTER, descriptor, vectors
from einc.tile.live import before_loops
from einc.tile.walk import bindings, every_value, loops, values_in
from einc.tile.windows import box, read_by_dots, windows

_NARROW = 2  # bytes of what dots take from shared memory in any order
_COPIED = 4  # bytes of memory that are copied at once, at least
_SEEN = 16  # elements: generators look whether extents and steps are multiples of so many
_MOST_DIMS = 5
_LONG = 4  # blocks of a walk
_FILLED = 2  # programs for each processor


def place_loads(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with its loads placed."""
    body = before_loops(kernel.body)
    placed = kernel if body is kernel.body else replace(kernel, body=body)
    loaded = {v.tensor for v in values_in(placed.body) if isinstance(v, Load)}
    asked = ways_asked(context.choices, placed)
    ways = {b.name: _by_threads(b, asked.get(b.name), context) for b in placed.buffers if b.name in loaded}
    ways |= _ways(placed, asked, context)
    return placed.choosing(kernel.choices.reached({n: way for n, way in ways.items() if n in loaded}))


def _by_threads(buffer: tile.Buffer, asked: str | None, context: Context) -> str:
    """The way of threads to a tensor, whatever they read of it: the one that is asked for if it is possible, or by
    vectors where a generator does not see by itself that rows allow these."""
    layout = context.layouts.get(buffer.name)
    lies = row_major(len(buffer.dims)) if layout is None else layout
    if (
        not context.target.has_copies
        or not lies.packed
        or lies.aligned < _COPIED
        or not 2 <= len(lies.order) <= _MOST_DIMS
    ):
        return POINTER
    unseen = layout is not None and lies.aligned < _SEEN * buffer.dtype.size
    return vectors(lies.order) if asked == vectors(lies.order) or (asked is None and unseen) else POINTER


def _ways(kernel: tile.Kernel, asked: Mapping[str, str], context: Context) -> dict[str, str]:
    """The ways to blocks that are asked for, as far as they are possible, and the best of others where they pay."""
    found: dict[str, str] = {}
    if not context.target.has_copies or not (set(asked.values()) - {POINTER} or context.layouts):
        return found
    ranks = {b.name: len(b.dims) for b in kernel.buffers}
    multiplied = _multiplied(kernel) if context.layouts else {}
    long, stepped, whole = _is_long(kernel, context), _stepped(kernel), {a.name for a in kernel.whole}
    for name, window in windows(kernel).items():
        layout = context.layouts.get(name, row_major(ranks[name]))  # between kernels rows begin at whole lines
        sides = box(kernel, window, layout.order, layout.joined)
        if ranks[name] > _MOST_DIMS or sides is None or sides[-1][0] is None:
            continue
        possible = [vectors(layout.order)] if layout.packed and layout.aligned >= _COPIED else []
        possible += [descriptor(layout.order)] if layout.is_regular and context.target.has_descriptors else []
        if name in asked:
            found |= {name: asked[name]} if asked[name] in possible else {}
        elif name in multiplied and (name in stepped or whole.isdisjoint(axis for axis, _ in sides)) and possible:
            usual = possible if multiplied[name] == _NARROW and long else possible[:1]
            found[name] = usual[-1]
    return found


def _is_long(kernel: tile.Kernel, context: Context) -> bool:
    """Has a kernel walks of several blocks, or more programs than run at once?"""

    def count(a: tile.TileAxis) -> int:
        block = kernel.choices.tile(a.name)
        return -(-prod(map(context.extent, a.axes)) // (1 if block is None else block.cap))

    programs = prod(map(count, kernel.grid))
    longest = max((count(loop.axis) for loop in loops(kernel.body)), default=1)
    return longest >= _LONG or programs > _FILLED * context.target.rates.processors


def _stepped(kernel: tile.Kernel) -> set[str]:
    """The tensors that loops load which take one position at a time."""
    stepping = (loop for loop in loops(kernel.body) if not loop.axis.blocked)
    return {v.tensor for loop in stepping for v in values_in(loop.body) if isinstance(v, Load)}


def _multiplied(kernel: tile.Kernel) -> dict[str, int]:
    """The tensors that dots alone read, and the bytes of their elements, if no dot reads anything else."""
    made = {s.names[0]: s.value for s in bindings(kernel) if isinstance(s.value, Load)}
    alone = read_by_dots(kernel.body)
    sides = [x for v in every_value(kernel) if isinstance(v, Dot) for x in (v.left, v.right)]
    if not all(isinstance(x, Ref) and x.name in made for x in sides):
        return {}
    return {v.tensor: v.dtype.size for name, v in made.items() if name in alone}
