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

from einc.codegen.torch_frames import Frame, Node
from einc.codegen.torch_ops import HELD, held, writable
from einc.types import DType

_MOST_PADDING = 4  # a padded copy may have this many times the elements of the window; beyond that it is gathered


@dataclass(slots=True)
class Access:
    """Where a load or store reaches: one index a dimension, and the terms of its mask that are not known to hold.

    `reach[k]` says that a box may leave dimension k, which a mask forbids.
    """

    tensor: str
    part: int | None
    index: tuple[Node, ...]
    terms: tuple[Node, ...]
    reach: tuple[bool, ...] = ()
    dims: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.dims = frozenset().union(*(n.dims for n in (*self.index, *self.terms)))

    def memory(self, frame: Frame) -> Tensor:
        """The tensor reached, of a complex one its real or imaginary part."""
        x = frame.operands[self.tensor]
        return x if self.part is None else torch.view_as_real(x).select(-1, self.part)

    @property
    def affine(self) -> bool:
        return all(n.affine is not None for n in self.index)

    def mask(self, frame: Frame) -> Tensor | bool:
        """Where the access takes place: everywhere, nowhere, or where a tensor says."""
        whole: Tensor | bool = True
        for term in self.terms:
            value = term.compute(frame)[0]
            if value is False:
                return False
            if value is not True:
                whole = value if whole is True else whole & value
        return whole


def window(memory: Tensor, access: Access, frame: Frame, origin: Sequence[int]) -> Tensor:
    """The view of memory that a box reaches by affine indices; `origin` is the position of its first element."""
    offset = memory.storage_offset()
    shape = [1] * len(frame.lo)
    strides = [0] * len(frame.lo)
    for stride, node, first in zip(memory.stride(), access.index, origin, strict=True):
        assert node.affine is not None
        offset += stride * (node.affine.const - first)
        for dim, n in node.affine.coefs:
            strides[dim] += stride * n
            shape[dim] = frame.hi[dim] - frame.lo[dim]
    backwards = []
    for dim, stride in enumerate(strides):
        if stride < 0 and shape[dim] > 1:
            offset += stride * (frame.hi[dim] - 1)
            strides[dim] = -stride
            backwards.append(dim)
        elif stride:
            offset += stride * frame.lo[dim]
            strides[dim] = abs(stride)
    view = memory.as_strided(shape, strides, offset)
    return view.flip(backwards) if backwards else view


def load(access: Access, dtype: DType) -> Callable[[Frame], tuple[Tensor, bool]]:
    """The load of a box, in the type that its elements are computed in."""
    nothing = torch.zeros((), dtype=HELD[dtype.name])

    def run(frame: Frame) -> tuple[Tensor, bool]:
        mask = access.mask(frame)
        memory = access.memory(frame)
        if mask is False:
            return nothing.to(memory.device), False
        found = _affine(access, memory, frame) if access.affine else _gathered(access, memory, frame)
        values = held(found, dtype)
        if mask is not True:
            return torch.where(cast(Tensor, mask), values, nothing.to(memory.device)), frame.reuse
        return values, frame.reuse and (values is not found or not access.affine)

    return run


def _affine(access: Access, memory: Tensor, frame: Frame) -> Tensor:
    """The box's window, of a padded copy where it leaves the tensor."""
    least, most, inside = [], [], True
    for node, checked, extent in zip(access.index, access.reach, memory.shape, strict=True):
        assert node.affine is not None
        if not checked:
            least.append(0)
            most.append(extent - 1)
            continue
        low, high = node.affine.bounds(frame.lo, frame.hi)
        inside = inside and low >= 0 and high < extent
        least.append(low)
        most.append(high)
    if inside:
        return window(memory, access, frame, [0] * memory.ndim)
    spans = [h - l + 1 if c else 1 for l, h, c in zip(least, most, access.reach, strict=True)]
    if prod(spans) > _MOST_PADDING * prod(frame.shape(access.dims)):
        return _gathered(access, memory, frame)
    return window(_padded(memory, least, most), access, frame, least)


