"""Gradients of the library by kernels on a GPU: as near as torch's own, and the same bits twice.

Torch may add up in parts. Rounding of a sum that a kernel adds up one by one grows as the root of the number of terms
(Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, 2019), which is allowed for beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

import einc
from tests.gradients import test_library as library
from tests.gradients.compare import Call, error
from tests.gradients.test_schedules import SCORES, attention
from tests.library.cases import EPSILON, Case
from tests.whole.test_library import every_case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


Computed = Callable[[dict[str, Tensor]], Any]


def on_gpu(f: Computed) -> Computed:
    """A function of tensors that are on the GPU, for operands and results that are not."""

    def moved(values: dict[str, Tensor]) -> Any:
        with torch.device("cuda"):
            found = f({n: t.cuda() for n, t in values.items()})
        return tuple(t.cpu() for t in found) if isinstance(found, tuple | list) else found.cpu()

    return moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_case
def test_library(case: Case, dtype: torch.dtype) -> None:
    if dtype not in case.dtypes:
        pytest.skip(case.why_dtypes)
    if (case.name, dtype) in library.MISSING:
        pytest.skip(library.MISSING[case.name, dtype])
    key = case.name, tuple(case.tiny.items()), dtype
    c = library.called(*key)
    if not c.cotangents:
        pytest.skip("no result is of floats")
    cotangents, exact, own = library.references(*key)
    if dtype not in library.NARROW:  # libraries of the GPU add up in another order than those of a processor
        dense, operands = c.dense(dtype)
        own = [*own, c.repeatedly(on_gpu(dense), operands, cotangents)]
    program = einc.compile(case.path.read_text())

    @on_gpu
    def kernels(values: dict[str, Tensor]) -> Any:
        given: dict[str, Any] = {**values, **case.scalars}
        return program(**given)

    found = c.repeatedly(kernels, c.operands, cotangents)
    longest = max(n for t in c.operands.values() for n in (1, *t.shape))
    each = EPSILON[torch.float32] * sqrt(longest)  # of as many products, added one after the other as their sums arise
    for n in c.by:
        known = [library.spread(way, exact, n) for way in own if n in way[0]]
        assert library.spread(found, exact, n) <= max(each, library.FACTOR * max([EPSILON[dtype], *known])), n
    again = c.repeatedly(kernels, c.operands, cotangents)
    assert all(torch.equal(a[n], b[n]) for a, b in zip(found, again, strict=True) for n in c.by)


@pytest.mark.parametrize("score", SCORES)
def test_what_scores_are_made_with(score: str) -> None:
    """Of a size at which its gradient is summed beside those of queries and keys."""
    axes = {"b": 2, "h": 4, "i": 1024, "j": 1024, "d": 64, "e": 64}
    text = attention(score)
    dims = dict(re.findall(r"(\w)\[([^\]]*)\]: bf16", text))
    torch.manual_seed(0)
    operands = {n: torch.randn([axes[a] for a in own.split(", ")]).to(torch.bfloat16) for n, own in dims.items()}
    operands |= {n: t.abs() + 1 for n, t in operands.items() if n in "TU"}
    c = Call(text, operands)
    exact = c.in_torch()
    program: Callable[..., Any] = einc.compile(text)
    found, again = (c.through(on_gpu(lambda values: program(**values)), c.operands) for _ in range(2))
    for n in c.by:
        # softmax cancels what a row is shifted by: its gradient is 0, up to the rounding of the results of such rows
        rows = prod(axes[a] for a in "bhi" if a not in dims[n])
        least = sqrt(rows * axes["e"]) if n in "TU" and "j" not in dims[n] else 1.0
        assert error(found[n], exact[n], least) <= library.FACTOR * EPSILON[torch.bfloat16], n
        assert torch.equal(found[n], again[n]), n
