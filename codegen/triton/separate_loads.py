"""Give the dots of a loop loads of their own, and loads masks that are there before the dots.

    x = load T[e]; ... x ... dot(x, y)   -->   x = load T[e] apart; z = load T[e]; ... x ... dot(z, y)      in a loop

A load that a loop keeps in flight has its ring of buffers sized for one kind of reader: where a dot of Hopper, which
reads them late, shares it with others, Triton (3.6 and 3.7) lets a copy overwrite what the dot still reads.

    p = f(dot(x, y)); z = load T[e], p   -->   z = load T[e]; z = where p then z else 0                    in a loop

What a load in flight is masked by, Triton (3.6) would have to compute a block ahead, which it cannot do with a dot.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from einc import tile
from einc.base.types import DType
from einc.ein.rewriting import unused
from einc.tile import Elem, Ref, Value
from einc.tile.masks import conjunction, conjuncts
from einc.tile.typing import bound_names
from einc.tile.walk import rebuild, rewritten, values_in, walk_values


def separate_loads(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with a load for every dot of a loop that shares one with other work."""
    taken = bound_names(kernel)

    def separated(s: tile.Statement) -> tuple[tile.Statement, ...]:
        return (replace(s, body=_separated(_early(s.body, taken), taken)),) if isinstance(s, tile.Loop) else (s,)

    return replace(kernel, body=rewritten(kernel.body, lambda s, _: separated(s)))


def _early(body: tuple[tile.Statement, ...], taken: set[str]) -> tuple[tile.Statement, ...]:
    """The body with masks of loads that no dot in it decides; the others choose what was loaded."""
    late: set[str] = set()
    made: list[tile.Statement] = []

    def is_late(v: Value) -> bool:
        return any(isinstance(x, tile.Dot) or (isinstance(x, Ref) and x.name in late) for x in walk_values(v))

    for s in body:
        if isinstance(s, tile.Let) and is_late(s.value):
            late.update(s.names)
        match s:
            case tile.Let(names=(name,), types=(type_,), value=tile.Load(mask=mask) as load) if name in late:
                terms = conjuncts(mask)
                decided = conjunction([t for t in terms if is_late(t)])
                if decided is None or any(map(is_late, load.index)):
                    made.append(s)
                    continue
                whole = unused(f"{name}_all", taken)
                taken.add(whole)
                kept = replace(load, mask=conjunction([t for t in terms if not is_late(t)]))
                made.append(replace(s, names=(whole,), value=kept))
                made.append(replace(s, value=Elem("where", (decided, Ref(whole), _zero(type_.dtype)))))
            case _:
                made.append(s)
    return tuple(made)


def _zero(t: DType) -> tile.Lit:
    return tile.Lit(False if t.is_bool else 0.0 if t.is_float else 0, t)


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
