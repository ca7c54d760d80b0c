"""Attention as a program and as torch writes it, for tests of how torch asks for gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import einc

TEXT = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], window: int = 1000, scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = where(j <= i and i - j < window, S, -inf)
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
    L[b, h, i] = logsumexp[j](A)
    return O, L
"""
PROGRAM = einc.compile(TEXT)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """By the program; the first of its results."""
    found: tuple[Tensor, Tensor] = PROGRAM(q, k, v)
    return found[0]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """By torch."""
    n = q.shape[-2]
    s = (q @ k.mT) / q.shape[-1] ** 0.5
    found: Tensor = s.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1) @ v
    return found


def operands(n: int = 33, needing: Sequence[bool] = (True, True, True)) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.randn(1, 2, n, 8, requires_grad=r) for r in needing)
    return q, k, v


def close(found: Sequence[Tensor | None], wanted: Sequence[Tensor | None]) -> None:
    """Within some units of the last place of f32."""
    assert len(found) == len(wanted)
    for x, y in zip(found, wanted, strict=True):
        assert x is not None
        assert y is not None
        torch.testing.assert_close(x, y, rtol=1e-4, atol=2e-5)


def gradients(f: Callable[..., Any], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of a loss that is not linear in the result, by the tensors that need one."""
    needing = [t for t in tensors if t.requires_grad]
    return torch.autograd.grad(f(*tensors).square().sum(), needing)
