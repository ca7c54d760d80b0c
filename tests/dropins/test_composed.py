"""Functions that other libraries compose trace too: masks of transformers, the paged cache of FlexAttention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention.experimental._paged_attention import PagedAttention
from torch.nn.attention.flex_attention import create_block_mask, create_mask

import einc
from einc.dropins.tracing import Tracer
from tests.dropins.mods import CASES, B, H, N

masking: Any = pytest.importorskip("transformers.masking_utils", reason="transformers is an optional dependency")

DOCUMENT = torch.arange(N).repeat(B, 1) // 7
PADDED = torch.arange(N).repeat(B, 1) >= torch.tensor([[0], [5]])
POSITIONS = DOCUMENT * 0 + torch.arange(N) % 7

MASKS: dict[str, tuple[Any, str]] = {
    "causal": (masking.causal_mask_function, "j <= i"),
    "bidirectional": (masking.bidirectional_mask_function, "i >= 0"),
    "sliding": (masking.sliding_window_causal_mask_function(6), "j > i - 6 and j <= i"),
    "chunked": (
        masking.chunked_causal_mask_function(8, torch.zeros(B, dtype=torch.int32)),
        "(j - T1[b]) // 8 == (i - T1[b]) // 8 and j <= i",
    ),
    "both ways": (masking.sliding_window_bidirectional_mask_function(4), "abs(i - j) <= 4 and i >= 0"),
    "padded": (
        masking.and_masks(masking.causal_mask_function, masking.padding_mask_function(PADDED)),
        "j <= i and T1[b, j]",
    ),
    "packed": (
        masking.and_masks(masking.causal_mask_function, masking.packed_sequence_mask_function(DOCUMENT)),
        "j <= i and T1[b, i] == T1[b, j]",
    ),
    "either": (
        masking.or_masks(masking.causal_mask_function, masking.sliding_window_overlay(3)),
        "j <= i or j > i - 3",
    ),
    "images": (
        masking.or_masks(masking.causal_mask_function, masking.blockwise_overlay(DOCUMENT - 1)),
        "j <= i or T1[b, i] == T1[b, j] and T1[b, i] >= 0",
    ),
    "offset": (masking.add_offsets_to_mask_function(masking.causal_mask_function, 3, 0), "j <= i + 3"),
    "offset tensor": (
        masking.add_offsets_to_mask_function(masking.sliding_window_causal_mask_function(6), torch.tensor(3), 0),
        "j > i + T1[] - 6 and j <= i + T1[]",
    ),
}  # fmt: skip
if hasattr(masking, "remap_positions_for_packed_sequence"):  # newer than the oldest transformers that is supported
    remapped = masking.remap_positions_for_packed_sequence(masking.causal_mask_function, POSITIONS)
    MASKS["remapped"] = remapped, "T1[b, j] <= T1[b, i]"


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_transformers(name: str) -> None:
    mask, expected = MASKS[name]
    tracer = Tracer({"b": B, "h": H, "i": N, "j": N})
    assert tracer.write(tracer(mask, *tracer.axes())).expressions == (expected,)
    q, k, v = torch.randn(3, B, H, N, 8)
    with masking.TransformGetItemToIndex():
        seen = create_mask(mask, B, H, N, N, device="cpu")
    found = einc.flex_attention(q, k, v, block_mask=mask)
    wanted = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=seen)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["causal", "alibi", "document", "bias by pair"])
def test_paged_cache(name: str) -> None:
    """A cache in pages, whose functions torch itself wraps, gives what the keys in order give."""
    case, n, page = CASES[name], 16, 4
    q, k, v = torch.randn(3, B, H, n, 8)
    cache = PagedAttention(n_pages=12, page_size=page, max_batch_size=B, device="cpu")
    held_k, held_v = torch.zeros(1, H, 12 * page, 8), torch.zeros(1, H, 12 * page, 8)
    for length in (n // 2, n):  # in turns, so that the pages of a sequence are not next to each other
        for b in range(B):
            cache.reserve(torch.tensor(b), torch.tensor(length))
    cache.assign(torch.arange(B), torch.arange(n).repeat(B, 1), k, v, held_k, held_v)
    mask: Any = case.mask or (lambda b, h, q, k: q >= 0)
    logical = create_block_mask(mask, B, None, n, n, device="cpu", BLOCK_SIZE=page)
    physical = cache.convert_logical_block_mask(logical)
    score: Any = None if case.score is None else cache.get_score_mod(case.score)
    found = einc.flex_attention(q, held_k, held_v, score, physical)
    torch.testing.assert_close(found, einc.flex_attention(q, k, v, case.score, mask), rtol=1e-5, atol=1e-5)
