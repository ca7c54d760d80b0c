"""Products masked by data: where a part of the mask that few positions decide holds all over, no other is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einc
from einc import driver, tile
from einc.base.targets import INTERPRETER, TARGETS
from einc.binding import bind
from einc.evaluate import evaluate
from einc.tile.walk import loops, values_in
from tests.support.compiled import in_small_tiles, run_in_torch, runner

Array = np.ndarray[Any, Any]
# Scores where rows are valid, and at one position of each.
ROWS = """def f(P[n, v], W[v, d], t[n] : i64, ok[n] : f32):
    D[n, v] = where(v == t[n], 2, 0) + where(ok[n] != 0, P[n, v], 0)
    R[n, d] = D[n, v] * W[v, d]
    return R
"""
ALONG = ROWS.replace("W[v, d]", "W[n, d]").replace("R[n, d]", "R[v, d]")
LARGE = {"n": 8192, "v": 65536, "d": 4096}
SMALL = {"n": 40, "v": 70, "d": 20}


def contracting(kernel: tile.Kernel) -> list[tile.Loop]:
    return [s for s in loops(kernel.body) if any(isinstance(v, tile.Dot) for v in values_in(s.body))]


def masked(body: tuple[tile.Statement, ...]) -> bool:
    dots = [v for v in values_in(body) if isinstance(v, tile.Dot)]
    assert dots
    return any(d.left_in is not None or d.right_in is not None for d in dots)


@pytest.mark.parametrize("text", [ROWS, ALONG], ids=["rows", "along the walk"])
def test_blocks_where_all_rows_are_valid_take_no_mask(text: str) -> None:
    """Of the positions of each row nothing has to be asked there."""
    program = driver.elaborate(driver.parse(text, "<test>"))
    c = driver.compile_program(program, 2, TARGETS["sm_90"], LARGE)
    assert c.state.schedule is not None
    (loop,) = contracting(c.state.schedule.kernels[-1])
    assert loop.full is not None
    assert masked(loop.body)
    assert not masked(loop.full.body)
    axes = [{a for dim in b.dims for a in dim} for b in c.state.schedule.intermediates if b.dtype.is_int]
    assert all(not own for own in axes)  # what tells it is one number


@pytest.mark.parametrize("valid", ["all", "none", "first", "last", "some"])
@pytest.mark.parametrize("how", ["torch", "triton"])
@pytest.mark.parametrize("text", [ROWS, ALONG], ids=["rows", "along the walk"])
def test_positions_that_count_for_no_row_are_not_read(text: str, how: str, valid: str) -> None:
    """Whatever is there: where no row is valid, all but one position of each may hold a NaN."""
    program = driver.elaborate(driver.parse(text, "<test>"))
    c = driver.compile_program(program, 2, INTERPRETER, LARGE, backend=in_small_tiles(16))
    random, n, v, d = np.random.default_rng(1), *SMALL.values()
    ok: dict[str, Array] = {"all": np.ones(n), "none": np.zeros(n), "some": random.integers(0, 2, n)}
    ok |= {"first": np.arange(n) < n // 2, "last": np.arange(n) >= n // 2}
    given: dict[str, Array] = {
        "P": random.standard_normal((n, v)).astype(np.float32),
        "W": random.standard_normal((v if text == ROWS else n, d)).astype(np.float32),
        "t": random.integers(-5, v + 5, n),
        "ok": ok[valid].astype(np.float32),
    }
    counts = (np.arange(v) == given["t"][:, None]) | (given["ok"] != 0)[:, None]
    given["W"][~counts.any(0 if text == ROWS else 1)] = np.nan
    (wanted,) = evaluate(program, given)
    assert np.isfinite(wanted).all()
    bindings = bind(c.program, {name: x.shape for name, x in given.items()})
    tensors = {name: torch.from_numpy(x) for name, x in given.items()}
    (found,) = run_in_torch(c, tensors, bindings) if how == "torch" else runner(c)(*tensors.values())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_what_a_mask_keeps_from_being_read_may_be_anything(level: int, backend: str) -> None:
    """A factor of rows stays under the mask: nothing counts in the first five rows, where it is not a number."""
    text = """def f(Q[i, k], K[j, k], Y[j, d], w[i]):
    S[i, j] = Q[i, k] * K[j, k]
    T[i, d] = sum[j](where(j <= i - 5, w[i] * tanh(S[i, j]), 0) * Y[j, d])
    return T
"""
    generator = torch.Generator().manual_seed(3)
    q, k, y = (torch.randn(40, n, generator=generator) for n in (16, 16, 32))
    w = torch.randn(40, generator=generator)
    w[:5] = torch.nan
    seen = torch.arange(40) <= torch.arange(40)[:, None] - 5
    wanted = torch.where(seen, w[:, None].nan_to_num() * torch.tanh(q @ k.mT), 0) @ y
    torch.testing.assert_close(einc.compile(text, level=level)(q, k, y, w, backend=backend), wanted)
