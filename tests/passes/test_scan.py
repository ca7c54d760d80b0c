"""Reductions for every end of an axis take one walk over it, and mean what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einc import driver
from einc.base.targets import TARGETS
from einc.codegen.run.aot import compile_ahead
from einc.evaluate import evaluate
from einc.explain import accounts
from einc.tile import Scan, Schedule
from einc.tile.walk import tile_axes, values_in
from tests.support.compiled import compiled, definition, run

Array = np.ndarray[Any, Any]


def kernels(c: driver.Compiled) -> list[str]:
    assert c.state.schedule is not None
    return [k.name for k in c.state.schedule.kernels]


def scans(schedule: Schedule | None) -> int:
    """The number of prefixes that are made."""
    assert schedule is not None
    return sum(isinstance(v, Scan) for k in schedule.kernels for v in values_in(k.body))


def visits(schedule: Schedule | None, sizes: dict[str, int]) -> int:
    """The most positions that a kernel's grid and loops visit."""
    assert schedule is not None
    return max(
        int(np.prod([sizes[a] for t in tile_axes(k).values() for a in t.axes], dtype=object)) for k in schedule.kernels
    )


# By name: signature and equations; x[b, t, c] is drawn, n is its length t, and the result is over every end i.
PREFIXES = {
    "where": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t](where(t <= i, x[b, t], 0))\nreturn C",
    "domain": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t : t <= i](x[b, t])\nreturn C",
    "prelude": "x[b, t]\nC[b, t] = cumsum[t](x)\nreturn C",
    "exclusive": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t : t < i](x[b, t])\nreturn C",
    "delayed": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t : t + 5 <= i](x[b, t])\nreturn C",
    "suffix": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t : t >= i](x[b, t])\nreturn C",
    "exclusive suffix": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t : t > i](x[b, t])\nreturn C",
    "negated": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t](where(t > i, 0, x[b, t]))\nreturn C",
    "max": "x[b, t]\naxis i = |t|\nC[b, i] = max[t](where(t <= i, x[b, t], -inf))\nreturn C",
    "exclusive max": "x[b, t]\naxis i = |t|\nC[b, i] = max[t : t < i](x[b, t])\nreturn C",
    "min": "x[b, t]\naxis i = |t|\nC[b, i] = min[t](where(t <= i, x[b, t], inf))\nreturn C",
    "prod": "x[b, t]\naxis i = |t|\nC[b, i] = prod[t : t <= i](1 + x[b, t] / 100)\nreturn C",
    "any": "x[b, t]\naxis i = |t|\nC[b, i] = any[t : t <= i](x[b, t] > 2)\nreturn C",
    "all": "x[b, t]\naxis i = |t|\nC[b, i] = all[t : t >= i](x[b, t] > -2.5)\nreturn C",
    "argmax": "x[b, t]\naxis i = |t|\nC[b, i] = argmax[t : t <= i](x[b, t])\nreturn C",
    "exclusive argmin suffix": "x[b, t]\naxis i = |t|\nC[b, i] = argmin[t : t >= i](x[b, t])\nreturn C",
    "batch behind": "x[t, b]\naxis i = |t|\nC[i, b] = sum[t : t <= i](x[t, b])\nreturn C",
    "batch around": "x[b, t, c]\naxis i = |t|\nC[c, i, b] = max[t : t <= i](x[b, t, c])\nreturn C",
    "composite": "x[t, b]\naxis i = |t|\nC[(b i)] = sum[t : t <= i](x[t, b])\nreturn C",
    "computed": "x[b, t]\nC[b, t] = cumsum[t](-softplus(-x))\nreturn C",
    "masked": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t : t <= i and x[b, t] > 0](x[b, t])\nreturn C",
    "two axes": "x[b, t, c]\naxis i = |t|\nC[b, i] = sum[t, c : t <= i](x[b, t, c])\nreturn C",
    "product": "x[b, t], y[t, c]\naxis i = |t|\nC[b, i, c] = sum[t : t <= i](x[b, t] * y[t, c])\nreturn C",
    "twice": "x[s, t]\naxis i = |t|\naxis c = |s|\nC[c, i] = sum[s, t : t <= i and s <= c](x[s, t])\nreturn C",
    "own length": "x[b, t], y[i]\nC[b, i] = sum[t : t <= i](x[b, t]) + y[i]\nreturn C",
    "own length max": "x[b, t], y[i]\nC[b, i] = y[i] * max[t : t < i](exp(x[b, t]))\nreturn C",
    "own length suffix": "x[b, t], y[i]\nC[b, i] = y[i] * sum[t : t >= i](x[b, t])\nreturn C",
    "advanced": "x[b, t]\naxis i = |t|\nC[b, i] = sum[t : t <= i + 3](x[b, t])\nreturn C",
    "advanced max": "x[b, t]\naxis i = |t|\nC[b, i] = max[t : t <= 2 * i - 7](x[b, t])\nreturn C",
    "min from": "x[b, t]\naxis i = |t|\nC[b, i] = min[t : t >= 2 * i](x[b, t])\nreturn C",
    "lengths": "x[b, t], n[k]: i32\nC[b, k] = sum[t : t < n[k]](x[b, t])\nreturn C",
    "max from": "x[b, t], n[k]: i32\nC[b, k] = max[t : t >= n[k]](x[b, t])\nreturn C",
    "interval": "x[t]\naxis i = |t|\naxis j = |t|\nC[i, j] = sum[t](where(j < t and t <= i, x[t], 0))\nreturn C",
    "interval of counts": "x[t]\naxis i = |t|\naxis j = |t|\nC[i, j] = sum[t : j <= t and t < i](x[t] > 0)\nreturn C",
    "interval that moves": "x[t], y[k]: i32\naxis i = |t|\nC[i, k] = sum[t : y[k] <= t and t + 3 <= i](x[t])\nreturn C",
    "own lengths": "x[t], y[i], z[j]\nC[i, j] = y[i] + z[j] + sum[t : j < t and t <= i](x[t])\nreturn C",
}
EXACT = ("any", "all", "argmax", "exclusive argmin suffix", "interval of counts")


