"""What is compared with itself is one value: masks of the k best keep exactly k, whatever walks go in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from einc import driver
from einc.binding import bind
from einc.evaluate import evaluate
from einc.passes.planning.compared import compared
from einc.tile import Dot
from einc.tile.walk import values_in
from tests.support.compiled import compiled, definition, run_in_torch, runner

Array = np.ndarray[Any, Any]

_SCORES = "Q[i, d], K[j, d]\naxis t = |j|\nS[i, j] = Q[i, d] * K[j, d]\n"
_RANK = "R[i, j] = sum[t](where(S[i, t] > S[i, j], 1, 0))\n"
# By name: a program over the scores S[i, j], whose first result says how many positions of a row were kept.
PROGRAMS = {
    "rank": f"{_SCORES}{_RANK}N[i] = sum[j](where(R[i, j] < 4, 1, 0))\nreturn N",
    "attention": (
        f"Q[i, d], K[j, d], V[j, e]{_SCORES[16:]}{_RANK}N[i] = sum[j](where(R[i, j] < 4, 1, 0))\n"
        "O[i, e] = softmax[j](where(R[i, j] < 4, S, -inf)) * V[j, e]\nreturn N, O"
    ),
    "maximum": f"{_SCORES}m[i] = max[j](S)\nN[i] = 4 * sum[j](where(S[i, j] >= m[i], 1, 0))\nreturn N",
    "buckets": (
        f"{_SCORES}N[i] = 4 * sum[j, t](where(floor(S[i, j]) == floor(S[i, t]) and j == t, 1, 0)) / |j|\nreturn N"
    ),
}
HINTS: tuple[dict[str, int], ...] = (
    {},
    {"i": 64, "j": 64, "d": 64, "t": 64, "e": 8},
    {"i": 1 << 12, "j": 1 << 12, "t": 1 << 12, "d": 64, "e": 64},
)


def drawn(c: driver.Compiled, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    sizes = {"i": 13, "j": int(rng.integers(5, 50)), "d": int(rng.integers(1, 50)), "e": 5}
    return {p.name: rng.standard_normal([sizes[d[0]] for d in p.dims]).astype("f4") for p in c.program.operands}


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("splits", [None, 3])
@pytest.mark.parametrize("name", PROGRAMS)
def test_exactly_k_are_kept(name: str, splits: int | None, level: int) -> None:
    for seed, hints in enumerate(HINTS):
        c = compiled(definition(PROGRAMS[name]), level, "interpret", splits, **hints)
        operands = drawn(c, seed)
        tensors = {n: torch.from_numpy(x) for n, x in operands.items()}
        found = [run_in_torch(c, tensors, bind(c.program, {n: x.shape for n, x in operands.items()}, {}), None)]
        if seed == 1:
            found.append(runner(c)(*tensors.values()))
        for results in found:
            np.testing.assert_array_equal(results[0].numpy(), 4)
            for one, wanted in zip(results[1:], evaluate(c.program, operands)[1:], strict=True):
                np.testing.assert_allclose(one.numpy(), wanted, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("splits", [None, 3])
@pytest.mark.parametrize("target", ["interpret", "sm_90"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_scores_are_computed_in_one_place(name: str, target: str, splits: int | None) -> None:
    for hints in HINTS:
        c = compiled(definition(PROGRAMS[name]), 2, target, splits, **hints)
        assert "S" in compared(c.program)
        assert c.state.schedule is not None
        dots = [v for k in c.state.schedule.kernels for v in values_in(k.body) if isinstance(v, Dot) and v.inner == "d"]
        assert len(set(map(repr, dots))) == 1


def test_what_streams_is_not_compared() -> None:
    source = "def f(Q[i, d], K[j, d], V[j, e]):\n    S[i, j] = where(j <= i, sum[d](Q[i, d] * K[j, d]), -inf)\n"
    source += "    O[i, e] = softmax[j](S) * V[j, e]\n    return O\n"
    assert compared(driver.elaborate(driver.parse(source, "<test>"))) == frozenset()
