"""Tile values as text that reads back: with few parentheses, and literals typed only if their place does not tell.

    load T[i, j?]: f16 by pointer where p     index j is checked; the type is written if it is not the tensor's
    acc + dot[i, e : j](x, y)                 the axes of the result, then the inner one; no acc is zero
    dot[i, e : j in tf32](x, y)               f32 multiplied less precisely
    dot[i, e : j](x counting p, y)            where p is false x is 0, and y is not multiplied
    max[j](x)   prefixes sum[j](x)            a fold; a scan (`suffixes` in reverse)
    0   (0: i64)   fill(0)                    a literal, a literal with its type, a tile of one value

A name over axes that is bound to a literal is a tile filled with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from einc import tile
from einc.base.ops import ATOM, OPS, SIGN, SUM, Op, sides
from einc.base.types import DType
from einc.ein.printer import bracketed
from einc.tile import Lit, TileType, Value
from einc.tile.literals import UNTYPED, bare

LOOSE = -1  # how tightly a load with a mask binds: less than any operation
ZERO = tile.Fill(Lit(0, UNTYPED))  # what a dot is added to if its text has no acc
WORDS = ("true", "false", "inf", "nan", "lowest", "highest")


@dataclass(frozen=True, slots=True)
class Notation:
    """Writes the values of a kernel, given the types of its names, the element types of its buffers, and the ways of
    loads to these."""

    names: Mapping[str, TileType]
    elements: Mapping[str, DType]
    ways: Mapping[str, str]

    def text(self, v: Value, *wanted: DType) -> str:
        """A value as text; `wanted` are the types of its components."""
        return self.value(bare(v, self.names, *(wanted or (None,))), LOOSE)

    def bound(self, v: Value, types: tuple[TileType, ...]) -> str:
        """A value that is bound to names of these types, as text."""
        wanted = tuple(t.dtype for t in types)
        if not types[0].axes:
            return self.text(v, *wanted)
        if isinstance(v, Lit):
            return self.literal(v)
        made = bare(v, self.names, *wanted)
        return self.literal(made.value) if isinstance(made, tile.Fill) else self.value(made, LOOSE)

    def value(self, v: Value, binding: int) -> str:
        match v:
            case tile.Ref(name=name) | tile.ScalarArg(name=name):
                return name
            case Lit():
                return bracketed(self.literal(v), SIGN if _is_negative(v) else ATOM, binding)
            case tile.ExtentOf(axis=axis):
                return f"|{axis}|"
            case tile.Convert(dtype=dtype, arg=arg):
                return f"{dtype}({self.value(arg, LOOSE)})"
            case tile.Fill(value=value):
                return f"fill({self.literal(value)})"
            case tile.Load():
                return bracketed(self.load(v), ATOM if v.mask is None else LOOSE, binding)
            case tile.Dot():
                return bracketed(self.dot(v), SUM, binding)
            case tile.Fold(monoid=monoid, axis=axis, args=args):
                return f"{monoid.name}[{axis}]({self.several(args)})"
            case tile.Scan(monoid=monoid, axis=axis, args=args, reverse=reverse):
                return f"{'suffixes' if reverse else 'prefixes'} {monoid.name}[{axis}]({self.several(args)})"
            case tile.Elem(op=op, args=args):
                return self.operation(OPS[op], args, binding)
            case _:
                assert_never(v)

    def several(self, values: tuple[Value, ...]) -> str:
        return ", ".join(self.value(v, LOOSE) for v in values)

    def literal(self, v: Lit) -> str:
        """The literal, with its type if it still has one."""
        text = str(v.value).lower() if isinstance(v.value, bool) else str(v.value)
        return text if v.dtype is UNTYPED else f"({text}: {v.dtype})"

    def load(self, v: tile.Load) -> str:
        checked = zip(v.index, v.checked, strict=True)
        index = ", ".join(self.value(i, LOOSE) + ("?" if c else "") for i, c in checked)
        kind = "" if v.dtype == self.elements.get(v.tensor) else f": {v.dtype}"
        way = self.ways.get(v.tensor)
        how = (f" by {way}" if way else "") + (" apart" if v.apart else "")
        mask = "" if v.mask is None else f" where {self.value(v.mask, LOOSE)}"
        return f"load {v.tensor}{part(v.part)}[{index}]{kind}{how}{mask}"

    def dot(self, v: tile.Dot) -> str:
        acc = "" if v.acc == ZERO else f"{self.value(v.acc, SUM)} + "
        sides = ", ".join(self.side(x, p) for x, p in ((v.left, v.left_in), (v.right, v.right_in)))
        how = "" if v.product is None else f" in {v.product}"
        return f"{acc}dot[{', '.join(v.sides.result)} : {v.inner}{how}]({sides})"

    def side(self, x: Value, counts: Value | None) -> str:
        return self.value(x, LOOSE) + ("" if counts is None else f" counting {self.value(counts, LOOSE)}")

    def operation(self, op: Op, args: tuple[Value, ...], binding: int) -> str:
        if not op.infix or op.name == "exactdiv":  # `exactdiv` is spelled as `div`
            return f"{op.name}({self.several(args)})"
        if op.arity == 1:
            space = " " if op.infix.isalpha() else ""
            below = f"({self.value(args[0], LOOSE)})" if isinstance(args[0], Lit) else self.value(args[0], op.binding)
            return bracketed(f"{op.infix}{space}{below}", op.binding, binding)
        left, right = sides(op)
        return bracketed(f"{self.value(args[0], left)} {op.infix} {self.value(args[1], right)}", op.binding, binding)


def part(n: int | None) -> str:
    return "" if n is None else (".re", ".im")[n]


def _is_negative(v: Lit) -> bool:
    return v.dtype is UNTYPED and str(v.value).startswith("-")
