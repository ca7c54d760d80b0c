"""Walks along batch axes of contractions, position by position: each has a whole tile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import einc
from einc.base.targets import TARGETS
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.tile.walk import loops

SIMILAR = """def similar(Q[b, i, d], K[b, j, d], n[b]: i64):
    A[b, i, j] = Q[b, i, d] * K[b, j, d]
    T[i, j] = sum[b : j < n[b]](tanh(A))
    return T"""
SIZES = {"b": 64, "i": 1024, "j": 1024, "d": 64}


def operands(b: int, i: int, j: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(b + i + j)
    return torch.randn(b, i, 8), torch.randn(b, j, 8), torch.randint(0, j + 1, (b,))


def dense(q: Tensor, k: Tensor, n: Tensor) -> Tensor:
    inside = torch.arange(k.shape[1]) < n[:, None, None]
    return torch.where(inside, torch.tanh(q @ k.mT), 0).sum(0)


def compiled(**sizes: int) -> Compiled:
    return compile_program(elaborate(parse(SIMILAR)), 2, TARGETS["sm_90"], SIZES | sizes)


def test_a_walk_along_batch_axes_is_stepped() -> None:
    schedule = compiled().state.schedule
    assert schedule is not None
    kernel = next(k for k in schedule.kernels if k.name == "T_parts")  # 64 tiles leave half of the processors idle
    (loop,) = loops(kernel.body)
    assert loop.axis.axes == ("b",)
    assert not loop.axis.blocked


@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("shape", [(5, 130, 140), (1, 128, 300), (0, 130, 130)])
def test_steps(shape: tuple[int, int, int], backend: str) -> None:
    given = operands(*shape)
    found = einc.compile(SIMILAR)(*given, backend=backend)
    torch.testing.assert_close(found, dense(*given))


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_steps_in_parts(backend: str) -> None:
    given = operands(7, 130, 140)
    found = einc.compile(SIMILAR, choices={"T.parts": 3})(*given, backend=backend)
    torch.testing.assert_close(found, dense(*given))


def test_few_rows_are_held() -> None:
    """Where a position has few, a tile has several positions."""
    schedule = compiled(b=16, i=8, j=64).state.schedule
    assert schedule is not None
    assert all(loop.axis.blocked for kernel in schedule.kernels for loop in loops(kernel.body))
