"""Tile values from text: what `einc.tile.notation` writes, read by precedence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from einc import tile
from einc.base.errors import NameError, SyntaxError, nearest
from einc.base.ops import COMPARE, OPS, SIGN, sides
from einc.base.recursion import make_room
from einc.base.types import BY_NAME, FLOAT, INT, PRECISIONS, DType
from einc.ein import Monoid
from einc.frontend.tiles.axes import Sizes
from einc.frontend.tiles.cursor import Cursor, unknown
from einc.frontend.tiles.lines import Token
from einc.tile import Lit, TileType, Value
from einc.tile.literals import UNTYPED, typed
from einc.tile.notation import LOOSE, WORDS, ZERO
from einc.tile.walk import values_of

_DEEPEST = 2000  # operations within operations
_INFIX = {op.infix: op for op in OPS.values() if op.arity == 2 and op.infix and op.name != "exactdiv"}
_PREFIX = {op.infix: op for op in OPS.values() if op.arity == 1 and op.infix}
_WORDS: dict[str, bool | float | str] = {w: w for w in WORDS} | {"true": True, "false": False}
_WORDS |= {"inf": math.inf, "nan": math.nan}
_CONVERSIONS = BY_NAME | {t.name: t for t in (INT, FLOAT)}

Monoids = Mapping[tuple[str, int], Monoid]  # by name and number of components


@dataclass(frozen=True)
class Known:
    """What values may refer to: names with their types, which of them are scalars, buffers with their element types,
    and monoids. What is written of tile axes and of loaded tensors is added to `sizes` and `ways`."""

    names: Mapping[str, TileType]
    scalars: frozenset[str]
    elements: Mapping[str, DType]
    monoids: Monoids
    sizes: Sizes = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)


class Values:
    """Reads the values at a cursor."""

    def __init__(self, cursor: Cursor, known: Known) -> None:
        self.cursor, self.known = cursor, known
        self.depth = 0
        brackets = sum(t.text in "([" for t in cursor.line.tokens)
        make_room(min(brackets, _DEEPEST))

    def read(self, *wanted: DType) -> Value:
        """A value; `wanted` are the types of its components."""
        return self.settled(self.untyped(), *wanted)

    def untyped(self) -> Value:
        """A value whose literals have only the types that are written."""
        first = self.cursor.token
        value = self.value(LOOSE)
        self.check_depth(value, first)
        return value

    def settled(self, value: Value, *wanted: DType) -> Value:
        return typed(value, self.known.names, *(wanted or (None,)))

    def bound(self, types: tuple[TileType, ...]) -> Value:
        """A value to bind to names of these types; a literal over axes is a tile filled with it."""
        bare = self.is_literal()
        value = self.read(*(t.dtype for t in types))
        return tile.Fill(value) if bare and types[0].axes and isinstance(value, Lit) else value

    def check_depth(self, value: Value, first: Token) -> None:
        stack, deepest = [(value, 1)], 0
        while stack:
            v, depth = stack.pop()
            deepest = max(deepest, depth)
            stack += [(below, depth + 1) for below in values_of(v)]
        if deepest > _DEEPEST:
            raise self.too_deep(first)
        make_room(deepest)

    def too_deep(self, at: Token) -> SyntaxError:
        fact = f"more than {_DEEPEST} stand within each other; each '+' of a long sum counts"
        return SyntaxError("operations are nested too deeply", at.span, fact=fact, hint="bind parts of it to names")

    # Operations ------------------------------------------------------------------------------------------------------

    def value(self, least: int) -> Value:
        """A value whose operations bind at least this strongly."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.too_deep(self.cursor.token)
        value = self.prefixed(least)
        while (op := _INFIX.get(self.cursor.token.text)) is not None and op.binding >= least:
            _, right = sides(op)
            self.cursor.next()
            if op.name == "add" and self.cursor.ahead("dot", "["):
                value = self.dot(value)
            else:
                value = tile.Elem(op.name, (value, self.value(right)))
            if op.binding == COMPARE and (following := _INFIX.get(self.cursor.token.text)) is not None:
                self.check_chain(following.binding)
        self.depth -= 1
        return value

    def check_chain(self, binding: int) -> None:
        if binding == COMPARE:
            place = self.cursor.token.span
            raise SyntaxError("a comparison of a comparison", place, hint="join two with 'and', or use parentheses")

    def prefixed(self, least: int) -> Value:
        token = self.cursor.token
        op = _PREFIX.get(token.text)
        if op is None or self.is_name(token):
            return self.atom()
        if op.binding < least:
            self.cursor.wrong("a value; put this one in parentheses")
        self.cursor.next()
        signed = op.binding == SIGN and self.is_literal()
        value = self.value(op.binding)
        if signed and isinstance(value, Lit) and not isinstance(value.value, bool | str):
            return replace(value, value=-value.value)
        return tile.Elem(op.name, (value,))

    def is_name(self, token: Token) -> bool:
        return token.text in self.known.names

    def is_literal(self) -> bool:
        """Does a literal come next, without parentheses?"""
        token = self.cursor.token
        minus = token.text == "-"
        token = self.cursor.line.tokens[self.cursor.at + 1] if minus else token
        return token.kind == "number" or (token.text in _WORDS and not self.is_name(token))

    # What binds most strongly ----------------------------------------------------------------------------------------

    def atom(self) -> Value:
        c = self.cursor
        if c.token.kind == "number" or self.is_literal():
            return self.literal()
        if c.take("("):
            return self.parentheses()
        if c.take("|"):
            axis = c.name("an axis").text
            c.expect("|")
            return tile.ExtentOf(axis)
        if c.ahead("load", "", "[") or c.ahead("load", "", "."):
            return self.load()
        if c.ahead("dot", "["):
            return self.dot(ZERO)
        if c.ahead("prefixes", "", "[") or c.ahead("suffixes", "", "["):
            return self.fold(c.next().text)
        if c.ahead("", "["):
            return self.fold()
        if c.ahead("", "("):
            return self.call()
        name = c.name("a value")
        if name.text in self.known.scalars:
            return tile.ScalarArg(name.text)
        if name.text not in self.known.names:
            raise unknown("value", name, self.known.names, "bind it to a value before")
        return tile.Ref(name.text)

    def literal(self) -> Lit:
        token = self.cursor.next()
        if token.text in _WORDS:
            return Lit(_WORDS[token.text], UNTYPED)
        if len(token.text) > 400:
            raise SyntaxError("this number is too long", token.span, hint="write it with an exponent")
        return Lit(int(token.text) if token.text.isdigit() else float(token.text), UNTYPED)

    def parentheses(self) -> Value:
        """`(value)`, or a literal with its type, `(0: i64)`."""
        c = self.cursor
        start = c.at
        minus = c.take("-")
        if (c.token.kind == "number" or c.token.text in _WORDS) and c.line.tokens[c.at + 1].text == ":":
            value = self.literal()
            c.expect(":")
            value = replace(value, dtype=c.dtype())
            c.expect(")")
            return replace(value, value=-value.value) if minus and not isinstance(value.value, str) else value
        c.at = start
        inner = self.value(LOOSE)
        c.expect(")")
        return inner

    def arguments(self) -> tuple[Value, ...]:
        """`(…, …)`."""
        self.cursor.expect("(")
        found = self.cursor.several(lambda: self.value(LOOSE))
        self.cursor.expect(")")
        return found

    def call(self) -> Value:
        """An operation, a conversion, or `fill`."""
        name = self.cursor.next()
        if name.text not in OPS and name.text not in _CONVERSIONS and name.text != "fill":
            raise unknown("operation", name, (*OPS, *_CONVERSIONS), "one of einc's operations")
        args = self.arguments()
        if name.text in OPS:
            self.check_count(name, args, OPS[name.text].arity)
            return tile.Elem(name.text, args)
        self.check_count(name, args, 1)
        if name.text != "fill":
            return tile.Convert(_CONVERSIONS[name.text], args[0])
        if not isinstance(args[0], Lit):
            raise SyntaxError("a tile is filled with a literal", name.span, hint="bind the value itself")
        return tile.Fill(args[0])

    def check_count(self, name: Token, args: tuple[Value, ...], count: int) -> None:
        if count >= 0 and len(args) != count:
            wanted = "1 argument" if count == 1 else f"{count} arguments"
            raise SyntaxError(f"'{name.text}' takes {wanted}, not {len(args)}", name.span, hint=f"give it {wanted}")

    def fold(self, scanned: str = "") -> Value:
        """`max[j](x)`, `prefixes sum[j](x)`."""
        name = self.cursor.next()
        known = {n for n, _ in self.known.monoids}
        if name.text not in known:
            raise unknown("monoid", name, known)
        (axis,) = self.axes(1)
        args = self.arguments()
        monoid = self.known.monoids.get((name.text, len(args)))
        if monoid is None:
            counts = sorted(count for n, count in self.known.monoids if n == name.text)
            self.check_count(name, args, counts[0])
        assert monoid is not None
        return tile.Scan(monoid, axis, args, scanned == "suffixes") if scanned else tile.Fold(monoid, axis, args)

    def axes(self, count: int) -> tuple[str, ...]:
        place = self.cursor.token.span
        found = self.cursor.bracketed(lambda: self.cursor.name("a tile axis").text)
        if len(found) != count:
            raise SyntaxError(f"{count} tile axis, not {len(found)}", place, hint="name one axis: max[j](x)")
        return found

    def dot(self, acc: Value) -> Value:
        """`dot[i, e : j](left, right)`, added to what was read before it."""
        c = self.cursor
        name = c.expect("dot")
        c.expect("[")
        result = c.several(lambda: c.name("a tile axis").text)
        c.expect(":")
        inner = c.name("the tile axis that is summed").text
        product = self.precision() if c.take("in") else None
        c.expect("]")
        if not 2 <= len(result) <= 3:
            fact = f"its result has {len(result)} axes"
            hint = "dot[rows, columns : inner](x, y), or dot[batch, rows, columns : inner](x, y)"
            raise SyntaxError("a dot gives rows and columns", name.span, fact=fact, hint=hint)
        c.expect("(")
        args = c.several(lambda: (self.value(LOOSE), self.value(LOOSE) if c.take("counting") else None))
        c.expect(")")
        self.check_count(name, tuple(x for x, _ in args), 2)
        (left, left_in), (right, right_in) = args
        *batch, row, column = result
        return tile.Dot(left, right, acc, row, column, inner, "".join(batch), left_in, right_in, product)

    def precision(self) -> DType:
        """What a dot of f32 multiplies in."""
        found = self.cursor.name("a precision")
        known = [name for name, t in PRECISIONS.items() if t.held != t]
        if found.text not in known:
            hint = nearest(found.text, known) or "one of these"
            raise NameError(f"there is no precision '{found.text}'", found.span, fact=", ".join(known), hint=hint)
        return PRECISIONS[found.text]

    def load(self) -> Value:
        """`load T[i, j?]: f16 by pointer apart where p`."""
        c = self.cursor
        c.expect("load")
        tensor, part = self.tensor()
        index = c.bracketed(lambda: (self.value(LOOSE), c.take("?")))
        dtype = c.dtype() if c.take(":") else self.known.elements[tensor]
        if c.take("by"):
            self.known.ways[tensor] = c.name("a way to memory: pointer").text
        apart = c.take("apart")
        mask = self.value(LOOSE) if c.take("where") else None
        at, checked = tuple(v for v, _ in index), tuple(looked for _, looked in index)
        return tile.Load(tensor, at, dtype, checked, mask, part, apart)

    def tensor(self) -> tuple[str, int | None]:
        """`T`, or a part of a complex buffer, `T.re`."""
        name = self.cursor.name("a tensor")
        if name.text not in self.known.elements:
            raise unknown("buffer", name, self.known.elements, "list it among what the kernel reads or writes")
        if not self.cursor.take("."):
            return name.text, None
        if not self.cursor.ahead("re") and not self.cursor.ahead("im"):
            self.cursor.wrong("'re' or 'im'")
        return name.text, ("re", "im").index(self.cursor.next().text)
