"""What every reduction lets through, and programs of several results, of nothing, and of other types than floats."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import einc
from einc import ein
from einc.ein.monoids import MONOIDS
from einc.ein.printer import print_program
from einc.passes.adjoint.differentiate import differentiate
from tests.gradients.compare import Call, assert_equal, call

inf = torch.inf


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def everywhere(c: Call) -> None:
    """By the evaluator, in halves, and by kernels at every level."""
    exact = c.in_torch()
    assert_equal(c.evaluated(), exact)
    assert_equal(c.halved(), exact)
    for level in (0, 1, 2):
        assert_equal(c.compiled(level, "torch"), exact)


def reducing(monoid: str, x: Tensor) -> Call:
    return call(f"def f(x[i, j]):\n    T[i] = {monoid}[j](x[i, j])\n    return T", x=x)


ROWS = torch.tensor(
    [[2.0, 3, 0.5, -1], [0, 3, 0.5, -1], [0, 3, 0, -1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.float64
)


@pytest.mark.parametrize("monoid", [m for m in MONOIDS if m not in ("any", "all")])
def test_reductions(monoid: str) -> None:
    """Products with no, one and several zeros; ties go to the first, of max and min; positions have none."""
    everywhere(reducing(monoid, ROWS))


@pytest.mark.parametrize(
    "text",
    [
        "A[i, j] = max(x[i, j], 0); T[i, j] = softmax[j](A)",
        "M[i] = max[j](x[i, j]); T[i] = softmax[i](M)",
        "M[i] = max[j](x[i, j]); T[i] = M[i] - M[(i + 1) % |i|]",
        "M[i] = max[j](x[i, j]); T[j] = sum[i](exp(x[i, j] - M[i])) / sum[i](exp(x[i, 0] - M[i]))",
    ],
)
def test_what_moves_at_each_position_by_itself_is_no_shift(text: str) -> None:
    """A softmax along an axis of what moves, and differences between positions, change with it."""
    body = "".join(f"    {line}\n" for line in text.split("; "))
    everywhere(call(f"def f(x[i, j]):\n{body}    return T", x=normal(4, 5)))


@pytest.mark.parametrize("function", ["softmax[j](x)", "softmax1[j](x)", "softmax_sink[j](x, s[i])", "logsumexp[j](x)"])
def test_references_have_no_derivative(function: str) -> None:
    """The greatest score, or the greater of it and a sink, only shifts: nothing looks for where it is."""
    dims = "" if function.startswith("logsumexp") else ", j"
    found = call(
        f"def f(x[i, j], s[i]):\n    T[i{dims}] = {function} * s[i]\n    return T", x=normal(4, 5), s=normal(4)
    )
    everywhere(found)
    assert "argmax" not in print_program(differentiate(found.program, ["x", "s"]).program)


def test_every_reduction_is_known() -> None:
    """A further one has to say what it lets through."""
    assert set(MONOIDS) == {"sum", "prod", "max", "min", "any", "all", "argmax", "argmin"}


def test_ties_of_max_go_to_the_first() -> None:
    c = reducing("max", torch.tensor([[1.0, 3, 3, 2], [4, 4, 4, 4]], dtype=torch.float64))
    c.cotangents = {"T": torch.tensor([1.0, 10.0], dtype=torch.float64)}
    wanted = torch.tensor([[0.0, 1, 0, 0], [10, 0, 0, 0]], dtype=torch.float64)
    assert torch.equal(c.evaluated()["x"], wanted)
    for backend in ("torch", "interpret"):
        assert torch.equal(c.compiled(2, backend)["x"], wanted)


def test_products_of_complex_numbers_and_of_masked_factors() -> None:
    everywhere(call("def f(x[i, j]):\n    T[i] = prod[j : j != i](x[i, j] * 2 + 1)\n    return T", x=ROWS))


@pytest.mark.parametrize("over", ["j", "j, k"])
@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "min"])
def test_over_several_axes_under_a_condition(monoid: str, over: str) -> None:
    left = "i" if over == "j, k" else "i, k"
    text = f"def f(x[i, j, k]):\n    T[{left}] = {monoid}[{over} : j <= i + 1](tanh(x[i, j, k]) + 1)\n    return T"
    everywhere(call(text, x=normal(3, 5, 2)))


@pytest.mark.parametrize(
    "term", ["sigmoid(x[i, j]) * u[i]", "u[i] / (2 + x[i, j] ** 2) / y[i]", "1 / (3 + tanh(x[i, j]))"]
)
def test_sums_of_what_only_divides(term: str) -> None:
    """A divisor that varies along a sum, with no factor beside it that does."""
    text = f"def f(x[i, j], u[i], y[i]):\n    A[i] = u[i] ** 3 + y[i]\n    T[i] = sum[j]({term} * A[i])\n    return T\n"
    everywhere(call(text, x=normal(4, 7), u=normal(4), y=normal(4) + 3))


def test_the_greatest_with_what_it_carries() -> None:
    """The value goes to the place that wins; what is carried from there, a position, has no gradient itself."""
    text = """
