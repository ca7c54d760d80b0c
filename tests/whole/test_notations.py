"""One kernel for one piece of mathematics, whatever it is written in: kernels are compared up to the names in them."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import einc
from tests.support.compiled import agree

HEADS = ((2, 256, 4, 64),) * 3
ROWS = (512, 1024)
SQUARE = (512, 512)


def attention(*lines: str) -> str:
    signature = "def f(Q[b, i, h, d], K[b, j, h, d], V[b, j, h, d]):\n"
    return signature + "".join(f"    {line}\n" for line in lines) + "    return O\n"


def rows(*lines: str) -> str:
    return "def f(X[i, j], g[j], b[j]):\n" + "".join(f"    {line}\n" for line in lines) + "    return Y\n"


def gelu(*lines: str) -> str:
    return "def f(X[i, k], W[k, j], b[j]):\n" + "".join(f"    {line}\n" for line in lines) + "    return Y\n"


WEIGHTED = "O[b, i, h, d] = softmax[j](S) * V"
BY_HAND = (
    "M[b, h, i] = max[j](S)",
    "E = where(S == -inf, 0, exp(S - M))",
    "L[b, h, i] = sum[j](E)",
    "N[b, h, i, d] = E * V",
    "O[b, i, h, d] = where(L == 0, 0, N / L)",
)
MASKED = ("A[b, h, i, j] = where(j <= i, S, -inf)", "O[b, i, h, d] = softmax[j](A) * V")

NOTATIONS: dict[str, tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]] = {
    "attention": (
        HEADS,
        (
            attention("S[b, h, i, j] = Q * K / sqrt(|d|)", WEIGHTED),
            attention("S[b, h, i, j] = rsqrt(|d|) * Q * K", WEIGHTED),
            attention("S[b, h, i, j] = K * Q * rsqrt(|d|)", WEIGHTED),
            attention("P = Q / sqrt(|d|)", "S[b, h, i, j] = P * K", WEIGHTED),
            attention("S[b, h, i, j] = Q * (1 / sqrt(|d|) * K)", WEIGHTED),
            attention("D[b, h, i, j] = Q * K", "S = D / sqrt(|d|)", WEIGHTED),
            attention("S[b, h, i, j] = Q * K / sqrt(|d|)", *BY_HAND),
            attention("S[b, h, i, j] = Q * K / sqrt(|d|)", "W = softmax[j](S)", "O[b, i, h, d] = V * W"),
            'softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"',
            'softmax("bihd,bjhd->bhij" * rsqrt(|d|)) * "bjhd->bihd"',
        ),
    ),
    "attention in units of a number": (
        HEADS,
        (
            attention("S[b, h, i, j] = Q * K / 8", WEIGHTED),
            attention("S[b, h, i, j] = 0.125 * Q * K", WEIGHTED),
            attention("D[b, h, i, j] = Q * K", "S = D / 4 / 2", WEIGHTED),
            'softmax("bihd,bjhd->bhij" / 8.0) * "bjhd->bihd"',
        ),
    ),
    "causal attention": (
        HEADS,
        (
            attention("S[b, h, i, j] = Q * K / sqrt(|d|)", *MASKED),
            attention("P = Q * rsqrt(|d|)", "S[b, h, i, j] = P * K", *MASKED),
            attention("S[b, h, i, j] = Q * K / sqrt(|d|)", MASKED[0].replace("j <= i", "i >= j"), MASKED[1]),
            attention("S[b, h, i, j] = Q * K / sqrt(|d|)", "A = where(i < j, -inf, S)", MASKED[1]),
            attention("D[b, h, i, j] = Q * K", "S = where(j <= i, D, -inf) / sqrt(|d|)", WEIGHTED),
            'softmax(where(j <= i, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"',
        ),
    ),
    "layernorm": (
        (ROWS, ROWS[1:], ROWS[1:]),
        (
            rows("Y[i, j] = layernorm[j](X) * g + b"),
            rows("Y[i, j] = b + g * (X - mean[j](X)) / sqrt(var[j](X) + 1e-5)"),
            rows("M[i] = sum[j](X) / |j|", "D = X - M", "V[i] = sum[j](D * D) / |j|", "Y = D / sqrt(V + 1e-5) * g + b"),
            rows(
                "M[i] = sum[j](X) * (1 / |j|)",
                "V[i] = mean[j]((X - M) ** 2)",
                "R = 1 / sqrt(1e-5 + V)",
                "Y[i, j] = g * (R * (X - M)) + b",
            ),
        ),
    ),
    "rmsnorm": (
        (ROWS, ROWS[1:], ROWS[1:]),
        (
            rows("Y[i, j] = rmsnorm[j](X) * g + b"),
            rows("S[i] = mean[j](X * X)", "Y[i, j] = X / sqrt(S + 1e-6) * g + b"),
            rows("S[i] = sum[j](X ** 2) / |j|", "R = rsqrt(1e-6 + S)", "Y[i, j] = b + g * R * X"),
        ),
    ),
    "logsumexp": (
        (ROWS,),
        (
            "def f(X[i, j]):\n    L[i] = logsumexp[j](X)\n    return L\n",
            "def f(X[i, j]):\n    M[i] = max[j](X)\n    S[i] = sum[j](where(X != -inf, exp(X - M), 0))\n"
            "    L = where(M == inf, inf, where(S == 0, -inf, log(S) + M))\n    return L\n",
        ),
    ),
    "gelu of a product": (
        (SQUARE, SQUARE, SQUARE[1:]),
        (
            gelu("H[i, j] = X * W", "Y[i, j] = gelu(b + H)"),
            gelu("H[i, j] = b + W * X", "Y[i, j] = H * 0.5 * (1 + erf(H / sqrt(2)))"),
            gelu("H[i, j] = X * W + b", "Y[i, j] = 0.5 * (H * (erf(rsqrt(2) * H) + 1))"),
        ),
    ),
}


def kernels(text: str, *shapes: tuple[int, ...]) -> str:
    """The kernels that a text becomes for operands of these shapes, without the names that it gave."""
    operands = [torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in shapes]
    found = ast.parse(einc.compile(text, target="sm_90").source(*operands))
    own = [f for f in found.body if isinstance(f, ast.FunctionDef) and f.name.endswith("_kernel")]
    kept = {f.name for f in found.body if isinstance(f, ast.FunctionDef)} - {f.name for f in own} | {
        "tl",
        "triton",
        "float",
    }
    return "\n\n".join(ast.unparse(_Unnamed(kept).visit(f)) for f in own)


class _Unnamed(ast.NodeTransformer):
    """Numbers the names of a kernel in the order they come in, and rounds literals as they are where they are used.

    A factor that stands inside of a sum counts as 1 where there is nothing to sum, which a kernel computes once. One
    that stands outside does not.
    """

    def __init__(self, kept: set[str]) -> None:
        self.kept, self.names = kept, dict[str, str]()

    def named(self, name: str) -> str:
        return name if name in self.kept else self.names.setdefault(name, f"v{len(self.names)}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name, node.decorator_list = "kernel", []
        self.generic_visit(node)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self.named(node.arg)
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.named(node.id)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, float):
            node.value = float(np.float32(node.value))
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        match node:
            case ast.Call(
                func=ast.Attribute(attr="where"),
                args=[ast.Compare(left=ast.Name(), ops=[ast.Eq()], comparators=[ast.Constant(value=0)]), one, factor],
            ) if ast.unparse(one) == "tl.full((), 1.0, tl.float32)":
                return self.visit(factor)
        self.generic_visit(node)
        return node


@pytest.mark.parametrize("name", NOTATIONS)
def test_notations_of_the_same_make_the_same_kernels(name: str) -> None:
    shapes, texts = NOTATIONS[name]
    first = kernels(texts[0], *shapes)
    assert first
    for text in texts[1:]:
        assert kernels(text, *shapes) == first, text


def test_other_mathematics_makes_other_kernels() -> None:
    shapes, (text, *_) = NOTATIONS["attention"]
    assert kernels(text, *shapes) != kernels(text.replace("sqrt(|d|)", "|d|"), *shapes)


# ---------------------------------------------------------------------------------------------------------------------
# Random rewritings


class Rewriting:
    """Attention, or a norm, written in a way that a seed decides."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.taken: set[str] = set()

    def name(self) -> str:
        while (name := f"{self.random.choice('ABCEFGHNPRTUWZ')}_{self.random.randrange(99)}") in self.taken:
            pass
        self.taken.add(name)
        return name

    def product(self, *factors: str) -> str:
        """The factors in any order."""
        return " * ".join(self.random.sample(factors, len(factors)))

    def scaled(self, x: str) -> str:
        """x divided by the root of |d|."""
        inverse = self.random.choice(("rsqrt(|d|)", "(1 / sqrt(|d|))", "/"))
        return f"{x} / sqrt(|d|)" if inverse == "/" else self.product(x, inverse)

    def attention(self) -> str:
        return attention(*self.scores())

    def scores(self) -> Iterator[str]:
        place, left, right = self.random.choice(("left", "right", "product", "after")), "Q", "K"
        if place == "left":
            left = self.name()
            yield f"{left} = {self.scaled('Q')}"
        if place == "right":
            right = self.name()
            yield f"{right} = {self.scaled('K')}"
        dots = self.name()
        inside = self.product(left, right)
        yield f"{dots}[b, h, i, j] = {self.scaled(inside) if place == 'product' else inside}"
        scores = dots
        if place == "after":
            scores = self.name()
            yield f"{scores} = {self.scaled(dots)}"
        if self.random.random() < 0.5:
            yield f"O[b, i, h, d] = {self.product(f'softmax[j]({scores})', 'V')}"
            return
        top, weights, total, whole = (self.name() for _ in range(4))
        yield f"{top}[b, h, i] = max[j]({scores})"
        excluded = self.random.random() < 0.5
        power = f"exp({scores} - {top})"
        choice = f"{scores} == -inf, 0, {power}" if excluded else f"{scores} != -inf, {power}, 0"
        yield f"{weights} = where({choice})"
        yield f"{total}[b, h, i] = sum[j]({weights})"
        yield f"{whole}[b, h, i, d] = {self.product(weights, 'V')}"
        yield f"O[b, i, h, d] = where({total} == 0, 0, {whole} / {total})"

    def norm(self) -> str:
        mean, apart, square, root = (self.name() for _ in range(4))
        lines = [f"{mean}[i] = {self.random.choice(('mean[j](X)', 'sum[j](X) / |j|', '(1 / |j|) * sum[j](X)'))}"]
        centred = f"(X - {mean})"
        if self.random.random() < 0.5:
            lines.append(f"{apart} = X - {mean}")
            centred = apart
        squared = self.random.choice((f"{centred} * {centred}", f"{centred} ** 2"))
        lines.append(f"{square}[i] = {self.random.choice((f'mean[j]({squared})', f'sum[j]({squared}) / |j|'))}")
        under = self.random.choice((f"{square} + 1e-5", f"1e-5 + {square}"))
        factor = self.random.choice((f"rsqrt({under})", f"(1 / sqrt({under}))"))
        if self.random.random() < 0.5:
            lines.append(f"{root} = {factor}")
            factor = root
        whole = self.product(centred, factor, "g")
        lines.append(f"Y[i, j] = {self.random.choice((f'{whole} + b', f'b + {whole}'))}")
        return rows(*lines)


@pytest.mark.parametrize("seed", range(12))
def test_random_rewritings_make_the_same_kernels(seed: int) -> None:
    for name, text in (("attention", Rewriting(seed).attention()), ("layernorm", Rewriting(seed).norm())):
        shapes, (usual, *_) = NOTATIONS[name]
        assert kernels(text, *shapes) == kernels(usual, *shapes), text


# ---------------------------------------------------------------------------------------------------------------------
# Accuracy


@pytest.mark.parametrize("name", NOTATIONS)
def test_no_notation_loses_digits(name: str) -> None:
    shapes, texts = NOTATIONS[name]
    made = np.random.default_rng(0)
    small = [tuple(min(n, 64) for n in shape) for shape in shapes]
    operands = [torch.from_numpy(made.standard_normal(shape)).float() for shape in small]
    exact = [x.double() for x in operands]
    for text in texts:
        wanted = einc.compile(text)(*exact, backend="evaluate")
        agree(einc.compile(text)(*operands, backend="torch"), wanted, 2.0**-23, float(np.abs(wanted).max()))
