"""Loads and stores of a box: windows of strided memory where indices are affine, gathers where they are not.

load T[i, j + 1]     -->   a view: one stride a dim, nothing copied
load T[x + r - 1]    -->   the same over a copy padded by zeros, in the boxes that leave T
load T[page[j], d]   -->   whole rows of d gathered at page[j]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import cast

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from einc.base.types import DType
from einc.codegen.executor.elementwise import write
from einc.codegen.executor.frames import Affine, Bounds, Frame, Node
from einc.codegen.executor.ops import HELD, common_shape, held, writable

_MOST_STRIDES = 64  # the most strides of one tensor that are remembered over the calls of a kernel
_MOST_PADDING = 4  # a padded copy may have this many times the elements of the window; a larger one is gathered instead


@dataclass(frozen=True, slots=True)
class Strides:
    """The place in memory of affine indices, for known strides: at the origin, and per step along each dim."""

    offset: int
    along: tuple[tuple[int, int], ...]

    @staticmethod
    def of(index: Sequence[Node], strides: Sequence[int]) -> Strides:
        offset, along = 0, dict[int, int]()
        for stride, node in zip(strides, index, strict=True):
            assert node.affine is not None
            offset += stride * node.affine.const
            for dim, n in node.affine.coefs:
                along[dim] = along.get(dim, 0) + stride * n
        return Strides(offset, tuple(along.items()))


@dataclass(slots=True)
class Access:
    """The place of a load or store: one index for each dimension, and the terms of its mask not known to hold.

    A load out of range gives 0, so that terms that only keep an index in range are left out. `inside` says that no box
    leaves the tensor.
    """

    tensor: str
    part: int | None
    index: tuple[Node, ...]
    terms: tuple[Node, ...]
    inside: bool
    affine: bool = field(init=False)
    dims: frozenset[int] = field(init=False)
    strides: dict[tuple[int, ...], Strides] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.affine = all(n.affine is not None for n in self.index)
        self.dims = frozenset().union(*(n.dims for n in (*self.index, *self.terms)))

    def memory(self, frame: Frame) -> Tensor:
        """The tensor that is accessed, or the real or imaginary part of a complex one."""
        x = frame.operands[self.tensor]
        return x if self.part is None else torch.view_as_real(x).select(-1, self.part)

    def mask(self, frame: Frame) -> Tensor | bool:
        """Where the access takes place: everywhere, nowhere, or where a tensor is true."""
        whole: Tensor | bool = True
        for term in self.terms:
            value = term.compute(frame)[0]
            if value is False:
                return False
            if value is not True:
                whole = value if whole is True else whole & value
        return whole


def window(memory: Tensor, access: Access, frame: Frame, origin: Sequence[int] = ()) -> Tensor:
    """The view of memory that a box accesses by affine indices; `origin` is the position of its first element."""
    steps = memory.stride()
    reach = access.strides.get(steps)
    if reach is None:
        if len(access.strides) >= _MOST_STRIDES:
            access.strides.clear()
        reach = access.strides[steps] = Strides.of(access.index, steps)
    begin, end = frame.first, frame.stop
    offset = memory.storage_offset() + reach.offset
    for stride, first in zip(steps, origin, strict=False):
        offset -= stride * first
    shape, strides = [1] * frame.rank, [0] * frame.rank
    backwards: list[int] = []
    for dim, stride in reach.along:
        shape[dim] = end[dim] - begin[dim]
        if stride >= 0:
            strides[dim] = stride
            offset += stride * begin[dim]
        else:
            strides[dim] = -stride
            offset += stride * (end[dim] - 1)
            backwards.append(dim)
    if frame.notes:
        moves = tuple((dim, stride) for dim, stride in reach.along if dim in frame.grid)
        offset -= sum(stride * begin[dim] for dim, stride in moves)
        view = placed(memory, tuple(shape), tuple(strides), int(offset), moves, begin)
    else:
        view = memory.as_strided(shape, strides, offset)
    if any(shape[dim] > 1 for dim in backwards):
        return writable(view).flip(backwards).view(memory.dtype)
    return view


def placed(
    memory: Tensor,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    start: int,
    moves: tuple[tuple[int, int], ...],
    begin: Sequence[int],
) -> Tensor:
    """The view of memory in a box that begins there, as one operation of torch to who records these."""
    if has_torch_function((memory,)):
        found: Tensor = handle_torch_function(placed, (memory,), memory, shape, strides, start, moves, begin)
        return found
    for dim, stride in moves:
        start += stride * begin[dim]
    return memory.as_strided(shape, strides, start)


def load(access: Access, dtype: DType) -> Callable[[Frame], tuple[Tensor, bool]]:
    """The load of a box, in the type that its elements are computed in."""
    nothing = torch.zeros((), dtype=HELD[dtype.name])
    plain = access.affine and access.inside and not access.terms

    def run(frame: Frame) -> tuple[Tensor, bool]:
        memory = access.memory(frame)
        if plain and memory.dtype == nothing.dtype:
            return window(memory, access, frame), False
        mask = access.mask(frame)
        if mask is False:
            return nothing.to(memory.device), False
        found = _affine(access, memory, frame) if access.affine else _gathered(access, memory, frame)
        values = held(found, dtype)
        if mask is not True:
            return torch.where(mask, values, nothing.to(memory.device)), frame.reuse
        return values, frame.reuse and not (access.affine and _share(values, found))

    return run


def _share(values: Tensor, found: Tensor) -> bool:
    """Do the loaded values still share the memory of the tensor? u64 is held by its bits."""
    return values is found or values.data_ptr() == found.data_ptr()


def _affine(access: Access, memory: Tensor, frame: Frame) -> Tensor:
    """The box's window, into a padded copy where it leaves the tensor."""
    if access.inside:
        return window(memory, access, frame)
    ranges = [cast(Affine, node.affine).bounds(frame.lo, frame.hi) for node in access.index]
    if all(low >= 0 and high < n for (low, high), n in zip(ranges, memory.shape, strict=True)):
        return window(memory, access, frame)
    fits = [low >= 0 and high < n for (low, high), n in zip(ranges, memory.shape, strict=True)]
    spans = [(0, n - 1) if fit else r for r, fit, n in zip(ranges, fits, memory.shape, strict=True)]
    copied = prod(high - low + 1 for low, high in spans)
    if copied > max(memory.numel(), _MOST_PADDING * prod(frame.shape(access.dims))):
        return _gathered(access, memory, frame)
    return window(_padded(memory, spans), access, frame, [low for low, _ in spans])


