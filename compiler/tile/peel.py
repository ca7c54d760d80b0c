"""A loop of one block as its body, which goes on from what the states are before it.

    m = -inf;  l = 0                                  m' = max(x)
    loop j:  m' = max(m, max(x));  c = exp(m - m')    l' = sum(exp(x - m'))
             l' = l * c + sum(exp(x - m'))       -->  m = m';  l = l'
             m = m';  l = l'

A state begins as the identity of its monoid, which every movement leaves as it is: 0 times what rescales it is 0. This
is a law of states, not of numbers, and so is not applied elsewhere.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import assert_never

from einc import tile
from einc.base.types import BOOL
from einc.tile import Elem, Fill, Let, Lit, Loop, Ref, Statement, Store, TileAxis, TileType, Value
from einc.tile.live import live
from einc.tile.typing import axes_of, bound_names, scope
from einc.tile.walk import loop_position, loops, over_values, rebuild

_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge
}  # fmt: skip
_NEUTRAL = {"max": -inf, "min": inf, "add": 0}


def peeled(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel for extents at which each loop without bounds is one block; the axes of these loops are held whole."""
    peeling = _Peeling(kernel)
    body = live(peeling.body(kernel.body))
    whole = (*kernel.whole, *(replace(a, role="whole") for a in peeling.axes))
    sizes = {a.name: replace(b, cap=tile.WHOLE) for a in peeling.axes if (b := kernel.choices.tile(a.name)) is not None}
    straight = replace(kernel, body=body, whole=whole)
    return straight.choosing(kernel.choices.sized(sizes)) if peeling.axes else kernel


def _is_simple(s: Loop) -> bool:
    """Does a loop walk the whole of its axis, with no loop in it?"""
    return s.start is None and s.stop is None and s.axis.blocked and not any(isinstance(x, Loop) for x in s.body)


class _Peeling:
    """What is known at a statement: the types of names, and the names that are numbers."""

    def __init__(self, kernel: tile.Kernel) -> None:
        self.names = scope(kernel)
        self.taken = bound_names(kernel)
        self.begun: dict[str, str] = {}  # states of the loop that is left out, by what they are named before it
        self.known: dict[str, bool | float] = {}
        self.kept = {s.axis.name for s in loops(kernel.body) if not _is_simple(s)}
        self.kept |= {s.axis.name for outer in loops(kernel.body) for s in loops(outer.body)}
        self.axes: list[TileAxis] = []

    def body(self, statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple(made for s in statements for made in self.statement(s))

    def statement(self, s: Statement) -> tuple[Statement, ...]:
        match s:
            case Loop() if s.axis.name not in self.kept:
                return self.loop(s)
            case Loop(carried=carried):
                self.names |= {c.name: c.type for c in carried}
                return (s,)
            case Let(names=names, types=types, value=value):
                return (self.let(names, types, value),)
            case Store():
                return (over_values(s, self.value),)
            case _:
                assert_never(s)

    def loop(self, s: Loop) -> tuple[Statement, ...]:
        """The body of a loop, between its states before and after it."""
        if s.axis not in self.axes:
            self.axes.append(s.axis)
        self.names[s.axis.name] = loop_position(s.axis)
        before = {c.name: self.fresh(c.name) for c in s.carried}
        begins = tuple(self.let((before[c.name],), (c.type,), c.init) for c in s.carried)
        self.begun = before
        body = self.body(s.body)
        self.begun = {}
        ends = tuple(self.let((c.name,), (c.type,), Ref(before.get(c.after, c.after))) for c in s.carried)
        return (*begins, *body, *ends)

    def fresh(self, name: str) -> str:
        found, n = f"{name}_before", 1
        while found in self.taken:
            n += 1
            found = f"{name}_before_{n}"
        self.taken.add(found)
        return found

    def let(self, names: tuple[str, ...], types: tuple[TileType, ...], value: Value) -> Let:
        """A binding, with what is known of its value."""
        self.names.update(zip(names, types, strict=True))
        found = value if isinstance(value, Fill) else self.value(value)
        number = self.number(found.value if isinstance(found, Fill) else found)
        if number is not None and len(names) == 1:
            self.known[names[0]] = number
            literal = Lit(number, types[0].dtype)
            found = Fill(literal) if types[0].axes else literal
        return Let(names, types, found)

    # Values ----------------------------------------------------------------------------------------------------------

    def number(self, v: Value) -> bool | float | None:
        """The number that a value is everywhere, if it is known."""
        match v:
            case Lit(value=str() as end, dtype=dtype):
                return None if not dtype.is_float else -inf if end == "lowest" else inf
            case Lit(value=bool() | int() | float() as number):
                return number
            case Ref(name=name):
                return self.known.get(name)
            case _:
                return None

    def value(self, v: Value) -> Value:
        """The value with what follows from known numbers; it extends over the same axes, if it is no truth value."""
        match v:
            case Ref(name=name):
                return Ref(self.begun.get(name, name))
            case Elem(op=op, args=args):
                return self.operation(op, tuple(map(self.value, args)))
            case _:
                return rebuild(v, self.value)

    def operation(self, op: str, args: tuple[Value, ...]) -> Value:
        v = Elem(op, args)
        match op, tuple(map(self.number, args)):
            case (("eq" | "ne" | "lt" | "le" | "gt" | "ge"), (float() | int() as a, float() | int() as b)):
                return Lit(_COMPARED[op](a, b), BOOL)
            case "not", (bool() as a,):
                return Lit(not a, BOOL)
            case "where", (bool() as chosen, _, _):
                return self.spread(args[1] if chosen else args[2], v)
            case (("max" | "min" | "add"), (a, b)):
                for number, other in ((a, args[1]), (b, args[0])):
                    if number is not None and number == _NEUTRAL[op] and not isinstance(number, bool):
                        return self.spread(other, v)
            case "mul", (a, b):
                for number, zero in ((a, args[0]), (b, args[1])):
                    if number == 0 and isinstance(zero, Ref) and zero.name in self.begun.values():
                        return self.spread(zero, v)
        return v

    def spread(self, found: Value, v: Value) -> Value:
        """What was found for a value, if it extends over the same axes."""
        return found if axes_of(found, self.names) == axes_of(v, self.names) else v
