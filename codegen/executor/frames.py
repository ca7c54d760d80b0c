"""The parts of a tile program run by torch: positions as affine forms, nodes, and the frame that they compute in.

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

from einc.base.types import DType

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

    `owned[s]` says that nothing but name s holds its tensor. `reuse` allows computing in place; it is off where
    autograd records.
    """

    __slots__ = ("hi", "idle", "lo", "operands", "owned", "reuse", "scalars", "values")

    def __init__(self, hi: Sequence[int], names: int, scalars: dict[str, torch.Tensor], reuse: bool) -> None:
        self.lo = [0] * len(hi)
        self.hi = list(hi)
        self.values: list[torch.Tensor | bool] = [False] * names
        self.owned = [False] * names
        self.scalars = scalars
        self.operands: dict[str, torch.Tensor] = {}
        self.reuse = reuse
        self.idle: dict[tuple[int, torch.dtype], list[torch.Tensor]] = {}

    def shape(self, dims: frozenset[int]) -> list[int]:
        """The shape of a tensor that varies over these dims."""
        return [stop - start if d in dims else 1 for d, (start, stop) in enumerate(zip(self.lo, self.hi, strict=True))]

    def place(self, slot: int, value: torch.Tensor | bool, owned: bool) -> None:
        """Let a name hold a value."""
        self.values[slot], self.owned[slot] = value, owned

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
