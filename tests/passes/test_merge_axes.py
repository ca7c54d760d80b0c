"""Heads that share a key are rows of one contraction, in both spellings, and mean what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einc import tile
from einc.base.types import INT
from einc.evaluate import evaluate
from einc.tile.typing import axes_of, scope
from einc.tile.walk import tile_axes, values_in, walk_values
from tests.support.compiled import compiled, definition, run

Array = np.ndarray[Any, Any]

SHARE = "h // (|h| / |g|)"
PROGRAMS = {
    "quotient": f"""Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e]
        S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, {SHARE}, j, d]
        O[b, h, i, e] = softmax[j](S) * V[b, {SHARE}, j, e]
        return O""",
    "composite": """Q[b, (g r), i, d], K[b, g, j, d], V[b, g, j, e], R[r]
        S[b, g, r, i, j] = rsqrt(|d|) * Q[b, (g r), i, d] * K[b, g, j, d]
        O[b, (g r), i, e] = softmax[j](S) * V[b, g, j, e]
        return O""",
    "causal": f"""Q[b, i, h, d], K[b, j, g, d], V[b, j, g, e]
        S[b, h, i, j] = rsqrt(|d|) * Q[b, i, h, d] * K[b, j, {SHARE}, d]
        A[b, h, i, j] = where(j <= i + |j| - |i|, S, -inf)
        O[b, i, h, e] = softmax[j](A) * V[b, j, {SHARE}, e]
        return O""",
    "biased": f"""Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e], slope[h]
        S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, {SHARE}, j, d]
        A[b, h, i, j] = S - slope[h] * j / (h + 1) + h % (|h| / |g|)
        O[b, h, i, e] = softmax[j](A) * V[b, {SHARE}, j, e]
        return O""",
    "statistic": f"""Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e]
        S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, {SHARE}, j, d]
        L[b, h, i] = logsumexp[j](S)
        P[b, h, i, j] = exp(S - L)
        O[b, h, i, e] = P[b, h, i, j] * V[b, {SHARE}, j, e]
        return O, L, S""",
    "projected": f"""Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e], W[h, e, d]
        S[b, h, i, j] = Q[b, h, i, d] * K[b, {SHARE}, j, d]
        O[b, h, i, e] = softmax[j](S) * V[b, {SHARE}, j, e]
        P[b, i, d] = O[b, h, i, e] * W[h, e, d]
        return P""",
    "groups beside": f"""Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e]
        S[b, h, i, j, g] = (g + 1) * Q[b, h, i, d] * K[b, {SHARE}, j, d]
        O[b, h, i, e, g] = softmax[j](S) * V[b, {SHARE}, j, e]
        return O""",
    "one head": """Q[b, h, i, d], K[b, j, d], V[b, j, e]
        S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, j, d]
        O[b, h, i, e] = softmax[j](S) * V[b, j, e]
        return O""",
}


def sizes_of(i: int, h: int = 6, g: int = 2) -> dict[str, int]:
    return {"b": 2, "h": h, "g": g, "r": h // g, "i": i, "j": 37, "d": 24, "e": 20}


@pytest.mark.turns(3)
@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("i", [1, 3, 19])
@pytest.mark.parametrize("name", PROGRAMS)
def test_values(name: str, i: int, level: int, backend: str) -> None:
    if backend == "interpret" and (level == 1 or i == 3):
        return
    sizes = sizes_of(i)
    c = compiled(definition(PROGRAMS[name]), level, "interpret", None, **sizes)
    rng = np.random.default_rng(0)
    operands = {
        p.name: rng.standard_normal([int(np.prod([sizes[a] for a in dim])) for dim in p.dims]).astype("f4")
        for p in c.program.operands
    }
    wanted = evaluate(c.program, operands)
    for found, value in zip(run(c, backend, operands), wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=2e-5, atol=2e-5 * max(1, np.abs(value).max(initial=0)))


DECODING = {"b": 8, "h": 32, "g": 8, "r": 4, "i": 1, "j": 8192, "d": 128, "e": 128}


@pytest.mark.parametrize("name", ["quotient", "composite", "causal", "biased"])
def test_decoding_reads_a_key_once_for_its_heads(name: str) -> None:
    c = compiled(definition(PROGRAMS[name]), 2, "sm_90", None, **DECODING)
    assert c.state.schedule is not None
    kernel = c.state.schedule.kernels[0]
    (rows,) = (a for a in tile_axes(kernel).values() if a.role == "row")
    assert rows.axes == ("r", "i")
    names = scope(kernel) | {a.name: tile.TileType(INT, (a.name,)) for a in tile_axes(kernel).values() if a.blocked}
    loads = [v for v in values_in(kernel.body) if isinstance(v, tile.Load) and v.tensor in "KV"]
    assert len(loads) == 2
    for load in loads:
        read = {v.name for index in load.index for v in walk_values(index) if isinstance(v, tile.Ref)}
        assert "r" not in read
        assert rows.name not in frozenset().union(*(axes_of(x, names) for x in load.index))


def test_a_long_prompt_is_left_alone() -> None:
    c = compiled(definition(PROGRAMS["quotient"]), 2, "sm_90", None, **DECODING | {"i": 8192})
    assert "r" not in {a.name for a in c.state.program.axes}


def test_what_a_call_is_told_stays() -> None:
    c = compiled(definition(PROGRAMS["quotient"]), 2, "interpret", None, **DECODING)
    assert [p.dims for p in c.state.program.operands] == [p.dims for p in c.program.operands]
