"""Random programs have the values and the gradients of torch; on a GPU those that are large, in every type.

Without one, kernels for it are written at such sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import einc
from einc import driver
from einc.ein import Program
from tests.support import near_torch
from tests.support.dense import dense
from tests.support.emitting import emitted
from tests.support.random_tensors import LARGE, Tensors, programs

NARROW = ("bf16", "f16", "f32")
MOST = 2.0**14  # of results and gradients, which f16 holds
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
ANY = {"deadline": None, "suppress_health_check": SLOW}


def elaborated(case: Tensors) -> Program:
    return driver.elaborate(driver.parse(case.text))


def check(case: Tensors, device: str = "cpu") -> None:
    program = elaborated(case)
    operands = {n: t.to(device) for n, t in case.tensors().items()}

    def reference(t: Mapping[str, Tensor], real: torch.dtype) -> Sequence[Tensor]:
        with torch.device(device):
            return dense(program, t, real=real)

    most = MOST if case.dtype == "f16" else None
    near_torch.check(
        einc.compile(case.text, generator="auto"),
        reference,
        operands,
        case.floats,
        lambda t, narrow: reference(near_torch.converted(t, narrow), narrow),
        values_alone=case.ranked,
        most=most,
    )


@given(programs())
@settings(max_examples=40, **ANY)  # type: ignore[arg-type]  # each its own type
def test_values_and_gradients(case: Tensors) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(10))
@given(case=programs())
@settings(max_examples=100, derandomize=False, **ANY)  # type: ignore[arg-type]  # each its own type
def test_many(_batch: int, case: Tensors) -> None:
    check(case)


@given(programs(extents=LARGE, dtypes=NARROW))
@settings(max_examples=40, **ANY)  # type: ignore[arg-type]  # each its own type
def test_kernels_are_written(case: Tensors) -> None:
    emitted(case.text, case.sizes)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(5))
@given(case=programs(extents=LARGE, dtypes=NARROW))
@settings(max_examples=100, derandomize=False, **ANY)  # type: ignore[arg-type]  # each its own type
def test_many_kernels_are_written(_batch: int, case: Tensors) -> None:
    emitted(case.text, case.sizes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("dtype", NARROW)
@given(data=st.data())
@settings(max_examples=25, **ANY)  # type: ignore[arg-type]  # each its own type
def test_on_gpu(dtype: str, data: st.DataObject) -> None:
    check(data.draw(programs(extents=LARGE, dtypes=[dtype])), "cuda")