def f(x[i, j], y[i, j], p[i, j]: i64):
    V[i], C[i] = argmax[j](x[i, j] * y[i, j], p[i, j] + 1)
    T[i] = V * C
    return T, C
"""
    positions = torch.arange(28).reshape(4, 7) % 5
    everywhere(call(text, x=normal(4, 7), y=normal(7, 4).mT.contiguous(), p=positions))
    text = "def f(x[i, j], y[i, j]):\n    V[i], P[i] = argmin[j](x)\n    T[i] = V[i] * y[i, P[i]]\n    return T, P"
    everywhere(call(text, x=normal(4, 7), y=normal(7, 4).mT.contiguous()))


def test_truth_values_and_counts_have_none() -> None:
    text = """
def f(x[i, j], y[i]):
    some[i] = any[j](x[i, j] > 0)
    n[i] = sum[j](where(x[i, j] > 0, 1, 0))
    T[i] = where(some[i] and all[j](x[i, j] < 9), y[i] * n[i], y[i])
    return T
"""
    c = call(text, x=normal(4, 5), y=normal(4))
    everywhere(c)
    made = differentiate(c.program, c.by)
    assert list(made.gradients) == ["y"]


PREFIXES = {
    "sum": "T[i] = sum[j](where(j <= i, x[j], 0)) * y[i]",
    "suffix sum": "T[j] = suffix_sum[j](x[j] * y[j])",
    "cumulative": "T[j] = cumsum[j](x[j] * y[j])",
    "decay": "T[i] = sum[j](where(j <= i, 0.9 ** (i - j) * x[j] * y[j], 0))",
    "product": "T[i] = prod[j : j <= i](1 + 0.1 * x[j]) * y[i]",
    "maximum": "T[i] = max[j : j <= i](x[j] * y[j])",
    "a window": "T[i] = sum[j : j <= i and i - j < 4](x[j] * y[j])",
    "a gate": "G[i] = sum[j : j <= i](y[j])\n    T[i] = sum[j : j <= i](exp(G[i] - G[j]) * x[j])",
    "softmax": "T[i] = softmax[j](where(j <= i, x[j] * y[i], -inf)) * x[j]",
}


@pytest.mark.parametrize("name", PREFIXES)
def test_prefixes(name: str) -> None:
    """The adjoint of a prefix is a suffix."""
    along = "" if PREFIXES[name].startswith("T[j]") else "    axis i = |j|\n"
    text = f"def f(x[j], y[j]):\n{along}    {PREFIXES[name]}\n    return T"
    everywhere(call(text, x=normal(20), y=normal(20) / 3))


# ---------------------------------------------------------------------------------------------------------------------
# Results and operands


SEVERAL = """
def f(x[i, k], w[k, j], n[i]):
    A[i, j] = x[i, k] * w[k, j]
    M[i] = max[j](A)
    B[i, j] = tanh(A - M) * n[i]
    return B, A, M
"""


def test_results_that_are_intermediates_too() -> None:
    everywhere(call(SEVERAL, x=normal(4, 3), w=normal(3, 5), n=normal(4)))


@pytest.mark.parametrize("alone", ["A", "B", "M"])
def test_cotangents_of_some_results(alone: str) -> None:
    """What is not asked for counts as 0, as torch has it."""
    c = call(SEVERAL, x=normal(4, 3), w=normal(3, 5), n=normal(4))
    c.cotangents = {alone: c.cotangents[alone]}
    exact = c.in_torch()
    for level in (0, 2):
        assert_equal(c.compiled(level, "torch"), exact)


def test_operands_that_nothing_depends_on() -> None:
    text = "def f(x[i], unused[i], token[i], p[i]):\n    T[i] = where(p[i], x[i] * token[i], 0)\n    return T"
    c = call(text, x=normal(4), unused=normal(4), token=torch.arange(4), p=torch.tensor([True, False] * 2))
    made = differentiate(c.program, c.by)
    assert list(made.gradients) == ["x"]
    found = c.compiled()
    assert set(found) == {"x", "unused"}
    assert not found["unused"].any()
    leaves: dict[str, Any] = {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in c.operands.items()}
    einc.compile(text)(**leaves).sum().backward()
    assert leaves["unused"].grad is None


def test_results_that_no_operand_reaches_have_no_gradient() -> None:
    text = "def f(x[i, j]):\n    V[i], P[i] = argmax[j](x)\n    C[i] = sum[j](where(x > 0, 1, 0))\n    return V, P, C"
    x = normal(4, 5).requires_grad_()
    values, positions, counts = einc.compile(text)(x)
    assert values.requires_grad
    assert not positions.requires_grad
    assert not counts.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_types(dtype: torch.dtype) -> None:
    """A gradient has the type of its operand, whatever the others are."""
    text = "def f(A[i, k], B[k, j], c[j]):\n    T[i, j] = tanh(sum[k](A[i, k] * B[k, j])) + c[j]\n    return T"
    a, b, c = normal(4, 6).to(dtype), normal(6, 5).to(dtype), normal(5).float()
    program = einc.compile(text)
    leaves = [t.clone().requires_grad_() for t in (a, b, c)]
    result = program(*leaves)
    weight = torch.randn_like(result)
    found = torch.autograd.grad(result, leaves, weight)
    assert [g.dtype for g in found] == [dtype, dtype, torch.float32]
    twins = [t.double().requires_grad_() for t in (a, b, c)]
    exact = torch.autograd.grad((twins[0] @ twins[1]).tanh() + twins[2], twins, weight.double())
    for g, e in zip(found, exact, strict=True):
        tolerance = 4 * max(torch.finfo(t).eps for t in (dtype, torch.float32))
        torch.testing.assert_close(g.double(), e, rtol=tolerance, atol=tolerance * e.abs().max().item())


def test_integers_among_operands() -> None:
    text = "def f(q[i, j], scale[i]):\n    T[i] = sum[j](q[i, j] * scale[i] * j)\n    return T"
    c = call(text, q=torch.arange(12, dtype=torch.int8).reshape(3, 4), scale=normal(3))
    everywhere(c)
    assert list(c.compiled()) == ["scale"]


# ---------------------------------------------------------------------------------------------------------------------
# Nothing


MASKED = """
def f(Q[i, d], K[j, d], V[j, e], keep[i, j]):
    S[i, j] = where(keep[i, j], sum[d](Q[i, d] * K[j, d]), -inf)
    O[i, e] = {} * V[j, e]
    return O
