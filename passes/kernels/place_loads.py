"""Decide how each load reaches memory, and do once what does not change in a loop.

    loop t: x = e; ...   -->   x = e; loop t: ...        e free of t and of what the loop binds or carries
    load T[e]            -->   load T[e] by pointer
    x = load T[e]; ... x ... dot(x, y)   -->   x = load T[e]; z = load T[e]; ... x ... dot(z, y)      in a loop

A load may leave a loop that no position is walked of: it is masked, or in bounds whenever its kernel runs (`lower`).
Pointers take any strides; descriptors will need unit strides and aligned bases. A load that a loop keeps in flight has
its ring of buffers sized for one kind of reader: where a dot of Hopper, which reads them late, shares it with others,
Triton (3.6 and 3.7) lets a copy overwrite what the dot still reads. So the dot gets a load of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from einc import tile
from einc.ein.rewriting import unused
from einc.tile import Ref, Value
from einc.tile.typing import bound_names
from einc.tile.walk import Scope, over_values, rebuild, rewritten, values_in


def place_loads(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with its loads placed."""
    taken = bound_names(kernel)
    placed = rewritten(kernel.body, lambda s, _: _placed(s, taken) if isinstance(s, tile.Loop) else (s,))
    return replace(kernel, body=tuple(over_values(s, _by_pointer) for s in placed))


def _placed(s: tile.Loop, taken: set[str]) -> tuple[tile.Statement, ...]:
    """The bindings that can be made before a loop, and the loop without them, where each dot has loads of its own."""
    moving = {s.axis.name} | {c.name for c in s.carried}
    before: list[tile.Statement] = []
    inside: list[tile.Statement] = []
    finals = {c.after for c in s.carried}
    for x in s.body:
        refs = {v.name for v in values_in((x,)) if isinstance(v, tile.Ref)}
        if isinstance(x, tile.Let) and not refs & moving and not finals & set(x.names):
            before.append(x)
            continue
        there = Scope()
        there.bind(x)
        moving |= there.names.keys()
        inside.append(x)
    return (*before, replace(s, body=_separated(tuple(inside), taken)))


def _by_pointer(v: Value) -> Value:
    made = rebuild(v, _by_pointer)
    return replace(made, via="pointer") if isinstance(made, tile.Load) else made


def _separated(body: tuple[tile.Statement, ...], taken: set[str]) -> tuple[tile.Statement, ...]:
    """The statements of a loop with a load of its own for every dot that shares one with other work."""
    uses = Counter(v.name for v in values_in(body) if isinstance(v, Ref))
    dots = [v for v in values_in(body) if isinstance(v, tile.Dot)]
    multiplied = Counter(side.name for d in dots for side in (d.left, d.right) if isinstance(side, Ref))
    split: list[tile.Statement] = []
    own: dict[Value, Value] = {}
    for s in body:
        match s:
            case tile.Let(names=(name,), value=tile.Load() as load) if 0 < multiplied[name] < uses[name]:
                again = unused(f"{name}_dot", taken)
                taken.add(again)
                own[Ref(name)] = Ref(again)
                split += [replace(s, names=(again,)), replace(s, value=replace(load, apart=True))]
            case tile.Let(value=value):
                split.append(replace(s, value=_over_own(value, own)))
            case _:
                split.append(s)
    return tuple(split)


def _over_own(v: Value, own: dict[Value, Value]) -> Value:
    made = rebuild(v, lambda below: _over_own(below, own))
    if isinstance(made, tile.Dot):
        return replace(made, left=own.get(made.left, made.left), right=own.get(made.right, made.right))
    return made
