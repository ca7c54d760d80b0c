"""`einc.flex_attention` agrees with PyTorch's own, in f64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._higher_order_ops.flex_attention import math_attention
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask

import einc
from einc.dropins.flex import Form, _traced
from einc.dropins.tracing import Tracer
from einc.runtime import prepared
from tests.dropins.mods import CASES, B, H, N, causal, window

Tensor = torch.Tensor


def operands(dtype: torch.dtype = torch.float32, heads: int = H, keys: int = N, width: int = 16) -> tuple[Tensor, ...]:
    shapes = (B, H, N, 16), (B, heads, keys, 16), (B, heads, keys, width)
    q, k, v = (torch.randn(*s).to(dtype) for s in shapes)
    return q, k, v


def exact(
    q: Tensor, k: Tensor, v: Tensor, score: Any = None, mask: Any = None, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Torch's eager implementation in f64: the result, the log of the sum, and the greatest score."""
    q, k, v = q.double(), k.double(), v.double()
    score = score or (lambda s, b, h, q, k: s)
    mask = mask or (lambda b, h, q, k: b.new_ones((), dtype=torch.bool))
    blocks: Any = (*(None,) * 5, mask)
    out, lse, most = math_attention(q, k, v, score, blocks, q.shape[-1] ** -0.5 if scale is None else scale, {})
    return out, lse * math.log(2), most * math.log(2)


@pytest.mark.parametrize("name", CASES)
def test_agrees(name: str) -> None:
    case, (q, k, v) = CASES[name], operands()
    out, lse = einc.flex_attention(q, k, v, case.score, case.mask, return_lse=True)
    expected = exact(q, k, v, case.score, case.mask)
    torch.testing.assert_close(out.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.double(), expected[1], rtol=1e-5, atol=1e-5)
    assert out.dtype == lse.dtype == torch.float32


KERNELS = ("alibi", "document", "natten", "bits", "bias wrapped", "paged", "trigonometric", "nothing")


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of the kernels, interpreted."""
    monkeypatch.setattr("einc.runtime.execution.ON_CPU", "interpret")
    monkeypatch.setattr("einc.runtime.again.Calls.__call__", lambda *_: None)  # what an earlier call has left
    case, (q, k, v) = CASES[name], operands()
    out, lse = einc.flex_attention(q, k, v, case.score, case.mask, return_lse=True)
    expected = exact(q, k, v, case.score, case.mask)
    torch.testing.assert_close(out.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.double(), expected[1], rtol=1e-5, atol=1e-5)


TYPES = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_types_are_those_of_torch(dtype: torch.dtype) -> None:
    """A bias of f32 does not widen a result of 16 bits; the statistic keeps f32."""
    (q, k, v), case = operands(dtype), CASES["bias by all"]
    out, lse = einc.flex_attention(q, k, v, case.score, case.mask, return_lse=True)
    expected = exact(q, k, v, case.score, case.mask)
    assert out.dtype == dtype
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(out.double(), expected[0], rtol=TYPES[dtype], atol=TYPES[dtype])
    torch.testing.assert_close(lse.double(), expected[1], rtol=1e-5, atol=1e-5)


SHAPES: dict[str, Callable[[], tuple[Tensor, ...]]] = {
    "fewer keys": lambda: operands(keys=N - 7),
    "more keys": lambda: operands(keys=N + 9),
    "wide values": lambda: operands(width=24),
    "groups": lambda: operands(heads=2, keys=N - 7, width=8),
    "one head of keys": lambda: operands(heads=1),
    "one batch of keys": lambda: (operands()[0], operands()[1][:1], operands()[2][:1]),
    "one batch of groups": lambda: (operands()[0], operands(heads=2)[1][:1], operands(heads=2)[2][:1]),
    "transposed": lambda: tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in operands()),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    q, k, v = SHAPES[name]()
    case = CASES["alibi"]
    out = einc.flex_attention(q, k, v, case.score, case.mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(out.double(), exact(q, k, v, case.score, case.mask, 0.3)[0], rtol=1e-5, atol=1e-5)


def test_narrow_keys() -> None:
    """Keys and values of 8 bits: weights multiply in the queries' type."""
    q, k, v = operands(torch.bfloat16)
    k, v = k.to(torch.float8_e4m3fn), v.to(torch.float8_e4m3fn)
    out = einc.flex_attention(q, k, v, block_mask=causal)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), exact(q, k, v, mask=causal)[0], rtol=1e-2, atol=1e-2)


