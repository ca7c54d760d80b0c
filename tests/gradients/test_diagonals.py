"""Gradients of tables that are read at a combination of axes: sums along diagonals, by blocks, equal to torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from einc import ein
from einc.base.targets import TARGETS
from einc.codegen import TRITON
from einc.driver import compile_program
from einc.ein import Program
from einc.ein.printer import print_program
from einc.ein.ranges import extent_of
from einc.evaluate import evaluate
from einc.explain.sizes import extents
from einc.passes.adjoint.differentiate import differentiate
from einc.passes.diagonals.sum_diagonals import sum_diagonals
from einc.pipeline import Context
from tests.gradients.compare import Call, assert_equal, call

SIZES = [(200, 200), (257, 257), (130, 300), (300, 130), (64, 64), (1, 140), (140, 1)]
LONG = {"b": 4, "h": 16, "i": 4096, "j": 4096, "d": 128, "e": 128}
ATTENTION = """def f(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], T[h, r]):
    S[b, h, i, j] = Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = {}
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
    return O"""
SCORES = {
    "falling": "S + T[h, i - j + |j| - 1]",
    "from the other end": "S + T[h, j - i + |i| - 1]",
    "rising": "S + T[h, i + j]",
    "rising, from the other end": "S + T[h, |i| + |j| - 2 - i - j]",
    "causal": "where(j <= i, S + T[h, i - j], -inf)",
    "within a window": "where(abs(i - j) < 70, S + T[h, i - j + 70], -inf)",
    "ahead, within a window": "where(j >= i and j - i < 50, S + T[h, j - i], -inf)",
    "far behind": "where(i - j > 40 and i - j <= 60, S + T[h, i - j], -inf)",
    "farther behind": "where(i - j > 200, S + T[h, i - j], -inf)",
    "farther ahead": "where(j - i > 200, S + T[h, j - i], -inf)",
    "blocks, from the other end": "where(i // 64 == j // 64, S + T[h, j - i + |i| - 1], -inf)",
    "documents": "where(i // 90 == j // 90, S + T[h, i - j + |j|], -inf)",
    "buckets": "S + T[h, min(max(i - j, j - i) // 3, 31)]",
    "buckets, causal": "where(j <= i, S + T[h, min((i - j) // 32, 31)], -inf)",
    "buckets on both sides": "S + T[h, where(j <= i, min(i - j, 15), 16 + min((j - i) // 4, 15))]",
    "buckets, rising": "S + T[h, (i + j) // 7]",
    "of twice the distance": "S + T[h, min(max(2 * i - 2 * j, j - i) // 5, 40)]",
}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def attention(scores: str, i: int, j: int, dtype: torch.dtype = torch.float64) -> Call:
    operands = {"Q": normal(3, 2, i, 4), "K": normal(3, 2, j, 4), "V": normal(3, 2, j, 3), "T": normal(2, 600)}
    return Call(ATTENTION.format(SCORES[scores]), {n: t.to(dtype) for n, t in operands.items()})


def sums(program: Program) -> list[ein.Equation]:
    return [e for e in program.equations if e.name.endswith("_blocks")]


@pytest.mark.parametrize(
    ("name", "i", "j"),
    [
        pytest.param(name, i, j, id=f"{name}-{i}-{j}", marks=[pytest.mark.slow] * (m != n % len(sizes)))
        for n, name in enumerate(SCORES)
        for sizes in (SIZES[:1] if name == "within a window" else SIZES,)
        for m, (i, j) in enumerate(sizes)
    ],
)
def test_tables(name: str, i: int, j: int) -> None:
    """At sizes that blocks divide and do not, larger and smaller than one, in turns; the slow tier has all of them."""
    c = attention(name, i, j)
    assert_equal(c.compiled(), c.in_torch(), least=1.0)  # a softmax of one key has none, but for rounding


@pytest.mark.parametrize(("i", "j"), SIZES)
def test_sizes(i: int, j: int) -> None:
    c = attention("falling", i, j)
    assert_equal(c.compiled(), c.in_torch(), least=1.0)


@pytest.mark.parametrize("name", ["falling", "rising", "buckets"])
@pytest.mark.parametrize("level", [0, 1])
def test_lower_levels(name: str, level: int) -> None:
    c = attention(name, 70, 90)
    assert_equal(c.compiled(level), c.in_torch())


def test_in_the_interpreter() -> None:
    c = attention("causal", 150, 150)
    assert_equal(c.compiled(2, "interpret"), c.in_torch())


@pytest.mark.parametrize("name", SCORES)
def test_blocks_keep_the_meaning(name: str) -> None:
    """With the blocks of a GPU, by the evaluator."""
    c = attention(name, 150, 150, torch.float32)
    before = differentiate(c.program, ["T"]).program
    after = sum_diagonals(before, Context(TRITON, 2, TARGETS["sm_90"], LONG))
    assert len(sums(after)) == 1
    given = {n: t.numpy() for n, t in (dict(c.operands) | {f"d{n}": t for n, t in c.cotangents.items()}).items()}
    for x, y in zip(evaluate(before, given, {}), evaluate(after, given, {}), strict=True):
        torch.testing.assert_close(torch.as_tensor(y), torch.as_tensor(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("scores", "diagonals"),
    [
        ("falling", "2 * |i_block| + (|j| + 63) // 64"),
        ("causal", "2 * |i_block| + 1"),
        ("within a window", "6"),
        ("documents", "6"),
        ("ahead, within a window", "3"),
        ("far behind", "3"),
        ("farther behind", "2 * |i_block|"),
        ("farther ahead", "(|j| + 63) // 64 + 1"),
        ("blocks, from the other end", "4"),
    ],
)
def test_only_the_diagonals_that_a_mask_leaves_are_there(scores: str, diagonals: str) -> None:
    """Of blocks of 128 positions and 64; in a window of 70 to both sides, 139 of them are in six."""
    c = attention(scores, 150, 150, torch.float32)
    after = sum_diagonals(differentiate(c.program, ["T"]).program, Context(TRITON, 2, TARGETS["sm_90"], LONG))
    assert f"    axis ij_block = {diagonals}\n" in print_program(after)


def test_each_value_of_a_combination_is_one_term() -> None:
    """And not each pair of positions."""
    found = print_program(differentiate(attention("buckets, causal", 5, 5).program, ["T"]).program)
    assert "axis ij = where(min(|i|, |j|) > 0, |i| + |j| - 1, 0)" in found
    assert "dT[h, r] = sum[ij : r == min((ij - |j| + 1) // 32, 31)](dT_hij[h, ij])" in found


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        ("i - j + 9", "dT[h, r] = sum"),
        ("i * j", "sum[i, j : r == i * j]"),
        ("max(i, j)", "sum[i, j : r == max(i, j)]"),
        ("min(i + 2 * j, 9)", "dT_hij"),
        ("min(i + h, 9)", "dT_ih"),
    ],
)
def test_what_is_a_combination(index: str, wanted: str) -> None:
    """Where the index is one itself it is solved, and where axes come in otherwise they are compared."""
    text = f"def f(T[h, r], X[h, i, j]):\n    Y[h, i, j] = T[h, {index}] * X[h, i, j]\n    return Y"
    text = text.replace("T[h, min(i + h", "T[0, min(i + h")
    c = call(text, T=normal(2, 40), X=normal(2, 5, 6))
    found = print_program(differentiate(c.program, ["T"]).program)
    assert wanted in found
    assert_equal(c.compiled(), c.in_torch())


@pytest.mark.parametrize("name", ["causal", "buckets, causal"])
@pytest.mark.parametrize("n", [4096, 16384])
def test_scores_are_not_stored(name: str, n: int) -> None:
    """Nothing between the kernels is larger than the operands by more than a block is long."""
    sizes = LONG | {"i": n, "j": n, "r": n if name == "causal" else 32}
    program = differentiate(attention(name, 4, 4, torch.bfloat16).program, ["Q", "K", "V", "T"]).program
    c = compile_program(program, 2, TARGETS["sm_90"], sizes)
    assert c.state.schedule is not None
    known = extents(c.state.program, sizes, {})
    held = {b.name: math.prod(extent_of(d, known) for d in b.dims) for b in c.state.schedule.intermediates}
    assert any(name.endswith("_blocks") for name in held)
    assert max(held.values()) <= 16 * 2 * n * 128 + 16 * 128 * 128


def test_what_is_in_memory_is_summed_as_it_is() -> None:
    """An operand, or a result, has its diagonals added up where it lies."""
    text = "def f(X[i, j]):\n    axis r = |i|\n    T[r] = sum[j : r + j < |i|](X[r + j, j])\n    return T"
    program = call(text, X=normal(9, 5)).program
    assert sum_diagonals(program, Context(TRITON, 2, TARGETS["sm_90"], LONG)) == program


@pytest.mark.parametrize(("i", "j"), [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_no_pairs(i: int, j: int) -> None:
    """What is read at each value of a combination is in range as it is for all pairs, of which there may be none."""
    text = """def f(table[n, h], bucket[r]: i64, X[h, i, j]):
    Y[h, i, j] = table[bucket[j - i + |i| - 1], h] * X[h, i, j]
    return Y"""
    bucket = torch.arange(max(i + j - 1, 0)) % 3
    c = call(text, table=normal(3, 2), bucket=bucket, X=normal(2, i, j))
    assert_equal(c.compiled(), c.in_torch())


def test_autocorrelation() -> None:
    """No gradient: any sum along diagonals of a product."""
    text = """def f(Q[i, d], K[j, d]):
    axis r = |i|
    S[i, j] = Q[i, d] * K[j, d]
    T[r] = sum[j : r + j < |i|](S[r + j, j])
    return T"""
    c = call(text, Q=normal(300, 4).float(), K=normal(270, 4).float())
    after = sum_diagonals(c.program, Context(TRITON, 2, TARGETS["sm_90"], LONG))
    assert [e.name for e in sums(after)] == ["T_blocks"]
    assert_equal(c.compiled(), c.in_torch(), 1e-5)