"""


@pytest.mark.parametrize("function", ["softmax[j](S)", "softmax1[j](S)", "exp(log_softmax[j](S))", "sigmoid(S)"])
def test_rows_that_are_wholly_masked(function: str) -> None:
    """Have gradient 0, and no NaN."""
    keep = normal(6, 5) > 0
    keep[2] = False
    c = call(MASKED.format(function), Q=normal(6, 3), K=normal(5, 3), V=normal(5, 4), keep=keep)
    for found in (c.evaluated(), c.halved(), *(c.compiled(level, "torch") for level in (0, 1, 2))):
        assert all(g.isfinite().all() for g in found.values())
        assert not found["Q"][2].any()
    inside = call(MASKED.format(function), Q=c.operands["Q"][:2], K=c.operands["K"], V=c.operands["V"], keep=keep[:2])
    inside.cotangents = {"O": c.cotangents["O"][:2]}
    assert_equal({"Q": c.evaluated()["Q"][:2]}, {"Q": inside.in_torch()["Q"]})


def test_what_a_mask_excludes_has_gradient_zero() -> None:
    """Whatever is in memory there."""
    text = "def f(x[j], w[j], n: int):\n    T[] = sum[j](where(j < n, x[j] * w[j], 0))\n    return T"
    x, w = normal(8), normal(8)
    w[5:], x[6:] = torch.nan, inf
    for level in (0, 1, 2):
        found = call(text, {"n": 5}, x=x, w=w).compiled(level, "torch")
        assert all(g.isfinite().all() and not g[5:].any() for g in found.values())


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0)])
@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "softmax"])
def test_empty_extents(monoid: str, shape: tuple[int, int, int]) -> None:
    i, j, k = shape
    value = "softmax[j](A[i, j]) * A[i, j]" if monoid == "softmax" else f"{monoid}[j](A[i, j])"
    text = f"def f(x[i, k], w[k, j]):\n    A[i, j] = x[i, k] * w[k, j]\n    T[i] = {value}\n    return T, A"
    c = call(text, x=normal(i, k), w=normal(k, j))
    c.cotangents = {n: torch.ones_like(t) for n, t in c.cotangents.items()}
    exact = c.in_torch()
    assert_equal(c.evaluated(), exact)
    for level in (0, 1, 2):
        assert_equal(c.compiled(level, "torch"), exact)


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_tensors_of_no_dimensions(backend: str) -> None:
    """As operands and as results."""
    text = "def f(s[], x[i], t[]):\n    T[] = sum[i](tanh(s[] * x[i])) * t[]\n    U[] = s[] ** 2\n    return T, U"
    c = call(text, s=torch.tensor(0.7).double(), x=normal(5), t=torch.tensor(-1.3).double())
    exact = c.in_torch()
    for level in (0, 1, 2):
        assert_equal(c.compiled(level, backend), exact)
    assert_equal(c.evaluated(), exact)


def test_the_program_of_gradients_is_a_program() -> None:
    """Its text compiles, and gives the same gradients."""
    c = call(SEVERAL, x=normal(4, 3), w=normal(3, 5), n=normal(4))
    made = differentiate(c.program, c.by)
    text = print_program(made.program)
    given: dict[str, Any] = {**c.operands, **{made.cotangents[n]: t for n, t in c.cotangents.items()}}
    found = einc.compile(text)(**given)
    assert isinstance(made.program, ein.Program)
    assert_equal(dict(zip(made.gradients, found, strict=True)), c.in_torch())
