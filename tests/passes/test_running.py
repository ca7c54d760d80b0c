"""Prefixes whose body knows where they end are one scan, and mean what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einc import driver
from einc.base.targets import TARGETS
from einc.codegen.run.aot import compile_ahead
from einc.evaluate import evaluate
from tests.passes.test_scan import kernels, scans, visits
from tests.support.compiled import compiled, definition, run

Array = np.ndarray[Any, Any]

_X = "x[b, t]\naxis i = |t|\n"
_MAXIMUM = "m[b, i] = max[t : t <= i](x[b, t])\n"
_MEAN = "M[b, i] = sum[t : t <= i](x[b, t]) / (i + 1)\n"

# By name: a program over x[b, t] whose results have a value for every end i.
CHAINS = {
    "mean and variance": f"{_X}{_MEAN}V[b, i] = sum[t : t <= i]((x[b, t] - M[b, i]) ** 2) / (i + 1)\nreturn M, V",
    "variance alone": f"{_X}{_MEAN}V[b, i] = sum[t](where(t <= i, (x[b, t] - M[b, i]) ** 2, 0)) / (i + 1)\nreturn V",
    "third moment": f"{_X}{_MEAN}V[b, i] = sum[t : t <= i]((x[b, t] - M[b, i]) ** 3) / (i + 1)\nreturn V",
    "functions": (
        "x[b, t]\nM[b, t] = cumsum[t](x) / (t + 1)\naxis i = |t|\n"
        "V[b, i] = sum[t](where(t <= i, (x[b, t] - M[b, i]) ** 2, 0)) / (i + 1)\nreturn V"
    ),
    "logcumsumexp": f"{_X}{_MAXIMUM}L[b, i] = m[b, i] + log(sum[t : t <= i](exp(x[b, t] - m[b, i])))\nreturn L",
    "softmax": (
        f"x[b, t], v[b, t, e]\naxis i = |t|\n{_MAXIMUM}"
        "P[b, i, e] = sum[t](where(t <= i, exp(x[b, t] - m[b, i]) * v[b, t, e], 0))"
        " / sum[t](where(t <= i, exp(x[b, t] - m[b, i]), 0))\nreturn P"
    ),
    "softmax of the rest": (
        "x[b, t], v[b, t, e]\naxis i = |t|\nm[b, i] = max[t : t >= i](x[b, t])\n"
        "P[b, i, e] = sum[t : t >= i](exp(x[b, t] - m[b, i]) * v[b, t, e])"
        " / sum[t : t >= i](exp(x[b, t] - m[b, i]))\nreturn P"
    ),
    "before": (f"{_X}m[b, i] = max[t : t < i](x[b, t])\nL[b, i] = sum[t : t < i](exp(x[b, t] - m[b, i]))\nreturn L"),
    "entropy": (
        f"{_X}{_MAXIMUM}z[b, i] = sum[t : t <= i](exp(x[b, t] - m[b, i]))\n"
        "H[b, i] = log(z) - sum[t : t <= i]((x[b, t] - m[b, i]) * exp(x[b, t] - m[b, i])) / z[b, i]\nreturn H"
    ),
    "norm by a maximum": (
        f"{_X}m[b, i] = max[t : t <= i](abs(x[b, t]))\n"
        "N[b, i] = m[b, i] * sqrt(sum[t : t <= i]((x[b, t] / m[b, i]) ** 2))\nreturn N"
    ),
    "maximum of sums": "x[b, t]\nS[b, t] = cumsum[t](x)\naxis i = |t|\nC[b, i] = max[t : t <= i](S[b, t])\nreturn C",
    "sum of sums": "x[b, t]\nS[b, t] = cumsum[t](x)\nC[b, t] = cumsum[t](S) / (t + 1)\nreturn C",
    "sum of sums of sums": "x[b, t]\nC[b, t] = cumsum[t](cumsum[t](cumsum[t](x))) / (t + 1) ** 2\nreturn C",
    "drawdown": f"{_X}{_MAXIMUM}D[b, i] = max[t : t <= i](m[b, t] - x[b, t])\nreturn D",
    "spread": f"{_X}{_MEAN}D[b, i] = max[t : t <= i](x[b, t] - M[b, i])\nreturn D",
    "place": f"{_X}{_MEAN}D[b, i] = argmax[t : t <= i](x[b, t] - M[b, i])\nreturn D",
    "decay": f"{_X}D[b, i] = sum[t : t <= i](0.9 ** (i - t) * x[b, t])\nreturn D",
    "decay by data": (
        "x[b, t], a[b, t]\nL[b, t] = cumsum[t](-abs(a) / 100)\naxis i = |t|\n"
        "h[b, i] = sum[t : t <= i](exp(L[b, i] - L[b, t]) * x[b, t])\nreturn h"
    ),
    "moment about the end": f"{_X}D[b, i] = sum[t : t <= i]((i - t) * x[b, t]) / (i + 1)\nreturn D",
    "weight at the end": "x[b, t], y[b, t]\naxis i = |t|\nD[b, i] = sum[t : t <= i](x[b, t] * y[b, i])\nreturn D",
    "scaled product": f"{_X}m[b, i] = max[t : t <= i](1 + abs(x[b, t]))\n"
    "D[b, i] = prod[t : t <= i]((2 + abs(x[b, t])) / m[b, i])\nreturn D",
    "row scale": f"x[b, t], s[b]\naxis i = |t|\n{_MAXIMUM}"
    "D[b, i] = sum[t : t <= i](exp((x[b, t] - m[b, i]) * abs(s[b])))\nreturn D",
}
# What does not follow its end, or not in a stable way.
OPEN = {
    "hinge": f"{_X}{_MAXIMUM}C[b, i] = sum[t : t <= i](max(x[b, t] - m[b, i] + 1, 0))\nreturn C",
    "jumping": "x[b, t], y[b, i]\nC[b, i] = sum[t : t <= i](exp(x[b, t] - 9 * y[b, i]))\nreturn C",
    "far": f"{_X}m[b, i] = max[t : t <= i](x[b, t])\nC[b, i] = sum[t](tanh(x[b, t] - m[b, i]))\nreturn C, m",
    "every two": f"{_X}m[b, i] = max[t : t <= i](x[b, t])\nE[b, i, t] = x[b, t] * m[b, i]\nreturn m, E",
    "both ends": (
        f"{_X}m[b, i] = max[t : t >= i](x[b, t])\nC[b, i] = sum[t : t <= i](exp(x[b, t] - m[b, i] - 4))\nreturn C"
    ),
}


def program(text: str, level: int, target: str = "interpret", n: int = 64, b: int = 3) -> driver.Compiled:
    return compiled(definition(text), level, target, b=b, t=n, i=n, e=4)


def drawn(c: driver.Compiled, n: int, dtype: str = "f4", seed: int = 7) -> dict[str, Array]:
    sizes = {"t": n, "i": n, "b": 3, "e": 4}
    rng = np.random.default_rng(seed)
    return {p.name: rng.standard_normal([sizes[d[0]] for d in p.dims]).astype(dtype) for p in c.program.operands}


def check(c: driver.Compiled, operands: dict[str, Array], backend: str = "torch", tolerance: float = 2e-5) -> None:
    for found, wanted in zip(run(c, backend, operands), evaluate(c.program, operands), strict=True):
        scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)))
        np.testing.assert_allclose(found.astype("f8"), wanted.astype("f8"), rtol=tolerance, atol=tolerance * scale)


EVERY = ("mean and variance", "logcumsumexp", "softmax", "maximum of sums", "sum of sums")


@pytest.mark.parametrize("name", EVERY)
def test_values_for_every_length(name: str) -> None:
    c = program(CHAINS[name], 2)
    for n in range(1, 71):
        check(c, drawn(c, n))
    if "v" not in drawn(c, 1):
        check(c, {n: x[:1] for n, x in drawn(c, 4099).items()})


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name", [*CHAINS, *OPEN])
def test_values(name: str, level: int) -> None:
    c = program((CHAINS | OPEN)[name], level)
    for n in (1, 2, 45):
        check(c, drawn(c, n))
    if level == 2:
        check(c, drawn(c, 45), "interpret")


@pytest.mark.parametrize("name", CHAINS)
def test_double_precision(name: str) -> None:
    signature, rest = CHAINS[name].split("\n", 1)
    c = program(signature.replace("]", "]: f64") + "\n" + rest, 2)
    check(c, drawn(c, 300, "f8"), tolerance=1e-11)


@pytest.mark.parametrize("name", CHAINS)
def test_work_is_linear_and_in_one_kernel(name: str) -> None:
    n = 1 << 14
    c = program(CHAINS[name], 2, "sm_90", n, b=64)
    sizes = dict.fromkeys((a.name for a in c.state.program.axes), n) | {"b": 1, "e": 1}
    assert visits(c.state.schedule, sizes) == n
    assert scans(c.state.schedule) >= 1
    assert len(kernels(c)) == 1
    assert c.state.schedule is not None
    assert not c.state.schedule.intermediates


@pytest.mark.parametrize("name", OPEN)
def test_what_does_not_follow_is_apart(name: str) -> None:
    c = program(OPEN[name], 2, "sm_90", 1 << 14)
    assert len(kernels(c)) >= 1
    assert scans(c.state.schedule) == (0 if name == "jumping" else 1)


@pytest.mark.parametrize("name", ["mean and variance", "logcumsumexp", "softmax", "before", "decay"])
def test_large_offsets_and_gaps(name: str) -> None:
    """What accumulators are relative to is where the values are, and minus infinity is nothing."""
    c = program(CHAINS[name], 2)
    operands = drawn(c, 500)
    operands["x"] += 1000 if name != "decay" else 0
    check(c, operands, tolerance=1e-4)
    if name in ("logcumsumexp", "softmax"):
        operands["x"][:, 1::3] = -np.inf
        operands["x"][0, 100:400] = -np.inf
        check(c, operands, tolerance=1e-4)


@pytest.mark.aot
@pytest.mark.parametrize("name", ["mean and variance", "softmax of the rest"])
def test_compiles_ahead(name: str) -> None:
    c = program(CHAINS[name], 2, "sm_90", 8192, b=64)
    (kernel,) = compile_ahead(c.emitted, TARGETS["sm_90"], {"t": 8192, "i": 8192, "b": 64, "e": 4})
    assert kernel.spills == 0
