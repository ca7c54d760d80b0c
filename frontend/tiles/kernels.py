"""Kernels from text: what `einc.tile.printer` writes, below a line that says which pass they are the result of.

    kernels after choose-tiles
    kernel M
      ...
    between kernels: M[i]: f32

Without that line the kernels are complete.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from einc import ein, tile
from einc.base.errors import SyntaxError
from einc.base.source import Source, Span
from einc.base.types import INT, DType
from einc.base.words import count
from einc.ein import Monoid
from einc.ein.monoids import MONOIDS
from einc.frontend.tiles.axes import Sizes, group, tile_axis
from einc.frontend.tiles.cursor import Cursor
from einc.frontend.tiles.lines import Line, read_lines
from einc.frontend.tiles.roles import read_roles
from einc.frontend.tiles.statements import Body
from einc.frontend.tiles.values import Known, Values
from einc.tile import Buffer, Choices, Lit, TileAxis, TileType, Value
from einc.tile.choices import FOLDS_EARLY, FOLDS_LATE
from einc.tile.typing import scope

_AFTER = re.compile(r"kernels\s+after\s+([^\s#]+)")


@dataclass(frozen=True, eq=False)
class Kernels:
    """The kernels of a text; `after` is the pass that the text says they come after, if it does, at `place`.

    `places` are the places of kernels and statements, by identity.
    """

    schedule: tile.Schedule
    after: str
    place: Span
    places: list[tuple[object, Span]] = field(repr=False)

    def place_of(self, node: object) -> Span:
        """The place of a kernel or statement; the whole heading for any other node."""
        return next((span for found, span in self.places if found is node), self.place)


def read_kernels(source: Source, start: int) -> Kernels:
    """The kernels of a text from a place on. Raises `SyntaxError` and `NameError`."""
    lines = read_lines(source, start)
    after, place = "", lines[0].span
    if lines[0].starts("kernels"):
        named = _AFTER.match(source.text, place.start)
        after, place = (named[1], source.span(*named.span(1))) if named else ("", place)
        lines = lines[1:]
    reader = _Reader()
    for line in lines:
        reader.outermost(line)
    return Kernels(tile.Schedule(tuple(reader.kernels), reader.between), after, place, reader.places)


class _Reader:
    def __init__(self) -> None:
        self.kernels: list[tile.Kernel] = []
        self.between: tuple[Buffer, ...] = ()
        self.places: list[tuple[object, Span]] = []
        self.monoids = {(m.name, m.components): m for m in MONOIDS.values()}

    def outermost(self, line: Line) -> None:
        c = Cursor(line)
        if c.ahead("kernel", ""):
            kernel = self.kernel(c)
            self.kernels.append(kernel)
            self.places.append((kernel, line.span))
        elif c.ahead("monoid", ""):
            m = self.monoid(c)
            self.monoids[m.name, m.components] = m
        elif c.ahead("between", "kernels", ":"):
            c.at = 3
            self.between = c.several(lambda: _buffer(c, False))
            c.end()
        else:
            c.wrong("'kernel' and its name, or 'between kernels:'")

    def monoid(self, c: Cursor) -> Monoid:
        """`monoid affine from 1, 0 combines a0 * b0, a1 * b0 + b1 gives 1 in order`."""
        c.expect("monoid")
        name = c.name().text
        c.expect("from")
        nothing = Values(c, Known({}, frozenset(), {}, {}))
        identity = c.several(lambda: _unit(nothing.untyped(), c))
        sides = frozenset(f"{side}{k}" for k in range(len(identity)) for side in "ab")
        values = Values(c, Known(dict.fromkeys(sides, TileType(INT)), sides, {}, {}))
        c.expect("combines")
        combine = c.several(lambda: _expression(values.untyped(), c))
        c.expect("gives")
        results = c.several(lambda: c.integer("the number of a component"))
        ordered = c.take("in") and bool(c.expect("order"))
        inverse = _expression(values.untyped(), c) if c.take("undone") and c.expect("by") else None
        c.end()
        if len(combine) != len(identity) or any(k >= len(identity) for k in results):
            found = count(len(identity), "component")
            raise SyntaxError(f"this monoid has {found}", c.line.span, hint="combine each, and give some of them")
        return Monoid(name, identity, combine, results, not ordered, inverse)

    # A kernel --------------------------------------------------------------------------------------------------------

    def kernel(self, c: Cursor) -> tile.Kernel:
        c.expect("kernel")
        name = c.name("the name of a kernel")
        head = _Head()
        head.role(c)
        c.end()
        for line in c.line.below:
            head.line(line)
        if not head.has_grid:
            raise SyntaxError(f"kernel '{name.text}' has no grid", name.span, hint="add 'grid 1' for a single program")
        made = head.kernel(name.text)
        elements = {b.name: b.dtype.part for b in made.buffers}
        scalars = frozenset(n for n, _ in made.scalars)
        names = scope(made)
        body = Body(Known(names, scalars, elements, self.monoids, head.sizes, head.ways), self.places)
        statements, after = body.statements(head.body, names)
        if after:
            body.misplaced(after[0])
        return head.kernel(name.text, statements)


@dataclass
class _Head:
    """What stands before the statements of a kernel, which are indented below it."""

    title: list[str] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    extents: list[str] = field(default_factory=list)
    scalars: list[tuple[str, DType]] = field(default_factory=list)
    grid: tuple[TileAxis, ...] = ()
    whole: tuple[TileAxis, ...] = ()
    sizes: Sizes = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    choices: Choices = Choices()  # noqa: RUF009 - frozen
    parts_of: str = ""
    merges: bool = False
    has_grid: bool = False
    roles: tile.Roles | None = None
    body: Sequence[Line] = ()

    def role(self, c: Cursor) -> None:
        """`kernel O_parts for the 4 parts of O`, `kernel O from its 4 parts`."""
        if c.take("for"):
            c.expect("the")
            self.parts(c)
            c.expect("of")
            self.parts_of = c.name("the name of a plan").text
        elif c.take("from"):
            c.expect("its")
            self.parts(c)
            self.merges = True

    def parts(self, c: Cursor) -> None:
        self.choices = replace(self.choices, parts=c.integer("how many parts a walk is in"))
        c.expect("parts")

    def line(self, line: Line) -> None:
        if line.title is not None:
            self.title.append(line.title)
            return
        c = Cursor(line)
        if c.take("roles"):
            self.roles = read_roles(c, line)
            return
        word = c.name("what the kernel reads, writes or takes, or its grid").text
        match word:
            case "reads" | "writes":
                self.buffers += c.several(lambda: _buffer(c, word == "writes"))
            case "takes":
                c.several(lambda: self.argument(c))
            case "grid":
                self.has_grid = True
                self.grid = () if c.take("1") else c.several(lambda: self.placed(c))
                if c.take("in"):
                    c.expect("sections")
                    c.expect("of")
                    self.choices = replace(self.choices, section=c.integer("how many blocks are a section"))
            case "whole":
                self.whole = c.several(lambda: tile_axis(c, "whole", self.sizes))
            case "warps":
                self.choices = replace(self.choices, warps=c.integer("how many warps run a program"))
            case "stages":
                self.choices = replace(self.choices, stages=c.integer("how many blocks are in flight"))
            case "box":
                self.choices = replace(self.choices, box=c.integer("how many elements a box has"))
            case "workers":
                self.choices = replace(self.choices, workers=c.integer("how many workers share the boxes"))
            case "folds":
                self.choices = replace(self.choices, folds=FOLDS_EARLY if c.take(FOLDS_EARLY) else FOLDS_LATE)
                if self.choices.folds == FOLDS_LATE:
                    c.expect(FOLDS_LATE)
            case _:
                c.at = 0
                words = "'reads', 'writes', 'takes', 'grid', 'whole', 'warps', 'stages', 'box', 'workers' or 'folds'"
                c.wrong(f"{words}; statements stand further right")
        c.end()
        self.body = [*self.body, *line.below]

    def placed(self, c: Cursor) -> TileAxis:
        """`i[16..128]`, `i[16..128] backwards`."""
        axis = tile_axis(c, "grid", self.sizes)
        if c.take("backwards"):
            self.choices = replace(self.choices, backwards=axis.name)
        return axis

    def argument(self, c: Cursor) -> None:
        """`|i|`, `scale: f32`."""
        if c.take("|"):
            self.extents.append(c.name("an axis").text)
            c.expect("|")
            return
        name = c.name("an extent or a scalar").text
        c.expect(":")
        self.scalars.append((name, c.dtype()))

    def kernel(self, name: str, body: tuple[tile.Statement, ...] = ()) -> tile.Kernel:
        sizes = {axis: size for axis, size in self.sizes.items() if size is not None}
        chosen = self.choices.sized(sizes).reached(self.ways)
        return tile.Kernel(
            name,
            tuple(self.title),
            tuple(self.buffers),
            tuple(self.extents),
            tuple(self.scalars),
            self.grid,
            body,
            self.whole,
            chosen,
            self.parts_of,
            self.merges,
            self.roles,
        )


def _unit(v: Value, c: Cursor) -> bool | int | str:
    """The identity of a component."""
    if not isinstance(v, Lit) or isinstance(v.value, float):
        c.wrong("integers, truth values, 'lowest' or 'highest' before this")
    return v.value


def _expression(v: Value, c: Cursor) -> ein.Expr:
    """The combination of a monoid, an expression of the scalars `a0`, `b0`, …"""
    match v:
        case tile.ScalarArg(name=name):
            return ein.Scalar(name)
        case Lit(value=bool() | int() | float() as value):
            return ein.Const(value)
        case tile.Convert(dtype=dtype, arg=arg):
            return ein.Cast(dtype, _expression(arg, c))
        case tile.Elem(op=op, args=args):
            return ein.Apply(op, tuple(_expression(a, c) for a in args))
        case _:
            raise SyntaxError("a monoid combines by operations on a0, b0, …", c.line.span, hint="a0 * b0 + b1")


def _buffer(c: Cursor, written: bool) -> Buffer:
    """`X[i, (g r)]: f32`."""
    name = c.name("a tensor").text
    dims = c.bracketed(lambda: group(c))
    c.expect(":")
    return Buffer(name, dims, c.dtype(), written)
