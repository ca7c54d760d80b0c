"""The adjoint of every form of a read: its gradient is that of torch, in double precision, by evaluator and kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from einc.ein.printer import print_program
from einc.passes.adjoint.differentiate import differentiate
from tests.gradients.compare import Call, assert_equal, call


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def integers(*shape: int, most: int, least: int = 0) -> Tensor:
    return torch.randint(least, most, shape, generator=torch.Generator().manual_seed(len(shape)))


A, B, X, T = normal(5, 4), normal(4, 3), normal(13), normal(7, 4)
READS: dict[str, tuple[str, dict[str, Tensor]]] = {
    "renamed": ("def f(A[i, j]):\n    T[p, q] = A[p, q] * p\n    return T", {"A": A}),
    "transposed": ("def f(A[i, j], x[i]):\n    T[j, i] = A[i, j] * x[i]\n    return T", {"A": A, "x": normal(5)}),
    "summed": ("def f(A[i, j]):\n    T[i] = sum[j](A[i, j] * j)\n    return T", {"A": A}),
    "whole": ("def f(A[i, j]):\n    T[] = sum[i, j](A[i, j] * i)\n    return T", {"A": A}),
    "broadcast": ("def f(x[i], A[i, j]):\n    T[i, j] = x[i] + 0 * A[i, j]\n    return T", {"x": normal(5), "A": A}),
    "twice": ("def f(x[i]):\n    T[i] = x[i] * x[|i| - 1 - i]\n    return T", {"x": X}),
    "twice in a product": ("def f(x[i, d]):\n    T[i, j] = sum[d](x[i, d] * x[j, d])\n    return T", {"x": A}),
    "diagonal": ("def f(A[i, i]):\n    T[i] = A[i, i] * i\n    return T", {"A": normal(4, 4)}),
    "trace": ("def f(A[i, i]):\n    T[] = sum[i](A[i, i])\n    return T", {"A": normal(4, 4)}),
    "shifted": ("def f(x[n], w[r]):\n    T[i] = sum[r](x[i + r] * w[r])\n    return T", {"x": X, "w": normal(3)}),
    "strided": ("def f(x[n], w[r]):\n    T[i] = sum[r](x[2 * i + r] * w[r])\n    return T", {"x": X, "w": normal(3)}),
    "dilated": (
        "def f(x[n], w[r]):\n    T[i] = sum[r](x[3 * i + 2 * r] * w[r])\n    return T", {"x": X, "w": normal(3)},
    ),
    "reversed": ("def f(x[i], y[i]):\n    T[i] = x[|i| - 1 - i] * y[i]\n    return T", {"x": X, "y": normal(13)}),
    "two dimensions": (
        "def f(x[n, m], w[r, s]):\n    T[i, j] = sum[r, s](x[2 * i + r, j + s] * w[r, s])\n    return T",
        {"x": normal(9, 6), "w": normal(3, 2)},
    ),
    "divided": ("def f(x[g], y[h]):\n    T[h] = x[h // 3] * y[h]\n    return T", {"x": normal(4), "y": normal(12)}),
    "grouped": (
        "def f(x[g, d], y[h, d]):\n    T[h] = sum[d](x[h // (|h| / |g|), d] * y[h, d])\n    return T",
        {"x": normal(2, 4), "y": normal(6, 4)},
    ),
    "of groups alone": (
        "def f(a[], x[h], y[g]):\n    A[h] = x[h] > y[h // (|h| / |g|)]\n    T[] = sum[h](a[] * a[])\n    return T, A",
        {"a": X[0], "x": normal(6), "y": normal(2)},
    ),
    "where another axis is": (
        "def f(x[k]):\n    axis i = 2\n    axis j = 5\n    T[j, i] = where(i == j, x[j], x[0] * j)\n    return T",
        {"x": normal(4)},
    ),
    "in a dimension of one": (
        "def f(x[i, 1], y[i, j]):\n    T[i, j] = where(j < 3, x[i, j], 0) * y[i, j] + x[i, i * j]\n    return T",
        {"x": normal(1, 1), "y": normal(1, 4)},
    ),
    "of one position or outside": (
        "def f(x[i, 1], y[i]):\n    T[i, j] = where(j < 3, x[i, j], 1) * where(i < 2, x[i, i], y[j])\n    return T",
        {"x": normal(5, 1), "y": normal(5)},
    ),
    "grouped by an axis of its own extent": (
        "def f(x[h], y[n]):\n    axis g = |h| - 1\n    G[g] = y[g] * y[g]\n    T[h] = x[h] * G[h // (|h| / |g|)]\n"
        "    return T",
        {"x": normal(2), "y": normal(3)},
    ),
    "divided and cut": (
        "def f(x[g], y[h]):\n    T[h] = x[h // 3] * y[h]\n    return T", {"x": normal(4), "y": normal(11)},
    ),
    "remainder": ("def f(x[g], y[h]):\n    T[h] = x[h % 4] * y[h]\n    return T", {"x": normal(4), "y": normal(11)}),
    "remainder of a part": (
        "def f(x[g], y[h]):\n    T[h] = x[h % 3] * y[h]\n    return T", {"x": normal(5), "y": normal(11)},
    ),
    "quotient and remainder": (
        "def f(A[p, q], y[h]):\n    T[h] = A[h // |q|, h % |q|] * y[h]\n    return T", {"A": A, "y": normal(20)},
    ),
    "quotient and remainder of two axes": (
        "def f(A[p, q], y[h, k]):\n    T[h, k] = A[(h + k) // 4, (h + k) % 4] * y[h, k]\n    return T",
        {"A": A, "y": normal(13, 8)},
    ),
    "composite": (
        "def f(A[b, (h d)], w[h]):\n    T[b, h, d] = A[b, (h d)] * w[h]\n    return T",
        {"A": normal(3, 8), "w": normal(2)},
    ),
    "composite result": (
        "def f(A[b, h, d]):\n    T[b, (h d)] = A[b, h, d] * d\n    return T", {"A": normal(3, 2, 4)},
    ),
    "composite, apart": (
        "def f(A[b, (h d)], w[h]):\n    T[b, h] = sum[d](A[b, (h d)] * A[b, h] * w[h])\n    return T",
        {"A": normal(3, 8), "w": normal(2)},
    ),
    "gathered": (
        "def f(table[v, d], token[n]):\n    T[n, d] = table[token[n], d] * n\n    return T",
        {"table": T, "token": integers(9, most=7)},
    ),
    "gathered out of range": (
        "def f(table[v, d], token[n]):\n    T[n, d] = table[token[n], d] * n\n    return T",
        {"table": T, "token": integers(9, most=12, least=-4)},
    ),
    "gathered twice": (
        "def f(x[n], at[n], to[m]):\n    T[m] = x[at[to[m]]] * m\n    return T",
        {"x": X, "at": integers(13, most=13), "to": integers(6, most=13)},
    ),
    "gathered by position and data": (
        "def f(bias[h, r], shift[i], y[h, i]):\n    T[h, i] = bias[h, i - shift[i] + 4] * y[h, i]\n    return T",
        {"bias": normal(2, 12), "shift": integers(6, most=4), "y": normal(2, 6)},
    ),
    "guarded": ("def f(x[i]):\n    T[i] = x[i] - where(i >= 1, x[i - 1], 0)\n    return T", {"x": X}),
    "guarded on both sides": (
        "def f(x[i]):\n    T[i] = where(i >= 2 and i + 1 < |i|, x[i - 2] * x[i + 1], x[i])\n    return T", {"x": X},
    ),
    "guarded by data": (
        "def f(x[i], p[i]):\n    T[i] = where(p[i] and i < 9, x[i + 4] * 3, 2 * x[i])\n    return T",
        {"x": X, "p": X.abs() < 0.7},
    ),
    "masked out of range": (
        "def f(x[j], y[i]):\n    T[i] = sum[j : j <= i](x[i - j] * y[j])\n    return T", {"x": X, "y": normal(13)},
    ),
    "part of a longer tensor": (
        "def f(x[n], y[i]):\n    T[i] = x[i] * y[i]\n    return T", {"x": X, "y": normal(5)},
    ),
    "part of a longer tensor, shifted": (
        "def f(x[n], y[i]):\n    T[i] = x[i + |n| - |i|] * y[i]\n    return T", {"x": X, "y": normal(5)},
    ),
    "at constants": ("def f(A[i, j]):\n    T[i] = A[i, 2] * A[0, 1]\n    return T", {"A": A}),
    "one number at a constant": ("def f(x[i]):\n    T[] = x[3] * x[0]\n    return T", {"x": X}),
    "by a scalar": ("def f(x[i], k: int = 2):\n    T[i] = x[i] * x[k]\n    return T", {"x": X}),
    "of an intermediate": (
        "def f(A[i, k], B[k, j]):\n    C[i, j] = A[i, k] * B[k, j]\n    T[j, i] = C[i, j] * C[i, |j| - 1 - j]\n"
        "    return T",
        {"A": A, "B": B},
    ),
    "shifted intermediate": (
        "def f(x[n]):\n    C[n] = tanh(x[n])\n    T[n] = where(n >= 2, C[n - 2], C[0]) * C[n]\n    return T", {"x": X},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    text, operands = READS[name]
    c = Call(text, operands)
    exact = c.in_torch()
    assert any(g.abs().max() > 0 for g in exact.values())
    assert_equal(c.evaluated(), exact)
    assert_equal(c.halved(), exact)


@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("name", READS)
def test_reads_in_kernels(name: str, backend: str) -> None:
    """At each level in turn."""
    text, operands = READS[name]
    c = Call(text, operands)
    assert_equal(c.compiled((list(READS).index(name) + len(backend)) % 3, backend), c.in_torch())


@pytest.mark.parametrize(
    ("name", "operand", "wanted"),
    [
        ("transposed", "A", "dA[i, j] = dT[j, i] * x[i]"),
        ("strided", "x", "dx[n] = sum[r : (n - r) % 2 == 0 and (n - r) // 2 >= 0 and (n - r) // 2 < |i|]"),
        ("divided", "x", "dx[g] = sum[h_2 : g * 3 + h_2 < |h|](dT[g * 3 + h_2] * y[g * 3 + h_2])"),
        ("composite", "A", "dA[b, (h d)] = dT[b, h, d] * w[h]"),
        ("gathered", "table", "dtable[v, d] = sum[n : v == token[n]](dT[n, d] * n)"),
        ("part of a longer tensor", "x", "dx[n] = where(n < |i|, dT[n] * y[n], 0)"),
        ("at constants", "A", "where(i == 0 and j == 1"),
    ],
)
def test_the_read_is_solved_for_axes(name: str, operand: str, wanted: str) -> None:
    """What a read determines leaves the sum, and the rest is its condition."""
    text, operands = READS[name]
    c = Call(text, operands)
    found = print_program(differentiate(c.program, [operand]).program)
    assert wanted in found


def test_what_is_not_asked_for_is_not_computed() -> None:
    """Only the gradients asked for, and nothing of the forward program that they do not read."""
    text = "def f(A[i, k], B[k, j]):\n    C[i, j] = A[i, k] * B[k, j]\n    T[i, j] = tanh(C)\n    return T"
    c = call(text, A=A, B=B)
    lines = print_program(differentiate(c.program, ["B"]).program).splitlines()
    assert lines[-1] == "    return dB"
    assert not [line for line in lines if line.startswith("    dA")]
    linear = call("def f(A[i, k], B[k, j]):\n    C[i, j] = A[i, k] * B[k, j]\n    return C", A=A, B=B)
    found = print_program(differentiate(linear.program, ["A"]).program).splitlines()
    assert found[1:-1] == ["    dA[i, k] = sum[j](dC[i, j] * B[k, j])"]
