"""What is known in a kernel while its values are written, and how tiles meet: by position, after broadcasting.

Every value is written over its own axes first, in the order that is asked for, and only then indexed with `None` up to
the axes of what it meets: `(i < size_i)[:, None]`. A tile whose axes lie in another order is transposed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

from einc import tile
from einc.base.types import DType
from einc.codegen.emit.text import ATOM, Axes, File, Text, literal
from einc.tile import TileType, Value
from einc.tile.typing import dtype_of
from einc.tile.walk import values_of
from einc.tile.windows import Box

# Element types as Triton names them.
TYPES = {
    "bool": "tl.int1", "i8": "tl.int8", "i16": "tl.int16", "i32": "tl.int32", "i64": "tl.int64",
    "u8": "tl.uint8", "u16": "tl.uint16", "u32": "tl.uint32", "u64": "tl.uint64",
    "f16": "tl.float16", "bf16": "tl.bfloat16", "f32": "tl.float32", "f64": "tl.float64",
    "f8e4m3": "tl.float8e4nv", "f8e5m2": "tl.float8e5", "int": "INT",
}  # fmt: skip


class Writer(ABC):
    """Writes the values of one kernel. `python` are its names, `types` what they hold, `blocks` the tile sizes' names
    and `buffers` the tensors by name; `natural` are the names that are never negative. `windows` are the tensors that
    descriptors find, with the sides of their blocks; blocks along `wide` axes begin at integers of the index type.
    `stepped` are the names that change in a loop in steps of another, and `loaded` those of what its steps load."""

    def __init__(self, file: File, buffers: dict[str, tile.Buffer], python: dict[tuple[str, str], str]) -> None:
        self.file = file
        self.buffers = buffers
        self.python = python
        self.types: dict[str, TileType] = {}
        self.blocks: dict[str, str] = {}
        self.natural: set[str] = set()
        self.windows: Mapping[str, Box] = {}
        self.wide: set[str] = set()
        self.walked: Mapping[str, str] = {}  # how long the cache keeps what several walks load
        self.stepped: set[str] = set()
        self.loaded: frozenset[str] = frozenset()
        self._axes: dict[int, tuple[Value, frozenset[str]]] = {}

    @abstractmethod
    def value(self, v: Value, order: Axes) -> Text:
        """The value over exactly these axes, which are its own (of a `Fill`: any)."""

    def apart(self, types: dict[str, TileType]) -> Self:
        """A writer for a function of the same file, whose arguments have these names and types."""
        writer = type(self)(self.file, {}, {("value", name): name for name in types})
        writer.types = dict(types)
        return writer

    # Names and types -------------------------------------------------------------------------------------------------

    def name(self, kind: str, wanted: str) -> str:
        return self.python[kind, wanted]

    def dtype(self, v: Value) -> DType:
        return dtype_of(v, self.types)

    def axes(self, v: Value) -> frozenset[str]:
        """The tile axes a value extends over."""
        known = self._axes.get(id(v))
        if known is not None:
            return known[1]
        match v:
            case tile.Ref(name=name):
                found = frozenset(self.types[name].axes)
            case tile.Dot():
                found = frozenset(v.sides.result)
            case tile.Fold(axis=axis, args=args):
                found = frozenset().union(*map(self.axes, args)) - {axis}
            case tile.Scan(axis=axis, args=args):
                found = frozenset((axis,)).union(*map(self.axes, args))
            case _:
                found = frozenset().union(*map(self.axes, values_of(v)))
        self._axes[id(v)] = v, found  # with the value, lest another takes its place in memory
        return found

    def is_position(self, v: Value) -> bool:
        """Is it the position along a tile axis, one after another?"""
        return isinstance(v, tile.Ref) and self.axes(v) == {v.name}

    def shape(self, axes: Axes) -> str:
        return f"[{', '.join(self.blocks[a] for a in axes)}]"

    # Broadcasting ----------------------------------------------------------------------------------------------------

    def over(self, v: Value, target: Axes) -> Text:
        """The value such that it meets tiles over the target's axes by position."""
        extends = self.axes(v)
        own = tuple(a for a in target if a in extends)
        return self.expanded(self.value(v, own), own, target)

    def expanded(self, text: Text, own: Axes, target: Axes) -> Text:
        if not own or own == target:
            return text
        index = ", ".join(":" if a in own else "None" for a in target)
        return Text(f"{text.at(ATOM)}[{index}]")

    def full(self, v: Value, target: Axes) -> Text:
        """The value as a tile over all of the target's axes."""
        if isinstance(v, tile.Lit) and target:
            return self.filled(v, target)
        text = self.strict(v, target)
        if self.axes(v) == frozenset(target):
            return text
        return Text(f"tl.broadcast_to({text.code}, {self.shape(target)})")

    def filled(self, v: tile.Lit, axes: Axes) -> Text:
        """A tile, or a scalar, of one value."""
        dtype = TYPES[v.dtype.name]
        if v.value == 0 and axes and not v.dtype.is_bool:
            return Text(f"tl.zeros({self.shape(axes)}, {dtype})")
        shape = self.shape(axes) if axes else "()"
        return Text(f"tl.full({shape}, {literal(v).code}, {dtype})")

    def arranged(self, text: Text, have: Axes, want: Axes) -> Text:
        """The tile with its axes in the order wanted."""
        if have == want:
            return text
        if len(have) == 2:
            return Text(f"tl.trans({text.code})")
        return Text(f"tl.permute({text.code}, ({', '.join(str(have.index(a)) for a in want)}))")

    def strict(self, v: Value, order: Axes) -> Text:
        """The value where Triton would guess a constant's type, or takes tensors only."""
        return self.certain(v, self.over(v, order))

    def certain(self, v: Value, text: Text) -> Text:
        """The text of a value, where Triton would guess a constant's type, or takes tensors only."""
        if isinstance(v, tile.Lit):
            return self.filled(v, ())
        return Text(f"tl.cast({text.code}, {TYPES[self.dtype(v).name]})") if text.constant else text
