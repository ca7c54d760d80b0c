"""Attention under torch.compile, vmap and fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

import einc

Tensor = torch.Tensor
ours: Any = einc.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def anew() -> None:
    torch._dynamo.reset()


def operands(heads: int, keys: int, n: int = 8, m: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, heads, n, 4), torch.randn(2, keys, m, 4), torch.randn(2, keys, m, 6)


def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    seen = torch.arange(k.shape[2]) < 7
    out: Tensor = ours(q, k, v, attn_mask=seen[None, None, None].expand(q.shape[0], 1, q.shape[2], -1), scale=0.3)
    return out


CALLS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "plain": (lambda q, k, v: ours(q, k, v), 4),
    "causal": (lambda q, k, v: ours(q, k, v, is_causal=True), 4),
    "groups": (lambda q, k, v: ours(q, k, v, enable_gqa=True), 2),
    "padded": (padded, 4),
}


@pytest.mark.turns(2)
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", CALLS)
def test_sdpa_is_one_graph(name: str, dynamic: bool | None) -> None:
    function, keys = CALLS[name]
    traced = torch.compile(lambda *t: function(*t) * 2, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n, m in ((8, 12), (9, 13), (16, 20)):
        given = operands(4, keys, n, m)
        torch.testing.assert_close(traced(*given), function(*given) * 2)


def test_a_length_that_changes_compiles_nothing_again() -> None:
    counter = CompileCounter()
    traced = torch.compile(lambda q, k, v: ours(q, k, v, is_causal=True), dynamic=True, backend=counter)
    for n in (8, 9, 33):
        traced(*operands(4, 4, n, n))
    assert counter.frame_count == 1


def test_flex_breaks_the_graph_and_agrees() -> None:
    bias = torch.randn(4)

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q * 2
        out: Tensor = einc.flex_attention(
            q, k, v, lambda s, b, h, i, j: s + bias[h] * (i - j), lambda b, h, i, j: i >= j
        )
        return out + 1

    given = operands(4, 4)
    torch.testing.assert_close(torch.compile(function, backend="aot_eager")(*given), function(*given))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="traces the functions"):
        torch.compile(function, backend="aot_eager", fullgraph=True)(*given)


def test_a_batch_of_calls() -> None:
    q, k, v = (torch.stack([x, x * 2]) for x in operands(4, 4))
    found = torch.vmap(lambda q, k, v: ours(q, k, v, is_causal=True))(q, k, v)
    torch.testing.assert_close(found, torch.stack([ours(*t, is_causal=True) for t in zip(q, k, v, strict=True)]))


def test_tensors_without_memory() -> None:
    with FakeTensorMode():
        q, k, v = operands(4, 2)
        assert ours(q.bfloat16(), k.bfloat16(), v.bfloat16(), enable_gqa=True).shape == (2, 4, 8, 6)
        assert einc.flex_attention(q, k, v, block_mask=lambda b, h, i, j: i >= j, enable_gqa=True).shape == (2, 4, 8, 6)
