"""The share of blocks that a mask leaves, before there are tiles, and the plans that it decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einc
from einc.base.targets import TARGETS
from einc.codegen.triton.backend import TRITON
from einc.driver import elaborate, parse
from einc.passes.estimate.single import alone
from einc.passes.estimate.visited import share, smallest
from einc.pipeline import Context
from einc.trials.request import Request
from einc.trials.running import gradient_for

ROWS, COLUMNS = 4096, 3000
Array = np.ndarray[Any, Any]
MASKS: dict[str, Callable[[Array, Array], Array]] = {
    "j <= i": lambda i, j: j <= i,
    "j <= i and i - j < 100": lambda i, j: (j <= i) & (i - j < 100),
    "abs(i - j) < 500": lambda i, j: abs(i - j) < 500,
    "i // 64 == j // 64": lambda i, j: i // 64 == j // 64,
    "j < 100 or j <= i": lambda i, j: (j < 100) | (j <= i),
    "(i + j) % 3 == 0": lambda i, j: (i + j) % 3 == 0,
    "max(i, j) < 1000": lambda i, j: np.maximum(i, j) < 1000,
    "j <= 2 * i - 100": lambda i, j: j <= 2 * i - 100,
    "j < |j| // 2": lambda i, j: (j < COLUMNS // 2) & (i >= 0),
}
SUM = "def f(X[i, j], n[i]: i32):\n    T[i] = sum[j](where({}, X[i, j], 0))\n    return T\n"


def found(mask: str, level: int = 2) -> float:
    program = elaborate(parse(SUM.format(mask), "<test>"))
    context = Context(level=level, target=TARGETS["sm_90"], backend=TRITON, sizes={"i": ROWS, "j": COLUMNS})
    plan = alone(program.equations[-1], program, context)
    assert smallest(program, context) == share(plan, context)
    return share(plan, context)


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_leaves_its_blocks(mask: str) -> None:
    """As many as there are, but for the sample of rows."""
    held = np.zeros((ROWS, 3008), bool)
    held[:, :COLUMNS] = MASKS[mask](np.arange(ROWS)[:, None], np.arange(COLUMNS)[None])
    blocks = held.reshape(ROWS // 64, 64, 3008 // 64, 64).any((1, 3))
    assert found(mask) == pytest.approx(blocks.mean(), rel=0.2)


@pytest.mark.parametrize("mask", ["j < n[i]", "j >= 0", "X[i, j] > 0"])
def test_data_may_leave_anything(mask: str) -> None:
    assert found(mask) == 1


def test_nothing_is_left_out_where_all_is_visited() -> None:
    assert found("j <= i", level=1) == 1


def test_scores_are_computed_again_where_a_mask_leaves_few() -> None:
    """Though computing all of them would take longer than reading them."""
    text = (
        "def f(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16, V[b, h, j, e]: bf16, W[i]: bf16):\n"
        "    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]\n"
        "    O[b, h, i, e] = softmax[j](where(i // 64 == j // 64, S * W[i], -inf)) * V[b, h, j, e]\n"
        "    return O\n"
    )
    sizes = {"b": 8, "h": 8, "i": 1112, "j": 1112, "d": 64, "e": 64}
    schedule = gradient_for(einc.compile(text, target="sm_90"), Request(sizes), []).compiled().state.schedule
    assert schedule is not None
    assert not any({"i", "j"} <= {a for dim in b.dims for a in dim} for b in schedule.intermediates)
