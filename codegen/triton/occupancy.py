"""What a kernel of contractions takes of a multiprocessor: shared memory for operands, registers for states.

What a side of a dot is loaded from lies in shared memory, once for every stage in flight if the loop moves it; a
computed right side lies there once, and a left side of four bytes; results, states and the rest are in registers. A
tile of three axes or more goes through shared memory when its threads hold it in another order, and a fold when several
warps hold its row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod

from einc import tile
from einc.tile import Dot, Fold, Kernel, Let, Load, Loop, Ref, Statement, TileType
from einc.tile.typing import multiplied
from einc.tile.walk import lets, loops, values_in, walk_values

Extents = Mapping[str, int]  # positions of a tile by its axis


def registers(kernel: Kernel, sizes: Extents) -> int:
    """Bytes of the tiles that are live after a statement, where they are most.

    A loop's states are, what it does not change, and what is still to be read; an operation on elements works in
    place. Tiles of one axis count nothing, nor do loads that dots alone read, which lie in shared memory.
    """
    types = {name: t for let in lets(kernel.body) for name, t in zip(let.names, let.types, strict=True)}
    types |= {c.name: c.type for loop in loops(kernel.body) for c in loop.carried}
    apart = _read_by_dots(kernel.body)
    held = {n: _bytes(t, sizes) for n, t in types.items() if len(t.axes) > 1 and n not in apart}
    return _peak(kernel.body, frozenset(), held)


def products(kernel: Kernel, sizes: Extents, warps: int) -> int:
    """The products that a thread adds up in one dot on vector units, where they are most.

    The assembler reads both sides into registers as it needs them, but with too many products too early.
    """
    wide = [d for d, t in multiplied(kernel) if t.is_float and t.size >= 4]
    return max((sizes[d.row] * sizes[d.column] * sizes[d.inner] // (32 * warps) for d in wide), default=0)


def _peak(body: tuple[Statement, ...], after: frozenset[str], held: Mapping[str, int]) -> int:
    """The most bytes live after a statement of a body, of which some names are read later."""
    live, most = set(after), 0
    for s in reversed(body):
        if isinstance(s, Loop):
            live -= {c.name for c in s.carried}
            inside = {c.after for c in s.carried} | _refs(s.body) - _moving(s)
            most = max(most, _peak(s.body, frozenset(live | inside), held))
            live |= {n for n in _refs((s,)) if n in held} - {n for let in lets(s.body) for n in let.names}
            live -= {c.name for c in s.carried}
        else:
            most = max(most, sum(held.get(n, 0) for n in live))
            live -= set(s.names) if isinstance(s, Let) else set()
            live |= _refs((s,))
    return max(most, sum(held.get(n, 0) for n in live))


def _moving(loop: Loop) -> set[str]:
    """The names bound in a loop that differ from block to block, and its states."""
    moving = {loop.axis.name} | {c.name for c in loop.carried}
    for s in loop.body:
        if isinstance(s, Loop):
            moving |= _moving(s)
        elif isinstance(s, Let) and _refs((s,)) & moving:
            moving |= set(s.names)
    return moving


def _refs(body: tuple[Statement, ...]) -> set[str]:
    return {v.name for v in values_in(body) if isinstance(v, Ref)}


def _read_by_dots(body: tuple[Statement, ...]) -> set[str]:
    """The loads that dots alone read."""
    loads = {let.names[0] for let in lets(body) if isinstance(let.value, Load)}
    values = list(values_in(body))
    sides = Counter(x.name for v in values if isinstance(v, Dot) for x in (v.left, v.right) if isinstance(x, Ref))
    uses = Counter(v.name for v in values if isinstance(v, Ref))
    return {n for n in loads if sides[n] == uses[n]}


def results(kernel: Kernel, sizes: Extents) -> int:
    """Bytes of the results of the dots of one loop, of the loop with the most."""
    made = [[let for _, let in _made(body) if _has_dot(let)] for body in (o.body for o in loops(kernel.body))]
    return max((sum(_bytes(let.types[0], sizes) for let in dots) for dots in made), default=0)


def _has_dot(let: Let) -> bool:
    return any(isinstance(v, Dot) for v in walk_values(let.value))


def largest(kernel: Kernel, sizes: Extents, walked: bool = False) -> int:
    """Elements of the largest tile that is computed, but not by a dot, or folded; of those along loops, if `walked`."""
    made = [(loop.axis.name, loop.body) for loop in loops(kernel.body)] if walked else [(None, kernel.body)]
    made_in = ((along, let) for along, body in made for let in lets(body) if not _has_dot(let))
    folded = ((along, (*let.types[0].axes, *_axis_of(let.value))) for along, let in made_in)
    return max((prod(sizes[a] for a in axes) for along, axes in folded if along is None or along in axes), default=0)


def _axis_of(v: tile.Value) -> tuple[str, ...]:
    return (v.axis,) if isinstance(v, tile.Fold) else ()


def shared(kernel: Kernel, sizes: Extents, stages: int, warps: int) -> int:
    """Bytes of what dots read and what is exchanged: of the statements around the loops, and of the loop with the most.

    Around the loops dots come after what is exchanged; in a loop the next block's operands are there meanwhile.
    """
    made = dict(_made(kernel.body))
    outside = _operands(kernel.body, made, None, sizes, stages)
    inside = (
        _operands(o.body, made, o.axis.name, sizes, stages) + _exchanged(o.body, sizes, warps)
        for o in loops(kernel.body)
    )
    return max(outside + max(inside, default=0), _exchanged(kernel.body, sizes, warps))


def _exchanged(body: tuple[Statement, ...], sizes: Extents, warps: int) -> int:
    """The most bytes that a value computed directly in a body takes to be exchanged between threads."""
    most = 0
    for let in (s for s in body if isinstance(s, Let) and not _has_dot(s)):
        folded = {v.axis for v in walk_values(let.value) if isinstance(v, Fold)}
        result = sum(_bytes(t, sizes) for t in let.types)
        whole = result * prod(sizes[a] for a in folded)
        if len({*let.types[0].axes, *folded}) > 2:
            most = max(most, whole)
        elif folded:
            most = max(most, min(whole, result * warps))
    return most


def _operands(
    body: tuple[Statement, ...], made: Mapping[str, Let], moving: str | None, sizes: Extents, stages: int
) -> int:
    """Bytes of the operands of dots directly in a body; where a loop moves them, of every stage."""
    dots = [v for s in body if not isinstance(s, Loop) for v in values_in((s,)) if isinstance(v, Dot)]
    taken: dict[str, int] = {}
    for d in dots:
        for side, right in ((d.left, False), (d.right, True)):
            if not isinstance(side, Ref) or side.name not in made:
                continue
            own = made[side.name].types[0]
            if right or own.dtype.size >= 4:
                taken[side.name] = _bytes(own, sizes)
            for name in _loaded(side.name, made):
                type_ = made[name].types[0]
                taken[name] = _bytes(type_, sizes) * (stages if moving in type_.axes else 1)
    return sum(taken.values())


def _loaded(name: str, made: Mapping[str, Let]) -> set[str]:
    """The loads that a value is computed from, but not through another dot."""
    found, seen, stack = set[str](), set[str](), [name]
    while stack:
        at = stack.pop()
        if at in seen or at not in made or isinstance(made[at].value, Dot):
            continue
        seen.add(at)
        values = list(values_in((made[at],)))
        if any(isinstance(v, Load) for v in values):
            found.add(at)
        stack += [v.name for v in values if isinstance(v, Ref)]
    return found


def _bytes(t: TileType, sizes: Extents) -> int:
    return prod(sizes[a] for a in t.axes) * max(t.dtype.size, 1)


def _made(body: tuple[Statement, ...]) -> Iterator[tuple[str, Let]]:
    return ((let.names[0], let) for let in lets(body))
