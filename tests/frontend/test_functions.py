"""Every function of one value, or of two, against NumPy in double precision: to a few units in the last place, at the
ends of its domain, at every level, by every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einc

Array = np.ndarray[Any, Any]
Function = Callable[[Array, Array], Array]

# Written here, meant there, for x and y of any size.
FUNCTIONS: dict[str, Function] = {
    "log1p(x)": lambda x, _: np.log1p(x),
    "expm1(x)": lambda x, _: np.expm1(x),
    "atan2(y, x)": lambda x, y: np.arctan2(y, x),
    "atan(x)": lambda x, _: np.arctan(x),
    "asin(x)": lambda x, _: np.arcsin(x),
    "acos(x)": lambda x, _: np.arccos(x),
    "sinh(x)": lambda x, _: np.sinh(x),
    "cosh(x)": lambda x, _: np.cosh(x),
    "sign(x)": lambda x, _: np.sign(x),
    "square(x)": lambda x, _: x * x,
    "logsigmoid(x)": lambda x, _: -np.logaddexp(0, -x),
    "softplus(x)": lambda x, _: np.logaddexp(0, x),
    "mish(x)": lambda x, _: x * np.tanh(np.logaddexp(0, x)),
    "elu(x)": lambda x, _: np.where(x > 0, x, np.expm1(x)),
    "elu(x, 0.5)": lambda x, _: np.where(x > 0, x, 0.5 * np.expm1(x)),
    "leaky_relu(x)": lambda x, _: np.where(x > 0, x, x * np.asarray(0.01, x.dtype)),
    "x * pi": lambda x, _: x * np.pi,
}
ODD = ("log1p(x)", "expm1(x)", "atan2(y, x)", "atan(x)", "asin(x)", "sinh(x)")  # keep the sign of a zero
TINY = [0.0, 1e-30, 1e-12, 1e-7, 1e-5, 1e-3]
SPREAD = [
    0.05,
    0.1,
    0.2,
    0.28,
    0.29,
    0.3,
    0.41,
    0.42,
    0.5,
    0.66,
    0.67,
    0.9,
    0.999,
    1.0,
    1.001,
    1.5,
    3.0,
    8.0,
    20.0,
    60.0,
]
SIZES = np.array(TINY + SPREAD)
ENDS = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan])


def compiled(names: list[str], level: int) -> einc.Program:
    lines = "".join(f"    T{k}[n] = {name}\n" for k, name in enumerate(names))
    results = ", ".join(f"T{k}" for k in range(len(names)))
    return einc.compile(f"def f(x[n], y[n]):\n{lines}    return {results}", level)


def of(x: Array, y: Array) -> dict[str, Array]:
    """What NumPy gives, in double precision."""
    with np.errstate(all="ignore"):
        return {name: f(x.astype(np.float64), y.astype(np.float64)) for name, f in FUNCTIONS.items()}


@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracy(dtype: type, level: int, backend: str) -> None:
    """Four units in the last place, and half of one more for each unit of an exponent, which is rounded as well."""
    x: Array = np.concatenate([SIZES, -SIZES]).astype(dtype)
    y = np.roll(x, 7)
    found = compiled([*FUNCTIONS], level)(x, y, backend=backend)
    unit = float(np.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        for (name, exact), got in zip(of(x, y).items(), found, strict=True):
            assert got.dtype == dtype or backend == "evaluate"
            steep = 0.5 * np.abs(x.astype(np.float64))
            near = np.abs(got - exact) <= (4 + steep) * unit * np.abs(exact) + np.finfo(dtype).tiny
            same = (got == exact) | (np.isnan(got) & np.isnan(exact))
            wrong = ~(near | same)
            assert not wrong.any(), (name, x[wrong], y[wrong], got[wrong], exact[wrong])


@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
@pytest.mark.parametrize("level", [0, 2])
def test_the_ends(level: int, backend: str) -> None:
    """Zeros with their signs, infinities and NaN."""
    x, y = (a.ravel().astype(np.float32) for a in np.meshgrid(ENDS, ENDS))
    found = compiled([*FUNCTIONS], level)(x, y, backend=backend)
    for (name, exact), got in zip(of(x, y).items(), found, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-6, err_msg=name)
        if name in ODD:
            zero = exact == 0
            np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(exact[zero]), err_msg=name)


@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
@pytest.mark.parametrize("level", [0, 2])
def test_complex_numbers(level: int, backend: str) -> None:
    random = np.random.default_rng(0)
    z = (random.normal(size=40) + 1j * random.normal(size=40)).astype(np.complex64)
    z[:6] = [0, 3e30 + 4e30j, 3e-30 - 4e-30j, complex(np.inf, 1), complex(np.nan, np.inf), complex(0, -2)]
    text = "def f(z[n]: c64):\n    A[n] = abs(z)\n    C[n] = conj(z)\n    S[n] = square(z)\n    return A, C, S"
    size, mirrored, squared = einc.compile(text, level)(z, backend=backend)
    assert size.dtype == np.float32 or backend == "evaluate"
    np.testing.assert_allclose(size, np.abs(z.astype(np.complex128)), rtol=1e-6)
    np.testing.assert_array_equal(mirrored, np.conj(z))
    np.testing.assert_allclose(squared[5:], z[5:].astype(np.complex128) ** 2, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_of_integers(dtype: type) -> None:
    x: Array = np.array([0, 1, 3, 200]).astype(dtype) - (100 if dtype != np.uint8 else 0)
    text = "def f(x[n]: {}):\n    S[n] = sign(x)\n    Q[n] = square(x)\n    C[n] = conj(x)\n    return S, Q, C"
    sign, square, same = einc.compile(text.format(np.dtype(dtype).name.replace("uint", "u").replace("int", "i")))(x)
    np.testing.assert_array_equal(sign, np.sign(x))
    np.testing.assert_array_equal(square, x * x)
    np.testing.assert_array_equal(same, x)


def test_pow_and_pi_are_names_like_others() -> None:
    x = np.array([0.5, 2.0, 3.0])
    (found,) = [einc.compile("def f(x[i], n: float):\n    T[i] = pow(x, n) * pi\n    return T")(x, n=1.5)]
    np.testing.assert_allclose(found, x**1.5 * np.pi)
    np.testing.assert_allclose(einc.compile("T[i] = pi * x[i]")(x), np.pi * x)
    np.testing.assert_array_equal(einc.compile("def f(x[i], pi[i]):\n    T[i] = x * pi[i]\n    return T")(x, x), x * x)
    np.testing.assert_array_equal(
        einc.compile("def f(x[i], pi: float):\n    T[i] = x * pi\n    return T")(x, pi=2.0), 2 * x
    )


@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_softmax_with_a_sink(level: int, backend: str) -> None:
    x = np.random.default_rng(1).normal(size=(4, 37)) * 3
    x[1] = -np.inf
    x[2, 5:] = -np.inf
    sink = np.array([0.5, 1.0, -np.inf, 200.0])
    found = einc.compile("def f(x[i, j], s[i]):\n    T = softmax_sink[j](x, s[i])\n    return T", level)(
        x, sink, backend=backend
    )
    e = np.exp(np.concatenate([x, sink[:, None]], 1) - np.maximum(x.max(1), sink)[:, None])
    np.testing.assert_allclose(found, (e / e.sum(1, keepdims=True))[:, :-1], rtol=1e-12, atol=1e-300)
    nothing = einc.compile("def f(x[i, j], s[i]):\n    T = softmax_sink[j](x, s[i])\n    return T", level)
    np.testing.assert_array_equal(nothing(x[1:2], np.array([-np.inf]), backend=backend), np.zeros((1, 37)))


@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_greatest_few(level: int, backend: str) -> None:
    """Equal values in the order of their positions; where there are no more, -inf."""
    text = (
        "def f(x[i, j]):\n"
        "    V0[i], P0[i] = argmax[j](x)\n"
        "    V1[i], P1[i] = next_max[j](x, V0, P0)\n"
        "    V2[i], P2[i] = next_max[j](x, V1, P1)\n"
        "    return V0, P0, V1, P1, V2, P2"
    )
    x = np.round(np.random.default_rng(2).normal(size=(9, 50)), 1)
    found = einc.compile(text, level)(x, backend=backend)
    order = np.argsort(-x, 1, kind="stable")
    for k in range(3):
        np.testing.assert_array_equal(found[2 * k + 1], order[:, k])
        np.testing.assert_array_equal(found[2 * k], np.take_along_axis(x, order[:, k : k + 1], 1)[:, 0])
    np.testing.assert_array_equal(einc.compile(text, level)(x[:, :2], backend=backend)[4], np.full(9, -np.inf))


@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_row_that_is_wholly_masked_has_its_greatest_value_first(level: int, backend: str) -> None:
    """As in NumPy, where all are -inf; a condition on the positions themselves leaves none, and none is read."""
    text = (
        "def f(x[i, j], n[i]: i64):\n"
        "    M[i] = argmax[j](where(j < n[i], x, -inf))\n"
        "    L[i] = argmin[j](where(j >= 200 + i, x, inf))\n"
        "    N[i] = argmax[j : j < n[i]](x)\n"
        "    R[i] = x[i, N[i]]\n"
        "    return M, L, N, R"
    )
    x = np.random.default_rng(3).normal(size=(5, 100))
    n = np.array([0, 1, 7, 100, 0])
    masked, least, only, read = einc.compile(text, level)(x, n, backend=backend)
    expected = np.array([np.argmax(np.where(np.arange(100) < m, row, -np.inf)) for row, m in zip(x, n, strict=True)])
    np.testing.assert_array_equal(masked, expected)
    np.testing.assert_array_equal(least, np.zeros(5))
    np.testing.assert_array_equal(only, np.where(n == 0, np.iinfo(np.int64).max, expected))
    np.testing.assert_array_equal(read, np.where(n == 0, 0, x[np.arange(5), expected]))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
def test_there_is_no_greatest_of_nothing(name: str, backend: str) -> None:
    program = einc.compile(f"T[i] = {name}[j](x[i, j])")
    with pytest.raises(einc.ShapeError, match="nothing to choose from"):
        program(np.zeros((3, 0)), backend=backend)
    assert program(np.zeros((0, 3)), backend=backend).shape == (0,)


@pytest.mark.parametrize("backend", ["torch", "interpret", "evaluate"])
@pytest.mark.parametrize("level", [0, 2])
def test_complex_values_in_conditions_and_subscripts(level: int, backend: str) -> None:
    """Where a complex value decides, it is taken apart as well."""
    random = np.random.default_rng(1)
    z = (random.normal(size=(5, 4)) + 1j * random.normal(size=(5, 4))).astype(np.complex64)
    w, x = np.where(random.random((5, 4)) < 0.5, z, 0).astype(np.complex64), random.normal(size=(5, 4)).astype("f4")
    text = """def f(z[i, j]: c64, w[i, j]: c64, x[i, j]: f32):
        M[i] = max[j](where(z == w, x, -inf))
        D[i] = sum[j : z != w](x)
        C[i, j] = where(z == w, complex(x, 1), conj(z))
        G[i, j] = x[i64(abs(z[i, j])) % |i|, j]
        return M, D, C, G"""
    most, rest, chosen, gathered = einc.compile(text, level)(z, w, x, backend=backend)
    same = z == w
    np.testing.assert_array_equal(most, np.where(same, x, -np.inf).max(1))
    np.testing.assert_allclose(rest, np.where(same, 0, x).sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(chosen, np.where(same, x + 1j, np.conj(z)))
    np.testing.assert_array_equal(gathered, x[np.abs(z).astype(int) % 5, np.arange(4)])
