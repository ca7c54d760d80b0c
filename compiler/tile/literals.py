"""The types that literals have by their place, so that text need not write them.

    x + 1  -->  x + (1: f32)      x of type f32

What a literal stands beside tells its type, else what its expression is wanted as, else its kind. Other literals tell
nothing, so that each may have its type written or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, INT, DType, accumulator
from einc.tile import Convert, Dot, Elem, ExtentOf, Fill, Fold, Lit, Load, Ref, ScalarArg, Scan, Value
from einc.tile.typing import Types
from einc.tile.walk import rebuild

UNTYPED = DType("?", "i", 0)  # of a literal whose place tells its type
_KINDS = {"bool": BOOL, "int": INT, "float": F32, "str": F32}

Wanted = DType | None


def typed(v: Value, names: Types, *wanted: Wanted) -> Value:
    """The value with a type for every literal that is `UNTYPED`; `wanted` are the types of its components."""
    return _each(v, names, wanted, lambda lit, t: replace(lit, dtype=t) if lit.dtype is UNTYPED else lit)


def bare(v: Value, names: Types, *wanted: Wanted) -> Value:
    """The value with every literal `UNTYPED` whose place tells its type: what `typed` takes back.

    One that a name is spelled like keeps its type, which tells it from the name.
    """
    return _each(v, names, wanted, lambda lit, t: _untyped(lit, t, names))


def _untyped(lit: Lit, told: DType, names: Types) -> Lit:
    return replace(lit, dtype=UNTYPED) if lit.dtype == told and lit.value not in names else lit


def _each(v: Value, names: Types, wanted: tuple[Wanted, ...], f: Callable[[Lit, DType], Lit]) -> Value:
    """The value with f of each literal and the type that its place has."""
    if isinstance(v, Lit):
        return f(v, wanted[0] or _KINDS[v.kind])
    if isinstance(v, Fill):
        return replace(v, value=f(v.value, wanted[0] or _KINDS[v.value.kind]))
    below = iter(_wanted_below(v, names, wanted))
    return rebuild(v, lambda part: _each(part, names, (next(below),), f))


def _wanted_below(v: Value, names: Types, wanted: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
    """The types that the values directly below are wanted as, in the order that `rebuild` takes them."""
    match v:
        case Elem(op=op, args=args):
            return _arguments(op, args, names, wanted[0])
        case Convert():
            return (None,)
        case Load(index=index):
            return (*(INT for _ in index), BOOL)
        case Dot(left=left, right=right):
            side = _first((left, right), names)
            counting = (BOOL for p in (v.left_in, v.right_in) if p is not None)
            return side, side, wanted[0] if side is None else accumulator(side), *counting
        case Fold(args=args) | Scan(args=args):
            return tuple(wanted[k] if k < len(wanted) else None for k in range(len(args)))
        case _:
            return ()


def _arguments(op: str, args: tuple[Value, ...], names: Types, wanted: Wanted) -> tuple[Wanted, ...]:
    if op == "where":
        chosen = _first(args[1:], names) or wanted
        return (BOOL, *(chosen for _ in args[1:]))
    rule = OPS[op].rule
    if rule is Rule.LOGIC:
        one: Wanted = BOOL
    elif rule is Rule.RANDOM:
        one = INT
    else:
        one = _first(args, names) or (None if rule is Rule.TRUTH else wanted)
    return tuple(one for _ in args)


def _first(values: Iterable[Value], names: Types) -> Wanted:
    return next((t for t in (_told(v, names) for v in values) if t is not None), None)


def _told(v: Value, names: Types) -> Wanted:
    """The type of a value, where something other than a literal tells."""
    match v:
        case Lit() | Fill():
            return None
        case Ref(name=name) | ScalarArg(name=name):
            return names[name].dtype if name in names else None
        case ExtentOf():
            return INT
        case Load(dtype=dtype) | Convert(dtype=dtype):
            return dtype
        case Dot(left=left, right=right, acc=acc):
            side = _first((left, right), names)
            return _told(acc, names) if side is None else accumulator(side)
        case Fold(args=args) | Scan(args=args):
            return _told(args[0], names)
        case Elem(op="where", args=args):
            return _first(args[1:], names)
        case Elem(op=op, args=args):
            rule = OPS[op].rule
            if rule in (Rule.TRUTH, Rule.LOGIC):
                return BOOL
            return F32 if rule is Rule.RANDOM else _first(args, names)
