"""What a kernel of contractions takes of a multiprocessor: shared memory for operands, registers for states.

What a side of a dot is loaded from lies in shared memory, once for every stage in flight if the loop moves it; a
computed right side lies there once, and a left side of four bytes; results, states and the rest are in registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from einc import tile
from einc.tile import Dot, Kernel, Let, Load, Loop, Ref, Statement, TileType

Extents = Mapping[str, int]  # positions of a tile by its axis


def registers(kernel: Kernel, sizes: Extents) -> int:
    """Bytes of the largest loop's states, or of the largest dot's result where that is more."""
    states = [sum(_bytes(c.type, sizes) for c in loop.carried) for loop in _loops(kernel.body)]
    results = [_bytes(let.types[0], sizes) for _, let in _made(kernel.body) if isinstance(let.value, Dot)]
    return max(*states, *results, 0, 0)


def results(kernel: Kernel, sizes: Extents) -> int:
    """Bytes of the results of the dots of one loop, of the loop with the most."""
    made = [[let for _, let in _made(body) if _has_dot(let)] for body in (o.body for o in _loops(kernel.body))]
    return max((sum(_bytes(let.types[0], sizes) for let in lets) for lets in made), default=0)


def _has_dot(let: Let) -> bool:
    return any(isinstance(v, Dot) for v in tile.walk_values(let.value))


def largest(kernel: Kernel, sizes: Extents) -> int:
    """Elements of the largest tile that is computed, but not by a dot, or folded."""
    folded = ((*let.types[0].axes, *_axis_of(let.value)) for _, let in _made(kernel.body) if not _has_dot(let))
    return max((prod(sizes[a] for a in axes) for axes in folded), default=0)


def _axis_of(v: tile.Value) -> tuple[str, ...]:
    return (v.axis,) if isinstance(v, tile.Fold) else ()


def shared(kernel: Kernel, sizes: Extents, stages: int) -> int:
    """Bytes of what dots read: of the statements around the loops, and of the loop with the most."""
    made = dict(_made(kernel.body))
    outside = _operands(kernel.body, made, None, sizes, stages)
    return outside + max((_operands(o.body, made, o.axis.name, sizes, stages) for o in _loops(kernel.body)), default=0)


def _operands(
    body: tuple[Statement, ...], made: Mapping[str, Let], moving: str | None, sizes: Extents, stages: int
) -> int:
    """Bytes of the operands of dots directly in a body; where a loop moves them, of every stage."""
    dots = [v for s in body if not isinstance(s, Loop) for v in tile.values_in((s,)) if isinstance(v, Dot)]
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
        values = list(tile.values_in((made[at],)))
        if any(isinstance(v, Load) for v in values):
            found.add(at)
        stack += [v.name for v in values if isinstance(v, Ref)]
    return found


def _bytes(t: TileType, sizes: Extents) -> int:
    return prod(sizes[a] for a in t.axes) * max(t.dtype.size, 1)


def _loops(body: tuple[Statement, ...]) -> Iterator[Loop]:
    for s in body:
        if isinstance(s, Loop):
            yield s
            yield from _loops(s.body)


def _made(body: tuple[Statement, ...]) -> Iterator[tuple[str, Let]]:
    for s in body:
        if isinstance(s, Loop):
            yield from _made(s.body)
        elif isinstance(s, Let):
            yield s.names[0], s
