"""A tile kernel as a `@triton.jit` function: its arguments, its place in the grid, and its statements in order."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from einc import tile
from einc.base.types import DType
from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.names import OF_TRITON, Names
from einc.codegen.emit.signature import extents_of, static_extents
from einc.codegen.emit.text import File
from einc.codegen.triton.expressions import Expressions, walked_again
from einc.codegen.triton.loops import Loops
from einc.codegen.triton.operations import is_natural
from einc.codegen.triton.writer import TYPES
from einc.pipeline.emitted import Signature
from einc.tile import TileAxis, TileType
from einc.tile.asked import block_name
from einc.tile.typing import scope
from einc.tile.walk import lets, loop_position, loops, repeated_axes, tile_axes, walk_values
from einc.tile.windows import Rows, by_corners, by_descriptor, in_rows, names_beside


def kernel_source(file: File, kernel: tile.Kernel) -> tuple[Signature, list[str]]:
    """The kernel's signature, and its lines."""
    writer = KernelWriter(file, kernel)
    steps = (let for loop in loops(kernel.body) for let in lets(loop.body))
    writer.write.loaded = frozenset(let.names[0] for let in steps if isinstance(let.value, tile.Load))
    head = [f"# {line}" for title in kernel.title for line in title.splitlines()]
    return writer.signature, [*head, *writer.header(), *indented(writer.lines())]


