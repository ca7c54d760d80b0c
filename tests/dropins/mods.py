"""Scores and masks that FlexAttention is used and tested with, for 2 batches, 4 heads and 24 positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import and_masks, or_masks

B, H, N, W = 2, 4, 24, 6  # W columns of an image

Function = Callable[..., Any]


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _integers(low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(high))


BY_PAIR, BY_BATCH, BY_ALL = _random(N, N), _random(B, N, N), _random(B, H, N, N)
RELATIVE, SLOPES, GATE = _random(2 * N), _random(H), _random(H, N)
DOCUMENT = _integers(0, 3, B, N).sort().values
LENGTH = torch.tensor([N - 5, N - 9])
PREFIX = torch.tensor([3, 7], dtype=torch.int32)
PERMUTATION = torch.randperm(N, generator=torch.Generator().manual_seed(0))
SCALE = torch.tensor(0.7)
PAGES = torch.tensor([[1, 0, -1, 2], [-1, 3, 0, 1]])  # of six positions, -1 where there is none
BLOCKS = _random(H, N // 4, N // 4)
EXPERT = _integers(0, 2, H).bool()
HALF = _random(H, N).half()


class Bias(torch.nn.Module):
    """A module whose parameter is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(_random(H, N))

    def forward(self, s: Any, _b: Any, h: Any, _q: Any, k: Any) -> Any:
        return s + self.table[h, k]


