"""`einc.scaled_dot_product_attention` is PyTorch's function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

import einc
from einc.dropins import attention
from einc.runtime import prepared

Tensor = torch.Tensor
ours: Any = einc.scaled_dot_product_attention
torchs: Any = functional.scaled_dot_product_attention
Call = tuple[tuple[Tensor, ...], dict[str, Any]]

B, H, L, S, E, W = 2, 4, 9, 13, 8, 12


def qkv(q: tuple[int, ...] = (B, H), k: tuple[int, ...] = (B, H), v: tuple[int, ...] = (B, H)) -> tuple[Tensor, ...]:
    return torch.randn(*q, L, E), torch.randn(*k, S, E), torch.randn(*v, S, W)


def truths(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.6


def lower(*shape: int) -> Tensor:
    """An additive mask, some of it -inf, and a row that sees nothing."""
    bias = torch.randn(shape).masked_fill(~truths(*shape), -math.inf)
    bias[..., 3, :] = -math.inf
    return bias


CALLS: dict[str, Callable[[], Call]] = {
    "plain": lambda: (qkv(), {}),
    "2-D": lambda: (qkv((), (), ()), {}),
    "3-D": lambda: (qkv((H,), (H,), (H,)), {}),
    "5-D": lambda: (qkv((3, B, H), (3, B, H), (3, B, H)), {}),
    "6-D": lambda: (qkv((2, 3, 1, H), (2, 1, B, H), (1, 3, B, H)), {"is_causal": True}),
    "one batch of keys": lambda: (qkv((B, H), (1, H), (1, H)), {}),
    "one batch of queries": lambda: (qkv((1, H)), {}),
    "one batch of values": lambda: (qkv(v=(1, H)), {}),
    "only values have batches": lambda: (qkv((1, H), (1, H), (B, H)), {}),
    "one head of keys": lambda: (qkv((B, H), (B, 1), (B, 1)), {}),
    "keys without batches": lambda: (qkv((B, H), (H,), (H,)), {}),
    "queries without batches": lambda: (qkv((H,)), {"attn_mask": truths(B, 1, L, S)}),
    "causal": lambda: (qkv(), {"is_causal": True}),
    "scale": lambda: (qkv(), {"scale": 0.2, "is_causal": True}),
    "groups": lambda: (qkv((B, H), (B, 2), (B, 2)), {"enable_gqa": True, "is_causal": True}),
    "groups that differ": lambda: (qkv((B, H), (B, 2), (B, 1)), {"enable_gqa": True}),
    "two sizes of groups": lambda: (qkv((B, 8), (B, 2), (B, 4)), {"enable_gqa": True, "attn_mask": truths(8, L, S)}),
    "groups in one batch": lambda: (qkv((B, H), (1, 2), (1, 2)), {"enable_gqa": True}),
    "groups in 3-D": lambda: (qkv((H,), (2,), (2,)), {"enable_gqa": True}),
    "groups of one": lambda: (qkv(), {"enable_gqa": True}),
    "truths": lambda: (qkv(), {"attn_mask": truths(B, H, L, S)}),
    "truths for all": lambda: (qkv(), {"attn_mask": truths(L, S)}),
    "truths of keys": lambda: (qkv(), {"attn_mask": truths(B, 1, 1, S)}),
    "truths of queries": lambda: (qkv(), {"attn_mask": truths(B, 1, L, 1)}),
    "truths of heads": lambda: (qkv(), {"attn_mask": truths(H, 1, S)}),
    "truths expanded": lambda: (qkv(), {"attn_mask": truths(B, 1, 1, S).expand(B, H, L, S)}),
    "one truth": lambda: (qkv(), {"attn_mask": truths(1, 1)}),
    "bias": lambda: (qkv(), {"attn_mask": lower(B, H, L, S)}),
    "bias for all": lambda: (qkv(), {"attn_mask": lower(L, S), "scale": 0.5}),
    "bias of heads": lambda: (qkv(), {"attn_mask": lower(1, H, L, 1)}),
    "bias and groups": lambda: (qkv((B, H), (B, 2), (B, 2)), {"enable_gqa": True, "attn_mask": lower(B, 1, L, S)}),
    "bias in 2-D": lambda: (qkv((), (), ()), {"attn_mask": lower(L, S)}),
    "no keys": lambda: (tuple(x if k == 0 else x[..., :0, :] for k, x in enumerate(qkv())), {}),
    "no width": lambda: (tuple(x if k == 2 else x[..., :0] for k, x in enumerate(qkv())), {"scale": 1.0}),
    "negative dropout": lambda: (qkv(), {"dropout_p": -0.5}),
    "all dropped": lambda: (qkv(), {"dropout_p": 1.0}),
}  # fmt: skip


def exact(operands: tuple[Tensor, ...], options: dict[str, Any]) -> Tensor:
    mask = options.get("attn_mask")
    doubled = {"attn_mask": mask.double()} if mask is not None and mask.is_floating_point() else {}
    out: Tensor = torchs(*(x.double() for x in operands), **options | doubled)
    return out


@pytest.mark.parametrize("name", CALLS)
def test_agrees(name: str) -> None:
    operands, options = CALLS[name]()
    found = ours(*operands, **options)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact(operands, options), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [None, "own", "f32"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_types(dtype: torch.dtype, mask: str | None) -> None:
    operands = tuple(x.to(dtype) for x in qkv())
    options = {} if mask is None else {"attn_mask": lower(L, S).to(dtype if mask == "own" else torch.float32)}
    found = ours(*operands, **options)
    assert found.dtype == dtype
    close = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-6 if mask == "f32" else 1e-12}[dtype]
    torch.testing.assert_close(found.double(), exact(operands, options), rtol=close, atol=close)


def numpy_array() -> Any:
    return qkv()[0].numpy()


WRONG: dict[str, tuple[Callable[[], Call], type[einc.Error], str]] = {
    "vectors": (lambda: ((torch.ones(E),) * 3, {}), einc.ShapeError, "fewer than 2 dimensions"),
    "types": (lambda: ((qkv()[0].double(), *qkv()[1:]), {}), einc.DTypeError, "different types"),
    "integers": (lambda: (tuple(x.int() for x in qkv()), {}), einc.DTypeError, "of floats"),
    "widths": (lambda: ((qkv()[0][..., 1:], *qkv()[1:]), {}), einc.ShapeError, "different widths"),
    "lengths": (lambda: ((*qkv()[:2], qkv()[2][..., 1:, :]), {}), einc.ShapeError, "different lengths"),
    "heads": (lambda: (qkv((B, H), (B, 2), (B, 2)), {}), einc.ShapeError, "enable_gqa=True"),
    "groups": (lambda: (qkv((B, H), (B, 3), (B, 3)), {"enable_gqa": True}), einc.ShapeError, "do not make groups"),
    "no heads": (lambda: (qkv((), (), ()), {"enable_gqa": True}), einc.ShapeError, "do not make groups"),
    "two masks": (lambda: (qkv(), {"attn_mask": truths(L, S), "is_causal": True}), einc.CallError, "both given"),
    "mask of integers": (lambda: (qkv(), {"attn_mask": truths(L, S).int()}), einc.DTypeError, "neither bool"),
    "mask of f64": (lambda: (qkv(), {"attn_mask": truths(L, S).double()}), einc.DTypeError, "neither bool"),
    "mask of another length": (lambda: (qkv(), {"attn_mask": truths(L, S - 1)}), einc.ShapeError, "not broadcast"),
    "mask of more batches": (lambda: (qkv((1, H), (1, H), (1, H)), {"attn_mask": truths(B, 1, L, S)}),
                             einc.ShapeError, "not broadcast"),
    "mask of more dimensions": (lambda: (qkv(), {"attn_mask": truths(1, 1, 1, L, S)}), einc.ShapeError, "broadcast"),
    "probability": (lambda: (qkv(), {"dropout_p": 1.5}), einc.CallError, "no probability"),
    "no tensor": (lambda: ((numpy_array(), *qkv()[1:]), {}), einc.CallError, "no torch tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_torch_rejects_is_an_error(name: str) -> None:
    call, error, says = WRONG[name]
    operands, options = call()
    with pytest.raises((RuntimeError, IndexError, TypeError)):
        torchs(*operands, **options)
    with pytest.raises(error, match=says):
        ours(*operands, **options)


def test_dropout_is_repeated_by_the_seed() -> None:
    operands = qkv()

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        out: Tensor = ours(*operands, dropout_p=0.3)
        return out

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    torch.manual_seed(1)
    first, second = (ours(*operands, dropout_p=0.3) for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_drops_and_scales_weights() -> None:
    """With values of the identity the result is the weights themselves."""
    p, n = 0.3, 64
    q, k = torch.randn(2, 3, n, 8), torch.randn(2, 3, n, 8)
    v = torch.eye(n).expand(2, 3, n, n)
    whole = ours(q, k, v, is_causal=True)
    kept = ours(q, k, v, is_causal=True, dropout_p=p)
    there = kept != 0
    torch.testing.assert_close(kept[there], whole[there] / (1 - p))
    seen = whole != 0
    count, share = int(seen.sum()), float((seen & ~there).sum()) / int(seen.sum())
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / count)
    by_head = (seen & ~there).sum((-1, -2)) / seen.sum((-1, -2))
    assert by_head.unique().numel() == by_head.numel()  # each head drops others


def test_a_call_is_found_again() -> None:
    operands = qkv()
    options = {"attn_mask": truths(B, 1, 1, S).expand(B, H, L, S)}
    ours(*operands, **options)
    kept, planned = len(prepared._kept), attention._plan.cache_info()
    ours(*operands, **options)
    assert len(prepared._kept) == kept
    assert attention._plan.cache_info().hits == planned.hits + 1
    assert attention._plan.cache_info().misses == planned.misses


def test_what_is_broadcast_is_read_with_fewer_axes() -> None:
    shapes = torch.Size((B, 8, L, E)), torch.Size((B, 2, S, E)), torch.Size((1, 2, S, W))
    masked = (torch.Size((B, 8, L, S)), (S, 0, 0, 1), torch.bool)
    text, dropped = attention._planned(shapes, (torch.float32,) * 3, masked, causal=False, dropout=True, gqa=True)
    assert dropped == ((), (), (0,), (2, 1))
    assert text == (
        "def attention(Q[b, h, i, d], K[b, g, j, d], V[g, j, e], M[b, j], seed: int, p: float, "
        "scale: float = rsqrt(|d|)):\n"
        "    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d]\n"
        "    A[b, h, i, j] = where(M[b, j], S, -inf)\n"
        "    D[b, h, i, j] = where(rand(seed, b, h, i, j) < p, 0, softmax[j](A) / (1 - p))\n"
        "    O[b, h, i, e] = D * V[h // (|h| / |g|), j, e]\n"
        "    return O\n"
    )


FUSED: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "padded": {"mask": (torch.Size((2, 1, 1, 1024)), (1024, 1024, 1024, 1), torch.bool)},
    "biased": {"mask": (torch.Size((8, 1024, 1024)), (1 << 20, 1024, 1), torch.float32)},
    "dropped": {"causal": True, "dropout": True},
}


@pytest.mark.parametrize("name", FUSED)
def test_no_scores_are_stored(name: str) -> None:
    """One kernel on a GPU, at lengths that matter there."""
    shape, bf16 = torch.Size((2, 8, 1024, 64)), torch.bfloat16
    given = {"mask": None, "causal": False, "dropout": False, "gqa": False} | FUSED[name]
    text, dropped = attention._planned((shape,) * 3, (bf16,) * 3, **given)
    tensors = [torch.empty(shape, dtype=bf16, device="meta")] * 3
    if given["mask"] is not None:
        tensors.append(torch.empty(given["mask"][0], dtype=given["mask"][2], device="meta"))
    operands = [attention._without(t, d) for t, d in zip(tensors, dropped, strict=True)]
    schedule = einc.compile(text, target="sm_90").compiled(*operands, *([1, 0.1] * given["dropout"])).state.schedule
    assert schedule is not None
    assert not schedule.intermediates
    assert len(schedule.kernels) == 1


def test_autocast_takes_operands_of_several_types() -> None:
    q, k, v = (torch.randn(2, 4, 9, 8) for _ in range(3))
    mask = torch.randn(9, 9)
    for kinds in ((torch.bfloat16, torch.float32, torch.float32), (torch.float32, torch.float32, torch.bfloat16)):
        x, y, z = (t.to(kind) for t, kind in zip((q, k, v), kinds, strict=True))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = einc.scaled_dot_product_attention(x, y, z, attn_mask=mask)
            wanted = torch.nn.functional.scaled_dot_product_attention(x, y, z, attn_mask=mask)
        assert found.dtype == wanted.dtype == torch.bfloat16
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
    with pytest.raises(einc.DTypeError):
        einc.scaled_dot_product_attention(q.bfloat16(), k, v)