class KernelWriter(Loops):
    """Writes a kernel's function. `whole` is the kernel, and `kernel` what is written of it: by corners of blocks where
    descriptors load these."""

    expressions: type[Expressions] = Expressions

    def __init__(self, file: File, kernel: tile.Kernel) -> None:
        self.windows, self.whole = by_descriptor(kernel), kernel
        self.kernel = by_corners(kernel, self.windows)
        self.read = names_beside(self.kernel, frozenset(self.windows))
        self.file, self.names = file, Names(OF_TRITON, around=file.names)
        self.python: dict[tuple[str, str], str] = {}
        self.axes = tile_axes(kernel)
        name = file.names.fresh(f"{kernel.name}_kernel", ascii_only=True)
        self.signature = self._arguments(name)
        self.write = self.expressions(file, {b.name: b for b in kernel.buffers}, self.python)
        self.write.types.update(scope(kernel))
        self.write.blocks = {a.name: block for block, a in self.signature.blocks}
        self.write.natural |= set(self.axes)
        self.write.windows = self.windows

    # Arguments -------------------------------------------------------------------------------------------------------

    def take(self, kind: str, key: str, wanted: str) -> str:
        if (kind, key) not in self.python:
            self.python[kind, key] = self.names.fresh(wanted)
        return self.python[kind, key]

    def _arguments(self, name: str) -> Signature:
        k = self.kernel
        pointers = tuple(self.take("tensor", b.name, b.name) for b in k.buffers)
        strides = tuple(
            tuple(self._stride(b.name, n, dim) for n, dim in enumerate(b.dims) if b.name not in self.windows)
            for b in k.buffers
        )
        extents = tuple(self.take("extent", axis, f"size_{axis}") for axis in extents_of(self.whole))
        scalars = tuple(self.take("scalar", s, s) for s, _ in k.scalars)
        units = tuple(
            (self.take("unit", r.tensor, f"{r.tensor.upper()}_UNIT"), r) for r in in_rows(self.whole, self.file.lined)
        )
        blocks = tuple((self.take("block", a.name, block_name(a.name)), a) for a in self.axes.values() if a.blocked)
        return Signature(name, self.whole, pointers, strides, extents, scalars, blocks, units)

    def _stride(self, tensor: str, n: int, dim: tuple[str, ...]) -> str:
        return self.take("stride", f"{tensor}.{n}", f"{tensor}_stride_{''.join(dim) or 1}")

    def header(self) -> list[str]:
        """The decorator and the signature, one kind of argument a line."""
        s = self.signature
        told = [f'"{step}"' for _, rows in s.units if rows.padded for step in self.row_steps(rows)]
        fixed = [f'"{name}"' for name in s.scalars]
        options = {"do_not_specialize": fixed, "do_not_specialize_on_alignment": told}
        decorator = _decorator({option: names for option, names in options.items() if names})
        scalars = [_parameter(name, dtype) for name, (_, dtype) in zip(s.scalars, self.kernel.scalars, strict=True)]
        constants = [
            f"{name}: tl.constexpr"
            for name in (*(block for block, _ in s.blocks), *(unit for unit, _ in s.units), "INT")
        ]
        still = static_extents(self.whole)
        sizes = zip(s.extents, extents_of(self.whole), strict=True)
        extents = [f"{name}: tl.constexpr" if axis in still else name for name, axis in sizes]
        counters = [s.counter] if s.counter else []
        kinds = [[*s.pointers, *counters], [x for row in s.strides for x in row], extents, scalars, constants]
        arguments = [line for kind in kinds if kind for line in in_lines(kind)]
        return [*decorator, f"def {s.name}(", *indented(arguments), "):"]

    # Statements ------------------------------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        return [*self.units(), *self.held(), *self.grid(), *self.body(self.kernel.body, {})] or ["pass"]

    def units(self) -> Iterator[str]:
        """What Triton is told of extents and strides: how many neighbours are reached at once divides them."""
        still = static_extents(self.whole)
        for unit, rows in self.signature.units:
            extent = self.python.get(("extent", rows.axis)) if rows.axis not in still else None
            names = [*self.row_steps(rows), *([extent] if extent else [])]
            yield f"# multiples of {unit}"
            yield from (f"{name} = {name} // {unit} * {unit}" for name in names)

    def row_steps(self, rows: Rows) -> list[str]:
        """The names of a tensor's strides between its rows."""
        strides = self.strides_of(rows.tensor)
        return [strides[k] for k in rows.order[:-1]]

    def strides_of(self, tensor: str) -> tuple[str, ...]:
        """The names of a tensor's strides."""
        found = zip(self.signature.strides, self.whole.buffers, strict=True)
        return next(names for names, b in found if b.name == tensor)

    def held(self) -> Iterator[str]:
        """The positions along axes that a block has all of."""
        for a in self.kernel.whole:
            name = self.take("value", a.name, a.name)
            self.write.types[a.name] = loop_position(a)
            if a.name in self.read:
                yield f"{name} = tl.arange(0, {self.python['block', a.name]}).to(INT)"

    def grid(self) -> Iterator[str]:
        """The program's place: one number decomposed into the grid's axes, the last one fastest."""
        if self.kernel.grid:
            yield "program = tl.program_id(0).to(INT)"
            yield from self.places()

    def places(self) -> Iterator[str]:
        """Where a program's number lies along the axes of the grid."""
        grid, section = self.kernel.grid, self.kernel.choices.section
        counts: list[str] = []
        for a in grid if section > 1 else grid[1:]:
            counts.append(self.places_along(a))
            if not counts[-1].isidentifier():
                name = self.names.fresh(f"{'blocks' if a.blocked else 'size'}_{a.name}")
                yield f"{name} = {counts[-1]}"
                counts[-1] = name
        if section > 1:
            yield from self.sections(section, counts)
            return
        for n, a in enumerate(grid):
            count = counts[n - 1] if n else ""
            yield from self.position(a, _place(count, counts[n:]), count)

    def sections(self, section: int, counts: list[str]) -> Iterator[str]:
        """The place in a grid whose last two axes are taken in sections of so many blocks of the first of them."""
        *batch, a, b = self.kernel.grid
        *before, rows, columns = counts
        place = "program"
        for n, axis in enumerate(batch):
            yield from self.position(axis, _place(before[n] if n else "", counts[n + 1 :]), before[n])
        if batch:
            place = self.names.fresh("place")
            yield f"{place} = program % ({rows} * {columns})"
        first, inside = self.names.fresh(f"first_{a.name}"), self.names.fresh(f"section_{a.name}")
        what = "blocks" if a.blocked else "positions"
        yield f"# sections of {section} {what} of {a.name}, each for one block of {b.name} after another"
        yield f"{first} = {place} // ({section} * {columns}) * {section}"
        yield f"{inside} = tl.minimum({rows} - {first}, {section})"
        yield from self.position(a, f"{first} + {place} % ({section} * {columns}) % {inside}", rows)
        yield from self.position(b, f"{place} % ({section} * {columns}) // {inside}", columns)

    def places_along(self, a: TileAxis) -> str:
        """The number of blocks of a grid along an axis, or of positions if it has none."""
        if not a.blocked:
            return self.size(a)
        found = f"tl.cdiv({self.size(a)}, {self.python['block', a.name]})"
        return f"tl.maximum({found}, 1)" if a.name in repeated_axes(self.kernel) else found

    def size(self, a: TileAxis) -> str:
        """The number of positions of a tile axis, in the index type if it is to be computed with."""
        sizes = [self.python["extent", axis] for axis in a.axes]
        if len(sizes) == 1 and not a.blocked:
            return sizes[0]
        return " * ".join([f"tl.cast({sizes[0]}, INT)", *sizes[1:]]) if sizes else "1"

    def position(self, a: TileAxis, place: str, count: str) -> Iterator[str]:
        """The positions of a program's block, which is one of so many; where it begins has a name of its own if
        descriptors take that."""
        name = self.take("value", a.name, a.name)
        self.write.types[a.name] = loop_position(a)
        if not a.blocked:
            yield f"{name} = {place}"
            return
        block = self.python["block", a.name]
        place = yield from self.in_order(a, place, count)
        if not any(axis == a.name for sides in self.windows.values() for axis, _ in sides):
            yield f"{name} = {place} * {block} + tl.arange(0, {block})"
            return
        first = self.take("position", a.name, f"{name}0")
        yield f"{first} = tl.cast({place} * {block}, tl.int32)"
        if a.name in self.read:
            yield f"{name} = {first} + tl.arange(0, {block}).to(INT)"

    def in_order(self, a: TileAxis, place: str, count: str) -> Generator[str, None, str]:
        """The place of a program's block along an axis, as a factor, where the last block may be the first."""
        if a.name == self.kernel.choices.backwards:
            yield f"# blocks of {a.name} from the last, which take longest"
            block = self.python["block", a.name]
            place = f"{count or f'tl.cdiv({self.size(a)}, {block})'} - 1 - {place}"
        return f"({place})" if " + " in place or " - " in place else place

    def body(self, statements: tuple[tile.Statement, ...], renamed: dict[str, str]) -> Iterator[str]:
        for s in statements:
            match s:
                case tile.Let(value=tile.Elem(op="where", args=(p, x, y))) if self.is_branch(p, x, y):
                    yield from self.branches(s, p, x, y)
                case tile.Let():
                    yield from wrapped(self.let(s, renamed))
                case tile.Store():
                    yield from wrapped(self.write.store(s))
                case tile.Loop():
                    self.write.walked = walked_again(statements, s)
                    yield from self.loop(s)
                    self.write.walked = {}
                case _:
                    assert_never(s)

    def is_branch(self, p: tile.Value, *values: tile.Value) -> bool:
        """Does one truth value choose between tiles of which one takes a fold?"""
        folds = any(isinstance(v, tile.Fold) for v in walk_values(*values))
        return folds and not self.write.axes(p) and all(self.write.axes(v) for v in values)

    def branches(self, s: tile.Let, p: tile.Value, x: tile.Value, y: tile.Value) -> Iterator[str]:
        """One of two tiles, of which only that one is computed."""
        yield from wrapped(f"if {self.write.value(p, ()).code}:")
        yield from indented(wrapped(self.let(replace(s, value=x), {})))
        yield "else:"
        yield from indented(wrapped(self.let(replace(s, value=y), {})))

    def let(self, s: tile.Let, renamed: dict[str, str]) -> str:
        axes = s.types[0].axes
        code = self.value(s.value, s.types[0])
        for name, type_ in zip(s.names, s.types, strict=True):
            if name in renamed:
                self.python["value", name] = renamed[name]
            else:
                self.take("value", name, name)
            self.write.types[name] = TileType(type_.dtype, type_.axes)
        if len(s.names) == 1 and s.types[0].dtype.is_int and is_natural(self.write, s.value):
            self.write.natural.add(s.names[0])
        assert all(t.axes == axes for t in s.types)
        return f"{', '.join(self.python['value', name] for name in s.names)} = {code}"

    def value(self, v: tile.Value, type_: TileType) -> str:
        """The value as a tile over exactly the type's axes; a lone literal gets its type."""
        if isinstance(v, tile.Lit):
            return self.write.filled(v, type_.axes).code
        if isinstance(v, tile.Fill):
            return self.write.value(v, type_.axes).code
        return self.write.full(v, type_.axes).code


