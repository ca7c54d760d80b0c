"""Random cascades agree with the evaluator at every level, whether their axes are held whole or walked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from einc import driver
from einc.base.targets import INTERPRETER
from einc.binding import Bindings, bind
from einc.evaluate import evaluate
from tests.support.compiled import run_in_torch
from tests.support.random_cascades import Cascade, cascades

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))
LONG = {"i": 64, "j": 1 << 20, "k": 64, "e": 64}  # hints that make j too long to be held whole
ULP = 2.0**-23


Run = Callable[[driver.Compiled, dict[str, torch.Tensor], Bindings], tuple[torch.Tensor, ...]]


def check(case: Cascade, run: Run = run_in_torch) -> None:
    """Every level gives what the text means, compiled for the sizes it has and for long ones."""
    program = driver.elaborate(driver.parse(case.text, "cascade"))
    wanted = evaluate(program, case.operands)
    operands = {name: torch.from_numpy(x) for name, x in case.operands.items()}
    bindings = bind(program, {name: tuple(x.shape) for name, x in operands.items()})
    first, second = (case.sizes, LONG) if case.seed % 2 else (LONG, case.sizes)
    for level, sizes in ((0, case.sizes), (1, first), (2, second)):
        try:
            compiled = driver.compile_program(program, level, INTERPRETER, sizes, verify=level == 2)
            found = run(compiled, operands, bindings)
            for got, exact, error in zip(found, wanted, case.errors, strict=True):
                assert got.shape == exact.shape
                if exact.dtype.kind == "f":
                    np.testing.assert_allclose(got.double().numpy(), exact, rtol=0, atol=4 * error * ULP)
                else:
                    np.testing.assert_array_equal(got.numpy(), exact)
        except Exception as failure:
            failure.add_note(f"level {level}, {sizes}\n{case.text}")
            raise


def quarters(*shapes: tuple[int, ...]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Arrays of quarters between -2 and 2, which f32 adds and multiplies exactly."""
    values = np.random.default_rng(0)
    return [(values.integers(-8, 9, n) / 4).astype(np.float32) for n in shapes]


@pytest.mark.parametrize("over", ["j : j < length[i]", "j : j <= i"])
def test_moments_over_a_domain(over: str) -> None:
    """What is counted along the way depends on what the domain does."""
    text = f"""def moments(x[i, j], length[i]: i32):
    m[i] = sum[j](x[i, j]) / |j|
    S[i] = sum[{over}]((x[i, j] - m[i]) ** 2 / 8)
    P[i] = prod[{over}]((x[i, j] + 9) / (9 + abs(m[i])))
    return S, P
"""
    values = np.random.default_rng(0)
    x = values.standard_normal((3, 300)).astype(np.float32)
    check(Cascade(text, {"x": x, "length": np.array([0, 7, 300], np.int32)}, {"i": 3, "j": 300}, (999.0, 9999.0), 0))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n", [1, 4, 17, 1000])
