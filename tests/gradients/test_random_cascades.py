"""Random cascades have the gradients that torch derives from the same equations, computed densely.

In double precision throughout: by the evaluator, of the whole derivative and of its two halves, and by kernels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gradients.compare import EXACT, Call, assert_equal
from tests.support.random_cascades import Cascade, cascades

LEAST = 1.0  # as cotangents are: what cancels in a gradient has been as large
SLOW = HealthCheck.too_slow, HealthCheck.data_too_large


def called(case: Cascade) -> Call:
    """The cascade in double precision, with floats of which no two are equal: where two are, a rounding decides."""
    random = np.random.default_rng(case.seed)
    operands = {}
    for name, x in case.operands.items():
        exact = x.astype(np.float64) + random.uniform(-0.1, 0.1, x.shape) if x.dtype == np.float32 else x
        operands[name] = torch.as_tensor(np.asarray(exact))
    return Call(case.text, operands)


def check_kernels(case: Cascade, level: int) -> None:
    """A quotient of counts is of f32."""
    c = called(case)
    counts = any(e.monoid and e.monoid.adds and e.outputs[0].dtype.is_int for e in c.program.equations)
    within = 16 * torch.finfo(torch.float32).eps if counts else EXACT
    assert_equal(c.compiled(level, "torch"), c.in_torch(), within, LEAST)


def check(case: Cascade) -> None:
    c = called(case)
    exact = c.in_torch()
    assert_equal(c.evaluated(), exact, least=LEAST)
    assert_equal(c.halved(), exact, least=LEAST)


@given(cascades())
@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
def test_random_cascades(case: Cascade) -> None:
    check(case)


@given(cascades(), st.integers(0, 2))
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_random_cascades_in_kernels(case: Cascade, level: int) -> None:
    check_kernels(case, level)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(20))
@given(case=cascades(most=10))
@settings(max_examples=500, deadline=None, derandomize=False, suppress_health_check=SLOW)
def test_many_random_cascades(_batch: int, case: Cascade) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(10))
@given(case=cascades(), level=st.integers(0, 2))
@settings(max_examples=300, deadline=None, derandomize=False, suppress_health_check=SLOW)
def test_many_random_cascades_in_kernels(_batch: int, case: Cascade, level: int) -> None:
    check_kernels(case, level)
