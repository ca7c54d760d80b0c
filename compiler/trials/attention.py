"""Contests of attention: its scores and masks as text, and as functions that FlexAttention takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from einc.trials.contests import Contest, normal
from einc.trials.peers import Peer, Tensors, Visible, flex, naive, sdpa

# ruff: noqa: ARG005 - functions of scores get every position

_TEXT = """
def attention(Q[b, h, i, d], K[b, {kv}, j, d], V[b, {kv}, j, e]{params}):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, {read}, j, d]
    A[b, h, i, j] = {score}
    O[b, h, i, e] = {softmax} * V[b, {read}, j, e]
    return O
"""
_CAP = 30.0
_CAUSAL = "where(j <= i, {}, -inf)"
Change = Callable[..., Any]  # of a score, its head and the positions of query and key


@dataclass(frozen=True, slots=True)
class Form:
    """A form of attention: its score as text, what it reads beside, and the same as functions.

    `visible` is which positions see each other, `share` the part of all pairs, for n positions. `extra` makes what the
    score reads, `T`, for so many heads and positions on a device; `change` is the function that it applies to a score.
    `group` heads share keys and values.
    """

    score: str = "S"
    visible: Callable[[Tensors], Visible] | None = None
    share: Callable[[int], float] = lambda _: 1.0
    causal: bool = False
    change: Callable[[Tensors], Change] | None = None
    extra: Callable[[int, int, str], Tensor] | None = None
    params: str = ""
    group: int = 1
    sinks: bool = False

    @property
    def text(self) -> str:
        kv, read = ("g", "h // (|h| // |g|)") if self.group > 1 else ("h", "h")
        softmax = "softmax_sink[j](A, T[h])" if self.sinks else "softmax[j](A)"
        return _TEXT.format(kv=kv, read=read, params=self.params, score=self.score, softmax=softmax)


def _before(_: Tensors) -> Visible:
    return lambda i, j: i >= j


def _half(n: int) -> float:
    return (n + 1) / (2 * n)


def _window(length: int) -> Form:
    def share(n: int) -> float:
        return sum(min(i + 1, length) for i in range(n)) / n**2

    return Form(
        f"where(j <= i and i - j < {length}, S, -inf)", lambda _: lambda i, j: (i >= j) & (i - j < length), share
    )


def _documents(length: int) -> Form:
    def share(n: int) -> float:
        lengths = (min(length, n - k) for k in range(0, n, length))
        return sum(m * (m + 1) / 2 for m in lengths) / n**2

    def together(tensors: Tensors) -> Visible:
        doc = tensors["T"]
        return lambda i, j: (i >= j) & (doc[i] == doc[j])

    return Form(
        "where(j <= i and T[i] == T[j], S, -inf)", together, share,
        extra=lambda _, n, device: (torch.arange(n, device=device) // length).int(), params=", T[n]: i32",
    )  # fmt: skip


def _noise(*shape: int, device: str) -> Tensor:
    generator = None if device == "meta" else torch.Generator(device).manual_seed(1)
    return torch.randn(shape, generator=generator, device=device)


FORMS: dict[str, Form] = {
    "full": Form(),
    "causal": Form(_CAUSAL.format("S"), _before, _half, causal=True),
    "window 1024": _window(1024),
    "documents of 700": _documents(700),
    "softcap": Form(
        _CAUSAL.format(f"softcap(S, {_CAP})"), _before, _half,
        change=lambda _: lambda s, h, i, j: _CAP * (s / _CAP).tanh(),
    ),
    "ALiBi": Form(
        _CAUSAL.format("S - (i - j) * 0.0625"), _before, _half, change=lambda _: lambda s, h, i, j: s - (i - j) * 0.0625
    ),
    "GQA": Form(_CAUSAL.format("S"), _before, _half, causal=True, group=4),
    "sinks": Form(
        _CAUSAL.format("S"), _before, _half, extra=lambda h, _, device: _noise(h, device=device), params=", T[h]",
        sinks=True,
    ),
    "pair bias": Form(
        "S + T[h, i, j]", extra=lambda h, n, device: _noise(h, n, n, device=device), params=", T[h, i, j]",
        change=lambda t: lambda s, h, i, j: s + t["T"][h, i, j],
    ),
    "relative table": Form(
        _CAUSAL.format("S + T[h, i - j]"), _before, _half, params=", T[h, r]",
        extra=lambda h, n, device: _noise(h, n, device=device),
        change=lambda t: lambda s, h, i, j: s + t["T"][h, (i - j).clamp(min=0)],
    ),
    "buckets of 32": Form(
        _CAUSAL.format("S + T[h, min((i - j) // 32, 31)]"), _before, _half, params=", T[h, r]",
        extra=lambda h, n, device: _noise(h, 32, device=device),
        change=lambda t: lambda s, h, i, j: s + t["T"][h, ((i - j) // 32).clamp(0, 31)],
    ),
}  # fmt: skip


def attention(name: str, device: str, dtype: str, sizes: tuple[int, int, int, int], kind: str = "attention") -> Contest:
    """Attention of a form over b batches, h heads, n positions and width d."""
    one = FORMS[name]
    b, h, n, d = sizes
    group = one.group if h % one.group == 0 else 1
    held = (b, h // group, n, d)

    def operands() -> dict[str, Tensor]:
        found = normal(device, dtype, {"Q": sizes, "K": held, "V": held})
        if one.extra is not None:
            extra = one.extra(h, n, device)
            found["T"] = extra.to(found["Q"].dtype) if extra.is_floating_point() else extra
        return found

    plain = one.change is None and not one.sinks
    peers: dict[str, Peer] = {"flex": flex(one.visible, one.change, one.sinks)}
    if plain and device == "cuda":
        peers["sdpa"] = sdpa(one.causal, visible=None if one.causal else one.visible)
        if one.visible is None or one.causal:
            peers["cudnn"] = sdpa(one.causal, backend="CUDNN_ATTENTION")
    if device != "cuda":
        peers = {"naive": naive(one.visible, one.change, one.sinks)}
        if plain:
            peers["sdpa"] = sdpa(one.causal, visible=None if one.causal else one.visible)
    return Contest(
        f"attention {dtype} {name}, b{b} h{h}{f'/{h // group}' if group > 1 else ''} n{n} d{d}",
        one.text, operands, peers, 4.0 * b * h * n * n * d * one.share(n),
        exact=naive(one.visible, one.change, one.sinks), kind=kind,
    )  # fmt: skip


def decoding(device: str, dtype: str, b: int, heads: int, groups: int, n: int, d: int) -> Contest:
    """One query a head, whose keys and values groups of heads share."""
    text = """
def decode(Q[b, (g r), i, d], K[b, g, j, d], V[b, g, j, e]):
    S[b, g, r, i, j] = rsqrt(|d|) * Q[b, (g r), i, d] * K[b, g, j, d]
    O[b, (g r), i, e] = softmax[j](S) * V[b, g, j, e]
    return O
"""
    held = (b, groups, n, d)
    return Contest(
        f"decoding {dtype}, b{b} h{heads}/{groups} n{n} d{d}", text,
        lambda: normal(device, dtype, {"Q": (b, heads, 1, d), "K": held, "V": held}),
        {"sdpa": sdpa(), **({"flex": flex()} if device == "cuda" else {})}, exact=naive(), kind="decode",
    )  # fmt: skip
