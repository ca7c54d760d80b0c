"""Each law of differentiation keeps what a program means, and its text means the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from numpy.typing import NDArray

from einc.base.source import Source
from einc.ein import Program
from einc.ein.printer import print_program
from einc.evaluate import evaluate
from einc.frontend import elaborate, parse
from einc.passes.adjoint.differentiate import LAWS, steps
from tests.gradients.by_data import READS
from tests.gradients.compare import EXACT, Call, call, error, widened
from tests.gradients.test_random_programs import called
from tests.support.random_programs import Case, cases

Results = dict[str, NDArray[Any]]
WITHIN = 1e-8

TEXTS = {
    "softmax": "def f(Q[i, d], K[j, d], V[j, e]):\n    S[i, j] = Q[i, d] * K[j, d]\n"
    "    O[i, e] = softmax[j](S) * V[j, e]\n    return O",
    "picked": "def f(X[n, d], W[v, d], t[n]: i64):\n    Z[n, v] = X[n, d] * W[v, d]\n"
    "    L[n] = logsumexp[v](Z) - Z[n, t[n]]\n    return L",
}


def results(program: Program, c: Call) -> Results:
    """By the evaluator, given cotangents if it takes them."""
    values = {**widened(c.operands), **{f"d{n}": t for n, t in widened(c.cotangents).items()}}
    found = evaluate(program, {p.name: values[p.name].numpy() for p in program.operands}, c.scalars)
    return dict(zip(program.results, found, strict=True))


def alike(found: Results, wanted: Results) -> bool:
    """Where both are finite: 0 times an infinite slope may be written as no term at all."""
    for name, value in wanted.items():
        there = np.isfinite(value) & np.isfinite(found[name])
        scale = np.abs(np.where(there, value, 0)).max(initial=1.0)
        if np.abs(np.where(there, found[name], 0) - np.where(there, value, 0)).max(initial=0) > WITHIN * scale:
            return False
    return True


def check(c: Call) -> None:
    before = results(c.program, c)
    for law, d in steps(c.program, c.by):
        found = results(d.whole, c)
        if law.name != "accumulate":
            assert alike(found, before), law.name
        before = found


def operands_of(name: str) -> Mapping[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if name == "softmax":
        return {"Q": normal(5, 3), "K": normal(7, 3), "V": normal(7, 4)}
    return {"X": normal(6, 3), "W": normal(11, 3), "t": torch.randint(-2, 13, (6,), generator=generator)}


@pytest.mark.parametrize("name", TEXTS)
def test_named_programs(name: str) -> None:
    check(Call(TEXTS[name], operands_of(name)))


@pytest.mark.parametrize("name", ["two dimensions", "by position and data", "of each head"])
def test_reads(name: str) -> None:
    check(Call(*READS[name]))


@given(cases(kinds="ffi"))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_random_programs(case: Case) -> None:
    c = called(case)
    assume(c.by and c.cotangents)
    check(c)


def test_laws_have_names_of_their_own() -> None:
    names = [law.name for law in LAWS]
    assert len(set(names)) == len(names)
    assert "accumulate" in names


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_law_leaves_is_a_program(name: str) -> None:
    c = Call(TEXTS[name], operands_of(name))
    for _, d in steps(c.program, c.by):
        text = print_program(d.whole)
        assert print_program(elaborate(parse(Source("<program>", text)))) == text


def test_sums_are_read_where_their_axes_are() -> None:
    """The gradient by T is the same at every k: that by S is no sum of it at one of them, of which there is none."""
    text = """def f(A[k], C[d]):
    S[] = sum[k](A[k])
    T[k] = A[k] * S[]
    Y[d] = sum[k](T[k] * C[d])
    return Y
"""
    c = call(text, A=torch.randn(3, dtype=torch.float64), C=torch.randn(2, dtype=torch.float64))
    exact, found = c.in_torch(), c.compiled()
    assert all(error(found[n], exact[n]) <= EXACT for n in "AC")
