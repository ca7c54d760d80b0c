"""Exponents of a kernel, spelled out where nothing else reads their parts, and chosen by masks after the exponential.

    x = a - b; exp(x)                         -->   exp(a - b)              if nothing else reads x
    exp(where(p, x, -inf) - where(p, r, 0))   -->   where(p, exp(x - r), 0)

Laws about their terms then see all of them, at every element and in every row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from einc import tile
from einc.tile import Elem, Lit, Ref, Value
from einc.tile.live import live
from einc.tile.walk import every_value, loops, over_values, rebuild, values_of, walk_values


def exponents_spelled(kernel: tile.Kernel) -> tuple[tile.Statement, ...]:
    """The statements of a kernel with its exponents so."""
    spelled = live(_spelled(kernel.body, _uses(kernel)))
    return tuple(over_values(s, _hoisted) for s in spelled)


def _uses(kernel: tile.Kernel) -> Counter[str]:
    """How often each name is read, if any exponential is there."""
    if not any(isinstance(v, Elem) and v.op == "exp" for v in every_value(kernel)):
        return Counter()
    uses = Counter(v.name for v in every_value(kernel) if isinstance(v, Ref))
    uses.update(c.after for loop in loops(kernel.body) for c in loop.carried)
    return uses


def _spelled(body: tuple[tile.Statement, ...], uses: Mapping[str, int]) -> tuple[tile.Statement, ...]:
    """The body with its exponents spelled out, but for names that are read elsewhere."""
    made: list[tile.Statement] = []
    own: dict[str, Value] = {}
    for s in (over_values(s, lambda v: _exponents(v, own)) for s in body):
        match s:
            case tile.Let(names=(name,), value=Elem() as value) if uses[name] == 1:
                if all(isinstance(v, Elem | tile.Convert) or not values_of(v) for v in walk_values(value)):
                    own[name] = value
        made.append(replace(s, body=_spelled(s.body, uses)) if isinstance(s, tile.Loop) else s)
    return tuple(made)


def _exponents(v: Value, own: Mapping[str, Value]) -> Value:
    def spelled(x: Value) -> Value:
        if isinstance(x, Ref):
            return spelled(own[x.name]) if x.name in own else x
        return rebuild(x, spelled) if isinstance(x, Elem) else x

    below = rebuild(v, lambda x: _exponents(x, own))
    return rebuild(below, spelled) if isinstance(below, Elem) and below.op == "exp" else below


def _hoisted(v: Value) -> Value:
    """The value with what is nothing outside of a mask chosen by that mask once, after its exponential."""
    match rebuild(v, _hoisted):
        case Elem(
            op="sub" | "add" as op,
            args=(Elem(op="where", args=(p, x, Lit(value=e) as out)), Elem(op="where", args=(q, y, Lit(value=0)))),
        ) if p == q and e == -math.inf:
            return Elem("where", (p, Elem(op, (x, y)), out))
        case Elem(op="exp", args=(Elem(op="where", args=(p, x, Lit(value=e, dtype=t))),)) if e == -math.inf:
            return Elem("where", (p, Elem("exp", (x,)), Lit(0.0, t)))
        case made:
            return made