def test_auxiliary_results() -> None:
    q, k, v = operands()
    case = CASES["some rows"]
    expected = exact(q, k, v, case.score, case.mask)
    out, aux = einc.flex_attention(q, k, v, case.score, case.mask, return_aux=AuxRequest(lse=True, max_scores=True))
    for found, wanted in zip((out, aux.lse, aux.max_scores), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert aux.lse[0, 0, 0] == -math.inf
    assert einc.flex_attention(q, k, v, return_aux=AuxRequest())[1] == (None, None)


def test_of_a_block_mask_the_function_is_used() -> None:
    q, k, v = operands()
    mask: Any = CASES["document"].mask
    blocks = create_block_mask(mask, B, None, N, N, device="cpu", BLOCK_SIZE=16)
    out = einc.flex_attention(q, k, v, block_mask=blocks)
    torch.testing.assert_close(out, einc.flex_attention(q, k, v, block_mask=mask))


def test_nothing_is_compiled_again() -> None:
    """Equal functions with other tensors are one program, whatever the objects are."""
    q, k, v = operands()

    def once(table: Tensor, size: int) -> Tensor:
        mask = window(size)
        out: Tensor = einc.flex_attention(q, k, v, lambda s, b, h, q, k: s + table[h, k], mask)
        return out

    first = once(torch.randn(H, N), 5)
    kept = len(prepared._kept)
    second = once(torch.randn(H, N), 5)
    assert len(prepared._kept) == kept
    assert not torch.equal(first, second)
    once(torch.randn(H, N), 6)
    assert len(prepared._kept) == kept + 1


FUSED = (
    "plain",
    "alibi",
    "bits",
    "bias chained",
    "bias wrapped",
    "document",
    "natten",
    "bidirectional prefix",
    "window",
)


@pytest.mark.parametrize("name", FUSED)
def test_no_scores_are_stored(name: str) -> None:
    """One kernel, which writes the result and the statistic, on a GPU and at lengths that matter there."""
    case, n = CASES[name], 1024
    tracer = Tracer({"b": B, "h": H, "i": n, "j": n})
    text = _traced(tracer, case.score, case.mask, Form(torch.bfloat16, torch.bfloat16, lse=True))
    q = torch.empty(B, H, n, 64, dtype=torch.bfloat16, device="meta")
    longer = {N: n, 2 * N: 2 * n}
    tables = [t.new_empty([longer.get(s, s) for s in t.shape], device="meta") for t in tracer.tensors]
    schedule = einc.compile(text, target="sm_90", splits=1).compiled(q, q, q, *tables).state.schedule
    assert schedule is not None
    assert not [b.name for b in schedule.intermediates if {"i", "j"} <= {axis for dim in b.dims for axis in dim}]
    assert len(schedule.kernels) == 1


def test_the_program_can_be_read() -> None:
    program = einc.flex_program(CASES["alibi table"].score, window(6), enable_gqa=True, return_lse=True)
    assert program.text.source.text == (
        "def flex_attention(Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e], T1[m1], scale: float = rsqrt(|d|)):\n"
        "    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d]\n"
        "    A[b, h, i, j] = where(i - j < 6, S[b, h, i, j] + T1[h] * (j - i), -inf)\n"
        "    O[b, h, i, e] = softmax[j](A) * V[b, h // (|h| / |g|), j, e]\n"
        "    L[b, h, i]: f32 = logsumexp[j](A)\n"
        "    return O, L\n"
    )
