"""How long backward passes take beside those of peers, on a GPU.

    python bench/gradients.py

Attention against FlexAttention (compiled, its Triton templates) and the better of torch's FlashAttention and cuDNN
kernels, rows against torch.compile. Times are of `torch.autograd.grad` alone, the median of many; a ratio is the
peer's time over einc's.
"""

# ruff: noqa: ARG005 - FlexAttention gives functions every position

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import einc

SCORES = "S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]"
ATTENTION = """def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], scale: float = rsqrt(|d|)):
    {scores}
    A[b, h, i, j] = {masked}
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
    return O
"""
LAYERNORM = """def layernorm(X[n, c], gain[c], bias[c], eps: float = 1e-5):
    Y[n, c] = layernorm[c](X, eps) * gain[c] + bias[c]
    return Y
"""
RMSNORM = """def rmsnorm(X[n, c], gain[c], eps: float = 1e-6):
    Y[n, c] = X[n, c] * rsqrt(sum[c](X[n, c] ** 2) / |c| + eps) * gain[c]
    return Y
"""
Mod = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """An attention in both notations: scores and mask as text, and as functions of FlexAttention."""

    scores: str
    masked: str
    score_mod: Mod | None = None
    mask_mod: Mod | None = None
    causal: bool | None = None  # what torch's own attention computes, if it does


VARIANTS = {
    "full": Variant(SCORES, "S", causal=False),
    "causal": Variant(SCORES, "where(j <= i, S, -inf)", mask_mod=lambda b, h, i, j: j <= i, causal=True),
    "window 1024": Variant(
        SCORES,
        "where(j <= i and i - j < 1024, S, -inf)",
        mask_mod=lambda b, h, i, j: (j <= i) & (i - j < 1024),
    ),
    "softcap": Variant(
        SCORES,
        "where(j <= i, 20 * tanh(S / 20), -inf)",
        lambda s, b, h, i, j: 20 * torch.tanh(s / 20),
        lambda b, h, i, j: j <= i,
    ),
    "alibi": Variant(
        f"{SCORES} - (i - j) * 0.0625",
        "where(j <= i, S, -inf)",
        lambda s, b, h, i, j: s - (i - j) * 0.0625,
        lambda b, h, i, j: j <= i,
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: times in microseconds; `error` is the greatest difference of a gradient, in parts of its size."""

    work: str
    einc: float
    peer: str
    peers: float
    error: float

    @property
    def ratio(self) -> float:
        return self.peers / self.einc


def backward(results: Tensor, operands: tuple[Tensor, ...], cotangent: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: torch.autograd.grad(results, operands, cotangent, retain_graph=True)


def microseconds(f: Callable[[], object]) -> float:
    from triton.testing import do_bench

    return 1e3 * float(do_bench(f, warmup=30, rep=120, return_mode="median"))


def compared(
    work: str, ours: Callable[[], tuple[Tensor, ...]], peer: str, theirs: Callable[[], tuple[Tensor, ...]]
) -> Row:
    pairs = zip(ours(), theirs(), strict=True)
    error = max(((a.float() - b.float()).abs().max() / b.float().abs().max()).item() for a, b in pairs)
    return Row(work, microseconds(ours), peer, microseconds(theirs), error)


def attention(batch: int, heads: int, n: int, width: int) -> Iterator[Row]:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    shape = (batch, heads, n, width)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    cotangent = torch.randn_like(q)
    for name, one in VARIANTS.items():
        torch.compiler.reset()
        work = f"{name}, b{batch} h{heads} n{n} d{width}"
        ours = einc.compile(ATTENTION.format(scores=one.scores, masked=one.masked))(q, k, v)
        mask = None if one.mask_mod is None else create_block_mask(one.mask_mod, None, None, n, n)
        flex = torch.compile(flex_attention)(q, k, v, one.score_mod, mask)
        run = backward(ours, (q, k, v), cotangent)
        yield compared(work, run, "FlexAttention", backward(flex, (q, k, v), cotangent))
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION) if one.causal is not None else ():
            with sdpa_kernel(backend):
                theirs = F.scaled_dot_product_attention(q, k, v, is_causal=bool(one.causal))
                yield compared(work, run, backend.name, backward(theirs, (q, k, v), cotangent))


def rows(n: int, width: int) -> Iterator[Row]:
    x = torch.randn(n, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    gain, bias = (torch.randn(width, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    cotangent = torch.randn_like(x)
    torch._functorch.config.donated_buffer = False  # torch.compile's backward runs more than once
    for name, text, operands, peer in (
        ("LayerNorm", LAYERNORM, (x, gain, bias), lambda x: F.layer_norm(x, (width,), gain, bias)),
        ("RMSNorm", RMSNORM, (x, gain), lambda x: F.rms_norm(x, (width,), gain, 1e-6)),
    ):
        torch.compiler.reset()
        ours = backward(einc.compile(text)(*operands), operands, cotangent)
        yield compared(
            f"{name}, {n} x {width}", ours, "torch.compile", backward(torch.compile(peer)(x), operands, cotangent)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU")
    torch.manual_seed(0)
    found = [r for width in (64, 128) for n, b in ((4096, 4), (16384, 1)) for r in attention(b, 16, n, width)]
    found += [r for shape in ((8192, 4096), (16384, 1024)) for r in rows(*shape)]
    if options.json:
        print(json.dumps([asdict(r) for r in found], indent=2))
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16; backward, us")
    for r in found:
        print(f"{r.work:36} einc {r.einc:8.0f}  {r.peer:16} {r.peers:8.0f}  {r.ratio:5.2f}  error {r.error:.4f}")


if __name__ == "__main__":
    main()
