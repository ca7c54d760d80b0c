"""Factors that positions, extents, scalars and random numbers decide, in products of any number of factors."""

from __future__ import annotations

import numpy as np
import pytest

from einc.evaluate import evaluate
from tests.support.compiled import compiled, definition, run

_THREE = "A[n, i], B[n, j], C[n, k]\n"
# By name: a signature, and a definition of O.
PRODUCTS = {
    "sum of positions": f"{_THREE}O[n] = sum[i, j, k]((i + j + k) * A[n, i] * B[n, j] * C[n, k])",
    "power of a distance": f"{_THREE}O[n] = sum[i, j, k](0.9 ** (i - j) * A[n, i] * B[n, j] * C[n, k])",
    "power in a matrix product": "A[n, i], B[n, j], V[j, k]\n"
    "O[n, i, k] = sum[j](0.9 ** (i - j) * A[n, i] * B[n, j] * V[j, k])",
    "random numbers": f"{_THREE}O[n] = sum[i, j, k](rand(7, i, j, k) * A[n, i] * B[n, j] * C[n, k])",
    "one tensor": (
        "A[n, i]\naxis j = |i|\naxis k = |i|\nO[n] = sum[i, j, k](rand(7, i, j) * rand(3, j, k) * (k + i) * A[n, i])"
    ),
    "no tensor": "A[n, i]\naxis j = |i|\nO[n] = A[n, 0] + sum[i, j](1 / (j + 1) * (i + j) / (j + 2))",
    "scalars": (
        "A[n, i], B[n, j], C[n, k], g: float, w: int\n"
        "O[n] = sum[i, j, k](g ** (i - j) * (i + w * k) * A[n, i] * B[n, j] * C[n, k])"
    ),
    "extents": f"{_THREE}O[n] = sum[i, j, k]((i + |j|) * A[n, i] * B[n, j] * C[n, k] / (k + 1) / (i + k + 1))",
    "integers": "A[n, i]: i32, B[n, j]: i32, C[n, k]: i32\n"
    "O[n] = sum[i, j, k]((i + j + k) * A[n, i] * B[n, j] * C[n, k])",
    "complex": "A[n, i]: c64, B[n, j], C[n, k]\nO[n] = sum[i, j, k]((i + j + k) * A[n, i] * B[n, j] * C[n, k])",
    "a wider sum": "A[n, i], B[i, j], C[k]: f64\nO[n] = sum[i, j, k](A[n, i] * (j - i) * B[i, j] * C[k] * (k + j))",
}
SIZES = {"n": 3, "i": 5, "j": 6, "k": 7}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, level: int) -> None:
    for hints in (SIZES, dict.fromkeys(SIZES, 64)):
        c = compiled(definition(f"{PRODUCTS[name]}\nreturn O"), level, "interpret", **hints)
        rng = np.random.default_rng(0)
        types = {p.name: "c8" if p.dtype.is_complex else f"{p.dtype.kind}{p.dtype.size}" for p in c.program.operands}
        operands = {
            p.name: (4 * rng.standard_normal([SIZES[d[0]] for d in p.dims])).astype(types[p.name])
            for p in c.program.operands
        }
        scalars = {"g": 0.8, "w": 2} if name == "scalars" else {}
        (wanted,) = evaluate(c.program, operands, scalars)
        for backend in ("torch", "interpret")[: 1 + (level == 2)]:
            (found,) = run(c, backend, operands, **scalars)  # type: ignore[arg-type]  # a float
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("types", [("", ""), (": bf16", ": i32"), (": f16", "")])
def test_a_sum_stored_wider_than_its_operands(types: tuple[str, str], level: int) -> None:
    a, b = types
    text = f"A[k, i]{a}, B[k, j]{b}\nO[i, j]: f64 = sum[k](A[k, i] * B[k, j])\nreturn O"
    c = compiled(definition(text), level, i=64, j=64, k=64)
    assert c.state.schedule is not None
    if not a:
        rng = np.random.default_rng(0)
        operands = {n: rng.standard_normal((70, 33)).astype("f4") for n in "AB"}
        (found,), (wanted,) = run(c, "torch", operands), evaluate(c.program, operands)
        # products and their sum are in the type of the operands, whatever the sum is stored as
        np.testing.assert_allclose(found, wanted, rtol=0, atol=64 * 2.0**-23 * np.abs(wanted).max())
