"""The prelude against NumPy in double precision, its empty rows, and where its errors point."""

import math
import re
from importlib.resources import files
from typing import Any, TypeAlias

import numpy as np
import pytest

from einc.base.errors import Error
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.types import F32, F64
from einc.evaluate import evaluate
from einc.frontend import elaborate, parse
from einc.frontend.elaboration.library import prelude

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
INF = math.inf
X = np.random.default_rng(0).normal(size=(3, 5)) * 2
Y = np.random.default_rng(1).normal(size=(3, 5))
BIG = np.array([[1000.0, 999.0, -1000.0, 0.0, 5.0]])


def call(text: str, x: Array, y: Array | None = None) -> Array:
    """`T[i, j] = text` or `T[i] = text` over the operands x and y, both [i, j]; of several results, the first."""
    line = text if " = " in text else f"T = {text}"
    program = f"def f(x[i, j], y[i, j]):\n    {line}\n    return T"
    fact = Fact(x.shape, F64)
    given = {"x": x, "y": x if y is None else y}
    (result,) = evaluate(elaborate(parse(Source("<test>", program)), {"x": fact, "y": fact}), given)
    return result


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    value: Array = e / e.sum(1, keepdims=True)
    return value


def erf(x: Array) -> Array:
    value: Array = np.vectorize(math.erf)(x)
    return value


P = softmax(X)
MOVED = X - X.mean(1, keepdims=True)
EXPECTED: dict[str, tuple[str, Array]] = {
    "softmax": ("softmax[j](x)", P),
    "softmax1": ("softmax1[j](x)", np.exp(X) / (1 + np.exp(X).sum(1, keepdims=True))),
    "logsumexp": ("logsumexp[j](x)", np.log(np.exp(X).sum(1))),
    "log_softmax": ("log_softmax[j](x)", np.log(P)),
    "entropy": ("entropy[j](x)", -(P * np.log(P)).sum(1)),
    "mean": ("mean[j](x)", X.mean(1)),
    "var": ("var[j](x)", X.var(1)),
    "std": ("std[j](x)", X.std(1)),
    "layernorm": ("layernorm[j](x)", MOVED / np.sqrt(X.var(1, keepdims=True) + 1e-5)),
    "rmsnorm": ("rmsnorm[j](x, 1e-3)", X / np.sqrt((X**2).mean(1, keepdims=True) + 1e-3)),
    "norm": ("norm[j](x)", np.sqrt((X**2).sum(1))),
    "l2norm": ("l2norm[j](x)", X / np.sqrt((X**2).sum(1, keepdims=True))),
    "cosine": ("cosine[j](x, y)", (X * Y).sum(1) / np.sqrt((X**2).sum(1) * (Y**2).sum(1))),
    "cumsum": ("cumsum[j](x)", X.cumsum(1)),
    "suffix_sum": ("suffix_sum[j](x)", X[:, ::-1].cumsum(1)[:, ::-1]),
    "softmax_sink": (
        "softmax_sink[j](x, y[i, 0])",
        np.exp(X) / (np.exp(X).sum(1, keepdims=True) + np.exp(Y[:, :1])),
    ),
    "next_max": ("T[i], p[i] = next_max[j](x, max[j](x), argmax[j](x))", np.sort(X, 1)[:, -2]),
    "logsigmoid": ("logsigmoid(x)", -np.log1p(np.exp(-X))),
    "mish": ("mish(x)", X * np.tanh(np.log1p(np.exp(X)))),
    "elu": ("elu(x, 0.5)", np.where(X > 0, X, np.expm1(X) / 2)),
    "leaky_relu": ("leaky_relu(x)", np.where(X > 0, X, X / 100)),
    "sign": ("sign(x)", np.sign(X)),
    "square": ("square(x)", X * X),
    "pow": ("pow(abs(x), y)", np.abs(X) ** Y),
    "sinh": ("sinh(x)", np.sinh(X)),
    "cosh": ("cosh(x)", np.cosh(X)),
    "atan": ("atan(x)", np.arctan(X)),
    "asin": ("asin(tanh(x))", np.arcsin(np.tanh(X))),
    "acos": ("acos(tanh(x))", np.arccos(np.tanh(X))),
    "sigmoid": ("sigmoid(x)", 1 / (1 + np.exp(-X))),
    "silu": ("silu(x)", X / (1 + np.exp(-X))),
    "gelu": ("gelu(x)", X * (1 + erf(X / math.sqrt(2))) / 2),
    "gelu_tanh": ("gelu_tanh(x)", X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))) / 2),
    "relu": ("relu(x)", np.maximum(X, 0)),
    "softplus": ("softplus(x)", np.log1p(np.exp(X))),
    "softcap": ("softcap(x, 2)", 2 * np.tanh(X / 2)),
    "clamp": ("clamp(x, -1, 0.5)", np.clip(X, -1, 0.5)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_functions(name: str) -> None:
    text, expected = EXPECTED[name]
    np.testing.assert_allclose(call(text, X, Y), expected, rtol=1e-12, atol=1e-14)


def test_every_function_is_tested_and_commented() -> None:
    assert set(EXPECTED) == set(prelude())
    text = files("einc.frontend.elaboration").joinpath("prelude.ein").read_text(encoding="utf-8")
    assert len(re.findall(r"^# .+\nfn ", text, re.MULTILINE)) == len(prelude())


EMPTY = np.array([[-INF] * 5, [-INF, 1.0, -INF, 2.0, -INF]])


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("softmax[j](x)", [0.0] * 5),
        ("softmax1[j](x)", [0.0] * 5),
        ("logsumexp[j](x)", -INF),
        ("log_softmax[j](x)", [-INF] * 5),
        ("entropy[j](x)", 0.0),
        ("max[j](x)", -INF),
    ],
)
def test_rows_that_are_wholly_masked(text: str, row: object) -> None:
    found = call(text, EMPTY)
    np.testing.assert_array_equal(found[0], row)
    assert not np.isnan(found).any()


