"""The function of transformers' attention interface against attention written out in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import einc
from einc.integrations.transformers import attention

Operands = tuple[Tensor, Tensor, Tensor]

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 4, 7, 11, 8


class Caller(torch.nn.Module):
    """The module that calls."""

    def __init__(self, **named: Any) -> None:
        super().__init__()
        for name, value in named.items():
            setattr(self, name, value)


def operands(groups: int = HEADS, queries: int = QUERIES, keys: int = KEYS, values: int = WIDTH) -> Operands:
    shapes = (HEADS, queries, WIDTH), (groups, keys, WIDTH), (groups, keys, values)
    query, key, value = (torch.randn(BATCH, *shape) for shape in shapes)
    return query, key, value


def exact(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The values in float64, (b, i, h, e); a mask of truth values excludes."""
    query, key, value = (t.double() for t in (query, key, value))
    shared = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(shared, 1) for t in (key, value))
    scores = query @ key.mT * (WIDTH**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    for more in (bias, mask):
        if more is not None:
            more = more[..., : key.shape[2]]
            scores = scores.masked_fill(~more, -torch.inf) if more.dtype == torch.bool else scores + more
    if sinks is not None:
        scores = torch.cat([scores, sinks.double().expand(*scores.shape[:3], -1)], -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return (weights.nan_to_num() @ value).transpose(1, 2)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    """As close as sums of a few float32 numbers near 1 are."""
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=16 * 2.0**-23)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("values", [WIDTH, 5])
def test_heads_and_widths(groups: int, values: int) -> None:
    """Keys of fewer heads, values of another width than keys."""
    given = operands(groups, values=values)
    found, weights = attention(Caller(), *given, None)
    assert found.shape == (BATCH, QUERIES, HEADS, values)
    assert found.is_contiguous()
    assert weights is None
    assert_close(found, exact(*given))


SHAPES = [
    (BATCH, HEADS, QUERIES, KEYS),
    (BATCH, 1, QUERIES, KEYS),
    (1, 1, QUERIES, KEYS),
    (BATCH, 1, 1, KEYS),
    (1, HEADS, QUERIES, KEYS),
    (1, HEADS, 1, KEYS),
    (1, 1, QUERIES, 1),
    (HEADS, QUERIES, KEYS),
    (QUERIES, KEYS),
    (BATCH, 1, QUERIES, KEYS + 5),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["seen", "added", "least"])
def test_masks_that_are_tensors(shape: tuple[int, ...], kind: str) -> None:
    """Truth values, numbers, and the least number where nothing is to be seen, of every shape that broadcasts."""
    mask = torch.rand(shape) < 0.7
    if kind == "added":
        mask = torch.randn(shape)
    if kind == "least":
        mask = torch.zeros(shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    given = operands(groups=2)
    assert_close(attention(Caller(), *given, mask)[0], exact(*given, mask=mask))


def test_a_query_that_sees_nothing() -> None:
    """By truth values it gets nothing; by the least number added to all its scores, the average, as it is finite."""
    given = operands()
    seen = torch.ones(1, 1, QUERIES, KEYS, dtype=torch.bool)
    seen[..., 2, :] = False
    found = attention(Caller(), *given, seen)[0]
    assert (found[:, 2] == 0).all()
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    found = attention(Caller(), *given, added)[0]
    assert_close(found[:, 2], given[2].double().mean(2))


@pytest.mark.parametrize("own", [True, False, None])
@pytest.mark.parametrize("asked", [True, False, None])
@pytest.mark.parametrize("queries", [1, QUERIES])
def test_causal(own: bool | None, asked: bool | None, queries: int) -> None:
    """Without a mask the call decides, or else the module; a single query sees all that came before."""
    given = operands(queries=queries)
    module = Caller() if own is None else Caller(is_causal=own)
    causal = bool(own if asked is None else asked) and queries > 1
    mask = torch.ones(queries, KEYS, dtype=torch.bool).tril() if causal else None
    assert_close(attention(module, *given, None, is_causal=asked)[0], exact(*given, mask=mask))


def test_a_mask_goes_before_what_is_causal() -> None:
    given = operands()
    mask = torch.rand(BATCH, 1, QUERIES, KEYS) < 0.7
    found = attention(Caller(is_causal=True), *given, mask, is_causal=True)[0]
    assert_close(found, exact(*given, mask=mask))


@pytest.mark.parametrize("scaling", [None, 0.3, torch.tensor(0.3)])
def test_scaling_by_position_and_by_name(scaling: Any) -> None:
    given = operands()
    wanted = exact(*given, scaling=None if scaling is None else 0.3)
    assert_close(attention(Caller(), *given, None, scaling)[0], wanted)
    assert_close(attention(Caller(), *given, None, scaling=scaling, dropout=0.0, sliding_window=None)[0], wanted)


def test_softcap_comes_before_biases() -> None:
    given = operands(groups=2)
    bias, mask = 3 * torch.randn(1, HEADS, QUERIES, KEYS), torch.rand(BATCH, 1, QUERIES, KEYS) < 0.7
    found = attention(Caller(), *given, mask, softcap=0.5, position_bias=bias)[0]
    assert_close(found, exact(*given, mask=mask, softcap=0.5, bias=bias))


@pytest.mark.parametrize("shape", [(HEADS,), (1, HEADS, 1, 1), (BATCH, HEADS, QUERIES, 1), (BATCH, HEADS, QUERIES, 3)])
def test_sinks(shape: tuple[int, ...]) -> None:
    given = operands(groups=2)
    sinks = torch.randn(shape)
    named: dict[str, Any] = {"s_aux" if len(shape) == 1 else "sinks": sinks}
    wanted = exact(*given, sinks=sinks.reshape(1, -1, 1, 1) if len(shape) == 1 else sinks)
    assert_close(attention(Caller(), *given, None, **named)[0], wanted)


@pytest.mark.parametrize("one", ["query", "key"])
def test_a_batch_of_one_serves_all(one: str) -> None:
    query, key, value = operands()
    given: Operands = (query[:1], key, value) if one == "query" else (query, key[:1], value[:1])
    assert_close(attention(Caller(), *given, None)[0], exact(*given))


def test_weights_on_request() -> None:
    given = operands(groups=2)
    found, weights = attention(Caller(is_causal=True), *given, None, output_attentions=True)
    assert weights is not None
    assert weights.shape == (BATCH, HEADS, QUERIES, KEYS)
    assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, QUERIES).double())
    assert_close(found, (weights.double() @ given[2].double().repeat_interleave(2, 1)).transpose(1, 2))


