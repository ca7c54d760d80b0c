"""A walk in parts: a kernel for the states of every part, and one that merges them.

    loop r: s = step(s);  T = finish(s)   -->   for each part p:  loop r in p: s = step(s);  S[p] = s
                                                loop p: s = merge(s, S[p]);  T = finish(s)

The positions that a tile visits are split into parts of one length; late ones may be empty, and leave the identity. The
states of each part are relative to its own references.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from einc import tile
from einc.base.types import INT
from einc.ein import Program
from einc.ein.rewriting import unused
from einc.passes.estimate.again import repeated
from einc.passes.lowering.advance import merge
from einc.passes.lowering.finish import finish
from einc.passes.lowering.held_rows import refined
from einc.passes.lowering.kernel import Kernel
from einc.passes.lowering.limits import Limit
from einc.passes.lowering.loops import looped, span, walked
from einc.passes.lowering.states import Moment, States
from einc.passes.streaming.walks import Walk, finished
from einc.pipeline import Context, positions
from einc.pipeline.plan import Planned
from einc.tile import Elem, Lit, Ref, Value
from einc.tile.blocks import power
from einc.tile.masks import extent
from einc.tile.walk import values_in

_ALIGNED = 128  # the most positions that the length of a part is rounded up to; twice as many with a walk in each block
_TOGETHER = 32  # the most parts that are merged at once, where their states have axes held whole
_AT_ONCE = 128  # the same where they have none, and few programs wait for one block of parts after another
_FEW = 8192  # rows of such states

Parts = dict[str, tuple[tile.Buffer, ...]]  # where the states of the parts lie in memory, by accumulator


def in_parts(
    program: Program, plan: Planned, context: Context, taken: Iterable[str]
) -> tuple[tuple[tile.Kernel, tile.Kernel], tuple[tile.Buffer, ...]]:
    """The two kernels of a plan and the buffers between them, under names that are not taken."""
    (walk,) = finished(plan)
    first, parts = _each(program, plan, walk, context, set(taken))
    between = dict.fromkeys(b for buffers in parts.values() for b in buffers)
    return (first, _merged(program, plan, walk, context, parts)), tuple(between)


def _each(program: Program, plan: Planned, walk: Walk, context: Context, taken: set[str]) -> tuple[tile.Kernel, Parts]:
    """The kernel that stores the states of every part."""
    inner = replace(plan, batch=(*plan.batch, plan.split), stores=())
    kernel = Kernel(program, inner, context)
    b = kernel.b
    grid, whole = kernel.enter()
    if repeated(plan):  # all parts of a few rows at once: their operands stay in the cache from block to block
        grid = (*(a for a in grid if a.axes != (plan.split,)), *(a for a in grid if a.axes == (plan.split,)))
    kernel.refined = refined(kernel)
    axes = walked(kernel)
    found = span(kernel, walk, axes)
    start, stop = _part(kernel, axes[0], found.start, found.stop)
    states = looped(kernel, axes, walk, replace(found, start=start, stop=stop), exact=True)
    stored: dict[tuple[str, ...], tuple[tile.Buffer, ...]] = {}
    for a in states.accumulators():
        names = states.names[a.name]
        if names not in stored:
            dims = ((plan.split,), *((x,) for x in a.axes))
            stored[names] = tuple(tile.Buffer(_taken(f"{n}_part", taken), dims, b.types[n].dtype) for n in names)
            for name, buffer in zip(names, stored[names], strict=True):
                b.declare(buffer)
                b.emit(tile.Store(buffer.name, tuple(map(b.composite, dims)), Ref(name), b.types[name]))
    made = b.kernel(replace(inner, stores=tuple(s.name for buffers in stored.values() for s in buffers)), grid, whole)
    title = f"the states that each of {plan.splits} parts of {', '.join(plan.walked)} leaves:"
    parts = {a.name: stored[states.names[a.name]] for a in states.accumulators()}
    chosen = tile.Choices(parts=plan.splits)
    name = f"{plan.name}_parts"
    return replace(made, name=name, title=(title, *made.title), choices=chosen, parts_of=plan.name), parts


def _merged(program: Program, plan: Planned, walk: Walk, context: Context, parts: Parts) -> tile.Kernel:
    """The kernel that merges the states of the parts, and goes on from there."""
    kernel = Kernel(program, replace(plan, walked=(plan.split,)), context)
    b = kernel.b
    for buffer in (x for buffers in parts.values() for x in buffers):
        b.declare(buffer)
    grid, whole = kernel.enter()
    kernel.refined = refined(kernel)
    states = States(kernel, walk.links, plan.walked)
    states.allocate(lambda eq: kernel.extends(eq.axes))
    known, order = dict(kernel.known), kernel.order
    axis = b.axis((plan.split,), "reduced")
    rows = positions((*plan.batch, *plan.rows, *plan.columns), context)
    most = _TOGETHER if whole or rows > _FEW else _AT_ONCE
    together = {axis.name: tile.Block(1, min(most, power(plan.splits)))}
    with b.loop(axis) as block:
        kernel.order = (*order, axis.name)
        merge(states, _loaded(kernel, states, parts, axis.name), block)
    kernel.known, kernel.order = known, order
    finish(states)
    kernel.store_rest()
    made = b.kernel(plan, grid, whole)
    used = {v.name for v in values_in(made.body) if isinstance(v, Ref)}
    made = b.kernel(plan, grid, tuple(a for a in whole if a.name in used))
    title = f"from the states of {plan.splits} parts of {', '.join(plan.walked)}:"
    chosen = tile.Choices(parts=plan.splits).sized(together)
    return replace(made, title=(title, *made.title), choices=chosen, merges=True)


def _loaded(kernel: Kernel, states: States, parts: Parts, axis: str) -> Moment:
    """The states of a block of parts, read from memory; the axis of parts comes first, as in `Kernel.folding_order`."""
    b = kernel.b
    held: dict[str, list[Value]] = {}
    loaded: dict[str, Value] = {}
    for a in states.accumulators():
        for buffer in parts[a.name]:
            if buffer.name not in loaded:
                index = tuple(map(b.composite, buffer.dims))
                load = tile.Load(buffer.name, index, buffer.dtype, (False,) * len(index))
                loaded[buffer.name] = b.bind(buffer.name, load, (axis, *states.order(a)))
        held[a.name] = [loaded[buffer.name] for buffer in parts[a.name]]
    return Moment("part", held, (axis,))


def _part(kernel: Kernel, axis: tile.TileAxis, start: Limit, stop: Limit) -> tuple[Value, Value]:
    """Where this program's part of the positions that its tile visits starts and stops."""
    b, plan, name = kernel.b, kernel.plan, "_".join(axis.axes)
    first = Lit(0, INT) if start is None else start
    last = extent(axis.axes) if stop is None else stop
    length = last if start is None else Elem("max", (Elem("sub", (last, first)), Lit(0, INT)))
    unit = _alignment(kernel, plan) if axis.blocked else 1
    each = b.bind(f"{name}_each", _times(_quotient(length, plan.splits * unit), unit), ())
    offset = Elem("mul", (b.position[plan.split], each))
    begin = b.bind(f"{name}_first", offset if start is None else Elem("add", (first, offset)), ())
    return begin, b.bind(f"{name}_last", Elem("min", (Elem("add", (begin, each)), last)), ())


def _alignment(kernel: Kernel, plan: Planned) -> int:
    """The number that a part's length is a multiple of: a block's where parts have several blocks, else less."""
    unit, least = (_ALIGNED * 2, 1) if repeated(plan) else (_ALIGNED, 4)
    longest = positions(plan.walked, kernel.context) // plan.splits
    while unit > 1 and least * unit > longest:
        unit //= 2
    return unit


def _quotient(v: Value, n: int) -> Value:
    """v / n, rounded up."""
    return v if n == 1 else Elem("floordiv", (Elem("add", (v, Lit(n - 1, INT))), Lit(n, INT)))


def _times(v: Value, n: int) -> Value:
    return v if n == 1 else Elem("mul", (v, Lit(n, INT)))


def _taken(wanted: str, taken: set[str]) -> str:
    """A name that is free, which is then taken."""
    name = unused(wanted, taken)
    taken.add(name)
    return name
