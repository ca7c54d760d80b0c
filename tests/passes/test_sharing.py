"""Which equations share a kernel where axes are long: what is stored between kernels, and that values stay right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
import torch

from einc import driver
from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16, F32, DType
from einc.binding import bind
from einc.ein import Program
from einc.evaluate import evaluate
from tests.support.compiled import compiled, run_in_torch, runner


@dataclass(frozen=True, slots=True)
class Shared:
    """A program, extents that schedules are chosen by, small ones to run it with, and what its kernels store."""

    text: str
    long: Mapping[str, int]
    small: Mapping[str, int]
    stores: tuple[tuple[str, ...], ...]

    def program(self, dtype: DType = F32) -> Program:
        text = driver.parse(self.text, "<test>")
        operands = driver.elaborate(text).operands
        return driver.elaborate(text, {p.name: Fact((2,) * len(p.dims), dtype) for p in operands})

    def compiled(self, level: int, dtype: DType = F32) -> driver.Compiled:
        return driver.compile_program(self.program(dtype), level, TARGETS["sm_90"], self.long)

    def drawn(self) -> dict[str, np.ndarray[Any, Any]]:
        rng = np.random.default_rng(4)
        operands = self.program().operands
        shapes = {p.name: [prod(self.small[a] for a in dim) for dim in p.dims] for p in operands}
        return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


SHARED = {
    "a gate is evaluated once": Shared(
        """def f(X[n, d], A[d, h], B[d, h], D[h, e]):
    G[n, h] = X[n, d] * A[d, h]
    U[n, h] = X[n, d] * B[d, h]
    Y[n, e] = sum[h](sigmoid(G) * U * D[h, e])
    return Y
""",
        {"n": 8192, "d": 4096, "h": 16384, "e": 4096},
        {"n": 70, "d": 33, "h": 40, "e": 19},
        (("Y_left",), ("Y",)),
    ),
    "an activation of a contraction is evaluated once": Shared(
        """def f(X[n, d], A[d, h], D[h, e]):
    H[n, h] = X[n, d] * A[d, h]
    Y[n, e] = sum[h](gelu(H) * D[h, e])
    return Y
""",
        {"n": 8192, "d": 4096, "h": 16384, "e": 4096},
        {"n": 70, "d": 33, "h": 40, "e": 19},
        (("Y_sum_left",), ("Y",)),
    ),
    "an activation of few outputs is evaluated where it is read": Shared(
        """def f(X[n, h], D[h, e]):
    Y[n, e] = sum[h](gelu(X) * D[h, e])
    return Y
""",
        {"n": 8192, "h": 4096, "e": 64},
        {"n": 70, "h": 40, "e": 19},
        (("Y",),),
    ),
    "a router holds its experts": Shared(
        """def f(X[n, d], W[e, d]):
    Z[n, e] = X[n, d] * W[e, d]
    a, i[n] = argmax[e](Z)
    b, j[n] = argmax[e](where(e == i[n], -inf, Z))
    c, k[n] = argmax[e](where(e == i[n] or e == j[n], -inf, Z))
    p[n] = exp(a - logsumexp[e](Z))
    return i, j, k, p, c
""",
        {"n": 8192, "d": 4096, "e": 64},
        {"n": 70, "d": 33, "e": 9},
        (("i", "j", "c", "k", "p"),),
    ),
    "a maximum is a reference beside its position": Shared(
        """def f(X[n, d]):
    a, i[n] = argmax[d](X)
    s[n] = sum[d](exp(X[n, d] - a[n]))
    return s, i
""",
        {"n": 8192, "d": 1 << 18},
        {"n": 70, "d": 333},
        (("i", "s"),),
    ),
    "a position waits for the end of its walk": Shared(
        """def f(X[n, d]):
    a, i[n] = argmax[d](X)
    b, j[n] = argmax[d](where(d == i[n], -inf, X))
    s[n] = sum[d](where(d == j[n], 0, X))
    return s, b, i
""",
        {"n": 8192, "d": 1 << 18},
        {"n": 70, "d": 333},
        (("i", "b", "s"),),
    ),
    "the best of many is found in parts": Shared(
        """def f(X[n, d]):
    a, i[n] = argmin[d](X)
    m[n] = max[d](X)
    return m - a, i
