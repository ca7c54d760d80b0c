"""What errors suggest can be written, and is what was meant."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import einc
from einc import driver
from einc.base.errors import misspelt
from einc.base.ops import OPS
from einc.base.types import BY_NAME
from einc.ein.monoids import MONOIDS
from einc.frontend.elaboration.library import prelude
from einc.frontend.syntax.synonyms import _ELSEWHERE, _WRITTEN, meant

KNOWN = [*prelude(), *MONOIDS, *BY_NAME, *(n for n, op in OPS.items() if not op.infix)]
SIGNATURE = (
    "x[i, j], y[i, j], z[k, j], w[r], label[i]: i64, index[k]: i64, "
    "low: float, high: float, value: float, slope: float, seed: int"
)


def suggested(name: str) -> str:
    """The hint of the error for a call of a function that is not there."""
    with pytest.raises(einc.NameError) as caught:
        einc.compile(f"T[i] = {name}(A[i])")
    return str(caught.value).rpartition("try: ")[2]


@pytest.mark.parametrize("name", _WRITTEN)
def test_what_is_suggested_is_in_the_language(name: str) -> None:
    axes = "    axis t = 2\n" if "t" in re.findall(r"\w+", _WRITTEN[name]) else ""
    driver.elaborate(driver.parse(f"def f({SIGNATURE}):\n{axes}    T = {_WRITTEN[name]}\n    return T", "<test>"))


@pytest.mark.parametrize("name", sorted({*_WRITTEN, *_ELSEWHERE}))
def test_a_function_of_another_library_is_not_taken_for_a_slip(name: str) -> None:
    assert name not in KNOWN
    assert "did you mean" not in meant(name, KNOWN)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sofmax", "did you mean 'softmax'?"),
        ("sotfmax", "did you mean 'softmax'?"),
        ("Softmax", "did you mean 'softmax'?"),
        ("rsqr", "did you mean 'rsqrt'?"),
        ("layernrom", "did you mean 'layernorm'?"),
        ("logsumxep", "did you mean 'logsumexp'?"),
        ("signum", "write sign(x)"),
        ("arctan", "write atan(x)"),
        ("conjugate", "write conj(x)"),
        ("maximum", "write max(x, y)"),
        ("clip", "write clamp(x, low, high)"),
        ("sort", "define it: fn sort(x) = …"),
        ("median", "define it: fn median(x) = …"),
        ("frobnicate", "define it: fn frobnicate(x) = …"),
    ],
)
def test_hints(name: str, hint: str) -> None:
    assert suggested(name) == hint


@pytest.mark.parametrize("name", ["gelu", "cosh", "tan", "elu", "log1p", "sign", "square", "conj", "atan2", "abs"])
def test_every_function_stays_itself(name: str) -> None:
    """No two functions of the language are so near that a slip in one would name the other without being it."""
    assert misspelt(name, KNOWN) == f"did you mean '{name}'?"


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("ab", ["ac"], ""),
        ("jj", ["i", "j"], "did you mean 'j'?"),
        ("abc", ["abd"], "did you mean 'abd'?"),
        ("wnidow", ["window"], "did you mean 'window'?"),
        ("window", ["widths"], ""),
        ("scale", ["shape", "scalar"], ""),
        ("", ["a"], ""),
        ("x", [], ""),
    ],
)
def test_misspelt(name: str, known: list[str], found: str) -> None:
    assert misspelt(name, known) == found


X = np.random.default_rng(3).normal(size=(4, 5))
Y = np.random.default_rng(4).normal(size=(4, 5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("logaddexp", np.logaddexp(X, Y)),
        ("hypot", np.hypot(X, Y)),
        ("cbrt", np.cbrt(X)),
        ("sinc", np.sinc(X)),
        ("arcsinh", np.arcsinh(X)),
        ("degrees", np.degrees(X)),
        ("trunc", np.trunc(X)),
        ("nansum", X.sum(1)),
        ("cumprod", X.cumprod(1)),
        ("cummax", np.maximum.accumulate(X, 1)),
        ("flip", X[:, ::-1]),
        ("roll", np.roll(X, 1, 1)),
        ("tril", np.tril(X)),
        ("ptp", np.ptp(X, 1)),
        ("exp10", 10**X),
    ],
)
def test_what_is_suggested_is_what_was_meant(name: str, expected: np.ndarray[Any, Any]) -> None:
    program = einc.compile(f"def f(x[i, j], y[i, j]):\n    T = {_WRITTEN[name]}\n    return T")
    np.testing.assert_allclose(program(x=X, y=Y, backend="evaluate"), expected, rtol=1e-12, atol=1e-14)
