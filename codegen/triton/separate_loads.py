"""Give the dots of a loop loads of their own.

    x = load T[e]; ... x ... dot(x, y)   -->   x = load T[e] apart; z = load T[e]; ... x ... dot(z, y)      in a loop

A load that a loop keeps in flight has its ring of buffers sized for one kind of reader: where a dot of Hopper, which
reads them late, shares it with others, Triton (3.6 and 3.7) lets a copy overwrite what the dot still reads.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from einc import tile
from einc.ein.rewriting import unused
from einc.tile import Ref, Value
from einc.tile.typing import bound_names
from einc.tile.walk import rebuild, rewritten, values_in


def separate_loads(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with a load for every dot of a loop that shares one with other work."""
    taken = bound_names(kernel)

    def separated(s: tile.Statement) -> tuple[tile.Statement, ...]:
        return (replace(s, body=_separated(s.body, taken)),) if isinstance(s, tile.Loop) else (s,)

    return replace(kernel, body=rewritten(kernel.body, lambda s, _: separated(s)))


def _separated(body: tuple[tile.Statement, ...], taken: set[str]) -> tuple[tile.Statement, ...]:
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
