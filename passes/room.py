"""What a kernel of contractions takes of a multiprocessor: shared memory for operands, registers for states.

A side of a dot that is loaded lies in shared memory, once for every stage in flight if the loop moves it; a computed
right side lies there once; a computed left side, results and states are in registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from einc import tile
from einc.tile import Dot, Kernel, Let, Load, Loop, Ref, Statement, TileType, Value

Extents = Mapping[str, int]  # positions of a tile by its axis


def registers(kernel: Kernel, sizes: Extents) -> int:
    """Bytes of the largest loop's states, or of the largest dot's result where that is more."""
    states = [sum(_bytes(c.type, sizes) for c in loop.carried) for loop in _loops(kernel.body)]
    results = [_bytes(let.types[0], sizes) for _, let in _made(kernel.body) if isinstance(let.value, Dot)]
    return max(*states, *results, 0, 0)


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
    sides: dict[Value, int] = {}
    for d in dots:
        for side, right in ((d.left, False), (d.right, True)):
            let = made.get(side.name) if isinstance(side, Ref) else None
            if let is None:
                continue
            if loaded := any(isinstance(v, Load) for v in tile.values_in((let,))):
                copies = stages if moving in let.types[0].axes else 1
            if loaded or right:
                sides[side] = _bytes(let.types[0], sizes) * (copies if loaded else 1)
    return sum(sides.values())


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
