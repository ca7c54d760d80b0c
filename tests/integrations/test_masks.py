"""Masks without elements: what becomes of them on the way to attention, and what they are in the language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from einc.integrations.transformers import attention
from einc.integrations.transformers.masks import Mask, mask
from einc.integrations.transformers.patterns import Masked

BATCH, LENGTH = 2, 12
PADDED = torch.tensor([[0] * 3 + [1] * 9, [1] * 12]).bool()
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]]).expand(BATCH, -1)
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4]]).expand(BATCH, -1)


def functions() -> dict[str, Callable[..., Any]]:
    """Those that transformers combines, and some of a user."""
    from transformers import masking_utils as m

    table = torch.rand(4, LENGTH, LENGTH) < 0.7
    remapped = getattr(m, "remap_positions_for_packed_sequence", None)  # older versions mask documents alone
    causal = m.causal_mask_function if remapped is None else remapped(m.causal_mask_function, POSITIONS)
    return {
        "causal": m.causal_mask_function,
        "both ways": m.bidirectional_mask_function,
        "window": m.sliding_window_causal_mask_function(4),
        "window both ways": m.sliding_window_bidirectional_mask_function(3),
        "chunks": m.chunked_causal_mask_function(4, torch.tensor([3, 0])),
        "packed": m.and_masks(
            causal,
            m.packed_sequence_mask_function(DOCUMENTS),
        ),
        "blocks": m.or_masks(m.causal_mask_function, m.blockwise_overlay(DOCUMENTS - 1)),
        "prefix": m.or_masks(m.causal_mask_function, lambda b, h, q, k: k < 5),
        "dilated": m.and_masks(m.causal_mask_function, lambda b, h, q, k: (q - k) % 2 == 0),
        "table": lambda b, h, q, k: table[b, q, k],
    }


CASES = "causal,both ways,window,window both ways,chunks,packed,blocks,prefix,dilated,table".split(",")


def both(name: str, **named: Any) -> tuple[Tensor | None, Tensor | None]:
    """The mask without elements, and the one of transformers."""
    from transformers.masking_utils import eager_mask

    common = {"batch_size": BATCH, "mask_function": functions()[name], "use_vmap": True, **named}
    return mask(allow_is_causal_skip=False, **common), eager_mask(**common)


LENGTHS: dict[str, dict[str, Any]] = {
    "whole": {"q_length": LENGTH, "kv_length": LENGTH},
    "last": {"q_length": 3, "kv_length": LENGTH, "q_offset": LENGTH - 3},
    "one": {"q_length": 1, "kv_length": LENGTH, "q_offset": LENGTH - 1},
    "window": {"q_length": 2, "kv_length": 5, "q_offset": LENGTH - 2, "kv_offset": LENGTH - 5},
    "static": {"q_length": 3, "kv_length": LENGTH, "q_offset": torch.tensor(4)},
    "ahead": {"q_length": 3, "kv_length": LENGTH, "q_offset": 5},
}


@pytest.mark.turns(2)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("padding", [None, PADDED, PADDED[:, : LENGTH - 1]], ids=["whole", "padded", "short"])
def test_attention_sees_what_it_would_see(name: str, lengths: str, padding: Tensor | None) -> None:
    """By its function, a mask leaves the same keys to each query as by the elements of transformers."""
    ours, theirs = both(name, attention_mask=padding, **LENGTHS[lengths])
    assert isinstance(ours, Mask)
    assert theirs is not None
    assert ours.shape == theirs.shape
    query = torch.randn(BATCH, 4, ours.shape[2], 8)
    key, value = torch.randn(2, BATCH, 2, ours.shape[3], 8)
    module = torch.nn.Module()
    found, wanted = (attention(module, query, key, value, m)[0] for m in (ours, theirs))
    assert ours._elements is None
    assert isinstance(ours.masked(), Masked)
    seeing = (theirs == 0).any(-1)[:, 0] if ours.shape[2] == 1 else torch.ones(BATCH, ours.shape[2], dtype=torch.bool)
    torch.testing.assert_close(found[seeing], wanted[seeing], rtol=0, atol=16 * 2.0**-23)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("padding", [None, PADDED], ids=["whole", "padded"])
def test_elements_are_those_of_transformers(name: str, lengths: str, padding: Tensor | None) -> None:
    ours, theirs = both(name, attention_mask=padding, **LENGTHS[lengths])
    assert ours is not None
    assert theirs is not None
    assert torch.equal(ours + 0, theirs)
    assert torch.equal(torch.cat([ours, ours], -1), torch.cat([theirs, theirs], -1))


def example() -> tuple[Mask, Tensor]:
    ours, theirs = both("window", attention_mask=PADDED, q_length=LENGTH, kv_length=LENGTH)
    assert isinstance(ours, Mask)
    assert theirs is not None
    return ours, theirs


LAZY: dict[str, Callable[[Tensor], Tensor]] = {
    "first keys": lambda m: m[:, :, :, :9],
    "first keys, in short": lambda m: m[..., :9],
    "last queries": lambda m: m[:, :, -2:, :],
    "some queries, first keys": lambda m: m[:, :, 3:8, :10],
    "all": lambda m: m[:, :, :, :99],
    "type": lambda m: m.to(torch.float32),
    "device": lambda m: m.to("cpu"),
    "contiguous": lambda m: m.contiguous(),
}


@pytest.mark.parametrize("what", LAZY)
def test_slices_and_moves_have_no_elements(what: str) -> None:
    ours, theirs = (LAZY[what](m) for m in example())
    assert isinstance(ours, Mask)
    assert ours._elements is None
    assert ours.shape == theirs.shape
    assert torch.equal(ours + 0, theirs)


EAGER: dict[str, Callable[[Tensor], Any]] = {
    "a batch": lambda m: m[1:],
    "a head": lambda m: m[:, 0],
    "other keys": lambda m: m[:, :, :, 2:],
    "every second": lambda m: m[:, :, ::2],
    "truth": lambda m: m == 0,
    "repeated": lambda m: m.repeat_interleave(3, 0),
    "expanded": lambda m: m.expand(-1, 4, -1, -1),
    "bool": lambda m: m.to(torch.bool),
    "sum": lambda m: torch.zeros(4, 1, 1) + m,
    "in place": lambda m: torch.zeros(BATCH, 4, LENGTH, LENGTH).add_(m),
    "numbers": lambda m: torch.as_tensor(m.tolist()),
}


@pytest.mark.parametrize("what", EAGER)
def test_all_else_is_done_with_the_elements(what: str) -> None:
    ours, theirs = (EAGER[what](m) for m in example())
    assert type(ours) is Tensor
    assert torch.equal(ours, theirs)


def test_looking_needs_no_elements() -> None:
    ours, theirs = example()
    assert isinstance(ours, Tensor)
    assert (ours.shape, ours.dtype, ours.device, ours.ndim) == (theirs.shape, theirs.dtype, theirs.device, theirs.ndim)
    assert (ours.dim(), ours.size(-1), ours.numel(), len(ours)) == (4, LENGTH, theirs.numel(), BATCH)
    assert ours.dtype.is_floating_point
    assert "Mask" in repr(ours)
    assert ours._elements is None


def test_what_is_written_to_a_mask_stays_in_it() -> None:
    ours, theirs = example()
    for m in (ours, theirs):
        m[:, :, :, 5] = -1.0
    assert torch.equal(ours[:, :, 2:] + 0, theirs[:, :, 2:])
    query, key, value = torch.randn(3, BATCH, 4, LENGTH, 8)
    found, wanted = (attention(torch.nn.Module(), query, key, value, m)[0] for m in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=0, atol=16 * 2.0**-23)


def test_nothing_hidden_is_no_mask() -> None:
    """Where a single query sees all, and where all do in both directions."""
    from transformers.masking_utils import bidirectional_mask_function

    assert mask(BATCH, 1, LENGTH, LENGTH - 1) is None
    assert mask(BATCH, 1, LENGTH, LENGTH - 1, attention_mask=torch.ones(BATCH, LENGTH).bool()) is None
    assert mask(BATCH, 1, LENGTH, LENGTH - 1, allow_is_causal_skip=False) is not None
    assert mask(BATCH, 1, LENGTH, LENGTH - 1, attention_mask=PADDED) is not None
    assert mask(BATCH, 3, LENGTH, LENGTH - 3) is not None
    both_ways = {"mask_function": bidirectional_mask_function, "allow_is_causal_skip": False}
    assert mask(BATCH, 5, LENGTH, allow_is_bidirectional_skip=True, **both_ways) is None
    assert mask(BATCH, 5, LENGTH, **both_ways) is not None


def test_what_cannot_be_traced_is_computed() -> None:
    """A function that asks for values gets them, as in transformers."""

    def odd(_: Any, __: Any, q: Any, k: Any) -> Any:
        return torch.stack([q, k]).sum(0) % 2 == 1

    made = mask(BATCH, LENGTH, LENGTH, mask_function=odd, use_vmap=True)
    assert isinstance(made, Mask)
    found = made.masked()
    assert isinstance(found, Tensor)
    positions = torch.arange(LENGTH)
    assert torch.equal(found[0, 0] == 0, (positions[:, None] + positions) % 2 == 1)


def test_offsets_are_not_in_the_text() -> None:
    """One text for every step of a generation."""
    texts = set()
    for length in range(LENGTH, LENGTH + 3):
        made = mask(BATCH, 2, length, length - 2, attention_mask=torch.nn.functional.pad(PADDED, (0, length - LENGTH)))
        assert isinstance(made, Mask)
        found = made.masked()
        assert isinstance(found, Masked)
        texts.add(found.condition)
    assert len(texts) == 1
    assert next(iter(texts)).written.expressions == ("j <= i + (|j| - |i|) and T1[b, j]",)
