"""The parts of a tile program run by torch: positions as affine forms, nodes, the frame that they compute in, and the
intervals of their values.

A kernel's tile axes become **dims**, one for each `ein` axis of a group, so that `rows = h * |i| + i` and its parts by
`//` and `%` stay affine. Every value is a torch tensor with one dimension for each dim, of size 1 where it does not
vary. One **box** is computed at a time: a range of positions of every dim. No box leaves an extent, so that masks of
edges, and all others that an interval decides, cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from einc.base.intervals import applied, compared, within
from einc.base.ops import COMPARISONS
from einc.base.types import I64, DType

if TYPE_CHECKING:
    import torch

Bounds = tuple[int, int]  # least and greatest value

_LARGE = 1 << 15  # least number of elements of memory worth keeping; the allocator keeps smaller blocks itself


@lru_cache(maxsize=4096)
def dense(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor without gaps whose dims lie in the order that these strides have them in."""
    found, step = [1] * len(shape), 1
    for d in sorted(range(len(shape)), key=lambda d: (shape[d] != 1 and strides[d], -d)):
        found[d] = step
        step *= shape[d]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Affine:
    """A constant plus multiples of positions along some dims."""

    const: int
    coefs: tuple[tuple[int, int], ...] = ()  # (dim, factor), by dim, no factor 0

    def plus(self, other: Affine, sign: int = 1) -> Affine:
        factors = dict(self.coefs)
        for dim, n in other.coefs:
            factors[dim] = factors.get(dim, 0) + sign * n
        kept = tuple(sorted((dim, n) for dim, n in factors.items() if n))
        return Affine(self.const + sign * other.const, kept)

    def times(self, n: int) -> Affine:
        return Affine(self.const * n, tuple((dim, n * factor) for dim, factor in self.coefs) if n else ())

    def divided(self, n: int, lo: Sequence[int], hi: Sequence[int]) -> tuple[Affine, Affine] | None:
        """Quotient and remainder by a positive number, if both are affine for these ranges of the dims."""
        rest = Affine(self.const % n, tuple((dim, c % n) for dim, c in self.coefs if c % n))
        if rest.bounds(lo, hi)[1] >= n:
            return None
        return Affine(self.const // n, tuple((dim, c // n) for dim, c in self.coefs if c // n)), rest

    def bounds(self, lo: Sequence[int], hi: Sequence[int]) -> Bounds:
        """The least and greatest value in a box, [lo, hi) in each dim."""
        least = most = self.const
        for dim, n in self.coefs:
            if n > 0:
                least += n * lo[dim]
                most += n * (hi[dim] - 1)
            else:
                least += n * (hi[dim] - 1)
                most += n * lo[dim]
        return least, most


class Frame:
    """One run of a kernel: the current box, the values of names, and the operands.

    The box goes from `first` to `stop` in each dim. Windows of memory are taken there; whatever else depends on where
    a box is reads `lo` and `hi`, which notes in `asked` that no other box is like this one. `owned[s]` says that
    nothing but name s holds its tensor. `reuse` allows computing in place; it is off where autograd records. A frame
    that `notes` where windows are does so for the dims in `grid`.
    """

    __slots__ = ("asked", "first", "grid", "idle", "notes", "operands", "owned", "reuse", "scalars", "stop", "values")

    def __init__(
        self, hi: Sequence[int], names: int, scalars: dict[str, torch.Tensor], reuse: bool, grid: Sequence[int] = ()
    ) -> None:
        self.first = [0] * len(hi)
        self.stop = list(hi)
        self.grid = frozenset(grid)
        self.asked = self.notes = False
        self.values: list[torch.Tensor | bool] = [False] * names
        self.owned = [False] * names
        self.scalars = scalars
        self.operands: dict[str, torch.Tensor] = {}
        self.reuse = reuse
        self.idle: dict[tuple[int, torch.dtype], list[torch.Tensor]] = {}

    @property
    def lo(self) -> list[int]:
        """Where the box begins in each dim."""
        self.asked = True
        return self.first

    @property
    def hi(self) -> list[int]:
        """Where it ends."""
        self.asked = True
        return self.stop

    @property
    def rank(self) -> int:
        """The number of dims."""
        return len(self.first)

    def size(self, d: int) -> int:
        """The positions of the box along a dim."""
        return self.stop[d] - self.first[d]

    def move(self, dims: Sequence[int], ranges: Sequence[range]) -> None:
        """Go to a box, or within it to a block of a walk."""
        for d, r in zip(dims, ranges, strict=True):
            self.first[d], self.stop[d] = r.start, r.stop

    def shape(self, dims: frozenset[int]) -> list[int]:
        """The shape of a tensor that varies over these dims."""
        return [b - a if d in dims else 1 for d, (a, b) in enumerate(zip(self.first, self.stop, strict=True))]

    def place(self, slot: int, value: torch.Tensor | bool, owned: bool) -> None:
        """Let a name hold a value."""
        self.values[slot], self.owned[slot] = value, owned

    def passed(self, slot: int, gives: bool) -> tuple[torch.Tensor | bool, bool]:
        """The value of a name for another to hold: the first gives it up, or stays the one that owns it."""
        value, owned = self.values[slot], self.owned[slot] and gives
        if gives:
            self.place(slot, False, False)
        return value, owned

    def scratch(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor | None:
        """Memory for a large result, if some of its size is idle: fresh memory costs a page fault every 4 KiB."""
        if not self.idle:
            return None
        idle = self.idle.get((prod(shape), dtype))
        return idle.pop().view(shape) if idle else None

    def beside(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
        """Such memory for a result of the extents of x, its elements in the order in which those of x lie."""
        if not self.idle:
            return None
        idle = self.idle.get((x.numel(), dtype))
        return idle.pop().as_strided(x.shape, dense(x.shape, x.stride())) if idle else None

    def recycle(self, value: torch.Tensor | bool, owned: bool) -> None:
        """Keep the memory of a value that nothing holds any more."""
        if not owned or isinstance(value, bool) or not self.reuse:
            return
        n = value.numel()
        if n >= _LARGE and value.untyped_storage().nbytes() == n * value.element_size():
            self.idle.setdefault((n, value.dtype), []).append(value.as_strided((n,), (1,), 0))

    def left(self) -> dict[tuple[int, torch.dtype], list[torch.Tensor]]:
        """All memory of tiles, once nothing reads any name; a walk may leave a tile in several."""
        held = {id(x): x for x, mine in zip(self.values, self.owned, strict=True) if mine}
        for slot in range(len(self.values)):
            self.place(slot, False, False)
        for x in held.values():
            self.recycle(x, True)
        return self.idle

    def share(self, value: torch.Tensor | bool) -> None:
        """Note a second holder of a value: no name owns it any more."""
        for slot, held in enumerate(self.values):
            if held is value:
                self.owned[slot] = False


Result = tuple[
    "torch.Tensor | bool", bool
]  # a value, and whether only the receiver holds it; a bool is true everywhere
Compute = Callable[[Frame], Result]
Write = Callable[[Frame, "torch.Tensor"], None]  # computes to memory of the value's extents, or of larger ones
Interval = Callable[[Sequence[int], Sequence[int]], "Bounds | None"]


def unknown(_lo: Sequence[int], _hi: Sequence[int]) -> Bounds | None:
    """The interval of a value about which nothing is known."""
    return None


@dataclass(slots=True, eq=False)
class Node:
    """A value ready to be computed: its type, the dims it varies over, and what is known about it.

    `bounds` gives an interval of an integer or a truth value (0 or 1) in a box. `fixed` is a value that is the same in
    every box. `passes` says that the result may be the tensor that a name holds, `view` that it takes no memory of its
    own, `at_hand` that it is only read. `write`, if there is one, computes it directly into a target.
    """

    dtype: DType
    dims: frozenset[int]
    compute: Compute
    affine: Affine | None = None
    bounds: Interval = field(default=unknown)
    fixed: torch.Tensor | bool | None = None
    passes: bool = False
    view: bool = False
    at_hand: bool = False
    write: Write | None = None

    @property
    def inlined(self) -> bool:
        """Is it computed again at every read, rather than kept under its name?"""
        return self.affine is not None or self.fixed is not None


# ---------------------------------------------------------------------------------------------------------------------
# Intervals of integers and truth values over a box, by which a whole block can skip a mask

_ARITHMETIC = ("add", "sub", "neg", "mul", "floordiv", "exactdiv", "mod", "max", "min", "abs", "not", "where")


def interval(op: str, args: Sequence[Node]) -> Interval:
    """The interval of an operation, from those of its arguments; `unknown` where it is known in no box."""
    known = [a.bounds for a in args]
    if op in ("and", "or"):
        return lambda lo, hi: applied(op, [k(lo, hi) for k in known])
    if unknown in known:
        return unknown
    if op in COMPARISONS:
        return _compared(op, *args)
    if op in _ARITHMETIC and all(a.dtype.is_int or a.dtype.is_bool for a in args):
        return lambda lo, hi: applied(op, [k(lo, hi) for k in known])
    return unknown


def _compared(op: str, a: Node, b: Node) -> Interval:
    """A comparison of affine sides, by the interval of their difference, since both move together."""
    if a.affine is not None and b.affine is not None:
        difference = a.affine.plus(b.affine, -1).bounds
        return lambda lo, hi: compared(op, difference(lo, hi))
    if not all(n.dtype.is_int for n in (a, b)):
        return unknown
    return lambda lo, hi: applied(op, (a.bounds(lo, hi), b.bounds(lo, hi)))


def affine_form(op: str, args: list[Node], lo: list[int], hi: tuple[int, ...]) -> Affine | None:
    """An operation on positions as an affine form, if it is one in this box."""
    forms = [a.affine for a in args]
    match op, forms:
        case "add" | "sub", [Affine() as a, Affine() as b]:
            return a.plus(b, 1 if op == "add" else -1)
        case "neg", [Affine() as a]:
            return a.times(-1)
        case "mul", [Affine() as a, Affine() as b] if not (a.coefs and b.coefs):
            return b.times(a.const) if not a.coefs else a.times(b.const)
        case "floordiv" | "mod" | "exactdiv", [Affine() as a, Affine(n, ())] if n > 0:
            parts = a.divided(n, lo, hi)
            return None if parts is None else parts[op == "mod"]
        case _:
            return None


def holds(t: DType, values: Bounds) -> bool:
    """Are these integers in the type as torch computes with it (u64 as i64)?"""
    return within(values, t.limits) and within(values, I64.limits)
