"""Chains of reductions stream with the accumulators that closure under movement gives, and only those that close do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einc
from einc import driver
from einc.base.targets import INTERPRETER, TARGETS
from einc.codegen import TRITON
from einc.ein import Program
from einc.evaluate import evaluate
from einc.passes.streaming.walks import walks
from einc.tile import Loop
from tests.support.compiled import compiled, definition, in_small_tiles, runner
from tests.support.compiled import run as run_by

LONG = {"i": 1 << 16, "j": 1 << 20, "e": 128, "d": 64}  # hints: j is too long to be held whole, i fills a machine


def as_if_long(body: str, level: int = 2, target: str = "interpret", **sizes: int) -> driver.Compiled:
    """A program of x[i, j] and w[j, e] compiled as if j were long."""
    return compiled(definition(f"x[i, j], w[j, e]\n{body}"), level, target, **LONG | sizes)


def accumulators(c: driver.Compiled) -> dict[str, int]:
    """The number of accumulators of each reduction over j that streams, by the result it belongs to."""
    links = [link for plan in c.state.plans for walk in walks(plan.of(c.state.program)) for link in walk.links]
    return {link.equation.name: len(link.accumulators) for link in links}


def reasons(c: driver.Compiled) -> list[str]:
    """Why reductions had to wait for a walk of their own."""
    return [w.reason for plan in c.state.plans for walk in walks(plan.of(c.state.program)) for w in walk.waiting]


CASCADES = {
    "softmax": ("O[i, e] = softmax[j](x) * w[j, e]\nreturn O", 1),
    "variance": ("m[i] = sum[j](x) / |j|\nO[i] = sum[j]((x - m) ** 2)\nreturn O", 3),
    "layernorm-matmul": ("m[i] = sum[j](x) / |j|\nO[i, e] = sum[j]((x[i, j] - m[i]) * w[j, e])\nreturn O", 2),
    "entropy": ("m[i] = max[j](x)\nO[i] = sum[j]((x - m) * exp(x - m))\nreturn O", 2),
    "masked-entropy": (
        "m[i] = max[j](x)\nO[i] = sum[j](where(x == -inf, 0, (x - m) * exp(x - m)))\nreturn O",
        2,
    ),
    "p-norm": ("m[i] = max[j](abs(x))\nO[i] = sum[j]((abs(x) / m) ** 3.5)\nreturn O", 1),
    "scaled norm": ("m[i] = max[j](abs(x))\nO[i] = m[i] * sqrt(sum[j]((x / m) ** 2))\nreturn O", 1),
    "rmsnorm-matmul": ("s[i] = sum[j](x * x)\nO[i, e] = x[i, j] * w[j, e] / sqrt(s[i])\nreturn O", 1),
    "square of weights": ("P[i, j] = softmax[j](x)\nO[i] = sum[j](P ** 2)\nreturn O", 1),
    "power of weights": ("P[i, j] = softmax[j](x)\nO[i] = sum[j](P ** 2.5)\nreturn O", 1),
    "entropy of weights": (
        "P[i, j] = softmax[j](x)\nO[i] = sum[j](where(P == 0, 0, P * log(P)))\nreturn O",
        2,
    ),
    "entropy of what is positive": (
        "P[i, j] = softmax[j](x)\nO[i] = sum[j](where(P > 0, P * log(P), 0))\nreturn O",
        2,
    ),
    "entropy in bits": (
        "P[i, j] = softmax[j](x)\nO[i] = sum[j](where(not (P <= 0), P * log2(P), 0))\nreturn O",
        2,
    ),
    "rmsnorm of weights": (
        "P[i, j] = softmax[j](x)\nr[i] = rsqrt(sum[j](P ** 2))\nO[i, e] = r[i] * P[i, j] * w[j, e]\nreturn O",
        1,
    ),
    "guarded p-norm": (
        "m[i] = max[j](abs(x))\nO[i] = sum[j](where(m == 0, 0, abs(x / m)) ** 5)\nreturn O",
        1,
    ),
    "variance in units of a maximum": (
        "m[i] = max[j](abs(x))\nu[i] = sum[j](x / m) / |j|\nO[i] = sum[j]((x / m - u) ** 2)\nreturn O",
        3,
    ),
    "softmax about a mean": (
        "m[i] = sum[j](x) / |j|\nO[i, e] = softmax[j](x - m) * w[j, e]\nreturn O",
        1,
    ),
    "skewness": ("m[i] = sum[j](x) / |j|\nO[i] = sum[j]((x - m) ** 3)\nreturn O", 4),
}
OPEN = {
    "relu": "m[i] = sum[j](x) / |j|\nO[i] = sum[j](max(x - m, 0))\nreturn O",
    "sigmoid": "m[i] = sum[j](x) / |j|\nO[i] = sum[j](1 / (1 + exp(m - x)))\nreturn O",
    "gaussian": "m[i] = sum[j](x) / |j|\nO[i] = sum[j](exp(-(x - m) ** 2))\nreturn O",
}


@pytest.mark.parametrize("name", CASCADES)
def test_accumulators(name: str) -> None:
    body, count = CASCADES[name]
    c = as_if_long(body, target="sm_90")
    assert len(c.state.plans) == 1
    assert reasons(c) == []
    assert list(accumulators(c).values())[-1] == count


@pytest.mark.parametrize("entropy", ["where(P == 0, 0, P * log(P))", "where(P > 0, P * log2(P), 0)"])
def test_choices_and_comparisons_that_move_with_their_references(entropy: str) -> None:
    """Weights that are compared with 0, rows that are wholly masked, and a sum of weights that is 0 until late."""
    c = as_if_long(f"P[i, j] = softmax[j](x)\nO[i] = sum[j]({entropy})\nN[i] = sum[j](P ** 2)\nreturn O, N")
    assert reasons(c) == []
    x = np.random.default_rng(4).standard_normal((5, 2500)).astype("f4")
    x[0] = -np.inf
    x[1, :2400] = -np.inf
    x[2] *= 1e4
    x[3, :1200] = -200
    wanted = evaluate(c.program, {"x": x, "w": np.zeros((2500, 1), "f4")})
    found = run(c, c.program, x, np.zeros((2500, 1), "f4"))
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f.numpy(), w, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_mask_covers_every_factor_that_overflows_outside_it(level: int) -> None:
    text = """def retention(Q[i, d], K[j, d], V[j, e], g[i]):
    O[i, e] = sum[j](where(j <= i, sum[d](Q[i, d] * K[j, d]) * exp(-g[i] * (i - j)), 0) * V[j, e])
    return O