def drawn(c: driver.Compiled, n: int) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    sizes = {"t": n, "i": n + 7 if n % 2 else max(n - 7, 0), "j": n + 2, "b": 3, "c": 2, "s": 4, "k": 5}
    found: dict[str, Array] = {}
    for p in c.program.operands:
        shape = tuple(sizes[dim[0]] for dim in p.dims)
        found[p.name] = rng.standard_normal(shape).astype("f4")
        if p.dtype.is_int:
            found[p.name] = rng.integers(-2, n + 3, shape).astype("i4")
    return found


def check(name: str, level: int, backend: str, n: int) -> None:
    c = compiled(definition(PREFIXES[name]), level, b=3, t=n, i=n, j=n)
    operands = drawn(c, n)
    (wanted,) = evaluate(c.program, operands)
    (found,) = run(c, backend, operands)
    tolerance = 0 if name in EXACT else 3e-5
    np.testing.assert_allclose(found.astype("f8"), wanted.astype("f8"), rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("name", PREFIXES)
def test_values(name: str, backend: str, level: int) -> None:
    check(name, level, backend, 45)


@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("n", [0, 1])
def test_short_axes(name: str, backend: str, n: int) -> None:
    if n or not name.startswith(("argmax", "exclusive argmin", "own")):
        check(name, 2, backend, n)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("name", PREFIXES)
def test_work_is_linear(name: str, level: int) -> None:
    c = compiled(definition(PREFIXES[name]), level, b=1, t=1 << 14, i=1 << 14, j=1 << 14, c=1, s=1, k=1 << 14)
    sizes = dict.fromkeys((a.name for a in c.state.program.axes), 1 << 14) | dict.fromkeys("bcs", 1)
    two = name in ("interval", "interval that moves", "interval of counts", "own lengths")
    assert visits(c.state.schedule, sizes) <= (1 << 28 if two else 1 << 14)
    assert scans(c.state.schedule) >= 1


FORGETTING = """Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], logf[b, h, t]
S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
D[b, h, i, j] = sum[t](where(j < t and t <= i, logf[b, h, t], 0))
O[b, h, i, e] = softmax[j](where(j <= i, S + D, -inf)) * V[b, h, j, e]
return O"""


@pytest.mark.parametrize("level", [1, 2])
def test_attention_that_forgets_is_a_scan_and_a_fused_kernel(level: int) -> None:
    c = compiled(definition(FORGETTING), level, "sm_90", b=2, h=16, i=4096, j=4096, t=4096, d=64, e=64)
    assert len(kernels(c)) == 2
    assert c.state.schedule is not None
    assert [b.dims for b in c.state.schedule.intermediates] == [(("b",), ("h",), ("t_2",))] * 2
    assert [sum(isinstance(v, Scan) for v in values_in(k.body)) for k in c.state.schedule.kernels] == [2, 0]


@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("level", [0, 2])
def test_attention_that_forgets(backend: str, level: int) -> None:
    n = 83
    c = compiled(definition(FORGETTING), level, b=1, h=2, i=n, j=n, t=n, d=16, e=16)
    rng = np.random.default_rng(0)
    operands = {name: rng.standard_normal((1, 2, n, 16)).astype("f4") for name in "QKV"}
    operands["logf"] = -np.log1p(np.exp(-rng.standard_normal((1, 2, n)) - 2)).astype("f4")
    operands["logf"][..., [0, 31, 32, 70]] = -np.inf  # gates that are shut
    (wanted,) = evaluate(c.program, operands)
    (found,) = run(c, backend, operands)
    np.testing.assert_allclose(found, wanted, atol=5e-6)


JOINED = {
    "two prefixes": "C[b, i] = sum[t : t <= i](x[b, t])\nM[b, i] = max[t : t <= i](x[b, t])\nreturn C, M",
    "pointwise around": "C[b, i] = sum[t : t <= i](exp(x[b, t]))\nM[b, i] = log(C) * x[b, i]\nreturn M",
    "normalised": "s[b] = sum[t](exp(x[b, t]))\nM[b, i] = sum[t : t <= i](exp(x[b, t])) / s[b]\nreturn M",
}


@pytest.mark.parametrize("name", JOINED)
def test_prefixes_share_a_kernel(name: str) -> None:
    text = f"x[b, t]\naxis i = |t|\n{JOINED[name]}"
    assert len(kernels(compiled(definition(text), 2, "sm_90", b=64, t=8192, i=8192))) == 1
    c = compiled(definition(text), 2, b=3, t=45, i=45)
    operands = drawn(c, 45)
    for backend in ("torch", "interpret"):
        for found, wanted in zip(run(c, backend, operands), evaluate(c.program, operands), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


# Chains along an axis that begin with prefixes along it: reduced in the walk that makes them.
REDUCED = {
    "softmax of prefixes": (
        "x[b, j], w[j, e]",
        "C[b, j] = cumsum[j](x[b, j])\nO[b, e] = softmax[j](C) * w[j, e]\nL[b] = logsumexp[j](C)\nreturn O, L",
    ),
    "running product": (
        "x[b, j], w[j, e]",
        "P[b, j] = prod[t : t < j](sigmoid(x[b, t]))\nO[b, e] = P[b, j] * w[j, e]\nreturn O",
    ),
    "what light passes": (
        "x[b, j], w[j, e]",
        "T[b, j] = exp(-sum[t : t < j](abs(x[b, t])))\n"
        "O[b, e] = sum[j](T[b, j] * (1 - exp(-abs(x[b, j]))) * w[j, e])\nreturn O",
    ),
    "suffixes": (
        "x[b, j]",
        "axis t = |j|\nC[b, j] = sum[t : t >= j](x[b, t])\nM[b] = max[j](C)\nV[b] = var[j](C)\nreturn M, V",
    ),
    "prefixes of weights": (
        "x[b, j]",
        "P[b, j] = softmax[j](x)\nF[b, j] = cumsum[j](P[b, j])\nG[b] = sum[j](F * (1 - F))\nreturn G",
    ),
    "masked": (
        "x[b, j]",
        "C[b, j] = cumsum[j](x[b, j])\nO[b] = sum[j](where(j <= b, exp(-abs(C)), 0))\nreturn O",
    ),
}


def reducing(name: str, target: str, **sizes: int) -> driver.Compiled:
    first, body = REDUCED[name]
    return compiled(definition(f"{first}\n{body}"), 2, target, **sizes)


@pytest.mark.parametrize("name", REDUCED)
def test_prefixes_are_reduced_in_their_walk(name: str) -> None:
    c = reducing(name, "sm_90", b=1 << 14, j=1 << 16, t=1 << 16, e=64)
    assert len(kernels(c)) == 1
    for hints in ({"b": 3, "j": 300, "e": 5}, {"b": 1 << 14, "j": 1 << 20, "t": 1 << 20, "e": 64}):
        c = reducing(name, "interpret", **hints)
        rng = np.random.default_rng(3)
        shapes = {"x": (3, 300), "w": (300, 5)}
        operands = {p.name: rng.standard_normal(shapes[p.name]).astype("f4") for p in c.program.operands}
        wanted = evaluate(c.program, operands)
        for backend in ("torch", "interpret"):
            for f, w in zip(run(c, backend, operands), wanted, strict=True):
                np.testing.assert_allclose(f, w, rtol=2e-5, atol=2e-5 * np.abs(w).max())


@pytest.mark.aot
@pytest.mark.parametrize("name", REDUCED)
def test_prefixes_that_are_reduced_compile_ahead(name: str) -> None:
    c = reducing(name, "sm_90", b=1 << 14, j=1 << 16, t=1 << 16, e=64)
    assert compile_ahead(c.emitted, TARGETS["sm_90"], {"b": 1 << 14, "j": 1 << 16, "t": 1 << 16, "e": 64})


@pytest.mark.aot
@pytest.mark.parametrize("name", ["prelude", "computed", "exclusive max", "argmax", "all", "prod"])
def test_prefixes_compile_ahead(name: str) -> None:
    c = compiled(definition(PREFIXES[name]), 2, "sm_90", b=64, t=8192, i=8192)
    (kernel,) = compile_ahead(c.emitted, TARGETS["sm_90"], dict.fromkeys(("b", "t", "i", "t2"), 8192))
    assert kernel.spills == 0


@pytest.mark.parametrize("level", [1, 2])
def test_explain_counts_linear_work(level: int) -> None:
    sizes = {"b": 64, "t": 8192}
    c = compiled(definition(PREFIXES["prelude"]), level, "sm_90", **sizes)
    figures = accounts.level(c, sizes | {"t2": 8192}, {})
    assert [k.flops for k in figures.kernels] == [64 * 8192]
