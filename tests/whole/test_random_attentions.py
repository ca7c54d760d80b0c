"""Random attentions have the values and the gradients of plain torch; on a GPU those that are long, in every type.

Without one, kernels for it are written at such sizes.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import einc
from tests.support import near_torch
from tests.support.emitting import emitted
from tests.support.random_attentions import LARGE, Attention, attentions

NARROW = ("bf16", "f16", "f32")
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
ANY = {"deadline": None, "suppress_health_check": SLOW}


def check(case: Attention, device: str = "cpu") -> None:
    operands = {n: t.to(device) for n, t in case.tensors().items()}
    near_torch.check(
        einc.compile(case.text, generator="auto"),
        lambda t, _: case.reference(t),
        operands,
        case.floats,
        lambda t, narrow: case.reference(t, rounded=narrow),
        lambda t: case.reference(t, fixed=True),
    )


@given(attentions())
@settings(max_examples=25, **ANY)  # type: ignore[arg-type]  # each its own type
def test_values_and_gradients(case: Attention) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(10))
@given(case=attentions())
@settings(max_examples=100, derandomize=False, **ANY)  # type: ignore[arg-type]  # each its own type
def test_many(_batch: int, case: Attention) -> None:
    check(case)


@given(attentions(extents=LARGE, dtypes=NARROW))
@settings(max_examples=20, **ANY)  # type: ignore[arg-type]  # each its own type
def test_kernels_are_written(case: Attention) -> None:
    emitted(case.text, case.sizes)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(5))
@given(case=attentions(extents=LARGE, dtypes=NARROW))
@settings(max_examples=100, derandomize=False, **ANY)  # type: ignore[arg-type]  # each its own type
def test_many_kernels_are_written(_batch: int, case: Attention) -> None:
    emitted(case.text, case.sizes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("dtype", NARROW)
@given(data=st.data())
@settings(max_examples=25, **ANY)  # type: ignore[arg-type]  # each its own type
def test_on_gpu(dtype: str, data: st.DataObject) -> None:
    check(data.draw(attentions(extents=LARGE, dtypes=[dtype])), "cuda")
