"""Whatever is written or passed ends in a result or in `einc.Error`: random text, mutated programs, random calls.

`make test` draws a few hundred; the slow tier goes on for ten minutes (`EINC_FUZZ_SECONDS`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import einc
from tests.support.places import EXAMPLES

SECONDS = float(os.environ.get("EINC_FUZZ_SECONDS", "600"))

SHOWN = [p.read_text() for p in sorted(EXAMPLES.glob("*.ein"))]
PROGRAMS = (
    *SHOWN,
    'softmax(where(j <= i, "bihd,bjhd->bhij", -inf)) * "bjhd->bihd"',
    "...ij,...jk->...ik",
    "b (g r) q d, b g k d -> b (g r) q k",
    "def f(x[n], y[n]):\n    i[] = argmax[n](x)\n    c[n] = cumsum[n](y)\n    return i, c\n",
    "fn twice[*r](x) = 2 * sum[r](x)\nS[i] = twice[j](A[i, j])\nreturn S\n",
)
_MARKS = "( ) [ ] , : = == != < <= + - * ** / // % | |i| |d| ' \" -> ... # α β ∞ \\ \x00 \u2028 ﬁ é"
_NAMES = "a b c i j k 0 1 2 3 17 0.5 1e30 def fn return axis sum max any argmax softmax where and or not inf true bf16"
WORDS = (*_MARKS.split(" "), *_NAMES.split(), *"ABCQKV", " ", "\n", "\n    ", "\t")

quick = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True)


def refusal(f: Callable[[], object]) -> str | None:
    """What `einc.Error` says, if that comes out; anything else that comes out is a failure."""
    try:
        f()
    except einc.Error as error:
        return str(error)
    return None


def attempt(f: Callable[[], object]) -> None:
    """Only `einc.Error` may come out, and it says something."""
    assert refusal(f) != ""


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A right program with a few pieces lost, repeated, swapped or replaced."""
    text = draw(st.sampled_from(PROGRAMS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 6)))
        text = text[:start] + draw(st.sampled_from(["", text[start:end] * 2, *WORDS])) + text[end:]
    return text


texts = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from(WORDS), max_size=40).map("".join),
    st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join),
    mutated(),
)

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "int64", "uint8", "bool", "complex64"]


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    """An operand: a tensor of any small shape, type and layout, or something that is none."""
    kind = draw(st.sampled_from(["torch", "numpy", "numpy", "torch", "other"]))
    if kind == "other":
        return draw(st.sampled_from([None, "A", 3, 2.5, True, [1, 2], [[1], [2, 3]], {}, object(), 1 << 80, b"x"]))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    tensor = torch.arange(int(np.prod(shape, dtype=int))).reshape(shape).to(getattr(torch, dtype))
    if kind == "torch":
        return tensor.mT if tensor.ndim > 1 and draw(st.booleans()) else tensor
    array = (tensor.float() if dtype == "bfloat16" else tensor).numpy()
    change = draw(st.sampled_from(["", "flip", "swap", "object", "broadcast", "str"]))
    return {
        "flip": lambda: np.flip(array),
        "swap": lambda: array.astype(array.dtype.newbyteorder()),
        "object": lambda: array.astype(object),
        "broadcast": lambda: np.broadcast_to(array, (2, *array.shape)),
        "str": lambda: array.astype(str),
    }.get(change, lambda: array)()


CALLED = (*PROGRAMS, "ij,jk->ik", "ii->i", "i,i->", ",->", "ij->", "->")


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[Any], dict[str, Any]]:
    """A program with operands that need not fit it."""
    named = draw(st.dictionaries(st.sampled_from(["Q", "K", "A", "window", "stride", "eps", "out", "x"]), tensors()))
    return draw(st.sampled_from(CALLED)), draw(st.lists(tensors(), max_size=4)), named


@st.composite
def fitting(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """An einsum with operands of nearly fitting shapes: extents of labels, now and then another."""
    labels = "ijkl"
    terms = draw(st.lists(st.text(labels, max_size=3), min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    output = draw(st.permutations(used)) if used else []
    text = ",".join(terms) + "->" + "".join(output[: draw(st.integers(0, len(output)))])
    extents = {label: draw(st.sampled_from([0, 1, 2, 3, 5])) for label in labels}
    other = draw(st.sampled_from([None, None, None, 1, 4]))
    shapes = [[extents[c] for c in term] for term in terms]
    if other is not None and shapes[0]:
        shapes[0][-1] = other
    dtype = getattr(torch, draw(st.sampled_from(DTYPES)))
    return text, [torch.ones(shape, dtype=dtype) for shape in shapes]


def try_text(text: str) -> None:
    attempt(lambda: einc.compile(text).source())
    attempt(lambda: einc.compile(text).dump("elaborate"))


def try_call(call: tuple[str, Sequence[Any], dict[str, Any]]) -> None:
    text, operands, named = call
    attempt(lambda: einc.compile(text)(*operands, **named))


def try_einsum(call: tuple[str, Sequence[Any]]) -> None:
    text, operands = call
    attempt(lambda: einc.einsum(text, *operands))
    attempt(lambda: einc.compile(text)(*operands))


@quick
@given(texts)
def test_texts(text: str) -> None:
    try_text(text)


@quick
@given(calls())
def test_calls(call: tuple[str, Sequence[Any], dict[str, Any]]) -> None:
    try_call(call)


@quick
@given(fitting())
def test_einsums(call: tuple[str, Sequence[Any]]) -> None:
    try_einsum(call)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "x = " + "(" * 3000 + "1" + ")" * 3000,
        "C[i] = " + "-" * 5000 + "A[i]",
        "C[i] = " + " + ".join(["A[i]"] * 5000),
        "C[i] = " + "A[" * 2000 + "i" + "]" * 2000,
        "softmax(" * 500 + '"ij"' + ")" * 500,
        "i" * 1000,
        "A" * 10_000 + "[i]",
        "C[i] = A[i]\n" * 3000,
        "\n" * 100_000 + "C[i = 3",
        "C[i] = A[i] * 1" + "0" * 5000,
        "C[i] = A[i] ** 99999999999999999999",
        '"' * 1001,
        ",".join(["ij"] * 500) + "->",
        "\ud800",
    ],
    ids=range(15),
)
def test_texts_that_are_too_much(text: str) -> None:
    start = time.perf_counter()
    try_text(text)
    assert time.perf_counter() - start < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "check"),
    [(texts, try_text), (calls(), try_call), (fitting(), try_einsum)],
    ids=["texts", "calls", "einsums"],
)
def test_for_minutes(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    end = time.monotonic() + SECONDS / 3
    while time.monotonic() < end:

        @seed(random.randrange(1 << 30))
        @settings(quick, max_examples=200, derandomize=False, database=None)
        @given(strategy)
        def run(value: Any) -> None:
            check(value)

        run()
