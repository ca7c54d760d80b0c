"""How it is computed: kernels over tiles of named axes, one to one with what is emitted.

A kernel is a grid of programs. A **tile axis** is a group of `ein` axes, flattened row-major into one index and cut
into blocks; grid axes give a program its block (or its single position), loop axes are walked block by block. A value
is a tile over an ordered tuple of tile axes; values are broadcast by axis name. Statements bind names once; a loop
carries named states from one block to the next.

Nodes are frozen. `einc.tile.printer` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from einc.base.types import DType
from einc.ein import Monoid
from einc.tile.choices import WHOLE as WHOLE
from einc.tile.choices import Block as Block
from einc.tile.choices import Choices as Choices
from einc.tile.roles import Roles as Roles

# ---------------------------------------------------------------------------------------------------------------------
# Axes and types


@dataclass(frozen=True, slots=True)
class TileAxis:
    """A group of `ein` axes as one index, outermost first; if not `blocked`, of one position per program (or step).

    `role`, by which tile sizes are chosen, is `batch`, `row`, `column`, `whole`, `reduced`, or `inner` of a loop that
    runs within another's block.
    """

    name: str
    axes: tuple[str, ...]
    role: str
    blocked: bool = True


@dataclass(frozen=True, slots=True)
class TileType:
    """Element type and axes of a value; one without axes is a scalar.

    `dtype` is a strong type, or `INT` for positions and extents: 32 or 64 bits wide, as the launch needs.
    """

    dtype: DType
    axes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------------------------
# Values


@dataclass(frozen=True, slots=True)
class Ref:
    """A value bound earlier by `Let`, a carried state, or the index of a tile axis (by the axis's name)."""

    name: str


@dataclass(frozen=True, slots=True)
class Lit:
    """A literal of a type; `lowest` and `highest` are the type's least and greatest value."""

    value: bool | int | float | str
    dtype: DType
    kind: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", type(self.value).__name__)


@dataclass(frozen=True, slots=True)
class ExtentOf:
    """The extent of an `ein` axis, a run-time integer."""

    axis: str


@dataclass(frozen=True, slots=True)
class ScalarArg:
    """A scalar parameter of the program."""

    name: str


@dataclass(frozen=True, slots=True)
class Elem:
    """An operation of `base.ops`, position by position. Arguments are broadcast by axis name and have one type, except
    for the condition of `where`; conversions are explicit."""

    op: str
    args: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Convert:
    """The value in another element type: floats round to nearest even, floats to integers truncate."""

    dtype: DType
    arg: Value


@dataclass(frozen=True, slots=True)
class Load:
    """Elements of a tensor at one index for each dimension; 0 where the mask is false.

    `checked[k]` says that index k may be out of range and is checked at run time. `part` selects the real (0) or
    imaginary (1) part of a complex tensor. `apart` keeps the load from being merged with an equal one.
    """

    tensor: str
    index: tuple[Value, ...]
    dtype: DType
    checked: tuple[bool, ...]
    mask: Value | None = None
    part: int | None = None
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Sides:
    """The tile axes of a dot, or of a dot at each position of `batch` if that is named."""

    row: str
    column: str
    inner: str
    batch: str = ""

    @property
    def result(self) -> tuple[str, ...]:
        """The tile axes of the result, in the order they are computed in."""
        return self.over(self.row, self.column)

    def over(self, *axes: str) -> tuple[str, ...]:
        """These axes, after `batch`, in the order of a tile."""
        return (self.batch, *axes) if self.batch else axes


@dataclass(frozen=True, slots=True)
class Dot:
    """acc[row, column] + Σ[inner] left[row, inner] · right[inner, column], summed in the accumulator's type.

    With a `batch` axis it is a dot at each of its positions: acc, left and right extend over it too. An operand may
    lack an axis that it does not depend on; it is broadcast along it.

    Where `left_in` is false, left is 0 and contributes nothing, whatever right holds; so it is with `right_in`. A
    kernel may apply this to whole tiles only: it leaves out right at positions where no row of left counts.

    `product` is the precision that sides of f32 are multiplied in (`einc.base.types`), if that is not exact.
    """

    left: Value
    right: Value
    acc: Value
    row: str
    column: str
    inner: str
    batch: str = ""
    left_in: Value | None = None
    right_in: Value | None = None
    product: DType | None = None

    @property
    def sides(self) -> Sides:
        """Its tile axes."""
        return Sides(self.row, self.column, self.inner, self.batch)


@dataclass(frozen=True, slots=True)
class Fold:
    """A tile reduced along one axis by a monoid: one argument for each component."""

    monoid: Monoid
    axis: str
    args: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """The prefixes of a tile along one of its axes: at each position the monoid's combination of all up to and with it.

    If `reverse`, of all from it on. One argument for each component.
    """

    monoid: Monoid
    axis: str
    args: tuple[Value, ...]
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Fill:
    """A tile of one value over the axes of the name it is bound to."""

    value: Lit


Value = Ref | Lit | ExtentOf | ScalarArg | Elem | Convert | Load | Dot | Fold | Scan | Fill

# ---------------------------------------------------------------------------------------------------------------------
# Statements


@dataclass(frozen=True, slots=True)
class Let:
    """Names bound to a value: one, or one for each component of a `Fold` or `Scan`. The types fix the order of axes."""

    names: tuple[str, ...]
    types: tuple[TileType, ...]
    value: Value


@dataclass(frozen=True, slots=True)
class Carried:
    """A state of a loop: its value before the first block and, by name, its value after each.

    One over the loop's own axis has an element for each position of a block, which goes on from block to block by
    itself, and which the last block leaves where it overhangs. After the loop they can be folded.
    """

    name: str
    type: TileType
    init: Value
    after: str


@dataclass(frozen=True, slots=True)
class Full:
    """Positions of a loop's axis, from `start` (None: the loop's) up to `stop`, at which masks are known to hold.

    At each of them every predicate in `holds`, a value of the loop's body, holds for the whole tile, and none is
    outside the loop. Blocks wholly inside run `body`, which computes the same there; it is empty until `segment-loops`.
    If `free`, the blocks of the loop may be taken in any order.
    """

    stop: Value
    start: Value | None = None
    holds: tuple[Value, ...] = ()
    body: tuple[Statement, ...] = ()
    free: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """The blocks of `axis`, from position `start` up to `stop` (None: the whole extent), in order.

    The last block may overhang `stop`; if the loop is `exact`, positions from `stop` on do not belong to it.
    If `reverse`, the last block comes first, and `start` is None. What `ahead` names is loaded a block before.
    """

    axis: TileAxis
    carried: tuple[Carried, ...]
    body: tuple[Statement, ...]
    start: Value | None = None
    stop: Value | None = None
    exact: bool = False
    reverse: bool = False
    full: Full | None = None
    ahead: tuple[str, ...] = ()

    @property
    def bounds(self) -> tuple[Value, ...]:
        """The values that decide which positions it visits, and at which of them it is masked."""
        inside = () if self.full is None else (self.full.start, self.full.stop)
        return tuple(v for v in (self.start, self.stop, *inside) if v is not None)


@dataclass(frozen=True, slots=True)
class Store:
    """Write a value's elements at one index for each dimension, where the mask holds.

    A store that `adds` adds each to what is there, so that several may have one index: in no order that is fixed, once
    for every position of its type, in every program. What it adds to was written before, by another kernel.
    """

    tensor: str
    index: tuple[Value, ...]
    value: Value
    type: TileType
    mask: Value | None = None
    part: int | None = None
    adds: bool = False


Statement = Let | Loop | Store

# ---------------------------------------------------------------------------------------------------------------------
# Kernels


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor that a kernel accesses: its dimensions as groups of `ein` axes, and its type in memory."""

    name: str
    dims: tuple[tuple[str, ...], ...]
    dtype: DType
    written: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch. The grid's axes are given slowest first; each axis of `whole` has one block with all its positions.

    `title` quotes the equations it computes; `extents` and `scalars` are the run-time arguments besides the buffers;
    `choices` are what its meaning leaves open.
    It is for the plan of its name. If the walk is split there are two kernels: one stores the states of every part,
    which are `parts_of` the plan, and one `merges` them. If its warps have `roles`, these say who does what, and when.
    """

    name: str
    title: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    extents: tuple[str, ...]
    scalars: tuple[tuple[str, DType], ...]
    grid: tuple[TileAxis, ...]
    body: tuple[Statement, ...]
    whole: tuple[TileAxis, ...] = ()
    choices: Choices = Choices()  # noqa: RUF009 - frozen
    parts_of: str = ""
    merges: bool = False
    roles: Roles | None = None
    found: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)  # by `walk.once`
    lasting: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)  # whatever the choices

    @property
    def plan(self) -> str:
        """The name of the plan that it is for."""
        return self.parts_of or self.name

    def choosing(self, choices: Choices) -> Kernel:
        """The kernel with these choices, of which stays known what they do not decide."""
        made = replace(self, choices=choices)
        object.__setattr__(made, "lasting", self.lasting)
        return made


@dataclass(frozen=True, slots=True)
class Schedule:
    """The kernels of a program in order, and the tensors that live between them."""

    kernels: tuple[Kernel, ...]
    intermediates: tuple[Buffer, ...]