def _decorator(options: Mapping[str, list[str]]) -> list[str]:
    """The decorator with such lists of names, on one line if that is wide enough."""
    given = ", ".join(f"{option}=[{', '.join(names)}]" for option, names in options.items())
    flat = f"@triton.jit({given})" if given else "@triton.jit"
    if len(wrapped(flat)) == 1:
        return [flat]
    lists = (line for o, names in options.items() for line in (f"{o}=[", *indented(in_lines(names)), "],"))
    return ["@triton.jit(", *indented(lists), ")"]


def _parameter(name: str, dtype: DType) -> str:
    """Floats are typed; integers are as wide as the caller's value needs."""
    return f"{name}: {TYPES[dtype.name]}" if dtype.is_float else name


def in_lines(items: list[str], width: int = 100) -> Iterator[str]:
    """Items in lines as long as the width allows, each with its comma."""
    line = ""
    for item in items:
        if line and len(line) + len(item) + 3 > width:
            yield f"{line},"
            line = ""
        line = f"{line}, {item}" if line else item
    yield f"{line},"


def _place(own: str, later: list[str]) -> str:
    """The place along one axis of the grid, given its own count (none for the first axis) and those of later axes."""
    code = "program"
    if later:
        code += f" // {later[0]}" if len(later) == 1 else f" // ({' * '.join(later)})"
    return f"{code} % {own}" if own else code
