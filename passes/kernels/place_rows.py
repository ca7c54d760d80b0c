"""Compute once for each row and for each column, in loops, what would be computed at every element.

    i - j < c              -->   i - c < j                                   i and j positions, c a number
    x - r - s              -->   x - (r + s)                                 r and s of the same axes, fewer than x has
    f(f32(j - i))          -->   c = min[i](i);  r = f32(i - c);  f(f32(j - c) - r)             i of no loop
    f(s * f32(j - i))      -->   ...                              f(s * f32(j - c) - s * r)     s a number

Positions along two axes, of which one does not change in a loop, are converted apart, relative to the first of its
block: numbers of that block have few digits, and the others are rounded where their difference would be. What is left
of every element is a difference of floats, where a conversion takes as long as several of them.

Sums in another order, and factors of rows and columns, are rounded by the last place of a row's term, or of a factor's
product with the positions of a block. So they are for kernels that read or write types with fewer digits than f32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from einc import tile
from einc.base.types import F32, INT
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import unused
from einc.passes.kernels.exponents import exponents_spelled
from einc.tile import Convert, Elem, Fold, Let, Lit, Ref, Statement, TileType, Value
from einc.tile.live import live
from einc.tile.sums import called_by_name, sum_of, terms_of, total
from einc.tile.typing import axes_of, bound_names, dtype_of, is_narrow, scope
from einc.tile.walk import (
    Scope,
    lets,
    loops,
    names_in,
    over_values,
    rebuild,
    rewritten,
    tile_axes,
)

_MOST = 1 << 10  # of a position's factor: times those of a block, it has fewer digits than f32


def place_rows(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with what its loops compute of rows and columns placed."""
    axes = {a.name for a in tile_axes(kernel).values() if a.blocked}
    whole = tuple(over_values(s, lambda v: _compared(v, axes)) for s in exponents_spelled(kernel))
    if not any(loop.axis.blocked for loop in loops(whole)):
        return replace(kernel, body=whole)
    rows = _Rows(kernel)
    body = rewritten(whole, rows.apart, Scope(dict(scope(kernel))))
    body = (*rows.lets, *body) if rows.lets else body
    if rows.narrow:
        rows.values = {s.names[0]: s.value for s in lets(body) if len(s.names) == 1}
        body = rewritten(body, rows.added, Scope(dict(scope(kernel))))
    return replace(kernel, body=live(body))


