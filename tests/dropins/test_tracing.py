"""A traced function is an expression of the language, with what it captures as operands."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import and_masks, or_masks

import einc
from einc.dropins.tracing import Tracer
from einc.dropins.tracing import trace as traced

BIAS = torch.randn(2, 4, 33)
DOCUMENT = torch.arange(32).reshape(2, 16) // 5
SLOPES = torch.rand(4)
OFFSET = torch.tensor(3)
WINDOW = 5


def trace(function: Callable[..., Any], score: bool = False, extent: int | None = 16) -> tuple[str, Tracer]:
    tracer = Tracer({"b": 2, "h": 4, "i": extent, "j": extent})
    first = (tracer.named("S", "bhij", torch.float32),) if score else ()
    written = tracer.write(tracer(function, *first, *tracer.axes()))
    return "; ".join((*written.definitions, *written.expressions)), tracer


class Method:
    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def mask(self, b: Any, _h: Any, _q: Any, k: Any) -> Any:
        return self.table[b, k] > 0


def with_default(_b: Any, _h: Any, q: Any, k: Any, window: int = WINDOW) -> Any:
    return q - k < window


def both_ways(_b: Any, _h: Any, q: Any, k: Any, left: int, right: int) -> Any:
    return torch.logical_and(q - k <= left, k - q <= right)


Cases = dict[str, tuple[Callable[..., Any], str]]

MASKS: Cases = {
    "causal": (lambda b, h, q, k: q >= k, "i >= j"),
    "global number": (lambda b, h, q, k: q - k < WINDOW, "i - j < 5"),
    "default": (with_default, "i - j < 5"),
    "partial": (functools.partial(both_ways, left=3, right=2), "i - j <= 3 and j - i <= 2"),
    "method": (Method(DOCUMENT).mask, "T1[b, j] > 0"),
    "document": (lambda b, h, q, k: DOCUMENT[b, q] == DOCUMENT[b, k], "T1[b, i] == T1[b, j]"),
    "chained": (lambda b, h, q, k: BIAS[b][h][q - k + 16] > 0, "T1[b, h, i - j + 16] > 0"),
    "ellipsis": (lambda b, h, q, k: BIAS[b, ..., k][h] > 0, "T1[b, h, j] > 0"),
    "composed": (
        and_masks(lambda b, h, q, k: q >= k, or_masks(lambda b, h, q, k: q - k < 5, lambda b, h, q, k: k < 2)),
        "i >= j and (i - j < 5 or j < 2)",
    ),
    "made": (lambda b, h, q, k: q.new_ones((), dtype=torch.bool) & (k <= q).to(q.device), "j <= i"),
    "no mask": (lambda b, h, q, k: b.new_ones(size=(), dtype=torch.bool, device=b.device), "true"),
    "offset": (lambda b, h, q, k: k <= q + OFFSET, "j <= i + T1[]"),
    "no offset": (lambda b, h, q, k: k + 0 <= q, "j <= i"),
    "chunks": (lambda b, h, q, k: q // 8 == k // 8, "i // 8 == j // 8"),
    "dilated": (lambda b, h, q, k: ((q - k).abs() % 2 == 0) & ~(q < k), "abs(i - j) % 2 == 0 and not i < j"),
    "position": (lambda b, h, q, k: abs(q - k) <= 3, "abs(i - j) <= 3"),
    "bits": (lambda b, h, q, k: (q >> 2) & 1 == 0, "i // 4 % 2 == 0"),
    "last": (lambda b, h, q, k: BIAS[b, -1, k] > 0, "T1[b, |n1| - 1, j] > 0"),
    "wraps": (
        lambda b, h, q, k: BIAS[b, h, k - q] > 0,
        "T1[b, h, where(j - i < 0, j - i + |o1|, j - i)] > 0",
    ),
    "rows": (lambda b, h, q, k: BIAS[b, h] @ BIAS[0, -1] > 0, "sum[o1](T1[b, h, o1] * T2[o1]) > 0"),
    "from the end": (lambda b, h, q, k: BIAS[b, h, -k - 1] > 0, "T1[b, h, -j - 1 + |o1|] > 0"),
}

SCORES: Cases = {
    "identity": (lambda s, b, h, q, k: s, "S[b, h, i, j]"),
    "alibi": (lambda s, b, h, q, k: s + SLOPES[h] * (k - q), "S[b, h, i, j] + T1[h] * (j - i)"),
    "softcap": (lambda s, b, h, q, k: 20 * torch.tanh(s / 20), "20 * tanh(S[b, h, i, j] / 20)"),
    "causal": (lambda s, b, h, q, k: torch.where(q >= k, s, -float("inf")), "where(i >= j, S[b, h, i, j], -inf)"),
    "least": (
        lambda s, b, h, q, k: torch.where(q >= k, s, torch.finfo(s.dtype).min),
        f"where(i >= j, S[b, h, i, j], {torch.finfo(torch.float32).min!r})",
    ),
    "constant": (lambda s, b, h, q, k: s * torch.tensor(0.5) + torch.full((), 2), "S[b, h, i, j] * 0.5 + 2"),
    "limits": (lambda s, b, h, q, k: s.clamp(min=-1, max=1), "min(max(S[b, h, i, j], -1), 1)"),
    "casts": (lambda s, b, h, q, k: s.float() + (q - k).to(torch.float16), "S[b, h, i, j] + f16(i - j)"),
    "operators": (
        lambda s, b, h, q, k: torch.ops.aten.mul.Tensor(s, s) + torch.ops.aten.exp(s),
        "S[b, h, i, j] * S[b, h, i, j] + exp(S[b, h, i, j])",
    ),
    "numpy": (lambda s, b, h, q, k: np.float32(0.5) * np.exp(s), "0.5 * exp(S[b, h, i, j])"),
    "python": (lambda s, b, h, q, k: s * math.sqrt(4) ** -(q + 1), "S[b, h, i, j] * 2.0 ** -(i + 1)"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    function, expected = MASKS[name]
    assert trace(function)[0] == expected


@pytest.mark.parametrize("name", SCORES)
def test_scores(name: str) -> None:
    function, expected = SCORES[name]
    assert trace(function, score=True)[0] == expected


def test_a_function_of_named_axes() -> None:
    found = traced(lambda n: BIAS[0, 0, n] * 2, ["n"])
    assert (found.definitions, found.expression, found.parameters) == ((), "T1[0, 0, n] * 2", ("T1[m1, n1, o1]",))
    assert found.tensors[0] is BIAS
    assert traced(lambda i: BIAS[0, 0, i - 3], {"i": 3}).expression == "T1[0, 0, i - 3 + |o1|]"


def test_a_tensor_is_one_operand() -> None:
    _, tracer = trace(lambda b, h, q, k: (DOCUMENT[b, q] == DOCUMENT[b, k]) & (BIAS[b, h, q] > 0))
    assert tracer.parameters == ("T1[m1, n1]", "T2[m2, n2, o2]")
    assert tracer.tensors[0] is DOCUMENT
    assert tracer.tensors[1] is BIAS


def test_equal_functions_give_equal_texts() -> None:
    def made(table: torch.Tensor) -> Callable[..., Any]:
        return lambda b, h, q, k: table[b, k] <= q

    assert trace(made(DOCUMENT))[0] == trace(made(DOCUMENT.clone()))[0]


def test_what_is_used_again_is_written_once() -> None:
    def score(s: Any, _b: Any, _h: Any, q: Any, k: Any) -> Any:
        x = torch.tanh(s * 0.5 + q - k)
        for _ in range(40):  # written out it would have 2 ** 40 terms
            x = x * x + x
        return x

    text, _ = trace(score, score=True)
    assert text.startswith("x1[b, h, i, j] = tanh(S[b, h, i, j] * 0.5 + i - j); x2[b, h, i, j] = ")
    assert len(text) < 4000


def test_types_are_those_of_torch() -> None:
    tracer = Tracer({"i": 8})
    i: Any = tracer.axes()[0]
    half: Any = torch.tensor(1.0, dtype=torch.float16)
    byte: Any = torch.tensor(1, dtype=torch.uint8)
    for made, expected in [
        (i + 1, torch.int64), (i / 2, torch.float32), (i * 0.5, torch.float32), (i < 2, torch.bool),
        (i + half, torch.float16), (torch.exp(i), torch.float32), (torch.where(i < 2, half, 0), torch.float16),
        (byte + (i < 1), torch.uint8), (i.double() * half, torch.float64), (~(i < 1), torch.bool),
    ]:  # fmt: skip
        assert made.dtype == expected


def values_of(function: Callable[..., Any]) -> torch.Tensor:
    """What the language computes for a traced function of one axis of sixteen positions."""
    tracer = Tracer({"i": 16})
    symbol = tracer(function, *tracer.axes())
    written = tracer.write(symbol)
    lines = "".join(f"    {d}\n" for d in (*written.definitions, f"O[i] = {written.expressions[0]}"))
    program = einc.compile(f"def f({', '.join(('z[i]', *tracer.parameters))}):\n{lines}    return O\n")
    result: torch.Tensor = program(torch.zeros(16), *tracer.tensors)
    return result


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "shift": lambda i: (i << 2) + (i >> 1),
    "not": lambda i: ~i,
    "and": lambda i: i & 0b1011,
    "and negative": lambda i: (i - 8) & 0b110 | 1,
    "and below zero": lambda i: i & ~5,
    "or": lambda i: (3 - i) | 6,
    "xor": lambda i: i ^ 5,
    "both vary": lambda i: (i * 3) & i,
    "or of both": lambda i: (i * 5) | i,
    "xor of both": lambda i: (i * 5) ^ i,
    "floor": lambda i: (i - 8) // 3 + (i - 8) % 3,
    "truncated": lambda i: torch.div(i - 8, 3, rounding_mode="trunc"),
    "fmod": lambda i: torch.fmod(i - 8, 3),
    "trunc": lambda i: torch.trunc((i - 8) / 3),
    "cast": lambda i: ((i - 8) / 3).int(),
    "round": lambda i: torch.round(i / 2) + torch.round((i - 8) / 3, decimals=1),
    "truth": lambda i: (i - 8).bool() & (i > 2) | torch.logical_xor(i, i > 5),
    "bool sum": lambda i: (i > 2) + (i > 5) + 1,
    "sign": lambda i: torch.sign(i - 8) * torch.abs(i - 8),
    "float functions": lambda i: torch.sigmoid(i / 4) + torch.log1p(i) + torch.rsqrt(i + 1) + torch.erf(i / 9),
    "activations": lambda i: torch.nn.functional.gelu(i / 4) + torch.nn.functional.softplus(i / 4, beta=2),
    "relu": lambda i: torch.relu(i - 8) + torch.nn.functional.relu6(i / 2) + torch.nn.functional.silu(i / 2),
    "logaddexp": lambda i: torch.logaddexp(i / 4, 2 - i / 3),
    "minimum": lambda i: torch.minimum(i, 12 - i) + torch.clamp(i, 3, 9) + torch.max(i, 15 - i),
    "power": lambda i: i**2 + 2.0 ** (-i),
    "nothing": lambda i: torch.nan_to_num(torch.where(i > 3, math.inf, i / 2)),
    "masked": lambda i: (i / 2).masked_fill(i > 5, -1.0),
    "table": lambda i: torch.arange(16) .flip(0)[i] + torch.arange(32).reshape(16, 2)[i, 1],
    "wrapped": lambda i: torch.arange(20)[i - 7] * 2,
    "by data": lambda i: torch.arange(20)[torch.arange(16)[15 - i] - 9],
}  # fmt: skip


def t5_bucket(distance: Any) -> Any:
    """The bucket of a distance, as T5 has it: exact below 4, then by its logarithm."""
    near, n = torch.where(distance > 0, 8, 0), distance.abs()
    far = 4 + (torch.log(n.float() / 4) / math.log(4) * 4).to(torch.long)
    return near + torch.where(n < 4, n, torch.min(far, torch.full_like(far, 7)))


FUNCTIONS["buckets"] = lambda i: t5_bucket(i - 6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_mean_what_torch_computes(name: str) -> None:
    function = FUNCTIONS[name]
    expected = torch.stack([torch.as_tensor(function(i)) for i in torch.arange(16)])
    found = values_of(function)
    assert found.dtype.is_floating_point == expected.dtype.is_floating_point
    torch.testing.assert_close(found, expected, check_dtype=False)
