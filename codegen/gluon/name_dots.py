"""Give dots that stand within an expression names, by which they can be begun and finished.

s = c * dot(q, k)   -->   s_dot = dot(q, k);  s = c * s_dot      in a loop
"""

from __future__ import annotations

from collections.abc import Iterator
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
    names = here.inside(s).names
    full = s.full if s.full is None else replace(s.full, body=tuple(_apart(s.full.body, dict(names), taken)))
    return replace(s, body=tuple(_apart(s.body, dict(names), taken)), full=full)


def _apart(body: tuple[tile.Statement, ...], names: dict[str, TileType], taken: set[str]) -> Iterator[tile.Statement]:
    """The statements of a loop; equal ones of its two bodies get equal names."""
    for s in body:
        if isinstance(s, Let):
            found: list[Let] = []

            def apart(v: Value, name: str = s.names[0], found: list[Let] = found) -> Value:
                if isinstance(v, Dot):
                    own = _fresh(f"{name}_dot", taken, len(found))
                    found.append(Let((own,), (TileType(dtype_of(v.acc, names), v.sides.result),), v))
                    return Ref(own)
                return rebuild(v, apart)

            if not isinstance(s.value, Dot) and any(isinstance(v, Dot) for v in walk_values(s.value)):
                s = replace(s, value=apart(s.value))
            yield from found
            names.update(zip(s.names, s.types, strict=True))
        yield s


def _fresh(wanted: str, taken: set[str], number: int) -> str:
    name = wanted if not number else f"{wanted}_{number}"
    while name in taken:
        name += "_"
    return name
