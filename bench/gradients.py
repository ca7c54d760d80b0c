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
from datetime import date
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import einc

ATTENTION = """def attention(Q[b, h, i, d], K[b, {kv}, j, d], V[b, {kv}, j, e]{more}, scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, {read}, j, d]
    A[b, h, i, j] = {scores}
    O[b, h, i, e] = {softmax} * V[b, {read}, j, e]
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
CROSS_ENTROPY = """def linear_cross_entropy(X[n, d], W[v, d], target[n] : i64):
    Z[n, v] = X[n, d] * W[v, d]
    L[n] = logsumexp[v](Z) - Z[n, target[n]]
    return L
"""
Mod = Callable[..., Any]
Extra = Callable[[int, int], Tensor]


def _documents(_: int, n: int) -> Tensor:
    return torch.arange(n, device="cuda", dtype=torch.int32) // 700


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)


@dataclass(frozen=True, slots=True)
class Variant:
    """An attention in both notations: scores and mask as text, and as functions of FlexAttention.

    `score_mod` and `mask_mod` make the function from the tensor that is captured, `extra` of heads and length, which
    the text has as `T`.
    """

    scores: str = "S"
    score_mod: Callable[[Any], Mod] | None = None
    mask_mod: Callable[[Any], Mod] | None = None
    extra: Extra | None = None
    more: str = ""
    group: int = 1
    sinks: bool = False
    causal: bool | None = None  # what torch's own attention computes, if it does

    @property
    def text(self) -> str:
        kv, read = ("g", "h // (|h| // |g|)") if self.group > 1 else ("h", "h")
        softmax = "softmax_sink[j](A, T[h])" if self.sinks else "softmax[j](A)"
        return ATTENTION.format(scores=self.scores, more=self.more, kv=kv, read=read, softmax=softmax)


CAUSAL = "where(j <= i, S, -inf)"


def causal(_: object) -> Mod:
    return lambda b, h, i, j: j <= i


VARIANTS = {
    "full": Variant(causal=False),
    "causal": Variant(CAUSAL, mask_mod=causal, causal=True),
    "window 1024": Variant(
        "where(j <= i and i - j < 1024, S, -inf)", mask_mod=lambda _: lambda b, h, i, j: (j <= i) & (i - j < 1024)
    ),
    "documents of 700": Variant(
        "where(T[i] == T[j], S, -inf)",
        mask_mod=lambda t: lambda b, h, i, j: t[i] == t[j],
        extra=_documents,
        more=", T[i] : i32",
    ),
    "ALiBi": Variant(
        "where(j <= i, S - (i - j) * 0.0625, -inf)", lambda _: lambda s, b, h, i, j: s - (i - j) * 0.0625, causal
    ),
    "softcap": Variant(
        "where(j <= i, 20 * tanh(S / 20), -inf)", lambda _: lambda s, b, h, i, j: 20 * torch.tanh(s / 20), causal
    ),
    "GQA 16/4": Variant(CAUSAL, mask_mod=causal, group=4),
    "sinks": Variant(CAUSAL, mask_mod=causal, extra=lambda h, n: _noise(h), more=", T[h]", sinks=True),
    "pair bias": Variant(
        "S + T[h, i, j]",
        lambda t: lambda s, b, h, i, j: s + t[h, i, j],
        extra=lambda h, n: _noise(h, n, n),
        more=", T[h, i, j]",
    ),
    "relative table": Variant(
        "where(j <= i, S + T[h, i - j], -inf)",
        lambda t: lambda s, b, h, i, j: s + t[h, (i - j).clamp(min=0)],
        causal,
        extra=_noise,
        more=", T[h, r]",
    ),
    "buckets of 32": Variant(
        "where(j <= i, S + T[h, min((i - j) // 32, 31)], -inf)",
        lambda t: lambda s, b, h, i, j: s + t[h, ((i - j) // 32).clamp(0, 31)],
        causal,
        extra=lambda h, n: _noise(h, 32),
        more=", T[h, r]",
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

    def __str__(self) -> str:
        return (
            f"| {self.work} | {self.einc:.0f} | {self.peer} | {self.peers:.0f} | {self.ratio:.2f} | {self.error:.4f} |"
        )


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


def attention(name: str, one: Variant, batch: int, heads: int, n: int, width: int) -> Iterator[Row]:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch.compiler.reset()
    work = f"{name}, b{batch} h{heads} n{n} d{width}"
    q = _noise(batch, heads, n, width)
    k, v = (_noise(batch, heads // one.group, n, width) for _ in range(2))
    extra = () if one.extra is None else (one.extra(heads, n),)
    captured: Any = extra[0] if extra else None
    wanted = (q, k, v, *(t for t in extra if t.requires_grad))
    cotangent = torch.randn_like(q)
    ours = einc.compile(one.text)(q, k, v, *extra)
    score = None if one.score_mod is None else one.score_mod(captured)
    mask = None if one.mask_mod is None else create_block_mask(one.mask_mod(captured), None, None, n, n)
    call: Callable[..., Any] = torch.compile(flex_attention)
    flex = call(q, k, v, score, mask, enable_gqa=one.group > 1, return_lse=one.sinks)
    if one.sinks:
        out, lse = flex
        flex = out * torch.sigmoid(lse - captured[None, :, None])[..., None].to(out.dtype)
    run = backward(ours, wanted, cotangent)
    yield compared(work, run, "FlexAttention", backward(flex, wanted, cotangent))
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


def cross_entropy(n: int, width: int, vocabulary: int) -> Iterator[Row]:
    """Forward and backward, and the memory that they take above operands and gradients."""
    x, w = _noise(n, width), torch.nn.Parameter(0.02 * _noise(vocabulary, width).detach())
    target = torch.randint(vocabulary, (n,), device="cuda")
    program = einc.compile(CROSS_ENTROPY)
    torch.compiler.reset()
    peer = torch.compile(lambda x, w: F.cross_entropy(x @ w.T, target, reduction="sum"))

    def ours() -> tuple[Tensor, ...]:
        return torch.autograd.grad(program(x, w, target).float().sum(), (x, w))

    def theirs() -> tuple[Tensor, ...]:
        return torch.autograd.grad(peer(x, w), (x, w))

    row = compared(f"linear and cross-entropy, {n} x {width} x {vocabulary}, both ways", ours, "torch.compile", theirs)
    memory = f" ({above(ours):.2f} and {above(theirs):.2f} GB)"
    yield Row(row.work + memory, row.einc, row.peer, row.peers, row.error)


def above(f: Callable[[], tuple[Tensor, ...]]) -> float:
    """GB that a call takes at its peak, above what there was and what it returns."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = f()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before - sum(t.nbytes for t in kept)) / 1e9


