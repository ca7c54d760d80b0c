"""Attention in its many forms, as papers define them: scores, a mask or a bias, a normalisation, a product with V."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.library import Case

# ruff: noqa: N803, N806 - queries, keys and values have capital letters everywhere

INF = float("inf")
HEADS = {"Q": "b h i d", "K": "b h j d", "V": "b h j e"}
SIZES = {"b": 2, "h": 3, "i": 37, "j": 153, "d": 16, "e": 24}
TINY = {"b": 1, "h": 2, "i": 7, "j": 21, "d": 8, "e": 8}
LONG = {"b": 4, "h": 16, "i": 4096, "j": 4096, "d": 128, "e": 128}


def scores(Q: Tensor, K: Tensor) -> Tensor:
    return Q @ K.mT / math.sqrt(Q.shape[-1])


def softmax(S: Tensor) -> Tensor:
    """Over the last axis; 0 in a row that is wholly masked."""
    return S.softmax(-1).nan_to_num(0.0)


def positions(S: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key positions, as a column and a row."""
    i, j = S.shape[-2:]
    return torch.arange(i, device=S.device)[:, None], torch.arange(j, device=S.device)


def mha(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax(scores(Q, K)) @ V


def causal(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    S = scores(Q, K)
    i, j = positions(S)
    return softmax(S.masked_fill(j > i, -INF)) @ V


CASES = (
    Case("attention/mha", HEADS, mha, SIZES, ("j",), TINY, LONG),
    Case("attention/causal", HEADS, causal, SIZES, ("j",), TINY, LONG),
)
