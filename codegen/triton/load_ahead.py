"""Load rows of numbers a block before dots of a loop wait for them.

    loop t: x = load T[t]; f(x, dot(...))  -->  y = load T[first t]; loop t: x = y; y = load T[next t]; f(x, dot(...))

Copies in flight bring what dots multiply. Of what else a block needs, Triton (3.6) copies the rows that reach a side of
a dot, every thread all that it reads of them, and loads those that are added to a dot's result before that dot begins,
which waits for memory in each step. Registers keep them instead, two for each position that a thread has of a row,
where these are not full of tiles. A loop that is written as one with that around it loads nothing ahead: what comes
after its last block is the first one at the next position of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from einc import tile
from einc.codegen.triton.nests import nested
from einc.pipeline import Context
from einc.tile import Dot, Let, Load, Loop, Ref, Value
from einc.tile.blocks import power
from einc.tile.walk import every_value, lets, rebuild, rewritten, tile_axes, values_in, walk_values
from einc.tile.windows import by_descriptor

_SHARED = 4  # threads that share a row of a tile
_REGISTERS = 256  # of a thread, of which some are spilled where tiles take as many


def load_ahead(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with what its loops load ahead."""
    if kernel.roles is not None or not context.target.has_copies or not any(map(_is_dot, every_value(kernel))):
        return kernel
    copied = by_descriptor(kernel).keys()

    def ahead(s: tile.Statement) -> tuple[tile.Statement, ...]:
        if not isinstance(s, Loop):
            return (s,)
        if (nest := nested(s)) is not None:
            return (replace(s, body=(*s.body[:-1], replace(nest[1], ahead=()))),)
        found = tuple(n for n, load in rows(s) if load.tensor not in copied)
        wide = _size((s.axis.name,), kernel, context) // _SHARED
        fits = _tiles(s, kernel, context) + 2 * wide * len(found) <= _REGISTERS
        return (replace(s, ahead=found if fits else ()),)

    return replace(kernel, body=rewritten(kernel.body, lambda s, _: ahead(s)))


def _size(axes: tuple[str, ...], kernel: tile.Kernel, context: Context) -> int:
    """The elements of a tile over these axes."""
    known = tile_axes(kernel)

    def block(a: str) -> int:
        chosen, most = kernel.choices.tile(a), power(prod(map(context.size, known[a].axes)))
        return most if chosen is None else min(chosen.cap, max(most, chosen.least))

    return prod(map(block, axes))


def _tiles(loop: Loop, kernel: tile.Kernel, context: Context) -> int:
    """The registers of a thread that tiles of a step take: what dots give, and what else is loaded."""
    here = [s for s in lets(loop.body) if len(s.types[0].axes) > 1]
    read = [x for v in values_in(loop.body) if isinstance(v, Dot) for x in (v.left, v.right)]
    dots = [v.sides.result for v in values_in(loop.body) if isinstance(v, Dot)]
    own = [s.types[0].axes for s in here if isinstance(s.value, Load) and Ref(s.names[0]) not in read]
    return sum(_size(axes, kernel, context) for axes in (*dots, *own)) // (32 * kernel.choices.warps)


def spelled(loop: Loop, v: Value) -> Value:
    """A value with what the loop binds spelled out."""
    made = {s.names[0]: s.value for s in lets(loop.body)}

    def spell(v: Value) -> Value:
        return spell(made[v.name]) if isinstance(v, Ref) and v.name in made else rebuild(v, spell)

    return spell(v)


def _is_dot(v: Value) -> bool:
    return isinstance(v, Dot)


def rows(loop: Loop) -> Iterator[tuple[str, Load]]:
    """What a loop loads along its axis alone, of places that this axis decides, and that decide no other place."""
    multiplies = any(map(_is_dot, values_in(loop.body)))
    if not multiplies or not loop.axis.blocked or loop.reverse or not all(isinstance(s, Let) for s in loop.body):
        return
    made = {n: s.value for s in lets(loop.body) for n in s.names}
    states = {c.name for c in loop.carried}

    def reached(v: Value) -> Iterator[Value]:
        """The parts of a value, through names that the loop binds."""
        for x in walk_values(v):
            yield x
            if isinstance(x, Ref) and x.name in made:
                yield from reached(made[x.name])

    def is_fixed(v: Value) -> bool:
        """Does the place in the walk decide a value?"""
        found = [*reached(v)]
        moving = any(isinstance(x, Ref) and x.name in states for x in found)
        return not moving and not any(isinstance(x, Dot | Load | tile.Fold | tile.Scan) for x in found)

    loads = [v for v in made.values() if isinstance(v, Load)]
    places = [x for v in loads for x in (*v.index, *([] if v.mask is None else [v.mask]))]
    leading = {x.name for place in places for x in reached(place) if isinstance(x, Ref)}
    for s in lets(loop.body):
        match s:
            case Let(names=(name,), types=(type_,), value=Load(index=index, mask=mask) as load):
                own = (*index, *([] if mask is None else [mask]))
                if type_.axes == (loop.axis.name,) and name not in leading and all(map(is_fixed, own)):
                    yield name, load
