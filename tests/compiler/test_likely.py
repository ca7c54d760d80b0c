"""Extents that kernels are planned for where operands are not there to tell them."""

from __future__ import annotations

import pytest

from einc.driver import elaborate, parse
from einc.explain.sizes import likely

CAUSAL = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e]):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    T[b, h, i, j] = where(j <= i, S, -inf)
    O[b, h, i, e] = softmax[j](T) * V[b, h, j, e]
    return O
"""
HIDDEN = """
def f(X[n, d], U[d, f], W[f, o]):
    H[n, f] = X[n, d] * U[d, f]
    Y[n, o] = relu(H[n, f]) * W[f, o]
    return Y
"""
ROWS = """
def f(X[n, d], W[d, o]):
    R[n] = sum[d](X[n, d] * X[n, d])
    Y[n, o] = rsqrt(R[n]) * X[n, d] * W[d, o]
    return Y
"""


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("ij,jk->ik", {}, {"i": 4096, "j": 4096, "k": 4096}),
        ("bij,bjk->bik", {"k": 1}, {"b": 16, "i": 4096, "j": 4096, "k": 1}),
        (CAUSAL, {}, {"b": 16, "h": 16, "i": 4096, "j": 4096, "d": 64, "e": 64}),
        (CAUSAL, {"d": 128, "h": 32}, {"b": 16, "h": 32, "i": 4096, "j": 4096, "d": 128, "e": 128}),
        (CAUSAL, {"d": 128, "e": 64, "i": 1}, {"b": 16, "h": 16, "i": 1, "j": 4096, "d": 128, "e": 64}),
        (HIDDEN, {"d": 768}, {"n": 4096, "f": 4096, "d": 768, "o": 768}),
        (ROWS, {}, {"n": 4096, "d": 4096, "o": 4096}),
    ],
    ids=["product", "vector", "attention", "width", "row", "hidden", "rows"],
)  # fmt: skip
def test_what_is_contracted_and_reduced_again_is_long(
    text: str, given: dict[str, int], expected: dict[str, int]
) -> None:
    assert likely(elaborate(parse(text)), given) == expected
