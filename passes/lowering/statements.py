"""The statements of a kernel as they are collected: names, blocks of loops, and the tile axes of positions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from einc import tile
from einc.base.types import INT, DType
from einc.ein import Equation, Expr, Program
from einc.passes.lowering.operations import (
    literal,
    of_states,
)
from einc.pipeline.plan import Planned
from einc.tile.typing import axes_of, dtype_of
from einc.tile.walk import over_values, renaming

Axes = tuple[tile.TileAxis, ...]


@dataclass(slots=True)
class Block:
    """Statements being collected, with the values already bound in them and the states of their loop."""

    within: Statements
    statements: list[tile.Statement] = field(default_factory=list)
    bound: dict[tuple[Expr, DType], tile.Value] = field(default_factory=dict)
    states: list[tile.Carried] = field(default_factory=list)
    full: tile.Full | None = None

    def carry(self, name: str, type_: tile.TileType, init: tile.Value, after: tile.Value) -> str:
        """Carry a state round the loop: `after` is its value at the end of a block. Returns the name of that value."""
        b = self.within
        bound = b.name(f"{name}_next")
        self.statements.append(tile.Let((bound,), (type_,), after))
        b.types[bound] = b.types[name] = type_
        self.states.append(tile.Carried(name, type_, init, bound))
        return bound


class Statements:
    """The statements of a kernel in the making, with the names, types and axes known so far."""

    def __init__(self, program: Program, plan: Planned) -> None:
        self.program = program
        self.dtypes = program.dtypes()  # of tensors as read here: one computed here need not be rounded
        self.stored = dict(self.dtypes)
        self.shapes = program.shapes()
        self.real = program.real
        self.types: dict[str, tile.TileType] = {}
        self.groups: dict[tuple[str, ...], str] = {}
        self.tile_of: dict[str, str] = {}
        self.position: dict[str, tile.Value] = {}
        self.beside: dict[str, tuple[str, ...]] = {}
        self.roles: dict[str, str] = {}
        self.blocks = [Block(self)]
        kept = {t.name for eq in plan.equations for t in eq.outputs} - set(plan.stores)
        self.taken = Counter([a.name for a in program.axes] + [n for n in self.dtypes if n not in kept])
        for p in program.scalars:
            self.types[p.name] = tile.TileType(self.scalar_type(p.dtype))

    # Names -----------------------------------------------------------------------------------------------------------

    def names(self, wanted: str, count: int) -> tuple[str, ...]:
        """Several fresh names."""
        return tuple(self.name(wanted) for _ in range(count))

    def name(self, wanted: str) -> str:
        """A fresh name: the wanted one in lower case, numbered where it is taken."""
        wanted = wanted.lower()
        name, n = wanted, 0
        while self.taken[name]:
            n += 1
            name = f"{wanted}_{n}"
        self.taken[name] += 1
        return name

    def scalar_type(self, dtype: DType) -> DType:
        """Parameters that are floats have one type in a program; integers are as wide as positions."""
        return self.real if dtype.is_float else dtype

    # Axes ------------------------------------------------------------------------------------------------------------

    def axis(self, axes: tuple[str, ...], role: str) -> tile.TileAxis:
        """A tile axis for a group of `ein` axes, blocked unless it is a `batch` axis."""
        name = axes[0] if len(axes) == 1 else self.name("_".join(axes))
        blocked = role != "batch"
        self.groups[axes], self.roles[name] = name, role
        self.tile_of.update(dict.fromkeys(axes, name))
        self.types[name] = tile.TileType(INT, (name,) if blocked else ())
        return tile.TileAxis(name, axes, role, blocked)

    def run_along(self, axes: tuple[str, ...], axis: tile.TileAxis) -> None:
        """Let other `ein` axes share the positions of a tile axis, once it is entered."""
        for member in axes:
            self.tile_of[member] = self.groups[(member,)] = axis.name
            self.beside[axis.name] = (*self.beside.get(axis.name, ()), member)

    def enter(self, axes: tuple[tile.TileAxis, ...]) -> None:
        """Define the positions of the members of these tile axes from here on."""
        for axis in axes:
            self.position.update(dict.fromkeys(self.beside.get(axis.name, ()), tile.Ref(axis.name)))
            rest: tile.Value = tile.Ref(axis.name)
            if len(axis.axes) == 1:
                self.position[axis.axes[0]] = rest
                continue
            for member in reversed(axis.axes[1:]):
                extent = tile.ExtentOf(member)
                self.position[member] = self._let(member, tile.Elem("mod", (rest, extent)), (axis.name,))
                rest = tile.Elem("floordiv", (rest, extent))
            self.position[axis.axes[0]] = self._let(axis.axes[0], rest, (axis.name,))

    def composite(self, dim: tuple[str, ...]) -> tile.Value:
        """The index into a dimension that is a group of axes."""
        if dim in self.groups:
            return tile.Ref(self.groups[dim])
        if not dim:
            return tile.Lit(0, INT)
        index = self.position[dim[0]]
        for member in dim[1:]:
            scaled = tile.Elem("mul", (index, tile.ExtentOf(member)))
            index = tile.Elem("add", (scaled, self.position[member]))
        return index

    def declare(self, buffer: tile.Buffer) -> None:
        """Declare a tensor that is not one of the program's."""
        self.shapes[buffer.name], self.stored[buffer.name] = buffer.dims, buffer.dtype

    # Statements ------------------------------------------------------------------------------------------------------

    def emit(self, statement: tile.Statement) -> None:
        self.blocks[-1].statements.append(statement)

    @contextmanager
    def loop(
        self,
        axis: tile.TileAxis,
        start: tile.Value | None = None,
        stop: tile.Value | None = None,
        exact: bool = False,
        reverse: bool = False,
    ) -> Iterator[Block]:
        """A loop over the axis, whose body is built inside the `with`; its states are known after it."""
        block = Block(self)
        self.blocks.append(block)
        self.enter((axis,))
        before = dict(self.position)
        yield block
        self.blocks.pop()
        self.position = before
        states, body = tuple(block.states), tuple(block.statements)
        self.emit(tile.Loop(axis, states, body, start, stop, exact, reverse, block.full))

    @contextmanager
    def nest(
        self, steps: tile.TileAxis, axis: tile.TileAxis, start: tile.Value | None, stop: tile.Value | None, exact: bool
    ) -> Iterator[Block]:
        """A loop over the axis at each step of another loop, which passes the states on from one to the next.

        The bounds are those of the outer loop.
        """
        with self.loop(steps, start, stop, exact) as outer:
            with self.loop(axis) as block:
                yield block
            inner = outer.statements.pop()
            assert isinstance(inner, tile.Loop)
            within = {c.name: self.name(f"{c.name}_within") for c in inner.carried}
            self.types.update((name, self.types[c]) for c, name in within.items())
            outer.states += [replace(c, after=within[c.name]) for c in inner.carried]
            own = tuple(replace(c, name=within[c.name], init=tile.Ref(c.name)) for c in inner.carried)
            body = tuple(over_values(s, renaming(within)) for s in inner.body)
            outer.statements.append(replace(inner, carried=own, body=body))

    def bind(self, wanted: str, value: tile.Value, order: tuple[str, ...]) -> tile.Value:
        """The value bound to a name; one that is a name already stays as it is."""
        return value if isinstance(value, tile.Ref) else self._let(self.name(wanted), value, order)

    def _let(self, name: str, value: tile.Value, order: tuple[str, ...]) -> tile.Ref:
        extends = axes_of(value, self.types)
        type_ = tile.TileType(dtype_of(value, self.types), tuple(a for a in order if a in extends))
        self.types[name] = type_
        self.emit(tile.Let((name,), (type_,), value))
        return tile.Ref(name)

    def fold(
        self, eq: Equation, axis: str, args: tuple[tile.Value, ...], order: tuple[str, ...], types: tuple[DType, ...]
    ) -> tuple[tile.Value, ...]:
        """Fold a tile axis, each component bound to a name of its own."""
        assert eq.monoid is not None
        return self.several(f"{eq.name}_block", tile.Fold(of_states(eq.monoid), axis, args), order, types)

    def several(
        self, wanted: str, value: tile.Fold | tile.Scan, order: tuple[str, ...], types: tuple[DType, ...]
    ) -> tuple[tile.Value, ...]:
        """Each component of a value, bound to a name of its own."""
        found = axes_of(value, self.types)
        all_types = tuple(tile.TileType(t, tuple(a for a in order if a in found)) for t in types)
        names = self.names(wanted, len(types))
        self.types.update(zip(names, all_types, strict=True))
        self.emit(tile.Let(names, all_types, value))
        return tuple(tile.Ref(n) for n in names)

    # Values -----------------------------------------------------------------------------------------------------------

    def axes_of(self, v: tile.Value) -> frozenset[str]:
        """The tile axes a value extends over."""
        return axes_of(v, self.types)

    def type_of(self, v: tile.Value) -> DType:
        return dtype_of(v, self.types)

    def convert(self, v: tile.Value, t: DType) -> tile.Value:
        """The value converted to type t; a literal becomes one of that type, unless it is infinite and no integer."""
        if self.type_of(v) == t:
            return v
        if isinstance(v, tile.Lit) and not isinstance(v.value, str) and not (t.is_int and math.isinf(v.value)):
            return tile.Lit(literal(v.value, t), t)
        return tile.Convert(t, v)

    def rounded(self, v: tile.Value, stored: DType) -> tile.Value:
        """The value rounded to the type that it would be stored in, if that is narrower; an integer wrapped, if it does
        not hold all that the value may be."""
        t = self.type_of(v)
        if stored.is_int and t.is_int:
            narrower = t.limits[0] < stored.limits[0] or t.limits[1] > stored.limits[1]
        else:
            narrower = stored.is_float and t.is_float and stored.bits < t.bits
        return self.convert(v, stored) if narrower else v