def test_references_that_scale_and_are_zero(n: int, seed: int) -> None:
    """A mean of 0: in the end, at the beginning, between blocks."""
    text = """def scaled(x[i, j], z[j]):
    m[i] = sum[j](x[i, j]) / |j|
    T[i] = sum[j]((z[j] * m[i] - m[i]) ** 3 / |j|)
    U[i] = sum[j](((z[j] * m[i] - m[i]) * z[j] + (x[i, j] - m[i]) ** 2) / |j|)
    P[i] = prod[j](z[j] * m[i])
    M[i] = max[j](z[j] * abs(m[i]))
    return T, U, P, M
"""
    values = np.random.default_rng(seed)
    signs = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    x = np.stack([signs, np.zeros(n), values.integers(-8, 9, n) / 4, signs, signs])
    x[3, : n // 2] += 1
    x[4, n // 3 : n // 2] += 1
    z = values.integers(-8, 9, n) / 4
    operands = {"x": x.astype(np.float32), "z": z.astype(np.float32)}
    check(Cascade(text, operands, {"i": 5, "j": n}, (9999.0, 9999.0, 999.0, 999.0), seed))


@pytest.mark.parametrize("m", ["max[j](y[i, j])", "sum[j](y[i, j]) / |j|"])
def test_equal_terms_over_other_axes(m: str) -> None:
    """What is added up over one axis, and over that and another, are two numbers: a count, a total."""
    text = f"""def cascade(y[i, j], Z[j, k]):
    m[i] = {m}
    V[i] = sum[j]((y[i, j] - m[i]) ** 2 / 8)
    W[i] = sum[j, k]((Z[j, k] - m[i]) ** 2 / 8)
    T[i] = sum[j](y[i, j] * abs(m[i]) / 8)
    U[i] = sum[j, k : true](y[i, j] * abs(m[i]) / 8)
    return V, W, T, U
"""
    y, pairs = quarters((3, 130), (130, 3))
    for seed in (0, 1):
        check(Cascade(text, {"y": y, "Z": pairs}, {"i": 3, "j": 130, "k": 3}, (199.0, 599.0, 99.0, 299.0), seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mean_beside_a_moment_about_it_over_other_axes(seed: int) -> None:
    """A moment that counts each position several times says several times how far off the mean is."""
    text = """def cascade(x[i, j], Z[j, k]):
    t[i] = sum[j](x[i, j])
    m[i] = t[i] / |j|
    V[i] = sum[j, k : true]((x[i, j] - m[i]) ** 2 / 64)
    return t, m, V
"""
    x = (100 + np.random.default_rng(0).standard_normal((3, 4097))).astype(np.float32)
    operands = {"x": x, "Z": np.zeros((4097, 64), np.float32)}
    check(Cascade(text, operands, {"i": 3, "j": 4097, "k": 64}, (4e5, 100.0, 1e4), seed))


def test_a_reduction_about_a_variance_that_is_about_a_mean() -> None:
    """What finishes the variance is carried for what reads it."""
    text = """def cascade(x[i, j], y[i, j]):
    m[i] = sum[j](x[i, j]) / |j|
    v[i] = sum[j]((abs(y[i, j]) - m[i]) ** 2 * 0.008)
    w[i] = sum[j](((x[i, j] - m[i]) ** 2 - v[i]) * 0.008)
    return v, w
"""
    values = np.random.default_rng(0)
    operands = {name: (values.integers(-8, 9, (3, 130)) / 4).astype(np.float32) for name in "xy"}
    for seed in (0, 1):
        check(Cascade(text, operands, {"i": 3, "j": 130}, (99.0, 199.0), seed))


def test_a_choice_by_what_is_still_changing() -> None:
    """A row that is chosen by a truth value of its whole, where the axis is empty or not."""
    text = """def cascade(u[i], y[i, j]):
    a[i] = all[j](j <= 2 * i + 1)
    s[i, j] = where(not a[i], (y[i, j] - u[i]) ** 3, 0) * 0.125
    P[i, j] = softmax[j](s)
    T[i] = sum[j](P[i, j] - y[i, j] / 300)
    return a, T
"""
    values = np.random.default_rng(0)
    for n in (0, 1, 300):
        y = (values.integers(-8, 9, (3, n)) / 4).astype(np.float32)
        operands = {"u": np.zeros(3, np.float32), "y": y}
        for seed in (0, 1):
            check(Cascade(text, operands, {"i": 3, "j": n}, (0.0, 99.0), seed))


def test_a_count_of_integers_beside_one_of_floats() -> None:
    """A number of positions that the text asks for is an integer; moments about what follows it count in floats."""
    text = """def cascade(y[i, j], u[i]):
    n[] = sum[j](where(j >= 0, 1, 0))
    T[i] = sum[j : true](((y[i, j] - n[] / (1 + n[])) ** 2 - u[i]) ** 2 / 16)
    return T
"""
    y, u = quarters((3, 130), (3,))
    for seed in (0, 1):
        check(Cascade(text, {"y": y, "u": u}, {"i": 3, "j": 130}, (999.0,), seed))


def test_a_maximum_of_nothing_in_units_of_nothing() -> None:
    """Weights that are all masked add up to 0, and so does what scales by them; a maximum over no position stays."""
    text = """def cascade(s[i, j], x[i, j], length[i]: i32):
    P[i, j] = softmax[j](where(j < length[i], s[i, j], -inf))
    n[i] = sum[j](P[i, j]) / 2
    T[i] = max[j : j < length[i]](x[i, j] * n[i])
    U[i] = min[j : j < length[i]](x[i, j] * n[i])
    return T, U
"""
    s, x = quarters((4, 130), (4, 130))
    for seed in (0, 1):
        length = np.array([0, 1, 65, 130], np.int32)
        check(Cascade(text, {"s": s, "x": x, "length": length}, {"i": 4, "j": 130}, (9.0, 9.0), seed))


def test_weights_about_a_mean_where_none_counts() -> None:
    """A row held whole, wholly masked, beside a variance that gives the mean with less rounding."""
    text = """def cascade(x[i, j], y[i, j], length[i]: i32):
    m[i] = sum[j](y[i, j]) / |j|
    V[i] = sum[j]((y[i, j] - m[i]) ** 2) / |j|
    s[i, j] = where(j < length[i], x[i, j] - m[i], -inf)
    T[i] = max[j](s[i, j])
    n[i] = sum[j](where(s[i, j] == -inf, 0, exp(s[i, j] - T[i])))
    L[i] = log(max(n[i], 1))
    return V, L
"""
    x, y = quarters((4, 17), (4, 17))
    for seed in (0, 1):
        length = np.array([0, 1, 9, 17], np.int32)
        check(Cascade(text, {"x": x, "y": y, "length": length}, {"i": 4, "j": 17}, (9.0, 9.0), seed))


def test_a_count_up_to_a_position_that_is_still_changing() -> None:
    """The extent in the index that a prefix is read at is not the number of positions seen."""
    text = """def cascade(x[i, j], z[j]):
    k[i] = argmax[j](x[i, j])
    n[i] = sum[j](where(j <= k[i] and z[j] > 0, 1, 0))
    T[i] = sum[j : true]((x[i, j] - n[i] / (1 + n[i])) ** 3 / |j|)
    return T
"""
    x, z = quarters((3, 130), (130,))
    for seed in (0, 1):
        check(Cascade(text, {"x": x, "z": z}, {"i": 3, "j": 130}, (99.0,), seed))


def test_what_varies_cancels_once_a_choice_is_made() -> None:
    """The branches of a choice by a final value no longer vary along the axis, though what they were made of did."""
    text = """def cascade(y[i, j]):
    P[i, j] = softmax[j](y[i, j])
    m[i] = sum[j : true](P[i, j]) / |j|
    T[i] = sum[j](((P[i, j] - P[i, j]) - m[i]) ** 3 / |j|)
    return P, T
"""
    y = (np.random.default_rng(0).integers(-8, 9, (3, 130)) / 4).astype(np.float32)
    for seed in (0, 1):
        check(Cascade(text, {"y": y}, {"i": 3, "j": 130}, (9.0, 9.0), seed))


def test_a_weight_that_a_choice_leaves_by_itself_and_that_is_zero() -> None:
    """Where weights are of the positions that a mask leaves out, those that it keeps have 0 divided by their sum."""
    text = """def cascade(length[i]: i32, s[i, j], w[j, e]):
    S[i, j] = where(not (j < length[i]), s[i, j], -inf)
    P[i, j] = softmax[j](S[i, j])
    T[i, e] = sum[j]((where(j < length[i], P[i, j], 0) - 0.5) ** 2 * w[j, e]) / |j|
    return T
"""
    values = np.random.default_rng(0)
    operands = {
        name: (values.integers(-8, 9, n) / 4).astype(np.float32) for name, n in {"s": (4, 17), "w": (17, 2)}.items()
    }
    operands["length"] = np.array([0, 5, 17, 18], np.int32)
    for seed in (0, 1):
        check(Cascade(text, operands, {"i": 4, "j": 17, "e": 2}, (9.0,), seed))


@pytest.mark.parametrize("place", range(8))
def test_a_scale_that_grows_from_next_to_nothing(place: int) -> None:
    """A variance of one position near the mean, until later blocks add to it: nothing cancels that it magnifies."""
    text = """def cascade(keep[i, j]: bool, x[i, j], z[j]):
    m[i] = sum[j](x[i, j]) / |j|
    s[i] = sum[j : keep[i, j]]((z[j] - m[i]) ** 2 / 130)
    T[i] = sum[j](((z[j] * s[i]) - m[i]) ** 3 / |j|)
    return T
"""
    values = np.random.default_rng(place)
    x, z = ((values.integers(-8, 9, n) / 4).astype(np.float32) for n in ((3, 130), 130))
    keep = values.integers(0, 2, (3, 130)).astype(bool)
    keep[0, :64] = np.arange(64) == place
    z[place] = x[0, :64].mean()
    for seed in (0, 1):
        check(Cascade(text, {"keep": keep, "x": x, "z": z}, {"i": 3, "j": 130}, (99.0,), seed))


def check_nan(case: Cascade) -> None:
    """What is NaN at the last positions is so in the results that look there, and in no others."""
    w = case.operands.get("w")
    if w is not None and len(w) > 1:
        w = w.copy()
        w[-(1 + case.seed % 3) :] = np.nan
        case = replace(case, operands=case.operands | {"w": w})
    check(case)


@pytest.mark.parametrize(
    "body",
    [
        "sum[j](0.2 * (x[i, j] - T[i, e]))",
        "prod[j]((1 + 0.002 * x[i, j]) / (1 + abs(T[i, e])))",
        "sum[j : |j| - j > 2](0.1 * (x[i, j] - T[i, e]) ** 2 * x[i, j])",
    ],
)
def test_what_is_relative_to_nan_is_nan(body: str) -> None:
    """Of values and weights alone nothing is NaN, and a hat takes the place of what is while it is added up."""
    total = "T[i, e] = sum[j](0.2 * x[i, j] * w[j, e])"
    text = f"def f(w[j, e], x[i, j]):\n    {total}\n    S[i, e] = {body}\n    return S"
    w, x = quarters((5, 2), (3, 5))
    w[-1, 0] = np.nan
    for seed in (0, 1):
        check(Cascade(text, {"w": w, "x": x}, {"i": 3, "j": 5, "e": 2}, (200.0,), seed))


@pytest.mark.parametrize(
    "body",
    ["sum[j](where(keep[i, j], x[i, j] / m[i], 0))", "sum[j : keep[i, j]](x[i, j] / m[i])",
     "prod[j](where(keep[i, j], x[i, j] / m[i], 1))", "sum[j](where(keep[i, j], (x[i, j] - m[i]) ** 2, 0))"],
)  # fmt: skip
def test_what_counts_nowhere_is_nothing_relative_to_nan(body: str) -> None:
    """The mean of no positions is NaN, and a sum over these 0."""
    total, count = "sum[j](where(keep[i, j], x[i, j], 0))", "sum[j](where(keep[i, j], 1.0, 0))"
    text = f"def f(keep[i, j]: bool, x[i, j]):\n    m[i] = {total} / {count}\n    S[i] = {body}\n    return S"
    (x,) = quarters((3, 5))
    x = np.abs(x) + np.float32(1)
    keep = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    for seed in (0, 1):
        check(Cascade(text, {"keep": keep, "x": x}, {"i": 3, "j": 5}, (200.0,), seed))


@given(cascades())
@settings(ANY, max_examples=25)
def test_random_cascades(case: Cascade) -> None:
    """A sample; the slow tier draws many."""
    check(case)


@given(cascades())
@settings(ANY, max_examples=10)
def test_random_cascades_over_what_no_mask_lets_in(case: Cascade) -> None:
    check_nan(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(160))
@given(case=cascades(most=10))
@settings(ANY, max_examples=125, derandomize=False)
def test_many_random_cascades(_batch: int, case: Cascade) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(10))
@given(case=cascades(most=10))
@settings(ANY, max_examples=125, derandomize=False)
def test_many_random_cascades_over_what_no_mask_lets_in(_batch: int, case: Cascade) -> None:
    check_nan(case)
