"""The statements of a kernel from text: what `einc.tile.printer` writes, with the place of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from einc import tile
from einc.base.errors import SyntaxError
from einc.base.source import Span
from einc.base.types import INT
from einc.frontend.tiles.axes import tile_axis
from einc.frontend.tiles.cursor import Cursor, unknown
from einc.frontend.tiles.lines import Line, Token
from einc.frontend.tiles.values import Known, Values
from einc.tile import Carried, Full, Let, Loop, Statement, Store, TileType
from einc.tile.walk import loop_position

Names = dict[str, TileType]


@dataclass(frozen=True)
class After:
    """A line `state = value` at the end of a loop's body."""

    state: Token
    value: Token


@dataclass
class Body:
    """Reads the statements of a kernel; `places` are their places, by identity."""

    known: Known
    places: list[tuple[object, Span]] = field(default_factory=list)

    def statements(self, lines: Sequence[Line], names: Names) -> tuple[tuple[Statement, ...], tuple[After, ...]]:
        """The statements of some lines, and what states become after them; the names they bind are added to `names`."""
        found: list[Statement] = []
        after: list[After] = []
        for line in lines:
            if line.title is not None:
                raise SyntaxError("an equation stands above the grid only", line.span, hint="comment with '#'")
            c = Cursor(line)
            if c.ahead("", "=", "") and len(line.tokens) == 4:
                after.append(After(c.next(), line.tokens[2]))
                continue
            if after:
                self.misplaced(after[-1])
            if c.ahead("loop", ""):
                found.append(self.loop(c, found, names))
            elif c.ahead("full", ""):
                found.append(self.full(c, found, names))
            elif c.ahead("ahead", ""):
                found.append(self.early(c, found))
            elif c.ahead("store", ""):
                found.append(self.placed(self.store(c, names), line))
            else:
                found.append(self.placed(self.let(c, names), line))
            if line.below and not isinstance(found[-1], Loop):
                raise SyntaxError(
                    "this line is indented, but nothing was opened before it",
                    line.below[0].span,
                    fact="only 'loop' and 'full' have lines below them",
                    hint="align it with the line above",
                )
        return tuple(found), tuple(after)

    def placed(self, s: Statement, line: Line) -> Statement:
        self.places.append((s, line.span))
        return s

    def misplaced(self, after: After) -> NoReturn:
        raise SyntaxError(
            f"'{after.state.text}' takes a value before the end of the loop's body",
            after.state.span.to(after.value.span),
            fact="the lines that give states their next values end the body of a loop",
            hint=f"move it there; a binding has a type: {after.state.text}: f32 = {after.value.text}",
        )

    def values(self, c: Cursor, names: Names) -> Values:
        return Values(c, replace(self.known, names=names))

    # Bindings and stores ---------------------------------------------------------------------------------------------

    def let(self, c: Cursor, names: Names) -> Let:
        """`x[i, j]: f32 = …`, `v[i]: f32, p[i]: i64 = …`."""
        if c.ahead("", "="):
            c.next()
            c.wrong("':' and a type; only what a state becomes after a block has none")
        bound = c.several(lambda: self.typed(c))
        c.expect("=")
        types = tuple(t for _, t in bound)
        value = self.values(c, names).bound(types)
        c.end()
        components = len(value.args) if isinstance(value, tile.Fold | tile.Scan) else 1
        if len(bound) != components:
            count = f"{components} name{'s' * (components > 1)}"
            raise SyntaxError(f"this value has {count}, not {len(bound)}", c.line.span, hint=f"bind {count}")
        for name, t in bound:
            names[name.text] = t
        return Let(tuple(name.text for name, _ in bound), types, value)

    def typed(self, c: Cursor) -> tuple[Token, TileType]:
        name = c.name("a statement")
        axes = self.over(c) if c.ahead("[") else ()
        c.expect(":")
        return name, TileType(c.dtype(), axes)

    def over(self, c: Cursor) -> tuple[str, ...]:
        return c.bracketed(lambda: c.name("a tile axis").text)

    def store(self, c: Cursor, names: Names) -> Store:
        """`store T[i] = value as f32[i] where p`, or `+=` to add to what is there."""
        c.expect("store")
        values = self.values(c, names)
        tensor, part = values.tensor()
        index = c.bracketed(lambda: values.read(INT))
        adds = c.take("+=")
        if not adds:
            c.expect("=")
        value = values.untyped()
        c.expect("as")
        type_ = TileType(c.dtype(), self.over(c) if c.ahead("[") else ())
        value = values.settled(value, type_.dtype)
        mask = values.read() if c.take("where") else None
        c.end()
        return Store(tensor, index, value, type_, mask, part, adds)

    # Loops -----------------------------------------------------------------------------------------------------------

    def loop(self, c: Cursor, before: list[Statement], names: Names) -> Loop:
        """`loop j[16..64] from a to b exactly backwards`; the bindings before it are what its states start from."""
        c.expect("loop")
        axis = tile_axis(c, "loop", self.known.sizes)
        values = self.values(c, names)
        start = values.read(INT) if c.take("from") else None
        stop = values.read(INT) if c.take("to") else None
        exact, reverse = c.take("exactly"), c.take("backwards")
        c.end()
        inner = names | {axis.name: loop_position(axis)}
        body, after = self.statements(c.line.below, inner)
        carried = self.carried(after, before, inner)
        for state in carried:
            names[state.name] = state.type
        made = Loop(axis, carried, body, start, stop, exact, reverse)
        self.places.append((made, c.line.span))
        return made

    def carried(self, after: Sequence[After], before: list[Statement], inner: Names) -> tuple[Carried, ...]:
        """The states of a loop: the last bindings before it, which are removed there, and the next value of each."""
        first = len(before) - len(after)
        found = []
        for k, a in enumerate(after, first):
            s = before[k] if k >= 0 else None
            if not isinstance(s, Let) or s.names != (a.state.text,):
                raise SyntaxError(
                    f"'{a.state.text}' has no value before the loop",
                    a.state.span,
                    fact="states begin in the lines right above 'loop', in the same order as at the end of its body",
                    hint=f"write its initial value there: {a.state.text}: f32 = 0",
                )
            if a.value.text not in inner:
                raise unknown("value", a.value, inner, "bind it in the loop")
            found.append(Carried(s.names[0], s.types[0], s.value, a.value.text))
        del before[len(before) - len(after) :]
        return tuple(found)

    def early(self, c: Cursor, before: list[Statement]) -> Loop:
        """`ahead x, y`: the loop above, with what it loads a block ahead."""
        word = c.expect("ahead")
        loop = before[-1] if before else None
        if not isinstance(loop, Loop) or loop.ahead:
            raise SyntaxError("'ahead' stands directly below its loop", word.span, hint="put it below its loop")
        names = c.several(lambda: c.name("the name of a load").text)
        c.end()
        before.pop()
        made = replace(loop, ahead=tuple(names))
        self.places.append((made, c.line.span))
        return made

    def full(self, c: Cursor, before: list[Statement], names: Names) -> Loop:
        """`full j from a to b in any order, where p, q`: the loop above, with where its masks are known to hold."""
        word = c.expect("full")
        loop = before[-1] if before else None
        if not isinstance(loop, Loop) or loop.full is not None or c.token.text != loop.axis.name:
            raise SyntaxError(
                "'full' stands directly below its loop",
                word.span.to(c.token.span),
                fact=f"that loop is over {loop.axis.name}" if isinstance(loop, Loop) else "there is no loop above it",
                hint="put it below its loop, as far left",
            )
        c.next()
        values = self.values(c, names)
        start = values.read(INT) if c.take("from") else None
        c.expect("to")
        stop = values.read(INT)
        free = c.take("in")
        if free:
            c.expect("any")
            c.expect("order")
        inner = names | {loop.axis.name: loop_position(loop.axis)} | {s.name: s.type for s in loop.carried}
        bound = {n: t for s in loop.body if isinstance(s, Let) for n, t in zip(s.names, s.types, strict=True)}
        holds: tuple[tile.Value, ...] = ()
        if c.take(","):
            c.expect("where")
            holding = self.values(c, inner | bound)
            holds = c.several(holding.read)
        c.end()
        body, after = self.statements(c.line.below, inner)
        if after:
            self.misplaced(after[0])
        before.pop()
        made = replace(loop, full=Full(stop, start, holds, body, free))
        self.places.append((made, c.line.span))
        return made