class _Rows:
    """Rewrites the statements of loops, and knows what is bound before these: the names of numbers and rows."""

    def __init__(self, kernel: tile.Kernel) -> None:
        self.taken = bound_names(kernel)
        self.narrow = is_narrow(kernel)
        self.fixed = {a.name for a in (*kernel.grid, *kernel.whole) if a.blocked}
        self.lets: list[Let] = []
        self.names: dict[Value, str] = {}
        self.values: dict[str, Value] = {}

    def apart(self, s: Statement, here: Scope) -> Iterator[Statement]:
        """The statement with positions converted apart."""

        def value(v: Value) -> Value:
            match v:
                case Elem(op="mul", args=(c, Convert() as x) | (Convert() as x, c)) if not axes_of(c, here.names):
                    match self.converted(x, x.arg, here):
                        case Elem(op="add" | "sub" as op, args=(column, row)) if self.narrow:
                            return Elem(op, (Elem("mul", (c, column)), Elem("mul", (c, row))))
                        case _:
                            return rebuild(v, value)
                case Convert(arg=x):
                    return self.converted(v, x, here) or rebuild(v, value)
                case _:
                    return rebuild(v, value)

        yield over_values(s, value) if here.loops and not isinstance(s, tile.Loop) else s

    def converted(self, v: Convert, x: Value, here: Scope) -> Value | None:
        """The conversion of a sum of positions, as a sum of conversions; of its absolute value likewise."""
        if not v.dtype.is_float or dtype_of(x, here.names) != INT:
            return None
        if isinstance(x, Elem) and x.op in ("abs", "neg"):
            found = self.converted(v, x.args[0], here)
            return None if found is None else Elem(x.op, (found,))
        terms = terms_of(x)
        walked = {loop.axis.name for loop in here.loops if loop.axis.blocked}
        own = [t for t in terms if _is_position(t[1], self.fixed)]
        rest = [t for t in terms if t not in own]
        axes = {a for _, t in own for a in axes_of(t, here.names)}
        if (
            len(axes) != 1
            or not any(_is_position(t, walked) for _, t in rest)
            or not all(_is_position(t, walked) or _is_number(t) for _, t in rest)
        ):
            return None
        (axis,) = axes
        plus = any(sign for sign, _ in own)
        row = sum_of([(sign == plus, t) for sign, t in own])
        first = self.bound(f"{axis}_first", Fold(MONOIDS["min"], axis, (row,)), TileType(INT))
        apart = self.bound(f"{axis}_apart", replace(v, arg=Elem("sub", (row, first))), TileType(v.dtype, (axis,)))
        return Elem("add" if plus else "sub", (replace(v, arg=sum_of([*rest, (plus, first)])), apart))

    def bound(self, stem: str, v: Value, own: TileType) -> Ref:
        if v not in self.names:
            self.names[v] = unused(stem, self.taken)
            self.taken.add(self.names[v])
            self.lets.append(Let((self.names[v],), (own,), v))
        return Ref(self.names[v])

    def added(self, s: Statement, here: Scope) -> Iterator[Statement]:
        """The statement with the terms of sums that have the same axes, and fewer, added up first."""

        def value(v: Value) -> Value:
            if isinstance(v, Elem) and v.op in ("add", "sub") and dtype_of(v, here.names) == F32:
                whole = axes_of(v, here.names)
                groups: dict[frozenset[str], list[tuple[bool, Value]]] = {}
                for plus, term in called_by_name(v, self.values):
                    groups.setdefault(axes_of(term, here.names), []).append((plus, value(term)))
                if whole in groups and any(axes and axes != whole and len(t) > 1 for axes, t in groups.items()):
                    every = [*groups.pop(whole), *map(total, groups.values())]
                    return total(sorted(every, key=lambda t: not t[0]))[1]
            return rebuild(v, value)

        yield over_values(s, value) if here.loops and not isinstance(s, tile.Loop) else s


def _compared(v: Value, axes: set[str]) -> Value:
    """The value with positions along two axes compared, and not their difference; numbers are taken from one of them,
    so that what is positive stays in range."""
    made = rebuild(v, lambda below: _compared(below, axes))
    if not (isinstance(made, Elem) and made.op in ("lt", "le", "gt", "ge", "eq", "ne")):
        return made
    left, right = map(terms_of, made.args)
    terms = [*left, *((not plus, t) for plus, t in right)]
    positions = [t for t in terms if _is_position(t[1], axes)]
    numbers = [t for t in terms if _is_number(t[1])]
    signs = [plus for plus, _ in positions]
    if len(terms) != len(positions) + len(numbers) or len(left) + len(right) < 3 or sorted(signs) != [False, True]:
        return made
    ahead, behind = (next(t for plus, t in positions if plus == sign) for sign in (True, False))
    if names_in(ahead) == names_in(behind):
        return made
    apart = [(plus, t) for plus, t in map(_positive, numbers) if t != Lit(0, INT)]
    return Elem(
        made.op,
        (
            sum_of([(True, ahead), *((False, t) for more, t in apart if not more)]),
            sum_of([(True, behind), *((False, t) for more, t in apart if more)]),
        ),
    )


def _positive(term: tuple[bool, Value]) -> tuple[bool, Value]:
    match term:
        case plus, Lit(value=int() as n) if n < 0:
            return not plus, Lit(-n, INT)
        case _:
            return term


def _is_position(v: Value, axes: set[str]) -> bool:
    """Is it a multiple of the position along one of these axes?"""
    match v:
        case Ref(name=name):
            return name in axes
        case Elem(op="mul", args=(Lit(value=int() as c), Ref(name=name)) | (Ref(name=name), Lit(value=int() as c))):
            return name in axes and abs(c) <= _MOST
        case _:
            return False


def _is_number(v: Value) -> bool:
    return isinstance(v, Lit | tile.ExtentOf | tile.ScalarArg)