def _padded(memory: Tensor, least: Sequence[int], most: Sequence[int]) -> Tensor:
    """The positions from least to most of every dimension, 0 where the tensor has none."""
    padding: list[int] = []
    for k, (low, high) in enumerate(zip(least, most, strict=True)):
        start, stop = max(low, 0), min(high + 1, memory.shape[k])
        if stop <= start:
            return memory.new_zeros([h - l + 1 for l, h in zip(least, most, strict=True)])
        memory = memory.narrow(k, start, stop - start)
        padding = [start - low, high + 1 - stop, *padding]
    if not any(padding):
        return memory
    shape = [h - l + 1 for l, h in zip(least, most, strict=True)]
    whole = memory.new_zeros(shape)
    place = whole
    for k, n in enumerate(memory.shape):
        place = place.narrow(k, padding[2 * (len(shape) - 1 - k)], n)
    place.copy_(memory)
    return whole


def _gathered(access: Access, memory: Tensor, frame: Frame) -> Tensor:
    """Elements at any index, 0 where one is out of range.

    Dims that only affine indices move over stay whole: a gather takes everything along them at once.
    """
    loose = _loose(access, memory)
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
        if access.reach[k]:
            fits = (at >= 0) & (at < extent)
            inside = fits if inside is None else inside & fits
        offset = offset + at * stride
        reach += (extent - 1) * stride
    origin += sum(n * frame.lo[dim] for dim, n in along.items())
    sizes = [frame.hi[dim] - frame.lo[dim] for dim in along]
    if reach < 1:
        return memory.new_zeros([1] * len(frame.lo))
    plain = writable(memory).as_strided([reach, *sizes], [1, *along.values()], origin)
    where = offset if inside is None else torch.where(inside, offset, 0)
    rows = plain.index_select(0, where.reshape(-1)).view(memory.dtype)
    values = _arranged(rows, where, along, sizes, len(frame.lo))
    return values if inside is None else torch.where(inside, values, torch.zeros((), dtype=values.dtype))


def _loose(access: Access, memory: Tensor) -> list[bool]:
    """Which dimensions are gathered: those that may miss or run backwards, and those that share a dim with them."""
    loose = [n.affine is None or r for n, r in zip(access.index, access.reach, strict=True)]
    while True:
        dims = frozenset().union(*(n.dims for n, is_loose in zip(access.index, loose, strict=True) if is_loose))
        wider = [
            is_loose or bool(n.dims & dims) or (n.affine is not None and any(c < 0 for _, c in n.affine.coefs))
            for n, is_loose in zip(access.index, loose, strict=True)
        ]
        if wider == loose:
            return loose
        loose = wider


def _arranged(rows: Tensor, where: Tensor, along: dict[int, int], sizes: list[int], rank: int) -> Tensor:
    """Gathered rows, their dims in order: those of the index first, then what lies along."""
    shape = list(where.shape) or [1] * rank
    own = [dim for dim in range(rank) if dim not in along]
    rows = rows.reshape([*(shape[dim] for dim in own), *sizes])
    order = [*own, *along]
    return rows.permute([order.index(dim) for dim in range(rank)])


def store(access: Access, value: Node) -> Callable[[Frame], None]:
    """The store of a box, where the mask holds."""

    def run(frame: Frame) -> None:
        mask = access.mask(frame)
        if mask is False:
            return
        memory = writable(access.memory(frame))
        found, owned = value.compute(frame)
        values = torch.full((), found, device=memory.device) if isinstance(found, bool) else found
        if not access.affine or any(c < 0 for n in access.index if n.affine for _, c in n.affine.coefs):
            _scatter(access, memory, values, mask, frame)
            return
        view = window(memory, access, frame, [0] * memory.ndim)
        view.copy_(values if mask is True else torch.where(cast(Tensor, mask), values.to(view.dtype), view))
        frame.recycle(found, owned)

    return run


def _scatter(access: Access, memory: Tensor, values: Tensor, mask: Tensor | bool, frame: Frame) -> None:
    """Write elements one by one, at any index."""
    offset = torch.zeros([1] * len(frame.lo), dtype=torch.int64, device=memory.device)
    inside = torch.full((), True, device=memory.device) if mask is True else cast(Tensor, mask)
    for node, stride, extent in zip(access.index, memory.stride(), memory.shape, strict=True):
        at = cast(Tensor, node.compute(frame)[0]).to(torch.int64)
        offset = offset + at * stride
        inside = inside & (at >= 0) & (at < extent)
    offset, inside, values = torch.broadcast_tensors(offset, inside, values)
    reach = 1 + sum((n - 1) * s for n, s in zip(memory.shape, memory.stride(), strict=True))
    flat = memory.as_strided([reach], [1], memory.storage_offset())
    flat[offset[inside]] = values[inside].to(memory.dtype)
