"""Programs that read at places which data decides, with operands."""

from __future__ import annotations

import torch
from torch import Tensor

EMBEDDING = "def f(table[v, d], token[b, n]):\n    T[b, n, d] = table[token[b, n], d]\n    return T"
SQUARED = "def f(table[v, d], token[n]):\n    T[n] = sum[d](table[token[n], d] ** 2 * d)\n    return T"


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def integers(*shape: int, most: int, least: int = 0) -> Tensor:
    return torch.randint(least, most, shape, generator=torch.Generator().manual_seed(len(shape)))


TABLE, TOKENS = normal(90, 5), integers(150, most=90)
READS: dict[str, tuple[str, dict[str, Tensor]]] = {
    "two dimensions": (EMBEDDING, {"table": TABLE, "token": integers(3, 41, most=90)}),
    "one dimension": (
        "def f(table[v, d], token[n]):\n    T[n, d] = table[token[n], d] * n\n    return T",
        {"table": TABLE, "token": TOKENS},
    ),
    "short integers": (EMBEDDING, {"table": TABLE, "token": integers(3, 41, most=90).to(torch.uint8)}),
    "few of many": (EMBEDDING, {"table": normal(3000, 2), "token": integers(2, 40, most=3000)}),
    "all the same": (EMBEDDING, {"table": TABLE, "token": torch.full((2, 50), 7)}),
    "out of range": (EMBEDDING, {"table": TABLE, "token": integers(3, 41, most=130, least=-40)}),
    "next": (
        "def f(table[v, d], token[n]):\n    T[n, d] = table[token[n] + 1, d] * n\n    return T",
        {"table": TABLE, "token": TOKENS},
    ),
    "every second": (
        "def f(table[v, d], token[n]):\n    T[n, d] = table[token[n] * 2, d] * n\n    return T",
        {"table": TABLE, "token": TOKENS},
    ),
    "by position and data": (
        "def f(bias[h, r], shift[i], y[h, i]):\n    T[h, i] = bias[h, i - shift[i] + 4] * y[h, i]\n    return T",
        {"bias": normal(2, 120), "shift": integers(110, most=14), "y": normal(2, 110)},
    ),
    "guarded by position": (
        "def f(table[v, d], token[n]):\n    T[n, d] = where(n >= 2, table[token[n - 2], d], 1)\n    return T",
        {"table": TABLE, "token": TOKENS},
    ),
    "guarded by data": (
        "def f(table[v, d], token[n], p[n]):\n    T[n, d] = where(p[n] > 0, table[token[n], d], 1)\n    return T",
        {"table": TABLE, "token": TOKENS, "p": normal(150)},
    ),
    "masked by another axis": (
        "def f(table[v, d], token[n], y[i, n]):\n"
        "    T[i, d] = sum[n : n <= i](table[token[n], d] * y[i, n])\n    return T",
        {"table": TABLE, "token": TOKENS, "y": normal(150, 150)},
    ),
    "of each head": (
        "def f(table[h, v], token[h, n], y[n]):\n    T[h, n] = table[h, token[h, n]] * y[n]\n    return T",
        {"table": normal(3, 90), "token": integers(3, 80, most=90), "y": normal(80)},
    ),
    "of each head, the last axis first": (
        "def f(table[v, h], token[n, h], y[n]):\n    T[h, n] = table[token[n, h], h] * y[n]\n    return T",
        {"table": normal(90, 3), "token": integers(80, 3, most=90), "y": normal(80)},
    ),
    "two indices": (
        "def f(table[v, w], p[n], q[n], y[n]):\n    T[n] = table[p[n], q[n]] * y[n]\n    return T",
        {"table": normal(9, 11), "p": integers(150, most=9), "q": integers(150, most=14, least=-3), "y": normal(150)},
    ),
    "pages": (
        "def f(K[p, s, d], page[b, m], y[b, j]):\n"
        "    T[b, d] = sum[j](K[page[b, j // |s|], j % |s|, d] * y[b, j])\n    return T",
        {"K": normal(70, 3, 2), "page": integers(4, 30, most=70), "y": normal(4, 58)},
    ),
    "of an intermediate": (
        "def f(A[v, r], B[r, d], token[n]):\n    W[v, d] = A[v, r] * B[r, d]\n    T[n, d] = tanh(W[token[n], d])\n"
        "    return T",
        {"A": normal(90, 3), "B": normal(3, 4), "token": TOKENS},
    ),
    "at the greatest": (
        "def f(table[v, d], x[n, v]):\n    M[n] = argmax[v](x[n, v])\n    T[n, d] = table[M[n], d]\n    return T",
        {"table": TABLE, "x": normal(70, 90)},
    ),
    "twice": (
        "def f(table[v, d], p[n], q[n]):\n    T[n, d] = table[p[n], d] * table[q[n], d]\n    return T",
        {"table": TABLE, "p": TOKENS, "q": integers(150, most=90, least=30)},
    ),
    "two tables by one index": (
        "def f(A[v, d], B[v, d], token[n]):\n    T[n, d] = A[token[n], d] * B[token[n], d]\n    return T",
        {"A": TABLE, "B": normal(90, 5), "token": TOKENS},
    ),
    "columns": (
        "def f(table[d, v], token[b, n]):\n    T[n, d, b] = table[d, token[b, n]] * 3\n    return T",
        {"table": normal(5, 90), "token": integers(3, 41, most=120, least=-30)},
    ),
    "columns, in another order": (
        "def f(table[d, v], token[b, n]):\n    T[n, d, b] = table[d, token[b, n]]\n    return T",
        {"table": normal(5, 90), "token": integers(3, 41, most=120, least=-30)},
    ),
    "numbers": (
        "def f(table[v], token[n]):\n    T[n] = table[token[n]]\n    return T",
        {"table": normal(90), "token": TOKENS},
    ),
    "squared": (SQUARED, {"table": TABLE, "token": TOKENS}),
}  # fmt: skip