"""
    rng = np.random.default_rng(6)
    shapes = {"Q": (70, 5), "K": (400, 5), "V": (400, 3)}
    operands: dict[str, Any] = {name: rng.standard_normal(s).astype("f4") for name, s in shapes.items()}
    operands["g"] = np.full(70, 2, "f4")
    program = einc.compile(text, level=level)
    wanted = program(**operands, backend="evaluate")
    np.testing.assert_allclose(program(**operands), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPEN)
def test_what_does_not_close_says_so(name: str) -> None:
    c = as_if_long(OPEN[name], target="sm_90")
    assert any("neither shifts, scales nor expands" in reason for reason in reasons(c))


def run(c: driver.Compiled, program: Program, x: np.ndarray[Any, Any], w: np.ndarray[Any, Any]) -> list[torch.Tensor]:
    operands = {"x": torch.from_numpy(x), "w": torch.from_numpy(w)}
    return list(runner(c)(*(operands[p.name] for p in program.params)))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name", [*CASCADES, *OPEN])
def test_values(name: str, level: int) -> None:
    body = CASCADES[name][0] if name in CASCADES else OPEN[name]
    c = as_if_long(body, level)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 2500)).astype("f4"), rng.standard_normal((2500, 3)).astype("f4")
    (wanted,) = evaluate(c.program, {"x": x, "w": w})
    (found,) = run(c, c.program, x, w)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("level", [1, 2])
def test_softmax_at_the_edges(level: int) -> None:
    """Logits of 1e4 of either sign, rows wholly masked, and rows whose first blocks are."""
    c = as_if_long("O[i, e] = softmax[j](x) * w[j, e]\nreturn O", level)
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((6, 2500)).astype("f4"), rng.standard_normal((2500, 3)).astype("f4")
    x[0] += 1e4
    x[1] -= 1e4
    x[2] = -np.inf
    x[3, :2000] = -np.inf
    x[4, 7] = 1e30
    x[5, 1200:] = -np.inf
    (wanted,) = evaluate(c.program, {"x": x, "w": w})
    (found,) = run(c, c.program, x, w)
    assert (found.numpy()[2] == 0).all()
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_a_streamed_variance_is_as_good_as_one_of_two_passes(offset: float) -> None:
    body = "m[i] = sum[j](x) / |j|\nO[i] = sum[j]((x - m) ** 2) / |j|\nreturn O"
    x = (offset + np.random.default_rng(2).standard_normal((4, 5000))).astype("f4")
    wanted = x.astype("f8").var(1)
    errors = []
    for level in (0, 2):
        c = as_if_long(body, level)
        (found,) = run(c, c.program, x, np.zeros((5000, 1), "f4"))
        errors.append(np.abs(found.numpy() - wanted).max())
    two_passes, streamed = errors
    assert streamed <= max(2 * two_passes, 4 * 2**-23 * wanted.max())


@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("domain", ["j", "j : j < w"])
@pytest.mark.parametrize(
    ("reference", "body"),
    [
        ("max", "exp(-m[])"),
        ("max", "v[j] * exp(-m[])"),
        ("min", "v[j] * m[]"),
        ("sum", "1 / m[]"),
        ("sum", "x[j] / m[]"),
    ],
)
def test_a_sum_of_nothing_is_0_though_its_reference_is_infinite(
    reference: str, body: str, domain: str, backend: str
) -> None:
    """What is put off until after the walk would make it infinity times 0."""
    text = f"x[j], v[j], w: int\nm[] = {reference}[{domain}](x[j])\nO[] = sum[{domain}]({body})\nreturn O"
    c = compiled(definition(text), 1, j=LONG["j"])
    for n, w in ((0, 0), (0, 2), (3, 0), (3, 2)):
        given = {"x": np.array([3, -1, 2], np.float32)[:n], "v": np.array([0.5, -4, 1], np.float32)[:n]}
        (found,), (wanted,) = run_by(c, backend, given, w=w), evaluate(c.program, given, {"w": w})
        np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=f"{n}, {w}")


def test_what_is_still_changing_is_not_reduced_over_another_axis() -> None:
    """Weights mixed over e before they are summed need final maxima, and so a walk of their own."""
    body = """S[i, j, e] = x[i, j] * w[j, e]
