"""The types that literals have by their place, which texts need not write.

    x + 1  -->  x + (1: f32)      x of type f32

The type comes from the other arguments beside the literal, else from the type wanted for its expression, else from its
kind. Other literals do not count, so that each may have its type written or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import assert_never

from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, INT, DType, accumulator
from einc.tile import Convert, Dot, Elem, ExtentOf, Fill, Fold, Lit, Load, Ref, ScalarArg, Scan, Value
from einc.tile.typing import Types
from einc.tile.walk import rebuild

UNTYPED = DType("?", "i", 0)  # for a literal whose place gives its type
_KINDS = {"bool": BOOL, "int": INT, "float": F32, "str": F32}

Wanted = DType | None


def typed(v: Value, names: Types, *wanted: Wanted) -> Value:
    """The value with types for all `UNTYPED` literals; `wanted` are the types of its components."""
    return _Places(names, lambda lit, t: replace(lit, dtype=t) if lit.dtype is UNTYPED else lit).each(v, wanted)


def bare(v: Value, names: Types, *wanted: Wanted) -> Value:
    """The inverse of `typed`: the value with every literal `UNTYPED` whose place gives its type.

    A literal that is spelled like a name keeps its type, which tells it from the name.
    """

    def untyped(lit: Lit, told: DType) -> Lit:
        return replace(lit, dtype=UNTYPED) if lit.dtype == told and lit.value not in names else lit

    return _Places(names, untyped).each(v, wanted)


class _Places:
    """Rewrites each literal in a value by f of the literal and the type that its place gives."""

    def __init__(self, names: Types, f: Callable[[Lit, DType], Lit]) -> None:
        self.names, self.f = names, f
        self.known: dict[int, Wanted] = {}  # results of `told`, by identity of the value

    def each(self, v: Value, wanted: tuple[Wanted, ...]) -> Value:
        if isinstance(v, Lit):
            return self.f(v, wanted[0] or _KINDS[v.kind])
        if isinstance(v, Fill):
            return replace(v, value=self.f(v.value, wanted[0] or _KINDS[v.value.kind]))
        below = iter(self.below(v, wanted))
        return rebuild(v, lambda part: self.each(part, (next(below),)))

    def below(self, v: Value, wanted: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
        """The types that are wanted for the values directly below, in the order of `rebuild`."""
        match v:
            case Elem(op=op, args=args):
                return self.arguments(op, args, wanted[0])
            case Convert():
                return (None,)
            case Load(index=index):
                return (*(INT for _ in index), BOOL)
            case Dot(left=left, right=right):
                side = self.first((left, right))
                counting = (BOOL for p in (v.left_in, v.right_in) if p is not None)
                return side, side, wanted[0] if side is None else accumulator(side), *counting
            case Fold(args=args) | Scan(args=args):
                return tuple(wanted[k] if k < len(wanted) else None for k in range(len(args)))
            case Ref() | Lit() | ExtentOf() | ScalarArg() | Fill():
                return ()
            case _:
                assert_never(v)

    def arguments(self, op: str, args: tuple[Value, ...], wanted: Wanted) -> tuple[Wanted, ...]:
        if op == "where":
            chosen = self.first(args[1:]) or wanted
            return (BOOL, *(chosen for _ in args[1:]))
        rule = OPS[op].rule
        if rule is Rule.LOGIC:
            one: Wanted = BOOL
        elif rule is Rule.RANDOM:
            one = INT
        else:
            one = self.first(args) or (None if rule is Rule.TRUTH else wanted)
        return tuple(one for _ in args)

    def first(self, values: Iterable[Value]) -> Wanted:
        return next((t for t in map(self.told, values) if t is not None), None)

    def told(self, v: Value) -> Wanted:
        """The type of a value, if anything other than a literal gives it."""
        if id(v) not in self.known:
            self.known[id(v)] = self.found(v)
        return self.known[id(v)]

    def found(self, v: Value) -> Wanted:
        match v:
            case Lit() | Fill():
                return None
            case Ref(name=name) | ScalarArg(name=name):
                return self.names[name].dtype if name in self.names else None
            case ExtentOf():
                return INT
            case Load(dtype=dtype) | Convert(dtype=dtype):
                return dtype
            case Dot(left=left, right=right, acc=acc):
                side = self.first((left, right))
                return self.told(acc) if side is None else accumulator(side)
            case Fold(args=args) | Scan(args=args):
                return self.told(args[0])
            case Elem(op="where", args=args):
                return self.first(args[1:])
            case Elem(op=op, args=args):
                rule = OPS[op].rule
                if rule in (Rule.TRUTH, Rule.LOGIC):
                    return BOOL
                return F32 if rule is Rule.RANDOM else self.first(args)
            case _:
                assert_never(v)
