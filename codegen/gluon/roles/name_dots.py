"""Give dots that stand within an expression names, by which they can be begun and finished, and what one of several
dots decides, which is computed while the others go on.

s = c * dot(q, k)   -->   s_dot = dot(q, k);  s = c * s_dot      in a loop
p = f(s) * g(t)     -->   a = f(s);  b = g(t);  p = a * b        s, t what dots give
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from einc import tile
from einc.tile import Dot, Kernel, Let, Loop, Ref, TileType, Value
from einc.tile.typing import axes_of, bound_names, dtype_of, scope
from einc.tile.walk import Scope, rebuild, values_of, walk_values


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
    named = [tuple(_apart(body, within, dict(names), taken)) for body in bodies]
    first, *rest = _in_parts(named, names, taken)
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


def _in_parts(
    bodies: list[tuple[tile.Statement, ...]], names: Mapping[str, TileType], taken: set[str]
) -> list[tuple[tile.Statement, ...]]:
    """The bodies with names for what one dot decides within what several do: the same names in both."""
    parts = [_Parts(body, names) for body in bodies]
    alike = [n for n in parts[0].found if all([*p.found.get(n, ())] == [*parts[0].found[n]] for p in parts)]
    fresh = {(n, d): _fresh(f"{n}_{d}", taken, 0) for n in alike for d in parts[0].found[n]}
    taken |= {*fresh.values()}
    return [p.named(fresh) for p in parts]


class _Parts:
    """What one dot decides within the values of a body that several do, by the names of these and of dots."""

    def __init__(self, body: tuple[tile.Statement, ...], names: Mapping[str, TileType]) -> None:
        self.body, self.names = body, dict(names)
        self.dots: dict[str, frozenset[str]] = {}
        self.found: dict[str, dict[str, Value]] = {}
        for s in body:
            if not isinstance(s, Let):
                continue
            self.names.update(zip(s.names, s.types, strict=True))
            own = frozenset({s.names[0]}) if isinstance(s.value, Dot) else self.of(s.value)
            self.dots |= dict.fromkeys(s.names, own)
            if len(own) > 1 and not isinstance(s.value, Dot):
                by: dict[str, list[Value]] = {}
                for d, v in self.within(s.value):
                    by.setdefault(d, []).append(v)
                self.found[s.names[0]] = {f"{d}_{k}" if k else d: v for d in sorted(by) for k, v in enumerate(by[d])}

    def of(self, v: Value) -> frozenset[str]:
        """The dots that a value depends on."""
        return frozenset().union(*(self.dots.get(x.name, ()) for x in walk_values(v) if isinstance(x, Ref)))

    def within(self, v: Value) -> Iterator[tuple[str, Value]]:
        """The largest parts of a value that depend on one dot, and are more than its name."""
        own = self.of(v)
        if len(own) == 1 and not isinstance(v, Ref):
            yield next(iter(own)), v
        elif len(own) > 1:
            for x in values_of(v):
                yield from self.within(x)

    def named(self, fresh: Mapping[tuple[str, str], str]) -> tuple[tile.Statement, ...]:
        """The body with these names."""
        made: list[tile.Statement] = []
        for s in self.body:
            if not isinstance(s, Let):
                made.append(s)
                continue
            name = s.names[0]
            own = {d: v for d, v in self.found.get(name, {}).items() if (name, d) in fresh}
            for d, v in own.items():
                extended = axes_of(v, self.names)  # by what is folded, too
                outer = [a for a in s.types[0].axes if a in extended]
                axes = (*outer, *sorted(extended - {*outer}))
                type_ = TileType(dtype_of(v, self.names), axes)
                made.append(Let((fresh[name, d],), (type_,), v))
            by: dict[Value, Value] = {v: Ref(fresh[name, d]) for d, v in own.items()}
            made.append(replace(s, value=_replaced(s.value, by)) if own else s)
        return tuple(made)


def _replaced(v: Value, by: Mapping[Value, Value]) -> Value:
    return by[v] if v in by else rebuild(v, lambda x: _replaced(x, by))


def _fresh(wanted: str, taken: set[str], number: int) -> str:
    name = wanted if not number else f"{wanted}_{number}"
    while name in taken:
        name += "_"
    return name
