"""Random programs, with reads of every kind, integers and complex numbers, have the gradients that torch derives.

Where torch has a number: 0 times an infinite derivative, which torch makes NaN of, is nothing where it does not count.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from einc.ein.printer import print_program
from tests.gradients.compare import Call, Gradients, assert_equal
from tests.support.backends import TORCH
from tests.support.random_programs import Case, cases

TYPES = {**TORCH, "c64": torch.complex64, "c128": torch.complex128}
ANY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}
WITHIN = 1e-8  # functions of integers among them, whose values are large


def called(case: Case) -> Call:
    operands = {p.name: torch.as_tensor(case.operands[p.name]).to(TYPES[p.dtype.name]) for p in case.program.operands}
    return Call(print_program(case.program), operands, case.scalars)


def finite(gradients: Gradients, exact: Gradients) -> Gradients:
    """The gradients where torch's are finite."""
    return {n: torch.where(exact[n].isfinite(), g, 0) for n, g in gradients.items()}


def check(case: Case) -> None:
    c = called(case)
    assume(c.by and c.cotangents)
    try:
        exact = c.in_torch()
    except RuntimeError as e:  # of a literal beyond 64 bits
        assume("overflow" not in str(e))
        raise
    wanted = finite(exact, exact)
    assert_equal(finite(c.evaluated(), exact), wanted, WITHIN, least=1.0)
    assert_equal(finite(c.halved(0), exact), wanted, WITHIN, least=1.0)


@given(cases(kinds="fibc"))
@settings(max_examples=50, **ANY)  # type: ignore[arg-type]  # each its own type
def test_random_programs(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(10))
@given(case=cases(kinds="ffibc", most=6))
@settings(max_examples=200, derandomize=False, **ANY)  # type: ignore[arg-type]  # each its own type
def test_many_random_programs(_batch: int, case: Case) -> None:
    check(case)