def _padded(memory: Tensor, spans: Sequence[Bounds]) -> Tensor:
    """The positions from the least to the greatest of every dimension, 0 where the tensor has none."""
    whole = place = memory.new_zeros([high - low + 1 for low, high in spans])
    for k, (low, high) in enumerate(spans):
        start, stop = max(low, 0), min(high + 1, memory.shape[k])
        if stop <= start:
            return whole
        memory = memory.narrow(k, start, stop - start)
        place = place.narrow(k, start - low, stop - start)
    place.copy_(memory)
    return whole


def _gathered(access: Access, memory: Tensor, frame: Frame) -> Tensor:
    """Elements at arbitrary indices, 0 where one is out of range.

    Dims that only affine indices depend on stay whole: a gather takes all positions along them at once.
    """
    loose = _loose(access, frame, memory.shape)
    along: dict[int, int] = {}
    offset, inside = torch.zeros((), dtype=torch.int64, device=memory.device), None
    origin, reach = memory.storage_offset(), 1
    for k, (node, stride, extent) in enumerate(zip(access.index, memory.stride(), memory.shape, strict=True)):
        if not loose[k] and node.affine is not None:
            origin += stride * node.affine.const
            for dim, n in node.affine.coefs:
                along[dim] = along.get(dim, 0) + stride * n
            continue
        at = cast(Tensor, node.compute(frame)[0]).to(torch.int64)
        if not _all_within(at, extent):
            fits = (at >= 0) & (at < extent)
            inside = fits if inside is None else inside & fits
        offset = offset + at * stride
        reach += (extent - 1) * stride
    origin += sum(n * frame.lo[dim] for dim, n in along.items())
    sizes = [frame.hi[dim] - frame.lo[dim] for dim in along]
    if reach < 1 or not memory.numel():
        return memory.new_zeros([1] * frame.rank)
    plain = writable(memory).as_strided([reach, *sizes], [1, *along.values()], origin)
    where = offset if inside is None else torch.where(inside, offset, 0)
    rows = plain.index_select(0, where.reshape(-1)).view(memory.dtype)
    values = _arranged(rows, where, along, sizes, frame.rank)
    return values if inside is None else torch.where(inside, values, torch.zeros((), dtype=values.dtype))


def _all_within(at: Tensor, extent: int) -> bool:
    """Is every index known to be in range? On a GPU this is not asked, since the answer would have to be waited for."""
    if at.device.type != "cpu" or not at.numel():
        return False
    least, most = torch.aminmax(at)
    return int(least) >= 0 and int(most) < extent