""",
        {"n": 4, "d": 1 << 20},
        {"n": 4, "d": 3333},
        (("i", "out"),),
    ),
    "scores that are reduced along both of their axes are computed along each": Shared(
        """def f(A[i, d], B[j, d]):
    S[i, j] = 10 * A[i, d] * B[j, d]
    L[i] = logsumexp[j](S) - sum[j : j == i](S)
    M[j] = logsumexp[i](S)
    return L, M
""",
        {"i": 16384, "j": 16384, "d": 128},
        {"i": 70, "j": 130, "d": 9},
        (("L",), ("M",)),
    ),
    "weights that must wait for a scale are computed from what was read": Shared(
        """def f(x[i, j], v[j, e]):
    s[i] = sqrt(mean[j](x ** 2))
    O[i, e] = softmax[j](x / s[i]) * v[j, e]
    return O
""",
        {"i": 4096, "j": 4096, "e": 64},
        {"i": 70, "j": 130, "e": 9},
        (("s_sum_made", "O_max", "O_sum"), ("O",)),
    ),
    "a contraction shares a kernel with all that reduce it": Shared(
        """def f(X[n, k, d], W[v, d], g[n, k]):
    Z[n, k, v] = X[n, k, d] * W[v, d]
    l[n] = log(sum[k](softmax[k](g[n, k]) * exp(max[v](Z) - logsumexp[v](Z))))
    return l
""",
        {"n": 2048, "k": 4, "v": 8192, "d": 128},
        {"n": 70, "k": 4, "v": 130, "d": 9},
        (("l_max2", "l_sum2"), ("l",)),
    ),
    "heads that lie in groups are read where they are made": Shared(
        """def f(Q[b, (g r), i, d], K[b, g, j, d], V[b, g, j, e]):
    O[b, (g r), i, e] = softmax[j](sum[d](Q[b, (g r), i, d] * K[b, g, j, d])) * V[b, g, j, e]
    return O
""",
        {"b": 4, "g": 8, "r": 4, "i": 4096, "j": 4096, "d": 128, "e": 128},
        {"b": 2, "g": 2, "r": 3, "i": 37, "j": 70, "d": 9, "e": 5},
        (("O",),),
    ),
    "windows of a sequence have scores of their own": Shared(
        """def f(Q[b, (p i), d], K[b, (p j), d], V[b, (p j), e], bias[i, j]):
    S[b, (p i), j] = rsqrt(|d|) * Q[b, (p i), d] * K[b, (p j), d]
    m[b, (p i)] = max[j](S[b, (p i), j] + bias[i, j])
    P[b, (p i), j] = exp(S[b, (p i), j] + bias[i, j] - m[b, (p i)])
    l[b, (p i)] = sum[j](P)
    O[b, (p i), e] = P[b, (p i), j] * V[b, (p j), e] / l[b, (p i)]
    return O, m, l
""",
        {"b": 8, "p": 64, "i": 49, "j": 49, "d": 32, "e": 32},
        {"b": 2, "p": 3, "i": 7, "j": 7, "d": 5, "e": 6},
        (("m", "l", "O"),),
    ),
}

every_one = pytest.mark.parametrize("name", SHARED)


@every_one
def test_what_is_stored(name: str) -> None:
    plans = SHARED[name].compiled(2, BF16).state.plans
    assert tuple(p.stores for p in plans) == SHARED[name].stores


@pytest.mark.parametrize("level", [0, 1, 2])
@every_one
def test_values(name: str, level: int) -> None:
    shared = SHARED[name]
    operands = shared.drawn()
    c = shared.compiled(level)
    bindings = bind(c.program, {n: x.shape for n, x in operands.items()}, {})
    found = run_in_torch(c, {n: torch.from_numpy(x) for n, x in operands.items()}, bindings)
    for got, wanted in zip(found, evaluate(c.program, operands), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max())


def test_what_is_stored_for_a_contraction_is_as_narrow_as_its_partner() -> None:
    shared = SHARED["a gate is evaluated once"]
    for dtype in (BF16, F32):
        assert shared.compiled(2, dtype).state.program.dtypes()["Y_left"] == dtype


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_what_lacks_an_axis_of_the_grid_is_written_where_that_has_no_positions(backend: str) -> None:
    text = """def f(Q[i, d], K[j, d], V[j, e]):
    S[i, j] = Q[i, d] * K[j, d]
    L[i] = logsumexp[j](S)
    O[i, e] = softmax[j](S) * V[j, e]
    return O, L
