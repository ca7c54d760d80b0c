"""Operations of torch written down and made again: for other values, other places in memory, values that decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import einc
from einc.base.types import DType
from einc.codegen.tape import record
from einc.ein.printer import print_program
from einc.evaluate import evaluate
from einc.runtime.tensors import as_numpy
from tests.support.compiled import agree, magnitude, precision, tensors
from tests.support.random_programs import Case, cases

ATTENTION = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]
    return O
"""


def computed(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Every kind of step: in place, to memory of its own, a look, a constant, several results, a list."""
    x, y = inputs
    z = torch.mul(x, y)
    z += torch.full((), 2.0) * 3
    z[0] = x[1]
    if bool((z > 0).all()):
        z = z.neg()
    top, places = z.max(0)
    both = torch.stack([top, places.to(top.dtype)])
    into = torch.empty(2, 3)
    torch.add(both, 1, out=into)
    return into, z.T


def signed() -> tuple[Tensor, Tensor]:
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    x[1] = -x[1].abs()
    return x, y


def test_every_kind_of_step() -> None:
    x, y = signed()
    results, again = record(computed, [x, y])
    assert again is not None
    for found, wanted in zip(results, computed([x, y]), strict=True):
        assert torch.equal(found, wanted)
    for _ in range(3):
        x, y = signed()
        second = again(x, y)
        assert second is not None
        for found, wanted in zip(second, computed([x, y]), strict=True):
            assert torch.equal(found, wanted)
    assert again(x.abs(), y.abs()) is None  # all are above 0
    assert again(torch.randn(5, 3)[1:], y) is None  # another place in its storage


@pytest.mark.parametrize("value", [lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: int(x[0, 0])])
def test_what_reads_values_is_not_written_down(value: object) -> None:
    assert callable(value)
    assert record(lambda inputs: [inputs[0] * torch.tensor(value(inputs[0]))], [torch.ones(2, 2)])[1] is None


def test_a_tensor_given_twice_is_not_one_input() -> None:
    x, y = torch.ones(3), torch.arange(3.0)
    _, again = record(lambda inputs: [inputs[0] - inputs[1]], [x, x])
    assert again is not None
    (found,) = again(x, y) or [None]
    assert found is not None
    assert torch.equal(found, x - y)


def attend(f: einc.Program, q: Tensor, k: Tensor, v: Tensor) -> None:
    exact = torch.softmax(q.double() @ k.double().mT / q.shape[-1] ** 0.5, -1).nan_to_num(0) @ v.double()
    torch.testing.assert_close(f(q, k, v).double(), exact, rtol=1e-5, atol=1e-5)


def test_numbers_have_operations_of_their_own() -> None:
    f = einc.compile(
        "def f(x[i], y[j], t: float, seed: int):\n    z[i, j] = t * x[i] * y[j] * rand(seed, i, j)\n    return z"
    )
    x, y = torch.randn(5), torch.randn(6)
    for t, seed in ((2.0, 1), (2.0, 1), (-0.0, 1), (0.0, 1), *((0.5, n) for n in range(12)), (2.0, 1), (0.5, 3)):
        for _ in range(2):
            exact = f(x.double().numpy(), y.double().numpy(), t, seed, backend="evaluate")
            found = f(x, y, t, seed)
            torch.testing.assert_close(found.double(), torch.from_numpy(exact), rtol=1e-6, atol=1e-7)
            assert torch.equal(found.signbit(), torch.from_numpy(exact).signbit())


def test_values_that_decide_otherwise() -> None:
    f = einc.compile(ATTENTION)
    for special in (0.0, 0.0, 0.0, float("-inf"), 1e30, 0.0, float("-inf"), 1.0):
        q, k, v = (torch.rand(1, 2, 9, 4) for _ in range(3))
        if special:
            k[0, 0] = special  # all scores of a head are -inf, or far from the others
        attend(f, q, k, v)


@settings(max_examples=80, deadline=None)
@given(case=cases(), seed=st.integers(0, 1000))
def test_random_programs_again_and_again(case: Case, seed: int) -> None:
    f = einc.compile(print_program(case.program))
    generator = torch.Generator().manual_seed(seed)
    own = tensors(case)
    for n in range(4):
        operands = [
            shuffled(t, p.dtype, generator) if n else t for t, p in zip(own, case.program.operands, strict=True)
        ]
        given_now = {p.name: as_numpy(t) for p, t in zip(case.program.operands, operands, strict=True)}
        found = called(f, operands, case.scalars)
        wanted = evaluate(case.program, given_now, case.scalars)
        results = found if isinstance(found, tuple) else (found,)
        into = tuple(torch.full_like(t, 1).mT.contiguous().mT if t.ndim > 1 else torch.full_like(t, 1) for t in results)
        assert called(f, operands, case.scalars, into) is into
        for name, got, written, value in zip(case.program.results, results, into, wanted, strict=True):
            agree(got, value, precision(case.program, name), magnitude(value))
            agree(written, value, precision(case.program, name), magnitude(value))


def called(f: einc.Program, operands: list[Tensor], scalars: dict[str, Any], out: Any = None) -> Any:
    """A call as it is made by name, also where a parameter is called `out`."""
    calls = f._callee.calls
    found = None if calls is None else calls(operands, scalars, out)
    return f.run(operands, scalars, out) if found is None else found


def shuffled(t: Tensor, dtype: DType, generator: torch.Generator) -> Tensor:
    """The same values in another order; of integers, which may be places, the same order."""
    if dtype.is_int or dtype.is_bool or t.numel() < 2:
        return t.clone()
    return t.flatten()[torch.randperm(t.numel(), generator=generator)].view(t.shape)


def test_a_shorter_axis_than_an_operands_own() -> None:
    """What looks like one operation of torch on whole operands is none where only a part of one is read."""
    a, b = torch.randn(3, 7), torch.randn(5, 4)
    product = einc.compile("def f(A[i, n], B[j, k]):\n    T[i, k] = sum[j](A[i, j] * B[j, k])\n    return T")
    total = einc.compile("def f(A[i, n]):\n    axis j = 2\n    T[i] = sum[j](A[i, j])\n    return T")
    for _ in range(3):
        torch.testing.assert_close(product(a, b), a[:, :5] @ b)
        torch.testing.assert_close(total(a), a[:, :2].sum(1))