P[i, j, e] = softmax[j](S)
A[i, j] = sum[e](P)
O[i] = sum[j](A ** 2)
return O"""
    c = as_if_long(body, target="interpret", e=4)
    assert any("over another axis" in reason for reason in reasons(c))
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 2500)).astype("f4"), rng.standard_normal((2500, 3)).astype("f4")
    (wanted,) = evaluate(c.program, {"x": x, "w": w})
    (found,) = run(c, c.program, x, w)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-5)


ATTENTION = 'softmax(where(j <= i, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"'
SIZES = {"b": 4, "h": 16, "i": 4096, "j": 4096, "d": 128}


@pytest.mark.parametrize("level", [1, 2])
def test_nothing_along_two_long_axes_is_in_memory(level: int) -> None:
    program = driver.elaborate(driver.parse(ATTENTION, "<test>"))
    c = driver.compile_program(program, level, TARGETS["sm_90"], SIZES)
    assert c.state.schedule is not None
    assert len(c.state.schedule.kernels) == 1
    assert c.state.schedule.intermediates == ()


def test_a_mask_bounds_the_loop() -> None:
    program = driver.elaborate(driver.parse(ATTENTION, "<test>"))
    for level, bounded in ((1, False), (2, True)):
        c = driver.compile_program(program, level, INTERPRETER, SIZES)
        assert c.state.schedule is not None
        loops = [s for s in c.state.schedule.kernels[0].body if isinstance(s, Loop)]
        assert [(s.start is not None, s.stop is not None) for s in loops] == [(False, bounded)]


@pytest.mark.parametrize(("mask", "count"), [("j <= i", 2), ("j <= i and i - j < 9", 2), ("true", 2), ("j == i", 1)])
def test_blocks_that_count_wholly_need_no_mask(mask: str, count: int) -> None:
    text = f'softmax(where({mask}, "bihd,bjhd->bhij", -inf)) * "bjhd->bihd"'
    c = compiled(text, 2, "sm_90", **SIZES)
    loops = c.source.split(" in tl.range(")[1:]
    assert len(loops) == count
    masked = ["j_in" in loop.split("    tl.store(")[0] for loop in loops]
    assert masked == {1: [True], 2: [False, True], 3: [True, False, True]}[count]


MASKS = {
    "j <= i": lambda i, j: j <= i,
    "j <= i and i - j < 37": lambda i, j: (j <= i) & (i - j < 37),
    "j < i - 100": lambda i, j: j < i - 100,
    "not (j > i or j < 3)": lambda i, j: (j <= i) & (j >= 3),
    "j <= i or j < 10": lambda i, j: (j <= i) | (j < 10),
    "2 * j <= i": lambda i, j: 2 * j <= i,
}


@pytest.mark.turns(2)
@pytest.mark.parametrize("level", [0, 1, 2, "segments"])
@pytest.mark.parametrize("mask", MASKS)
def test_masks(mask: str, level: int | str) -> None:
    text = f"def f(x[i, j], w[j, e]):\n    O[i, e] = softmax[j](where({mask}, x, -inf)) * w[j, e]\n    return O\n"
    program = driver.elaborate(driver.parse(text, "<test>"))
    number, backend = (level, TRITON) if isinstance(level, int) else (2, in_small_tiles(16))
    c = driver.compile_program(program, number, INTERPRETER, LONG, backend=backend)
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((150, 1100)), rng.standard_normal((1100, 2))
    allowed = MASKS[mask](np.arange(150)[:, None], np.arange(1100)[None])
    weights = np.where(allowed, np.exp(x), 0)
    total = weights.sum(1, keepdims=True)
    wanted = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0) @ w
    (found,) = run(c, c.program, x.astype("f4"), w.astype("f4"))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_scores_and_their_maximum_are_in_units_of_log2_e() -> None:
    """The factor is part of the scale, and what the walk leaves is in natural units again."""
    text = "def f(x[i, d], y[j, d], c: float):\n    s[i, j] = c * x[i, d] * y[j, d]\n"
    text += "    m[i] = max[j](s)\n    l[i] = logsumexp[j](s)\n    return m, l\n"
    program = driver.elaborate(driver.parse(text, "<test>"))
    for backend in (TRITON, in_small_tiles(16)):
        c = driver.compile_program(program, 2, INTERPRETER, {"i": 40, "j": 4096, "d": 8}, backend=backend)
        rng = np.random.default_rng(4)
        x, y = rng.standard_normal((40, 8)).astype("f4"), rng.standard_normal((300, 8)).astype("f4")
        for scale in (0.7, -3.0, 0.0):
            found = runner(c)(torch.from_numpy(x), torch.from_numpy(y), scale)
            for got, wanted in zip(found, evaluate(program, {"x": x, "y": y}, {"c": scale}), strict=True):
                np.testing.assert_allclose(got.numpy(), wanted, rtol=2e-6, atol=2e-6)