@pytest.mark.parametrize(
    "function", ["softmax[j]", "softmax1[j]", "logsumexp[j]", "log_softmax[j]", "softplus", "sigmoid", "silu"]
)
def test_large_values_do_not_overflow(function: str) -> None:
    assert np.isfinite(call(f"{function}(x)", BIG)).all()


def test_several_axes() -> None:
    np.testing.assert_allclose(call("softmax[i, j](x)", X), softmax(X.reshape(1, -1)).reshape(X.shape), rtol=1e-12)
    np.testing.assert_allclose(call("var[i, j](x)", X), X.var(), rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "axes"), [("softmax", "bji"), ("layernorm", "bji"), ("logsumexp", "bi"), ("entropy", "bi")]
)
def test_the_axes_of_a_result_are_in_the_order_of_the_argument(function: str, axes: str) -> None:
    program = elaborate(parse(Source("<test>", f"T = {function}[j](x[b, j, i])")))
    assert program.shapes()["T"] == tuple((a,) for a in axes)


@pytest.mark.parametrize("text", ["softmax[j](x)", "mean[j](x)", "cumsum[j](x)", "log_softmax[j](x)", "sigmoid(x)"])
def test_errors_point_at_the_call(text: str) -> None:
    """A complex argument is refused deep in the prelude, and shown where the user called it."""
    program = f"def f(x[i, j]: c64):\n    T[i, j]: f32 = {text}\n    return T"
    with pytest.raises(Error) as caught:
        elaborate(parse(Source("<test>", program)))
    span = caught.value.span
    assert span is not None
    assert span.source.name == "<test>"
    assert span.line == 2


def test_a_program_may_replace_a_function() -> None:
    text = "fn relu(x) = max(x, 1)\nT[i] = relu(x[i])"
    (found,) = evaluate(elaborate(parse(Source("<test>", text)), {"x": Fact((3,), F32)}), {"x": np.array([0.0, 1, 2])})
    np.testing.assert_array_equal(found, [1, 1, 2])


def test_the_prelude_keeps_its_own_functions() -> None:
    text = "fn mean(x) = 7\nT[i] = var[j](x[i, j])"
    (found,) = evaluate(elaborate(parse(Source("<test>", text)), {"x": Fact(X.shape, F64)}), {"x": X})
    np.testing.assert_allclose(found, X.var(1), rtol=1e-12)
