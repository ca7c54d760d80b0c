"""Numbers beyond the type that they take: every way to run a program gives what the type's own arithmetic gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import einc
from tests.support.backends import TORCH

BACKENDS = ("evaluate", "torch", "interpret")
FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "x[i] + {c}": lambda x, c: x + c,
    "{c} - x[i]": lambda x, c: c - x,
    "x[i] * {c}": lambda x, c: x * c,
    "max(x[i], {c})": lambda x, c: np.where(x > c, x, c),
    "where(x[i] > 1, x[i], {c})": lambda x, c: np.where(x > 1, x, c),
}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "x[i] < {c}": lambda x, c: x < c,
    "{c} <= x[i]": lambda x, c: c <= x,
    "x[i] == {c}": lambda x, c: x == c,
    "{c} != x[i]": lambda x, c: c != x,
}
LARGEST = float(np.finfo(np.float32).max)
FLOATS = ("3.5e38", "-3.5e38", "1e300", repr(LARGEST * (1 + 2.0**-25)), repr(LARGEST * (1 + 2.0**-26)), "1e-50")
INTEGERS = (300, -1, 40000, 3 << 30, -3 << 30, (1 << 63) - 1, -1 << 63, 1 << 63, (1 << 64) - 1)


def results(text: str, x: torch.Tensor) -> Iterator[tuple[str, list[Any]]]:
    """What a program gives for one operand, by the way to run it."""
    for backend in BACKENDS:
        yield backend, einc.compile(text)(x, backend=backend).tolist()


@pytest.mark.parametrize("form", FORMS | COMPARISONS)
@pytest.mark.parametrize("literal", FLOATS)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
def test_a_float_beyond_its_type_is_infinite_or_0(dtype: str, literal: str, form: str) -> None:
    x = torch.arange(4).to(TORCH[dtype])
    real = np.float64 if dtype == "f64" else np.float32
    with np.errstate(all="ignore"):
        wanted = (FORMS | COMPARISONS)[form](x.numpy().astype(real), real(float(literal)))
    for backend, found in results(f"T[i] = {form.format(c=literal)}", x):
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(np.asarray(found).astype(real), wanted, rtol=1e-6, err_msg=backend)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["u8", "i8", "i16", "u32", "i32", "i64", "u64"])
def test_an_integer_beyond_its_type_wraps(dtype: str, form: str) -> None:
    x = torch.arange(4).to(TORCH[dtype])
    native = x.numpy().dtype
    for literal in INTEGERS:
        c = np.array(literal % (1 << 64), np.uint64).astype(native)
        with np.errstate(all="ignore"):
            wanted = np.asarray(FORMS[form](x.numpy(), c), native)
        for backend, found in results(f"T[i] = {form.format(c=literal)}", x):
            assert found == wanted.tolist(), (backend, literal)


@pytest.mark.parametrize("form", COMPARISONS)
@pytest.mark.parametrize("dtype", ["u8", "i8", "i16", "u32", "i32", "i64", "u64"])
def test_an_integer_is_compared_as_the_number_it_is(dtype: str, form: str) -> None:
    native = TORCH[dtype]
    x = torch.tensor([0, 1, torch.iinfo(native).min, torch.iinfo(native).max], dtype=native)
    for literal in INTEGERS:
        wanted = [COMPARISONS[form](int(value), literal) for value in x.tolist()]
        for backend, found in results(f"T[i] = {form.format(c=literal)}", x):
            assert found == wanted, (backend, literal)


def test_a_literal_beside_positions_keeps_its_width() -> None:
    x = torch.zeros(3, dtype=torch.int32)
    for literal, chosen in product((3 << 30, -3 << 30), ("where(i > 1, i, {c})", "max(i, {c})", "i + {c}")):
        text = f"T[i] = {chosen.format(c=literal)} + i64(x[i])"
        found = [values for _, values in results(text, x)]
        assert found == [found[0]] * len(BACKENDS)
        assert found[0][1] in (literal, 1 + literal, max(1, literal))


def test_a_type_of_the_text_decides_for_literals() -> None:
    x = torch.ones(2, dtype=torch.float32)
    for text, wanted in {
        "T[i] = f64(1e39) * x[i]": 1e39,
        "T[i] = f64(1e39 * i + 1e39) * x[i]": 1e39,
        "T[i] = f32(1e39) * x[i]": math.inf,
        "T[i]: f64 = where(i < 5, 1e39, 0)": 1e39,
    }.items():
        for backend, found in results(text.replace("i < 5", "x[i] < 5"), x):
            assert found[0] == wanted, (text, backend)


@pytest.mark.parametrize("value", [1e39, -1e39, 1e-50])
def test_a_parameter_is_in_range_as_literals_are(value: float) -> None:
    text = "def f(x[i], s: float):\n    return x[i] + s, max(x[i], s)\n"
    for dtype in (torch.float32, torch.float64):
        x = torch.ones(2, dtype=dtype)
        with np.errstate(all="ignore"):
            wanted = np.asarray(value).astype(x.numpy().dtype)
        for backend in BACKENDS:
            with np.errstate(over="ignore"):
                added, greater = einc.compile(text)(x, s=value, backend=backend)
            assert added.tolist() == [1 + float(wanted)] * 2, backend
            assert greater.tolist() == [max(1.0, float(wanted))] * 2, backend


def test_constants_that_passes_multiply_stay_in_range() -> None:
    x = torch.ones(2)
    for backend in ("torch", "interpret"):
        found = einc.compile("T[i] = x[i] * 1e30 * 1e30 + x[i] * 1e-30 * 1e-30")(x, backend=backend)
        assert found.tolist() == [math.inf] * 2