"""
    sizes = {"i": 4096, "j": 4096, "e": 2048, "d": 64}
    c = compiled(text, 2, "interpret", None, **sizes)
    plan = c.state.plans[-1]
    assert plan.stores == ("L", "O")
    assert (plan.rows, plan.columns) == (("i",), ("e",))
    operands = {"Q": torch.randn(5, 7), "K": torch.randn(9, 7), "V": torch.randn(9, 0)}
    bindings = bind(c.program, {n: tuple(x.shape) for n, x in operands.items()}, {})
    _, found = run_in_torch(c, operands, bindings) if backend == "torch" else runner(c)(*operands.values())
    torch.testing.assert_close(found, (operands["Q"] @ operands["K"].T).logsumexp(1))


def test_what_would_be_written_at_every_position_of_an_axis_has_a_kernel_of_its_own() -> None:
    text = """def f(X[b, i, k], Y[b, k, j], Z[i, k]):
    P[b, i, j] = X[b, i, k] * Y[b, k, j]
    R[i] = sum[k](Z[i, k])
    return P, R
"""
    sizes = {"b": 1024, "i": 64, "k": 64, "j": 64}
    c = compiled(text, 2, "sm_90", None, **sizes)
    assert sorted(p.stores for p in c.state.plans) == [("P",), ("R",)]


VALUES, BIASED = ", V[b, h, j, e]", ", V[b, h, j, e], B[i, j]"
SCORES = {
    "a softmax": (VALUES, "O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]\nreturn O"),
    "a causal softmax": (VALUES, "O[b, h, i, e] = softmax[j](where(j <= i, S, -inf)) * V[b, h, j, e]\nreturn O"),
    "weights by hand": (
        VALUES,
        """m[b, h, i] = max[j](S)
P[b, h, i, j] = exp(S - m)
n[b, h, i] = sum[j](P)
O[b, h, i, e] = P * V / n
return O, n""",
    ),
    "a bias": (BIASED, "O[b, h, i, e] = softmax[j](S + B[i, j]) * V[b, h, j, e]\nreturn O"),
    "entropy": (
        "",
        """P[b, h, i, j] = softmax[j](S)
H[b, h, i] = -sum[j](where(P > 0, P * log(P), 0))
return H""",
    ),
}


LENGTHS, BATCHES, WIDTHS = (32, 100, 256, 1000, 4096), ((1, 1), (1, 8), (4, 16)), (32, 128, 256)
# Of length, batch and width every two meet in one of the two types, and the slow tier has all.
PAIRED = {
    dtype: [
        (n, b, WIDTHS[(k + m) % 3])
        for k, n in enumerate(LENGTHS)
        for m, b in enumerate(BATCHES)
        if (k + m) % 2 == shift
    ]
    for shift, dtype in enumerate((F32, BF16))
}


def check_scores(name: str, dtype: DType, sizes: Iterable[tuple[int, tuple[int, int], int]]) -> None:
    """No intermediate is as long as both axes of the scores."""
    given, body = SCORES[name]
    lines = ["S[b, h, i, j] = Q * K * rsqrt(|d|)", *body.splitlines()]
    text = "\n    ".join([f"def f(Q[b, h, i, d], K[b, h, j, d]{given}):", *lines])
    program = Shared(f"{text}\n", {}, {}, ()).program(dtype)
    for n, (b, h), d in sizes:
        extents = {"b": b, "h": h, "i": n, "j": n, "d": d, "e": d}
        schedule = driver.compile_program(program, 2, TARGETS["sm_90"], extents, verify=False).state.schedule
        assert schedule is not None
        kept = {x.name: {a for dim in x.dims for a in dim} for x in schedule.intermediates}
        assert not [x for x, axes in kept.items() if {"i", "j"} <= axes], extents


every_score = pytest.mark.parametrize("name", SCORES)
either_type = pytest.mark.parametrize("dtype", PAIRED, ids=str)


@pytest.mark.turns(2)
@either_type
@every_score
def test_scores_are_stored_nowhere_at_any_size(name: str, dtype: DType) -> None:
    check_scores(name, dtype, PAIRED[dtype])


@pytest.mark.slow
@either_type
@every_score
def test_scores_are_stored_nowhere_at_all_sizes(name: str, dtype: DType) -> None:
    check_scores(name, dtype, product(LENGTHS, BATCHES, WIDTHS))
