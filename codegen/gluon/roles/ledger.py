"""What the tiles of a kernel take of a consumer's registers and of shared memory, and which blocks it may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from einc import tile
from einc.base.targets import Rates
from einc.codegen.gluon.roles.fit import along, beside_dots, parts
from einc.pipeline import Context
from einc.tile import WHOLE, Dot, Kernel, Load, Loop, Ref
from einc.tile.asked import tiles_asked
from einc.tile.blocks import power
from einc.tile.roles import ROWS, WARPGROUP, Ring
from einc.tile.typing import axes_of, dtype_of, scope
from einc.tile.walk import (
    Scope,
    bindings,
    lets,
    loops,
    own_values,
    rebuild,
    values_of,
    walk,
    walk_values,
)
from einc.tile.windows import by_descriptor

_SPECIAL = frozenset("div exp exp2 log log2 pow rsqrt sin sqrt".split())
_SERIES = frozenset("erf expm1 log1p tanh".split())  # near 0 by a series
_LONG = 4  # special functions that take as long as such a one
_SHARED = 4  # threads that share a row of numbers
_WALKS = (128, 64)  # blocks of a walk, of which registers hold what is computed
_LINE = 64  # positions of a swizzled line: those of a walk whose blocks only go through shared memory
_COLUMNS = (256, 128, 64)
PART = 64  # columns that a consumer is done with at a time: lines of memory of two bytes an element
_ROW = 4  # bytes of a position of a row of numbers
_WIDE = 128  # columns that change threads in room of their own
_BESIDE = 64  # columns that take as long as what a step takes beside its columns


def sizes(kernel: Kernel, loop: Loop, rows: int, context: Context) -> Iterator[dict[str, int]]:
    """Blocks of the walk and of columns, best first: those that take the least time in whole waves of programs.

    A walk that does not begin with the first position has masked blocks at both ends, which are better short.
    """
    asked = tiles_asked(context.choices, kernel)
    made = {s.names[0]: s.value for s in bindings(kernel)}
    sides = [x for v in made.values() if isinstance(v, Dot) for x in (v.left, v.right)]
    loaded = all(isinstance(x, Ref) and isinstance(made.get(x.name), Load) for x in sides)
    longest = (_LINE,) if loaded else _WALKS if loop.start is None else _WALKS[::-1]
    walks = (asked[loop.axis.name].cap,) if loop.axis.name in asked else longest
    row = next(d.row for d in made.values() if isinstance(d, Dot))
    columns = [a for a in kernel.grid if a.blocked and a.name != row]
    found: list[dict[str, int]] = [{}]
    for a in columns:
        widest = max(power(prod(map(context.size, a.axes))), _COLUMNS[-1])
        own = (asked[a.name].cap,) if a.name in asked else tuple(n for n in _COLUMNS if n <= widest)
        found = [{**f, a.name: n} for f in found for n in own]
    counted = {a.name: prod(map(context.extent, a.axes)) for a in kernel.grid}

    def waves(blocks: dict[str, int]) -> int:
        programs = prod(-(-n // {**blocks, row: rows}.get(a, 1)) for a, n in counted.items())
        each = prod(n + _BESIDE for n in blocks.values())
        return -(-programs // context.target.rates.processors) * each

    steps = [{loop.axis.name: n} for n in walks] if loop.axis.blocked else [{}]
    for blocks in sorted(found, key=waves):
        yield from (blocks | step for step in steps)


def parted(kernel: Kernel, row: str) -> str | None:
    """The axis along which what stands behind the loop is done in parts, if it can be: that of the columns of programs
    of which all tiles there are, where nothing folds these."""
    columns = [a.name for a in kernel.grid if a.blocked and a.name != row]
    at = next(k for k, s in enumerate(kernel.body) if isinstance(s, Loop))
    after = kernel.body[at + 1 :]
    axes = [t.axes for s in after for t in (s.types if isinstance(s, tile.Let) else (s.type,))]  # type: ignore[union-attr]
    block = None if len(columns) != 1 else kernel.choices.tile(columns[0])
    folds = any(isinstance(v, tile.Fold) for s in after for own in own_values(s) for v in walk_values(own))
    if block is None or folds or any(len(a) > 1 and {*a} != {row, columns[0]} for a in axes):
        return None
    return columns[0] if block.cap > PART else None


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the tiles of a kernel take of a consumer's registers, and of shared memory."""

    kernel: Kernel
    row: str
    consumers: int

    def width(self, axis: str) -> int:
        """The positions of a block along an axis."""
        block = self.kernel.choices.tile(axis)
        assert block is not None
        return block.least if block.cap == WHOLE else block.cap

    def registers(self, whole: bool = False) -> int:
        """Of a thread: results of dots, computed sides of two bytes, tiles that it computes with, and from where it
        loads these, if rows and positions decide that together. Where all dots of a step are finished in it, sides and
        tiles from slots take the places of what they are made of, and rows of numbers count, as does a mask for both
        ends of a walk."""
        dots = {s.names[0]: s.value for s in bindings(self.kernel) if isinstance(s.value, Dot)}
        loaded = {s.names[0] for s in bindings(self.kernel) if isinstance(s.value, Load)}
        computed = [d for d in dots.values() if not isinstance(d.left, Ref) or d.left.name not in loaded]
        threads = WARPGROUP * 32
        (loop,) = loops(self.kernel.body)
        results = sum(ROWS * self.width(d.column) // threads for d in dots.values())
        tile_of = ROWS * self.width(self.along) // threads
        results += sum(tile_of for c in loop.carried if len(c.type.axes) > 1 and c.after not in dots)
        if whole:
            both = loop.start is not None and loop.stop is not None
            results += self.rows * self.width(self.along) // _SHARED + both * tile_of
        else:
            results += sum(ROWS * self.width(d.inner) // threads // 2 for d in computed)
            results += sum(tile_of * v.dtype.size // 4 for v in self.brought)
        results += sum(tile_of * t.dtype.size // 4 for _, t in (*self.own, *self.kept))
        places = [i for v, _ in self.alone for i in v.index]
        return results + tile_of * sum(map(self.is_mixed, places))

    @property
    def along(self) -> str:
        """The axis that tiles of a step have beside rows."""
        return along(self.kernel)

    @property
    def alone(self) -> list[tuple[Load, tile.TileType]]:
        """What consumers load by themselves in each step."""
        (loop,) = loops(self.kernel.body)
        copied = by_descriptor(self.kernel)
        loads = [(s.value, s.types[0]) for s in lets(loop.body) if isinstance(s.value, Load)]
        return [(v, t) for v, t in loads if v.tensor not in copied]

    @property
    def own(self) -> list[tuple[Load, tile.TileType]]:
        """The tiles among these."""
        return [(v, t) for v, t in self.alone if len(t.axes) > 1]

    @property
    def brought(self) -> list[Load]:
        """The tiles that are copied for steps to compute with."""
        copied, read = by_descriptor(self.kernel), beside_dots(self.kernel)
        loads = [s.value for s in bindings(self.kernel) if isinstance(s.value, Load) and s.names[0] in read]
        return [v for v in loads if v.tensor in copied]

    @property
    def kept(self) -> list[tuple[Load, tile.TileType]]:
        """The tiles that they load before the first step, and compute with in each."""
        copied, read = by_descriptor(self.kernel), beside_dots(self.kernel)
        loads = [(s.value, s.types[0]) for s in lets(parts(self.kernel)[0]) if s.names[0] in read]
        return [(v, t) for v, t in loads if isinstance(v, Load) and len(t.axes) > 1 and v.tensor not in copied]

    @property
    def rows(self) -> int:
        """How many rows of numbers, one a position of the walk, tiles of a step are made with beside their masks."""
        (loop,) = loops(self.kernel.body)
        here = Scope(scope(self.kernel)).inside(loop)
        for s in bindings(self.kernel):
            here.bind(s)

        def read(v: tile.Value) -> Iterator[tile.Value]:
            if axes_of(v, here.names) == {self.along}:
                yield v
            elif not isinstance(v, Load | Dot):
                for x in values_of(v):
                    yield from read(x)

        return len({x for s in lets(loop.body) if len(s.types[0].axes) > 1 for x in read(_bare(s.value))})

    def is_mixed(self, v: tile.Value) -> bool:
        """Do rows and positions of the walk decide a value together, position by position?"""
        axes = {s.names[0]: {*s.types[0].axes} for s in bindings(self.kernel)}
        found = set[str]().union(*(axes.get(x.name, {x.name}) for x in walk_values(v) if isinstance(x, Ref)))
        return {self.row, self.along} <= found

    @property
    def flops(self) -> int:
        """Those of the dots of a step."""
        dots = [s.value for s in bindings(self.kernel) if isinstance(s.value, Dot)]
        return sum(2 * ROWS * self.width(d.column) * self.width(d.inner) for d in dots)

    def functions(self, converting: bool = False) -> int:
        """The special functions of a step, position by position; integers become floats on the same unit, which counts
        where that is said."""
        found = dict[tile.Value, int]()  # each once, wherever it is written, and whatever masks it
        for s, here in walk(self.kernel.body, Scope(scope(self.kernel))):
            if isinstance(s, tile.Let) and here.loops and len(s.types[0].axes) > 1:
                made = (v for v in walk_values(_bare(s.value)) if len(axes_of(v, here.names)) > 1)
                found |= {v: _units(v, here.names, converting) for v in made}
        return sum(found.values()) * ROWS * self.width(self.along)

    def functions_of_dots(self, rates: Rates, converting: bool = False) -> float:
        """How long these take, in parts of the time that the dots of a step take."""
        return (self.functions(converting) / rates.special) / (self.flops / rates.matrix)

    def waits_for_functions(self, rates: Rates) -> bool:
        """Do the special functions of a step take as long as its dots?"""
        return self.functions_of_dots(rates) >= 1

    def block(self, tensor: str) -> int:
        """The bytes of a block of a tensor, of all consumers."""
        sides = by_descriptor(self.kernel)[tensor]
        size = next(b.dtype.size for b in self.kernel.buffers if b.name == tensor)
        return prod(self.width(axis) for axis, _ in sides if axis is not None) * size

    def resting(self, s: tile.Store, rings: tuple[Ring, ...]) -> str | None:
        """What is held in slots of a consumer's rows that have room for a wide tile that is stored, if anything is."""
        if self.width(s.type.axes[1]) <= _WIDE:
            return None
        loads = {x.names[0]: x for x in bindings(self.kernel) if isinstance(x.value, Load)}
        for held in (loads[r.name] for r in rings if r.held):
            row, *columns = held.types[0].axes
            alike = row == self.row == s.type.axes[0] and held.types[0].dtype == s.type.dtype
            if alike and len(columns) == 1 and self.width(columns[0]) == self.width(s.type.axes[1]):
                return held.names[0]
        return None

    def shared(self, rings: tuple[Ring, ...]) -> int:
        """The bytes of all slots, and of tiles that change threads before they are stored."""
        tensors = {s.names[0]: s.value.tensor for s in bindings(self.kernel) if isinstance(s.value, Load)}
        stores = [s for s in self.kernel.body if isinstance(s, tile.Store) and len(s.type.axes) > 1]
        stored = [s.type for s in stores if self.resting(s, rings) is None]
        part = parted(self.kernel, self.row)
        wide = [PART if part in t.axes else self.width(t.axes[-1]) for t in stored]
        moved = max((ROWS * n * t.dtype.size for n, t in zip(wide, stored, strict=True)), default=0)
        rows = sum(r.depth * self.width(self.along) * _ROW for r in rings for _ in r.rows)
        blocks = sum(r.depth * self.block(tensors[n]) for r in rings for n in r.loads)
        return blocks + rows + self.consumers * moved


def _bare(v: tile.Value) -> tile.Value:
    """A value without its masks."""
    match rebuild(v, _bare):
        case tile.Elem(op="where", args=(_, x, tile.Lit())):
            return x
        case found:
            return found


def _units(v: tile.Value, names: Mapping[str, tile.TileType], converting: bool) -> int:
    """How long a value takes, in special functions."""
    match v:
        case tile.Elem(op="pow", args=(_, tile.Lit())):
            return 0
        case tile.Elem(op=op):
            return _LONG if op in _SERIES else int(op in _SPECIAL)
        case tile.Convert(dtype=t, arg=x):
            return int(converting and t.is_float and not dtype_of(x, names).is_float)
        case _:
            return 0
