"""Gradients against differences of the results, by torch's `gradcheck`; second ones for a third of the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import einc
from tests.library.cases import Case
from tests.whole.test_library import CASES

# Programs in which a small change makes another place win, or that are defined for other types.
ROUGH = {
    "products/moe_router": "which experts are chosen",
    "products/kmeans": "its result is an integer",
    "products/nearest_neighbour": "which row is nearest",
    "attention/int8_cache": "its scales are f32",
}


@lru_cache(maxsize=128)
def small(name: str) -> tuple[Case, dict[str, Tensor]]:
    """A case with operands in double precision."""
    case = next(c for c in CASES if c.name == name)
    operands = case.given(case.tiny, torch.float64)
    return case, {n: t.double() if t.is_floating_point() else t for n, t in operands.items()}


def function(case: Case, operands: Mapping[str, Tensor]) -> tuple[Callable[..., Any], list[Tensor]]:
    """The program's results of floats, as a function of the operands of floats."""
    program = einc.compile(case.path, level=0)
    names = [n for n, t in operands.items() if t.is_floating_point()]

    def f(*leaves: Tensor) -> tuple[Tensor, ...]:
        given: dict[str, Any] = {**operands, **dict(zip(names, leaves, strict=True)), **case.scalars}
        found = program(**given)
        results = found if isinstance(found, tuple) else (found,)
        return tuple(torch.where(r.isfinite(), r, 0) for r in results if r.is_floating_point())

    return f, [operands[n].clone().requires_grad_() for n in names]


def one_in(n: int, cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Some of the cases, and the others in the slow tier."""
    marked = [pytest.param(c, id=c.name, marks=[pytest.mark.slow] * bool(k % n)) for k, c in enumerate(cases)]
    return pytest.mark.parametrize("case", marked)


@one_in(5, CASES[1:] + CASES[:1])
def test_differences(case: Case) -> None:
    if case.name in ROUGH:
        pytest.skip(ROUGH[case.name])
    f, leaves = function(*small(case.name))
    assert gradcheck(f, leaves, fast_mode=True)


@pytest.mark.turns(2)
@one_in(5, CASES[::3])
def test_differences_of_gradients(case: Case) -> None:
    if case.name in ROUGH:
        pytest.skip(ROUGH[case.name])
    f, leaves = function(*small(case.name))
    assert gradgradcheck(f, leaves, fast_mode=True)