def _loose(access: Access, frame: Frame, shape: Sequence[int]) -> list[bool]:
    """Which dimensions are gathered: those whose index may be out of range or decrease, or shares a dim with such."""
    loose = [not _runs_inside(node, frame, n) for node, n in zip(access.index, shape, strict=True)]
    while True:
        dims = frozenset().union(*(n.dims for n, is_loose in zip(access.index, loose, strict=True) if is_loose))
        wider = [is_loose or bool(n.dims & dims) for n, is_loose in zip(access.index, loose, strict=True)]
        if wider == loose:
            return loose
        loose = wider


def _all_inside(access: Access, memory: Tensor, frame: Frame) -> bool:
    return all(_runs_inside(n, frame, extent) for n, extent in zip(access.index, memory.shape, strict=True))


def _runs_inside(node: Node, frame: Frame, extent: int) -> bool:
    """Does an index never decrease, and stay inside its dimension, throughout the box?"""
    if node.affine is None or any(c < 0 for _, c in node.affine.coefs):
        return False
    low, high = node.affine.bounds(frame.lo, frame.hi)
    return low >= 0 and high < extent


def _arranged(rows: Tensor, where: Tensor, along: dict[int, int], sizes: list[int], rank: int) -> Tensor:
    """Gathered rows with their dims in order: those of the index, then those taken whole."""
    shape = list(where.shape) or [1] * rank
    own = [dim for dim in range(rank) if dim not in along]
    rows = rows.reshape([*(shape[dim] for dim in own), *sizes])
    order = [*own, *along]
    return rows.permute([order.index(dim) for dim in range(rank)])


def store(access: Access, value: Node) -> Callable[[Frame], None]:
    """The store of a box, where the mask holds."""
    plain = access.affine and access.inside

    def run(frame: Frame) -> None:
        mask = access.mask(frame)
        if mask is False:
            return
        memory = writable(access.memory(frame))
        if plain and mask is True:
            write(value, frame, window(memory, access, frame))
            return
        found, owned = value.compute(frame)
        values = torch.full((), found, device=memory.device) if isinstance(found, bool) else found
        if not access.inside and not _all_inside(access, memory, frame):
            _scatter(access, memory, values, mask, frame)
            return
        view = window(memory, access, frame)
        view.copy_(values if mask is True else torch.where(mask, values.to(view.dtype), view))
        frame.recycle(found, owned)

    return run


def add(access: Access, value: Node, dims: frozenset[int]) -> Callable[[Frame], None]:
    """The store of a box that adds to what is there, where the mask holds, at every position of these dims."""
    every = dims | access.dims | value.dims

    def run(frame: Frame) -> None:
        mask = access.mask(frame)
        if mask is False:
            return
        memory = writable(access.memory(frame))
        found, _ = value.compute(frame)
        values = torch.full((), found, device=memory.device) if isinstance(found, bool) else found
        flat, offset, inside = _reached(access, memory, mask, frame)
        shape = frame.shape(every)
        where = inside.expand(shape)
        flat.index_add_(0, offset.expand(shape)[where], values.expand(shape)[where].to(memory.dtype))

    return run


def _scatter(access: Access, memory: Tensor, values: Tensor, mask: Tensor | bool, frame: Frame) -> None:
    """Write elements one by one, at arbitrary indices."""
    flat, offset, inside = _reached(access, memory, mask, frame)
    shape = common_shape([offset, inside, values])
    offset, inside, values = offset.expand(shape), inside.expand(shape), values.expand(shape)
    flat[offset[inside]] = values[inside].to(memory.dtype)


def _reached(access: Access, memory: Tensor, mask: Tensor | bool, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
    """Memory as one dimension, the place in it of each element of an access, and which of them are inside."""
    offset = torch.zeros([1] * frame.rank, dtype=torch.int64, device=memory.device)
    inside = torch.full((), True, device=memory.device) if isinstance(mask, bool) else mask
    for node, stride, extent in zip(access.index, memory.stride(), memory.shape, strict=True):
        at = cast(Tensor, node.compute(frame)[0]).to(torch.int64)
        offset = offset + at * stride
        inside = inside & (at >= 0) & (at < extent)
    reach = 1 + sum((n - 1) * s for n, s in zip(memory.shape, memory.stride(), strict=True))
    return memory.as_strided([max(reach, 0)], [1], memory.storage_offset()), offset, inside
