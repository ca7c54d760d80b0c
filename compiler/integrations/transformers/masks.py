"""Masks as transformers passes them from where they are made to where attention uses them, without their elements.

A `Mask` is a tensor to all who ask, of the shape (batch, 1, queries, keys), with no memory behind it. What models do to
masks on the way, slices and moves, makes other masks; any other operation is done with the elements, which are then
those of transformers' eager masks: 0 for what is seen, else the least finite number of the type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch.utils._pytree import tree_map

from einc.dropins.symbols import TraceError
from einc.integrations.transformers.patterns import Masked, Offset, Pattern, Visible

_LOOKS = frozenset(
    getattr(torch.Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "layout")
) | {torch.Tensor.dim, torch.Tensor.size, torch.Tensor.numel, torch.Tensor.is_floating_point, torch.Tensor.__len__}
_SAME = {torch.Tensor.contiguous, torch.Tensor.detach, torch.Tensor.clone}


class Mask(torch.Tensor):
    """A mask given by a pattern; see the module."""

    pattern: Pattern
    _masked: Masked | None
    _elements: torch.Tensor | None

    @staticmethod
    def __new__(cls, pattern: Pattern, dtype: torch.dtype) -> Mask:
        shape = (pattern.batch, 1, pattern.q_length, pattern.kv_length)
        made: Mask = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=pattern.device)
        made.pattern, made._masked, made._elements = pattern, None, None
        return made

    def of_keys(self, length: int) -> Mask:
        """The mask of the first keys; itself if it has no more."""
        return self if self.pattern.kv_length <= length else Mask(self.pattern.columns(length), self.dtype)

    def masked(self) -> Masked | torch.Tensor:
        """The condition in the language and its operands; the elements where the language cannot express it."""
        if self.changed:
            return self.elements()
        if self._masked is None:
            try:
                self._masked = self.pattern.masked()
            except TraceError:
                return self.elements()
        return self._masked

    @property
    def changed(self) -> bool:
        """Was something written to the elements, of which the pattern does not know?"""
        return self._elements is not None and self._elements._version > 0

    def elements(self) -> torch.Tensor:
        """The mask as transformers makes it for eager attention."""
        if self._elements is None:
            self._elements = _elements(self.pattern, self.dtype)
        return self._elements

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Mask(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            if func in _LOOKS:
                return func(*args, **kwargs)
            if args and isinstance(args[0], Mask) and not args[0].changed:
                found = _lazily(func, args[0], args[1:], kwargs)
                if found is not None:
                    return found
            return func(*tree_map(_as_elements, tuple(args)), **tree_map(_as_elements, kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch types it as a static method
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*tree_map(_as_elements, tuple(args)), **tree_map(_as_elements, dict(kwargs or {})))


def _as_elements(x: Any) -> Any:
    return x.elements() if isinstance(x, Mask) else x


def _lazily(func: Callable[..., Any], mask: Mask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mask | None:
    """What a function gives without the elements, or None if it needs them."""
    if func in _SAME:
        return mask
    if func is torch.Tensor.to and not kwargs and len(args) == 1:
        if isinstance(args[0], torch.dtype) and args[0].is_floating_point:
            return mask if args[0] == mask.dtype else Mask(mask.pattern, args[0])
        if isinstance(args[0], torch.device | str) and torch.device(args[0]) == mask.device:
            return mask
    if func is torch.Tensor.__getitem__ and isinstance(args[0], tuple):
        return _sliced(mask, args[0])
    return None


def _sliced(mask: Mask, index: tuple[Any, ...]) -> Mask | None:
    """Some of the queries, and some of the first keys."""
    if index and index[0] is ...:
        index = (slice(None),) * (5 - len(index)) + index[1:]
    if not all(isinstance(x, slice) and x.step in (None, 1) for x in index):
        return None
    ranges = [range(n)[x] for n, x in zip(mask.shape, index, strict=False)]
    ranges += [range(n) for n in mask.shape[len(ranges) :]]
    batch, _, rows, columns = ranges
    if len(batch) != mask.shape[0] or len(ranges[1]) != 1 or columns.start:
        return None
    pattern = mask.pattern
    if len(rows) != pattern.q_length:
        pattern = pattern.rows(rows.start, len(rows))
    if len(columns) != pattern.kv_length:
        pattern = pattern.columns(len(columns))
    return mask if pattern is mask.pattern else Mask(pattern, mask.dtype)


def _elements(pattern: Pattern, dtype: torch.dtype) -> torch.Tensor:
    from transformers.masking_utils import and_masks, bidirectional_mask_function, eager_mask, padding_mask_function

    visible = pattern.visible or bidirectional_mask_function
    if pattern.padding is not None:
        padded, start = padding_mask_function(pattern.padding), pattern.kv_offset
        visible = and_masks(visible, lambda b, h, q, k: padded(b, h, q, k - start))
    return eager_mask(  # type: ignore[no-any-return]
        batch_size=pattern.batch,
        q_length=pattern.q_length,
        kv_length=pattern.kv_length,
        q_offset=pattern.q_offset,
        kv_offset=pattern.kv_offset,
        mask_function=visible,
        dtype=dtype,
        use_vmap=True,
        device=pattern.device,
    )


# ---------------------------------------------------------------------------------------------------------------------
# The mask interface


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Offset = 0,
    kv_offset: int = 0,
    mask_function: Visible | None = None,
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> torch.Tensor | None:
    """The mask of a layer, by the signature of `transformers.masking_utils.eager_mask`, without its elements.

    None where every query sees every key and that may be said so. While torch traces a graph, a tensor with elements,
    also for a single query that a compiled graph will be called with.
    """
    from transformers.masking_utils import causal_mask_function, eager_mask
    from transformers.utils.import_utils import is_tracing

    visible = causal_mask_function if mask_function is None else mask_function
    lengths = batch_size, q_length, kv_length, q_offset, kv_offset
    if (isinstance(q_offset, torch.Tensor) and q_length == 1) or is_tracing(attention_mask):
        named = {"attention_mask": attention_mask, "dtype": dtype, "use_vmap": use_vmap, "device": device, **kwargs}
        elements: torch.Tensor | None = eager_mask(
            *lengths, visible, allow_is_bidirectional_skip=allow_is_bidirectional_skip, **named
        )
        return elements
    pattern = _pattern(lengths, visible, attention_mask, torch.device(device))
    if pattern.everything and (allow_is_causal_skip or allow_is_bidirectional_skip):
        return None
    return Mask(pattern, dtype)


def _pattern(
    lengths: tuple[int, int, int, Offset, int], visible: Visible, table: torch.Tensor | None, device: torch.device
) -> Pattern:
    """The pattern of a function and of padding (batch, positions)."""
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

    batch, q_length, kv_length, q_offset, kv_offset = lengths
    if isinstance(q_offset, torch.Tensor):
        q_offset = q_offset.clone()  # a static cache counts on in place, before attention reads it
    codes = _codes(visible)
    shiftless = codes <= _shiftless()
    end = kv_offset + kv_length
    if shiftless and causal_mask_function.__code__ in codes and isinstance(q_offset, int):
        end = min(end, q_offset + q_length)  # later keys are not seen in any case
    padding = None
    if table is not None:
        look = q_length > 1 or table.device.type == "cpu"
        padding = _padding(table, kv_offset, kv_length, end, look)
    last = q_length == 1 and q_offset == kv_offset + kv_length - 1
    return Pattern(
        None if visible is bidirectional_mask_function or (last and visible is causal_mask_function) else visible,
        batch,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        padding,
        shiftless,
        lonely=q_length > 1 and (padding is not None or not codes <= _reflexive()),
        device=device,
    )


def _padding(table: torch.Tensor, start: int, length: int, end: int, look: bool) -> torch.Tensor | None:
    """Of a table (batch, positions) the part for some keys, or None where they all count; beyond it none does.

    Keys from `end` on may count or not. Whether all count is only asked where that may wait for a device.
    """
    part = table[:, start : start + length]
    if look and start + part.shape[1] >= end and bool(part.all()):
        return None
    missing = length - part.shape[1]
    return torch.nn.functional.pad(part, (0, missing)) if missing else part


def _codes(function: Visible) -> frozenset[CodeType]:
    """The code of a function and of all that it captures."""
    found, stack = set[CodeType](), [function]
    while stack:
        match stack.pop():
            case FunctionType() as f if f.__code__ not in found or f.__closure__:
                found.add(f.__code__)
                stack += [c.cell_contents for c in f.__closure__ or ()]
            case tuple() | list() as several:
                stack += several
            case _:
                pass
    return frozenset(found)


@cache
def _shiftless() -> frozenset[CodeType]:
    """Functions of transformers that compare positions with each other only."""
    from transformers import masking_utils as m

    alone = (m.causal_mask_function, m.bidirectional_mask_function)
    made = _made("sliding_window_overlay", 1), _made("sliding_window_bidirectional_overlay", 1)
    several = (m.and_masks(*alone), m.or_masks(*alone))
    return frozenset(f.__code__ for f in (*alone, *several)).union(*made)


@cache
def _reflexive() -> frozenset[CodeType]:
    """Functions of transformers by which every query sees at least itself."""
    table = torch.zeros(1, 1, dtype=torch.int64)
    return _shiftless().union(
        _made("chunked_overlay", 1, table[0]),
        _made("packed_sequence_mask_function", table),
        _made("blockwise_overlay", table),
        _made("remap_positions_for_packed_sequence", lambda *_: True, table),
    )


def _made(name: str, *arguments: Any) -> frozenset[CodeType]:
    """The code of what a function of transformers makes, if this version has it."""
    from transformers import masking_utils

    make = getattr(masking_utils, name, None)
    return frozenset() if make is None else frozenset((make(*arguments).__code__,))