def contests() -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
    for width in (128, 64):
        for n, b in ((4096, 4), (16384, 1)):
            for name, one in VARIANTS.items():
                if name != "pair bias" or n == 4096:  # the bias alone would take 8 GB
                    yield f"{name} n{n} d{width}", partial(attention, name, one, b, 16, n, width)
    for shape in ((8192, 4096), (16384, 1024)):
        yield f"rows {shape[0]}", partial(rows, *shape)
    yield "linear and cross-entropy", partial(cross_entropy, 8192, 4096, 128256)


def machine() -> str:
    import triton

    return (
        f"{torch.cuda.get_device_name()}, {date.today()}; einc {einc.__version__}, torch {torch.__version__}, "
        f"triton {triton.__version__}; bf16, backward, us"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", default="", help="contests whose name holds this, or one of these (a|b)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU")
    torch.manual_seed(0)
    found: list[Row] = []
    print(f"{machine()}\n\n| work | einc | peer | its time | ratio | error |\n|---|---:|---|---:|---:|---:|")
    for name, contest in contests():
        if options.only and not any(part in name for part in options.only.split("|")):
            continue
        try:
            for r in contest():
                print(r, flush=True)
                found.append(r)
        except Exception as error:  # a peer that cannot: the other rows are of use all the same
            print(f"| {name} | | | | | {type(error).__name__}: {str(error).splitlines()[0][:80]} |", flush=True)
    if options.json:
        print(json.dumps([asdict(r) for r in found], indent=2))


if __name__ == "__main__":
    main()