def test_chosen_keys() -> None:
    given = operands()
    indices = torch.stack([torch.randperm(KEYS)[:4] for _ in range(BATCH * QUERIES)]).reshape(BATCH, QUERIES, 4)
    mask = torch.zeros(BATCH, 1, QUERIES, KEYS, dtype=torch.bool).scatter(-1, indices[:, None], True)
    assert_close(attention(Caller(), *given, None, indices=indices)[0], exact(*given, mask=mask))


def test_chosen_blocks_of_keys() -> None:
    """By group of heads; a negative index chooses none."""
    given = operands(groups=2)
    indices = torch.tensor([[0, 2], [1, -1]]).reshape(1, 2, 1, 2).expand(BATCH, 2, QUERIES, 2)
    module = Caller(indexer=SimpleNamespace(block_size=4))
    kept = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0]]).bool()
    mask = kept.repeat_interleave(2, 0).reshape(1, HEADS, 1, KEYS)
    assert_close(attention(module, *given, None, block_indices=indices)[0], exact(*given, mask=mask))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_sequences_that_are_packed(causal: bool, cross: bool) -> None:
    """Positions count from the end of each sequence, where keys and queries have other lengths."""
    bounds = torch.tensor([0, 2, 6, 7]), torch.tensor([0, 5, 9, 11])
    query, key, value = operands()
    if not cross:
        key, value, bounds = key[:, :, :QUERIES], value[:, :, :QUERIES], (bounds[0], bounds[0])
    found = attention(
        Caller(is_causal=causal), query[:1], key[:1], value[:1], None, cu_seq_lens_q=bounds[0], cu_seq_lens_k=bounds[1]
    )[0]
    parts = []
    for a, b, c, d in zip(bounds[0], bounds[0][1:], bounds[1], bounds[1][1:], strict=False):
        mask = torch.ones(int(b - a), int(d - c), dtype=torch.bool).tril(int(d - c) - int(b - a)) if causal else None
        parts.append(exact(query[:1, :, a:b], key[:1, :, c:d], value[:1, :, c:d], mask=mask))
    assert_close(found, torch.cat(parts, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    """The result has the queries' type, whatever that of a mask or of sinks."""
    query, key, value = (t.to(dtype) for t in operands(groups=2))
    given = query, key, value
    bias, sinks = torch.randn(1, 1, QUERIES, KEYS), torch.randn(HEADS)
    found = attention(Caller(), *given, bias, s_aux=sinks)[0]
    assert found.dtype == dtype
    wanted = exact(*given, mask=bias, sinks=sinks.reshape(1, -1, 1, 1))
    assert (found.double() - wanted).abs().max() <= 2 * torch.finfo(dtype).eps * wanted.abs().max()


def test_dropout() -> None:
    """A part of the weights is dropped, the same for the same seed, and the others make up for it."""
    given = operands()
    torch.manual_seed(1)
    first, weights = attention(Caller(), *given, None, dropout=0.25, output_attentions=True)
    torch.manual_seed(1)
    again = attention(Caller(), *given, None, dropout=0.25, output_attentions=True)[0]
    other = attention(Caller(), *given, None, None, 0.25)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert weights is not None
    kept = weights != 0
    assert 0.6 < kept.float().mean() < 0.9
    whole = attention(Caller(), *given, None, output_attentions=True)[1]
    assert whole is not None
    torch.testing.assert_close(weights[kept], whole[kept] / 0.75)


def test_shapes_that_do_not_fit() -> None:
    query, key, value = operands()
    with pytest.raises(einc.Error):
        attention(Caller(), query, key[..., :4], value, None)
    with pytest.raises(einc.Error):
        attention(Caller(), query, key, value, torch.ones(3, 1, QUERIES, KEYS))
