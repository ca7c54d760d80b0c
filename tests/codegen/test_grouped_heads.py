"""Gradients of grouped heads: the heads of a group, and the queries of each, are walked in one loop."""

from __future__ import annotations

import pytest

import einc
from einc.cli.emission import compiled_ahead
from einc.trials.request import Request
from einc.trials.running import gradient_for

TEXT = """def f(Q[b, h, i, d]: {dtype}, K[b, g, j, d]: {dtype}, V[b, g, j, e]: {dtype}):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d]
    P[b, h, i, j] = {weights}
    O[b, h, i, e] = P[b, h, i, j] * V[b, h // (|h| / |g|), j, e]
    return O
"""
SOFTMAX, WINDOW = "softmax[j](S)", "where(i - j < 128 and j - i < 128, sigmoid(S), 0)"


@pytest.mark.aot
@pytest.mark.parametrize(
    ("dtype", "weights", "sizes"),
    [
        ("bf16", SOFTMAX, {"b": 1, "h": 4, "g": 2, "i": 500, "j": 1024, "d": 80, "e": 80}),
        ("f32", SOFTMAX, {"b": 1, "h": 4, "g": 1, "i": 512, "j": 777, "d": 64, "e": 64}),
        ("f32", WINDOW, {"b": 2, "h": 2, "g": 1, "i": 128, "j": 256, "d": 128, "e": 128}),
    ],
)
def test_gradients_of_few_heads_compile(dtype: str, weights: str, sizes: dict[str, int]) -> None:
    """What their inner loop reads ahead is of its next block, which it has not; its dots have an inner length."""
    program = einc.compile(TEXT.format(dtype=dtype, weights=weights), target="sm_90", generator="auto")
    whole = gradient_for(program, Request(sizes), []).together
    assert "for step in tl.range(" in whole.source
    assert all(kernel.stages["ptx"] for kernel in compiled_ahead(whole))
