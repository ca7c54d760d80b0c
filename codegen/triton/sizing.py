"""A kernel whose tiles are being chosen, and the tiles that one choice after another gives it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

from einc import tile
from einc.base.facts import MOST_ALIGNED
from einc.codegen.triton.contracted import least_inner
from einc.codegen.triton.occupancy import Occupancy
from einc.pipeline import Context, Product
from einc.tile import Block, TileAxis
from einc.tile.blocks import power
from einc.tile.typing import multiplied
from einc.tile.walk import each, lets, loops, tile_axes, values_in, walk_values


@dataclass(frozen=True, slots=True)
class Tiles:
    """The sizes of a kernel's axes by role, its warps, and the blocks in flight."""

    blocks: dict[str, Block]
    warps: int
    stages: int = 3


class Sizing:
    """A kernel whose tiles are being chosen, and what that depends on."""

    def __init__(self, kernel: tile.Kernel, context: Context) -> None:
        self.kernel, self.context, self.target = kernel, context, context.target
        self.axes = [a for a in tile_axes(kernel).values() if a.blocked]
        self.hints = {a.name: power(prod(context.size(x) for x in a.axes)) for a in tile_axes(kernel).values()}
        self.multiplied = multiplied(kernel)
        self.dots = [d for d, _ in self.multiplied]
        self.on_cuda = context.target.vendor == "cuda"

    @cached_property
    def occupancy(self) -> Occupancy:
        return Occupancy(self.kernel)

    @cached_property
    def loaded(self) -> frozenset[str]:
        """What is as it lies in memory."""
        found = (s.names for s in lets(self.kernel.body) if isinstance(s.value, tile.Load))
        return frozenset(name for names in found for name in names)

    @cached_property
    def within(self) -> frozenset[str]:
        """The axes that loops walk within others."""
        return frozenset(a.name for a in self.axes if a.role == "inner")

    @cached_property
    def crossed(self) -> frozenset[str]:
        """The axes that loops within others fold for rows and columns at once, without a dot."""
        found = ((s.types[0].axes, s.value) for s in lets(self.kernel.body) if isinstance(s.value, tile.Fold))
        return frozenset(v.axis for axes, v in found if len(axes) > 1) & self.within

    @cached_property
    def columns_of_chains(self) -> frozenset[str]:
        """The columns of what computed values of two bytes are multiplied with, after another dot.

        Their tile gets whole swizzled rows. With narrower ones, CUDA 12.8's assembler may address it by a register that
        nothing wrote, where the tile lies at the address of an earlier one with wider rows: results are then random.
        """
        if len(self.dots) < 2:
            return frozenset()
        return frozenset(d.column for d, t in self.multiplied if t.size <= 2 and not self.is_copied(d))

    @property
    def steps(self) -> bool:
        """Are there several dots in a loop that takes one position at a time?"""
        stepping = [s.body for s in loops(self.kernel.body) if not s.axis.blocked]
        return any(sum(isinstance(v, tile.Dot) for v in values_in(body)) > 1 for body in stepping)

    @property
    def masked(self) -> bool:
        """Does a dot count only some of the positions of its sides?"""
        return any(p is not None for d in self.dots for p in (d.left_in, d.right_in))

    @cached_property
    def lines(self) -> frozenset[str]:
        """The tile axes whose neighbours are neighbours in memory, of what several axes of a tile index."""
        found: set[str] = set()
        for tensor, index in _indices(self.kernel):
            axes = {v.name for i in index for v in walk_values(i) if isinstance(v, tile.Ref)} & self.hints.keys()
            lies = self.context.layouts.get(tensor)
            last = index[-1 if lies is None else lies.order[-1]]
            if len(axes) > 1 and isinstance(last, tile.Ref):
                found.add(last.name)
        return frozenset(found)

    @property
    def product(self) -> Product:
        """Its one dot as a product of two tensors."""
        ((dot, dtype),) = self.multiplied
        axes = tile_axes(self.kernel)
        sizes = {name: prod(self.context.extent(x) for x in a.axes) for name, a in axes.items()}
        batch = prod(sizes[a.name] for a in self.kernel.grid if not a.blocked) // self.kernel.choices.parts
        loads = [
            v for v in values_in(self.kernel.body) if isinstance(v, tile.Load) and v.tensor in self.context.layouts
        ]
        fastest = {v.index[self.context.layouts[v.tensor].order[-1]] for v in loads if v.index}
        across = tuple(tile.Ref(axis) in fastest for axis in (dot.row, dot.column))
        operands = {v.tensor for v in loads}
        lying = [self.context.layouts[name].aligned for name in operands if name in self.context.layouts]
        lined = min(lying, default=MOST_ALIGNED) == MOST_ALIGNED
        return Product(batch, sizes[dot.row], sizes[dot.column], sizes[dot.inner], dtype.size, lined, across=across)

    @property
    def least(self) -> int:
        """The shortest inner length."""
        return max(least_inner(t) for _, t in self.multiplied)

    def is_copied(self, dot: tile.Dot) -> bool:
        """Whether a dot's operands are as they lie in memory."""
        return all(isinstance(x, tile.Ref) and x.name in self.loaded for x in (dot.left, dot.right))

    def given(self, a: TileAxis) -> Block | None:
        """The size that an axis has already."""
        return self.kernel.choices.tile(a.name)

    def sizes(self, blocks: dict[str, Block]) -> dict[str, int]:
        """The positions of a tile along each of its axes, by the hints."""
        found = dict.fromkeys(self.hints, 1)
        for a in self.axes:
            found[a.name] = min((self.given(a) or blocks[a.role]).cap, self.hints[a.name])
        return found

    def programs(self, blocks: dict[str, int]) -> int:
        """The programs of the grid with blocks of these sizes."""
        context = self.context
        return prod(-(-prod(context.size(x) for x in a.axes) // blocks.get(a.role, 1)) for a in self.kernel.grid)


def _indices(kernel: tile.Kernel) -> Iterator[tuple[str, tuple[tile.Value, ...]]]:
    """The tensors and indices of all loads and stores."""
    yield from ((v.tensor, v.index) for v in values_in(kernel.body) if isinstance(v, tile.Load) and v.index)
    yield from ((s.tensor, s.index) for s in each(kernel.body) if isinstance(s, tile.Store) and s.index)
