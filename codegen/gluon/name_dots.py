"""Give dots that stand within an expression names, by which they can be begun and finished.

s = c * dot(q, k)   -->   s_dot = dot(q, k);  s = c * s_dot      in a loop
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

from einc import tile
from einc.tile import Dot, Kernel, Let, Loop, Ref, TileType, Value
from einc.tile.typing import bound_names, dtype_of, scope
from einc.tile.walk import Scope, rebuild, walk_values


def name_dots(kernel: Kernel) -> Kernel:
    """The kernel with a name for each dot of its loops."""
    return replace(kernel, body=tuple(_named(s, kernel) for s in kernel.body))


def _named(s: tile.Statement, kernel: Kernel) -> tile.Statement:
    if not isinstance(s, Loop):
        return s
    taken, here = bound_names(kernel), Scope(scope(kernel))
    for x in kernel.body:
        here.bind(x)
    names, bodies = here.inside(s).names, [s.body, *([] if s.full is None else [s.full.body])]
    within = {x.names[0] for body in bodies for x in body if isinstance(x, Let) and _is_within(x.value)}
    first, *rest = (tuple(_apart(body, within, dict(names), taken)) for body in bodies)
    return replace(s, body=first, full=None if s.full is None else replace(s.full, body=rest[0]))


def _is_within(v: Value) -> bool:
    """Is a dot a part of a value, and not all of it?"""
    return not isinstance(v, Dot) and any(isinstance(x, Dot) for x in walk_values(v))


def _apart(
    body: tuple[tile.Statement, ...], within: AbstractSet[str], names: dict[str, TileType], taken: set[str]
) -> Iterator[tile.Statement]:
    """The statements of a loop; equal ones of its two bodies get equal names, whatever either does with a dot."""
    for s in body:
        if isinstance(s, Let):
            found: list[Let] = []

            def apart(v: Value, name: str = s.names[0], found: list[Let] = found) -> Value:
                if isinstance(v, Dot):
                    own = _fresh(f"{name}_dot", taken, len(found))
                    found.append(Let((own,), (TileType(dtype_of(v.acc, names), v.sides.result),), v))
                    return Ref(own)
                return rebuild(v, apart)

            if s.names[0] in within:
                s = replace(s, value=apart(s.value))
            yield from found
            names.update(zip(s.names, s.types, strict=True))
        yield s


def _fresh(wanted: str, taken: set[str], number: int) -> str:
    name = wanted if not number else f"{wanted}_{number}"
    while name in taken:
        name += "_"
    return name
