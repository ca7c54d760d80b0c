"""A kernel whose tiles are being chosen, and the tiles that one choice after another gives it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod

from einc import tile
from einc.base.facts import MOST_ALIGNED, row_major
from einc.codegen.triton.contracted import least_inner
from einc.codegen.triton.delay_folds import Waiting, waiting
from einc.codegen.triton.options import launched, rows_among
from einc.codegen.triton.tiles.occupancy import RESERVED, Occupancy
from einc.codegen.triton.tiles.products import Tile as Shape
from einc.codegen.triton.tiles.products import is_possible, seconds
from einc.pipeline import APART, ENGINE, GATHERED, Context, Product
from einc.tile import Block, TileAxis
from einc.tile.asked import folds_asked
from einc.tile.blocks import power
from einc.tile.typing import multiplied
from einc.tile.walk import bindings, each, every_value, loops, tile_axes, values_in, walk_values
from einc.tile.windows import windows

_IDLE = 4  # times as many processors as programs, while these have more than one position

_MOST = 8  # times as many elements at most has what is read or written most


@dataclass(frozen=True, slots=True)
class Tiles:
    """The sizes of a kernel's axes by role, its warps, the blocks in flight, and when its walks fold."""

    blocks: dict[str, Block]
    warps: int
    stages: int = 3
    folds: str = ""


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
    def waiting(self) -> tuple[tuple[tile.Loop, tuple[Waiting, ...]], ...]:
        """The walks whose folds can wait until they end, on GPUs, with the states that do."""
        return waiting(self.kernel) if self.target.vendor != "cpu" else ()

    @property
    def folds(self) -> str:
        """When they are asked to fold; empty if it is not said."""
        return folds_asked(self.context.choices, self.kernel)

    @cached_property
    def loaded(self) -> frozenset[str]:
        """What is as it lies in memory."""
        found = (s.names for s in bindings(self.kernel) if isinstance(s.value, tile.Load))
        return frozenset(name for names in found for name in names)

    @cached_property
    def within(self) -> frozenset[str]:
        """The axes that loops walk within others."""
        return frozenset(a.name for a in self.axes if a.role == "inner")

    @cached_property
    def crossed(self) -> frozenset[str]:
        """The axes that loops within others fold for rows and columns at once, without a dot."""
        found = ((s.types[0].axes, s.value) for s in bindings(self.kernel) if isinstance(s.value, tile.Fold))
        return frozenset(v.axis for axes, v in found if len(axes) > 1) & self.within

    @cached_property
    def columns_of_chains(self) -> frozenset[str]:
        """The columns of what computed values of two bytes are multiplied with, after another dot.

        Their tile gets whole swizzled rows. With narrower ones, CUDA 12.8's assembler may address it by a register that
        nothing wrote, where the tile lies at the address of an earlier one with wider rows: results are then random.
        """
        if len(self.dots) < 2 or not self.on_cuda:
            return frozenset()
        return frozenset(d.column for d, t in self.multiplied if t.size <= 2 and not self.is_copied(d))

    @property
    def steps(self) -> bool:
        """Are there several dots in a loop that takes one position at a time, beside what a loop in it walks?"""
        stepping = [s.body for s in loops(self.kernel.body) if not s.axis.blocked]
        own = [tuple(s for s in body if not isinstance(s, tile.Loop)) for body in stepping]
        return any(sum(isinstance(v, tile.Dot) for v in values_in(body)) > 1 for body in own)

    def warps(self, tiles: Tiles) -> int:
        """The warps that a launch gives such tiles."""
        sizes, most = self.sizes(tiles.blocks), {a.name: self.most(a, tiles.blocks) for a in self.axes}
        rows = [sizes[a] for a in rows_among(self.multiplied, most)] if self.on_cuda else []
        return launched(tiles.warps, min(rows)) if rows else tiles.warps

    def at_once(self, tiles: Tiles) -> int:
        """The programs that run at once on a multiprocessor, by the shared memory that they take."""
        taken = self.occupancy.shared(self.sizes(tiles.blocks), tiles.stages, tiles.warps)
        return (self.target.shared + RESERVED) // (taken + RESERVED)

    @property
    def masked(self) -> bool:
        """Does a dot count only some of the positions of its sides?"""
        return any(p is not None for d in self.dots for p in (d.left_in, d.right_in))

    @cached_property
    def lines(self) -> frozenset[str]:
        """The tile axes whose neighbours are neighbours in memory, of what several axes of a tile index.

        What has far fewer elements than the largest of these does not count, such as the states of parts of a walk.
        """
        found: set[str] = set()
        blocked = {a.name for a in self.axes}
        read = {
            (tensor, index): {v.name for i in index for v in walk_values(i) if isinstance(v, tile.Ref)} & blocked
            for tensor, index in _indices(self.kernel)
        }
        sizes = {key: prod(self.hints[a] for a in axes) for key, axes in read.items()}
        for (tensor, index), axes in read.items():
            if sizes[tensor, index] * _MOST < max(sizes.values()):
                continue
            lies = self.context.layouts.get(tensor, row_major(len(index)))
            last = lies.fastest(index)
            if len(axes) > 1 and isinstance(last, tile.Ref):
                found.add(last.name)
        return frozenset(found)

    @property
    def is_product(self) -> bool:
        """Is it a single product of tensors as they lie in memory?"""
        walked = {a.name for a in self.axes if a.role == "reduced"}
        dots = self.dots
        return self.on_cuda and len(dots) == 1 and dots[0].inner in walked and self.is_copied(dots[0])

    @property
    def is_ranked(self) -> bool:
        """Is it such a product on copy engines, whose time is known for every tile?"""
        narrow = all(t.size <= 2 for _, t in self.multiplied)
        return self.is_product and self.target.has_descriptors and narrow and not self.kernel.whole and not self.steps

    @property
    def product(self) -> Product:
        """Its one dot as a product of two tensors."""
        ((dot, dtype),) = self.multiplied
        axes = tile_axes(self.kernel)
        sizes = {name: prod(self.context.extent(x) for x in a.axes) for name, a in axes.items()}
        batch = prod(sizes[a.name] for a in self.kernel.grid if not a.blocked) // self.kernel.choices.parts
        loads = [v for v in every_value(self.kernel) if isinstance(v, tile.Load) and v.tensor in self.context.layouts]
        fastest = {self.context.layouts[v.tensor].fastest(v.index) for v in loads}
        across = tuple(tile.Ref(axis) in fastest for axis in (dot.row, dot.column))
        operands = {v.tensor for v in loads}
        lying = [self.context.layouts[name].aligned for name in operands if name in self.context.layouts]
        lined = min(lying, default=MOST_ALIGNED) == MOST_ALIGNED
        steps = prod(sizes[s.axis.name] for s in loops(self.kernel.body) if not s.axis.blocked)
        inner = steps * sizes[dot.inner]
        found = {s.names[0]: s.value for s in bindings(self.kernel) if isinstance(s.value, tile.Load)}
        sides = [found[x.name] for x in (dot.left, dot.right) if isinstance(x, tile.Ref)]
        access = tuple(self.access(v) if v.tensor in self.found else GATHERED for v in sides)
        return Product(batch, sizes[dot.row], sizes[dot.column], inner, dtype.size, lined, access, across, steps)

    def access(self, load: tile.Load) -> int:
        """The bytes of a tensor that are read at once."""
        lies = self.context.layouts.get(load.tensor, row_major(len(load.index)))
        last = lies.fastest(load.index)
        beside = lies.packed and isinstance(last, tile.Ref) and last.name in {a.name for a in self.axes}
        return min(lies.aligned, ENGINE) if beside else APART

    @cached_property
    def found(self) -> frozenset[str]:
        """The tensors of which blocks are found by their corners."""
        return frozenset(windows(self.kernel))

    @property
    def least(self) -> int:
        """The shortest inner length."""
        return max(least_inner(t) for _, t in self.multiplied)

    def is_copied(self, dot: tile.Dot) -> bool:
        """Whether a dot's operands are as they lie in memory."""
        return all(isinstance(x, tile.Ref) and x.name in self.loaded for x in (dot.left, dot.right))

    @property
    def computes(self) -> bool:
        """Does the kernel compute a right side of a dot?"""
        return not all(isinstance(d.right, tile.Ref) and d.right.name in self.loaded for d in self.dots)

    def given(self, a: TileAxis) -> Block | None:
        """The size that an axis has already."""
        return self.kernel.choices.tile(a.name)

    def sizes(self, blocks: dict[str, Block]) -> dict[str, int]:
        """The positions of a tile along each of its axes, by the hints."""
        found = dict.fromkeys(self.hints, 1)
        for a in self.axes:
            found[a.name] = min(self.most(a, blocks), self.hints[a.name])
        return found

    def most(self, a: TileAxis, blocks: dict[str, Block]) -> int:
        """The positions of a tile along an axis, if it has so many."""
        return (self.given(a) or blocks[a.role]).cap

    @property
    def longest(self) -> int:
        """The positions of the longest part of a walk."""
        parts = self.kernel.choices.parts if self.kernel.parts_of else 1
        return max(self.hints[a.name] for a in self.axes if a.role == "reduced") // parts

    @cached_property
    def single(self) -> bool:
        """Do threads read single elements, since neighbours in memory begin anywhere?"""
        loads = [v for v in every_value(self.kernel) if isinstance(v, tile.Load) and len(v.index) > 1]
        return any(self.access(v) <= v.dtype.size for v in loads)

    def spread(self, blocks: dict[str, int]) -> int:
        """The size of blocks along an axis, with fewer positions while many processors have no program."""
        ((role, count),) = blocks.items()
        while count > 1 and _IDLE * self.programs({role: count}) <= self.target.rates.processors:
            count //= 2
        return count

    def programs(self, blocks: dict[str, int]) -> int:
        """The programs of the grid with blocks of these sizes."""
        context = self.context
        return prod(-(-prod(context.size(x) for x in a.axes) // blocks.get(a.role, 1)) for a in self.kernel.grid)


def predicted(kernel: tile.Kernel, context: Context) -> float | None:
    """The seconds of a kernel in the tiles that it has: infinite where these take more than there is, None for others
    than products of two tensors, whose time cannot be told."""
    k, c = Sizing(kernel, context), kernel.choices
    if not k.dots:
        return None
    sizes = k.sizes({})
    room = k.target.shared
    if k.occupancy.shared(sizes, c.stages, c.warps) > room or k.occupancy.registers(sizes) > k.target.registers:
        return inf
    if not k.is_ranked:
        return None
    (dot,) = k.dots
    least = {name: block.least for name, block in c.tiles}
    rows, columns, inner = (max(sizes[a], least.get(a, 1)) for a in (dot.row, dot.column, dot.inner))
    shape = Shape(rows, columns, inner, c.warps, c.stages, c.parts)
    fits = is_possible(k.product, shape) and shape.shared(k.product.size) <= room
    return seconds(k.product, shape, k.target) if fits else inf


def _indices(kernel: tile.Kernel) -> Iterator[tuple[str, tuple[tile.Value, ...]]]:
    """The tensors and indices of all loads and stores."""
    yield from ((v.tensor, v.index) for v in every_value(kernel) if isinstance(v, tile.Load) and v.index)
    yield from ((s.tensor, s.index) for s in each(kernel.body) if isinstance(s, tile.Store) and s.index)
