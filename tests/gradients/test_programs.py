"""`Program.gradient`: the gradients of a program as a program, to read, look at and call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import einc
from tests.support.places import EXAMPLES

CAUSAL = EXAMPLES / "attention" / "causal.ein"
EMBED = "def f(T[v, d], t[n]: i32):\n    X[n, d] = T[t[n], d]\n    return X\n"
STEP = "def f(A[i], B[i]):\n    C[i] = where(A[i] > 0, 1.0, 0.0) * B[i]\n    return C\n"


def qkv(n: int = 20, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 2, n, 16, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("names", [(), ("Q",), ("V", "K")])
def test_the_program_of_gradients_gives_torchs(names: tuple[str, ...]) -> None:
    operands: dict[str, Any] = dict(zip("QKV", qkv(), strict=True))
    backward = einc.compile(CAUSAL).gradient(*names, given=tuple(operands.values()))
    cotangent = torch.randn(1, 2, 20, 16, dtype=torch.float64)
    mask = torch.ones(20, 20, dtype=torch.bool).tril()
    scores = torch.einsum("bhid,bhjd->bhij", operands["Q"], operands["K"]) / 4
    reference = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ operands["V"]
    wanted = [n for n in "QKV" if n in (names or "QKV")]  # in the program's order
    exact = torch.autograd.grad(reference, [operands[n] for n in wanted], cotangent)
    values: dict[str, Any] = {n: t.detach() for n, t in operands.items()}
    found = dict(zip(backward.ahead.results, backward.ahead(**values), strict=True))
    torch.testing.assert_close(found["O"], reference.detach(), rtol=1e-12, atol=1e-12)
    given = values | {"dO": cotangent} | {n: found[n] for n in backward.saved}
    results = backward(**{n: given[n] for n in backward.text.operands})
    results = results if isinstance(results, tuple) else (results,)
    assert backward.results == tuple(f"d{n}" for n in wanted)
    for result, want in zip(results, exact, strict=True):
        torch.testing.assert_close(result, want, rtol=1e-12, atol=1e-12)


def test_a_softmax_and_its_logarithm_have_one_gradient() -> None:
    """What both are made of is one weight, computed again from what is saved for its row."""
    text = (
        "def f(S[i, j], V[j, e]):\n    L[i] = logsumexp[j](S)\n    O[i, e] = softmax[j](S) * V[j, e]\n    return O, L\n"
    )
    lines = einc.compile(text).gradient().text.source.text.splitlines()
    (of_scores,) = (line for line in lines if line.strip().startswith("dS["))
    assert of_scores.count("exp(") == 1
    s, v = torch.randn(7, 9, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    s[2] = -torch.inf
    leaves = [x.requires_grad_() for x in (s, v)]
    o, weight = einc.compile(text)(*leaves), [torch.randn(7, 4).double(), torch.randn(7).double()]
    found = torch.autograd.grad(o, leaves, weight)
    live = torch.tensor([k for k in range(7) if k != 2])
    whole = torch.softmax(s[live], 1) @ v, torch.logsumexp(s[live], 1)
    wanted = torch.autograd.grad(whole, leaves, [w[live] for w in weight])
    assert all(torch.allclose(x, y, rtol=0, atol=1e-12) for x, y in zip(found, wanted, strict=True))


def test_its_text_compiles_again_and_it_can_be_looked_at() -> None:
    backward = einc.compile(CAUSAL).gradient("V")
    again = einc.compile(backward.text.source.text)
    assert str(again) == str(backward)
    assert "sum[i]" in backward.dump("elaborate")
    assert "attention_gradient" in backward.source()
    assert "attention_gradient" in backward.explain()


@pytest.mark.parametrize("by_name", [False, True])
def test_it_is_for_the_operands_that_are_given(by_name: bool) -> None:
    operands = [torch.empty(2, 4, 512, 64, dtype=torch.bfloat16, device="meta") for _ in range(3)]
    program = einc.compile(CAUSAL)
    named: dict[str, Any] = dict(zip("QKV", operands, strict=True))
    backward = program.gradient("Q", **named) if by_name else program.gradient("Q", given=operands)
    assert "Q[b, h, i, d]: bf16" in backward.text.source.text
    assert "O_sum_log[b, h, i]: f32" in backward.text.source.text
    assert backward.story().sizes == {"b": 2, "h": 4, "i": 512, "j": 512, "d": 64, "e": 64}
    assert backward.ahead.story().sizes["j"] == 512
    assert backward.compiled().context.sizes["i"] == 512


def test_without_operands_they_are_float32_of_likely_sizes() -> None:
    backward = einc.compile(CAUSAL).gradient("Q")
    assert "Q[b, h, i, d]: f32" in backward.text.source.text
    assert backward.story().sizes == {"b": 16, "h": 16, "i": 4096, "j": 4096, "d": 64, "e": 64}


@pytest.mark.parametrize(
    ("text", "names", "says"),
    [
        (EMBED, ["t"], "'t' has no gradient\n  its values are i32"),
        (EMBED, ["U"], "'U' is no operand\n  operands with gradients: T\n  try: one of T"),
        (EMBED, ["T", "table"], "'table' is no operand"),
        ("def f(A[i], s: float):\n    B[i] = A[i] * s\n    return B\n", ["s"], "a scalar is a constant"),
        (STEP, ["A"], "'A' has no gradient\n  no result with a derivative depends on it"),
        (STEP, ["B", "A"], "'A' has no gradient\n  no result with a derivative depends on it\n  try: B"),
        ("def f(A[i]):\n    B[i] = A[i] > 0\n    return B\n", [], "the program has no gradient"),
        ("def f(t[i]: i32):\n    B[i] = t[i] + 1\n    return B\n", [], "the program has no gradient"),
    ],
)
def test_what_has_none(text: str, names: list[str], says: str) -> None:
    with pytest.raises(einc.Error) as caught:
        einc.compile(text).gradient(*names)
    assert says in str(caught.value)


def test_operands_without_gradient_are_left_out() -> None:
    assert einc.compile(EMBED).gradient().results == ("dT",)
    assert einc.compile(STEP).gradient().results == ("dB",)


def test_a_parameter_may_be_called_given() -> None:
    program = einc.compile("def f(given[i]):\n    B[i] = given[i] ** 2\n    return B\n")
    backward = program.gradient(given=torch.empty(5, dtype=torch.float64, device="meta"))
    assert backward.results == ("dgiven",)
    assert "given[i]: f64" in backward.text.source.text


INF = float("inf")


@pytest.mark.parametrize(
    ("body", "x", "wanted"),
    [
        ("R = max[i](x[i])", [1.0, 3.0, 3.0], [0, 1, 0]),
        ("R = min[i](x[i])", [2.0, 2.0, 3.0], [1, 0, 0]),
        ("R[i] = max(x[i], 2.0)", [1.0, 2.0, 3.0], [0, 1, 1]),
        ("R = prod[i](x[i])", [0.0, 2.0, 3.0], [6, 0, 0]),
        ("R = prod[i](x[i])", [0.0, 0.0, 3.0], [0, 0, 0]),
        ("R[i] = where(x[i] > 0, log(x[i]), 0.0)", [0.0, -1.0, 4.0], [0, 0, 0.25]),
        ("R = softmax[i](x[i]) * x[i] ** 0", [-INF, -INF, -INF], [0, 0, 0]),
        ("R[i] = abs(x[i])", [0.0, -1.0, 4.0], [0, -1, 1]),
        ("R[i] = floor(x[i]) * x[i]", [0.5, -1.5, 4.25], [0, -2, 4]),
        ("R[i] = f64(f32(x[i])) * 2", [0.1, 0.2, 0.3], [2, 2, 2]),
        ("R[i] = f64(i32(x[i])) * x[i]", [0.5, 1.5, 2.5], [0, 1, 2]),
    ],
)
def test_what_the_language_says_of_gradients(body: str, x: list[float], wanted: list[float]) -> None:
    operand = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    result = einc.compile(f"def f(x[i]):\n    {body}\n    return R\n")(operand)
    (found,) = torch.autograd.grad(result.sum(), operand)
    assert found.tolist() == wanted