def natten(_b: Any, _h: Any, q: Any, k: Any) -> Any:
    qx, qy, kx, ky = q // W, q % W, k // W, k % W
    cx, cy = qx.clamp(1, N // W - 2), qy.clamp(1, W - 2)
    return ((cx - kx).abs() <= 1) & ((cy - ky).abs() <= 1)


def paged(mask: Function) -> Function:
    def mask_mod(b: Any, h: Any, q: Any, k: Any) -> Any:
        logical = PAGES[b, k // 6]
        return torch.where(logical >= 0, mask(b, h, q, logical * 6 + k % 6), False)

    return mask_mod


def offset(mask: Function, by: torch.Tensor | int) -> Function:
    return lambda b, h, q, k: mask(b, h, q + by, k)


def causal(_b: Any, _h: Any, q: Any, k: Any) -> Any:
    return q >= k


def window(size: int) -> Function:
    return lambda b, h, q, k: q - k < size


def trigonometric(s: Any, b: Any, _h: Any, q: Any, _k: Any) -> Any:
    z = torch.where(q % 2 == 0, torch.sin(s), torch.cos(s)) + torch.tan(b * 0.5)
    return z + torch.rsqrt(torch.abs(z) + 1)


def twice(first: Function, second: Function) -> Function:
    return lambda s, b, h, q, k: second(first(s, b, h, q, k), b, h, q, k)


def alibi(s: Any, _b: Any, h: Any, q: Any, k: Any) -> Any:
    return s + (k - q) * torch.exp2(-((h + 1) * 8.0 / H))


def bidirectional_prefix(s: Any, b: Any, _h: Any, q: Any, k: Any) -> Any:
    prefix = PREFIX[b]
    both = (q <= prefix) & (k <= prefix)
    return torch.where(both | ((q > prefix) & (k <= q)), s, -float("inf"))


ROPE_Q, ROPE_K = _random(B, H, N, 8), _random(B, N, 8)


@dataclass(frozen=True)
class Case:
    score: Function | None = None
    mask: Function | None = None


CASES = {
    "plain": Case(),
    "identity": Case(lambda s, b, h, q, k: s, lambda b, h, q, k: b.new_ones((), dtype=torch.bool)),
    "causal score": Case(lambda s, b, h, q, k: torch.where(q >= k, s, float("-inf"))),
    "causal": Case(mask=causal),
    "causal offset": Case(mask=offset(causal, 5)),
    "causal offset tensor": Case(mask=offset(causal, torch.tensor(5))),
    "inverse causal": Case(mask=lambda b, h, q, k: q <= k),
    "nothing": Case(mask=lambda b, h, q, k: q > N),
    "some rows": Case(mask=lambda b, h, q, k: q > k + 4),
    "relative": Case(lambda s, b, h, q, k: s + (q - k)),
    "relative causal": Case(lambda s, b, h, q, k: torch.where(q <= k, s + (q - k), float("-inf"))),
    "alibi": Case(alibi, causal),
    "alibi table": Case(lambda s, b, h, q, k: s + SLOPES[h] * (k - q)),
    "softcap": Case(lambda s, b, h, q, k: 2 * torch.tanh(s / 2), causal),
    "times two": Case(lambda s, b, h, q, k: s * 2),
    "squared": Case(lambda s, b, h, q, k: s * s),
    "head offset": Case(lambda s, b, h, q, k: s * SLOPES[h]),
    "trigonometric": Case(trigonometric),
    "composed": Case(twice(alibi, twice(trigonometric, lambda s, b, h, q, k: s * 2))),
    "prefix": Case(mask=or_masks(causal, lambda b, h, q, k: k < PREFIX[b])),
    "bidirectional prefix": Case(bidirectional_prefix),
    "document": Case(mask=and_masks(causal, lambda b, h, q, k: DOCUMENT[b, q] == DOCUMENT[b, k])),
    "window": Case(mask=and_masks(causal, window(6))),
    "window both ways": Case(mask=lambda b, h, q, k: (q - k).abs() <= 4),
    "dilated": Case(mask=lambda b, h, q, k: ((q - k).abs() <= 8) & ((q - k) % 2 == 0)),
    "odd keys": Case(lambda s, b, h, q, k: torch.where(k % 2 == 0, s, float("-inf"))),
    "chunks": Case(mask=lambda b, h, q, k: (q // 8 == k // 8) & (q >= k)),
    "padding": Case(mask=lambda b, h, q, k: (q < LENGTH[b]) & (k < LENGTH[b])),
    "natten": Case(mask=natten),
    "paged": Case(mask=paged(lambda b, h, q, k: q >= k)),
    "heads differ": Case(mask=lambda b, h, q, k: torch.where(h % 2 == 0, q >= k, q <= k)),
    "heads by table": Case(mask=lambda b, h, q, k: EXPERT[h] | (q - k < 5)),
    "bias by pair": Case(lambda s, b, h, q, k: s + BY_PAIR[q, k]),
    "bias by batch": Case(lambda s, b, h, q, k: s + BY_BATCH[b, q, k]),
    "bias by all": Case(lambda s, b, h, q, k: s + BY_ALL[b, h, q, k], causal),
    "bias chained": Case(lambda s, b, h, q, k: s + BY_ALL[b][h][q][k] + BY_BATCH[0, q][k]),
    "bias relative": Case(lambda s, b, h, q, k: s + RELATIVE[q - k + N]),
    "bias wrapped": Case(lambda s, b, h, q, k: s + RELATIVE[k - q]),
    "bias distance": Case(lambda s, b, h, q, k: s + GATE[h, (q - k).abs()]),
    "bias permuted": Case(lambda s, b, h, q, k: s + GATE[h, PERMUTATION[k]] * SCALE),
    "bias by block": Case(lambda s, b, h, q, k: s + BLOCKS[h, q // 4, k // 4], causal),
    "bias half": Case(lambda s, b, h, q, k: s + HALF[h, q] + HALF[h, k]),
    "gate": Case(lambda s, b, h, q, k: s * torch.sigmoid(GATE[h, k]) - GATE[h, q].sqrt().nan_to_num(0.0)),
    "module": Case(Bias()),
    "latent": Case(lambda s, b, h, q, k: s + torch.dot(ROPE_Q[b, h, q], ROPE_K[b, k]) * 0.3, causal),
    "bits": Case(mask=lambda b, h, q, k: (q & k) == 0),
    "least": Case(lambda s, b, h, q, k: torch.where(q >= k, s, -1e4)),
}
