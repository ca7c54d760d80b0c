"""A walk in parts gives what the walk gives: for any number of parts, empty and masked ones among them, merged in any
order."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import einc
from einc import driver
from einc.base.errors import CallError
from einc.base.targets import INTERPRETER, TARGETS
from einc.binding import Bindings, bind, completed
from einc.codegen.executor.kernel import executable
from einc.ein import Program
from einc.evaluate import evaluate
from einc.passes.estimate.cost import Model
from tests.support.compiled import agree, in_parts, magnitude, precision, run_in_torch, runner, tensors
from tests.support.random_cascades import Cascade, cascades
from tests.support.random_programs import Case, cases

Arrays = dict[str, np.ndarray[Any, Any]]

CASCADES = {
    "softmax": "O[i, e] = softmax[j](x) * w[j, e]",
    "causal": "O[i, e] = softmax[j](where(j <= 40 * i, x, -inf)) * w[j, e]",
    "window": "O[i, e] = softmax[j](where(j <= 40 * i and 40 * i - j < 30, x, -inf)) * w[j, e]",
    "masked": "O[i, e] = softmax[j](where(j < i - 3, x, -inf)) * w[j, e]",
    "with-lse": "L[i] = logsumexp[j](x)\nO[i, e] = softmax[j](x) * w[j, e]",
    "variance": "m[i] = sum[j](x) / |j|\nO[i] = sum[j]((x - m) ** 2)",
    "skewness": "m[i] = sum[j](x) / |j|\nO[i] = sum[j]((x - m) ** 3)",
    "entropy": "m[i] = max[j](x)\nO[i] = sum[j]((x - m) * exp(x - m))",
    "p-norm": "m[i] = max[j](abs(x))\nO[i] = sum[j]((abs(x) / m) ** 3.5)",
    "layernorm-matmul": "m[i] = sum[j](x) / |j|\nO[i, e] = sum[j]((x[i, j] - m[i]) * w[j, e])",
    "rmsnorm-matmul": "s[i] = sum[j](x * x)\nO[i, e] = x[i, j] * w[j, e] / sqrt(s[i])",
    "argmax": "O[i] = argmax[j](round(x))",
    "argmin": "O[i] = argmin[j](x)",
    "product": "m[i] = max[j](abs(x))\nO[i] = prod[j](x / m)",
    "shifted-maximum": "m[i] = sum[j](x) / |j|\nO[i] = max[j](x - m)",
    "shifted-minimum": "m[i] = max[j](x)\nO[i] = min[j](x - m)",
    "any": "O[i] = any[j](x > 2)",
    "all": "O[i] = all[j](x < 2)",
    "matmul": "O[i, e] = x[i, j] * w[j, e]",
    "taken-names": "m[i] = sum[j](x) / |j|\nL[i] = sum[j]((x - m) ** 2)\nL_1[i] = sum[j]((x - m) ** 3)\nO[i] = L - L_1",
    "two-axes": "m[] = max[i, j](x)\nO[] = sum[i, j](exp(x - m))",
}
ALONG = {
    "two walks": "m[i] = sum[j](x) / |j|\nO[i] = sum[j](max(x - m, 0))",
    "written on the way": "O[i, j] = exp(x[i, j] - max[j](x))",
}


def program_of(body: str) -> Program:
    results = "L, O" if body.startswith("L[") else "O"
    lines = "".join(f"    {line}\n" for line in [*body.splitlines(), f"return {results}"])
    return driver.elaborate(driver.parse(f"def f(x[i, j], w[j, e]):\n{lines}", "<test>"))


def arrays(length: int, rows: int = 5) -> Arrays:
    rng = np.random.default_rng(length)
    x, w = rng.standard_normal((rows, length)), rng.standard_normal((length, 3))
    return {"x": x.astype("f4"), "w": w.astype("f4")}


def compiled(program: Program, given: Arrays, splits: int, level: int = 2) -> tuple[driver.Compiled, Bindings]:
    bindings = bind(program, {name: a.shape for name, a in given.items()})
    return driver.compile_program(program, level, INTERPRETER, bindings.extents, choices=in_parts(splits)), bindings


def kernels(c: driver.Compiled) -> int:
    assert c.state.schedule is not None
    return len(c.state.schedule.kernels)


def check(program: Program, given: Arrays, splits: int, backend: str = "torch", level: int = 2) -> None:
    c, bindings = compiled(program, given, splits, level)
    assert kernels(c) == (1 if splits == 1 else 2)
    operands = {name: torch.from_numpy(a) for name, a in given.items()}
    if backend == "torch":
        found = run_in_torch(c, operands, bindings, None)
    else:
        found = runner(c)(*(operands[p.name] for p in program.params))
    with np.errstate(all="ignore"):
        wanted = evaluate(program, given)
    for got, value in zip(found, wanted, strict=True):
        scale = np.abs(value[np.isfinite(value)]).max(initial=1.0) if value.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(got.numpy(), value, rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.turns(3)
@pytest.mark.parametrize("splits", [2, 7])
@pytest.mark.parametrize("length", [1000, 37, 5])
@pytest.mark.parametrize("name", CASCADES)
def test_any_number_of_parts(name: str, length: int, splits: int) -> None:
    check(program_of(CASCADES[name]), arrays(length), splits)


@pytest.mark.parametrize("name", sorted(set(CASCADES) - {"argmax", "argmin"}))
def test_nothing_to_walk(name: str) -> None:
    check(program_of(CASCADES[name]), arrays(0), 3)


@pytest.mark.parametrize("level", [0, 1])
def test_at_other_levels(level: int) -> None:
    check(program_of(CASCADES["matmul"]), arrays(1000), 7, level=level)


@pytest.mark.parametrize("name", ["causal", "variance", "argmax", "product", "matmul"])
def test_interpreted(name: str) -> None:
    check(program_of(CASCADES[name]), arrays(300), 3, backend="interpret")


@pytest.mark.parametrize("name", ALONG)
def test_what_cannot_be_in_parts_is_not(name: str) -> None:
    program, given = program_of(ALONG[name]), arrays(1000)
    c, bindings = compiled(program, given, 7)
    assert all(p.splits == 1 for p in c.state.plans)
    (found,) = run_in_torch(c, {n: torch.from_numpy(a) for n, a in given.items()}, bindings, None)
    (wanted,) = evaluate(program, given)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("splits", [None, 3])
@pytest.mark.parametrize("results", ["O", "E, O"])
@pytest.mark.parametrize("power", [2, 3])
def test_about_what_the_kernel_before_stored(power: int, results: str, splits: int | None) -> None:
    """Moments about an entropy: what it is made of is not in memory."""
    text = f"""def f(x[i, j]):
        P[i, j] = softmax[j](x)
        E[i] = sum[j](where(P == 0, 0, P * log2(P)))
        O[i] = sum[j]((P - E[i]) ** {power})
        return {results}
    """
    program, given = driver.elaborate(driver.parse(text, "<test>")), {"x": arrays(1000)["x"]}
    given["x"][1] = given["x"][2, :999] = -np.inf
    c = driver.compile_program(program, 2, INTERPRETER, {"i": 64, "j": 1 << 20}, choices=in_parts(splits))
    assert len(c.state.plans) == 2
    assert all(p.splits > 1 for p in c.state.plans)
    operands = {name: torch.from_numpy(x) for name, x in given.items()}
    found = run_in_torch(c, operands, bind(program, {"x": (5, 1000)}), None)
    for got, wanted in zip(found, evaluate(program, given), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=2e-5, atol=2e-5)


@given(case=cascades(), splits=st.sampled_from([2, 7]))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_cascades(case: Cascade, splits: int) -> None:
    program = driver.elaborate(driver.parse(case.text, "cascade"))
    operands = {name: torch.from_numpy(x) for name, x in case.operands.items()}
    bindings = bind(program, {name: tuple(x.shape) for name, x in operands.items()})
    c = driver.compile_program(program, 2, INTERPRETER, case.sizes, choices=in_parts(splits))
    found = run_in_torch(c, operands, bindings, None)
    for got, exact, error in zip(found, evaluate(program, case.operands), case.errors, strict=True):
        if exact.dtype.kind == "f":
            np.testing.assert_allclose(got.double().numpy(), exact, rtol=0, atol=4 * error * 2.0**-23)
        else:
            np.testing.assert_array_equal(got.numpy(), exact)


@given(case=cases())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_random_programs(case: Case) -> None:
    """A walk in three parts differs from the whole walk by rounding."""
    program = case.program
    operands = dict(zip((p.name for p in program.operands), tensors(case), strict=True))
    bindings = bind(program, {name: tuple(x.shape) for name, x in operands.items()}, case.scalars)
    whole, parts = (
        run_in_torch(
            driver.compile_program(program, 2, INTERPRETER, case.sizes, choices=in_parts(n)), operands, bindings, None
        )
        for n in (None, 3)
    )
    for name, one, other in zip(program.results, whole, parts, strict=True):
        wanted = one.to(torch.float64).numpy() if one.is_floating_point() else one.numpy()
        agree(other, wanted, precision(program, name), magnitude(wanted))


# ---------------------------------------------------------------------------------------------------------------------
# The merge as an operation on states


def states_of(c: driver.Compiled, bindings: Bindings, given: Arrays) -> dict[str, torch.Tensor]:
    """The states that every part of the walk leaves."""
    schedule = c.state.schedule
    assert schedule is not None
    extents = completed(c.state.program, bindings).extents
    between = {b.name: [math.prod(extents[a] for a in dim) for dim in b.dims] for b in schedule.intermediates}
    types = {"f32": torch.float32, "i64": torch.int64, "bool": torch.bool}
    states = {b.name: torch.empty(between[b.name], dtype=types[b.dtype.name]) for b in schedule.intermediates}
    held = {name: torch.from_numpy(a) for name, a in given.items()} | states
    first = schedule.kernels[0]
    made = executable(first, extents, bindings.scalars, torch.device("cpu"))
    made.run({b.name: held[b.name] for b in first.buffers}, {})
    return states


def merged(c: driver.Compiled, bindings: Bindings, states: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the program's result is with these parts' states."""
    assert c.state.schedule is not None
    _, last = c.state.schedule.kernels
    count = next(iter(states.values())).shape[0]
    extents = bindings.extents | {"split": count}
    (result,) = (b for b in last.buffers if b.written)
    out = torch.empty([math.prod(extents[a] for a in dim) for dim in result.dims], dtype=torch.float32)
    made = executable(last, extents, bindings.scalars, torch.device("cpu"))
    made.run({result.name: out} | {b.name: states[b.name] for b in last.buffers if not b.written}, {})
    return out


@pytest.mark.parametrize(
    "name", [n for n in CASCADES if n not in ("argmax", "argmin", "any", "all", "with-lse", "two-axes")]
)
def test_merging_is_associative_and_commutative_with_a_neutral_element(name: str) -> None:
    """Five parts of one position, two of none: in any order, with any number of the empty ones."""
    given = arrays(5)
    given["x"][2] *= 30
    given["x"][3] -= 1000
    c, bindings = compiled(program_of(CASCADES[name]), given, 7)
    states = states_of(c, bindings, given)
    wanted = merged(c, bindings, states)
    orders = [*list(permutations(range(5)))[::7], (5, 0, 6, 1, 2, 5, 5, 3, 4), (6, 4, 3, 2, 1, 0)]
    for order in orders:
        shuffled = {name: state[list(order)] for name, state in states.items()}
        found = merged(c, bindings, shuffled)
        scale = float(wanted[wanted.isfinite()].abs().max()) if wanted.isfinite().any() else 1.0
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)


# ---------------------------------------------------------------------------------------------------------------------
# How many parts


ATTENTION = """def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e]):
    S[b, h, i, j] = Q[b, h, i, d] * K[b, h, j, d] * rsqrt(|d|)
    O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]
    return O
"""
PRODUCT = "def product(A[i, k], B[k, j]):\n    C[i, j] = A[i, k] * B[k, j]\n    return C\n"
SCORES = """def scores(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16):
    S[b, h, i, j] = Q[b, h, i, d] * K[b, h, j, d]
    T[i, j]: f32 = sum[b, h](tanh(S))
    return T
"""
SPLIT = {
    "products of each batch": (SCORES, {"b": 8, "h": 4, "i": 512, "j": 512, "d": 64}, True),
    "products of each batch, and many of them": (SCORES, {"b": 8, "h": 4, "i": 4096, "j": 4096, "d": 64}, False),
    "decoding": (ATTENTION, {"b": 1, "h": 32, "i": 1, "j": 32768, "d": 128, "e": 128}, True),
    "a long product": (PRODUCT, {"i": 64, "j": 64, "k": 1 << 18}, True),
    "prefill": (ATTENTION, {"b": 4, "h": 32, "i": 4096, "j": 4096, "d": 128, "e": 128}, False),
    "many sequences": (ATTENTION, {"b": 32, "h": 32, "i": 1, "j": 8192, "d": 128, "e": 128}, False),
    "a walk of a few parts": (ATTENTION, {"b": 1, "h": 32, "i": 1, "j": 512, "d": 128, "e": 128}, True),
    "a short walk": (ATTENTION, {"b": 1, "h": 8, "i": 1, "j": 128, "d": 64, "e": 64}, False),
    "a square product": (PRODUCT, {"i": 4096, "j": 4096, "k": 4096}, False),
}


@pytest.mark.parametrize("name", SPLIT)
def test_parts_are_as_many_as_pay(name: str) -> None:
    """What leaves most of a machine idle is in parts, as many as fill it; no kernel more than that."""
    text, sizes, wanted = SPLIT[name]
    program = driver.elaborate(driver.parse(text, "<test>"))
    c = driver.compile_program(program, 2, TARGETS["sm_90"], sizes)
    (plan,) = (p.of(c.state.program) for p in c.state.plans)
    assert kernels(c) == (2 if wanted else 1)
    assert (plan.splits > 1) == wanted
    assert Model(c.state.program, c.context).utilisation(plan, plan.splits) > 0.9 or name == "a short walk"


@pytest.mark.parametrize("splits", [0, -1, 1.5, True, 10**6])
def test_what_is_no_number_of_parts(splits: Any) -> None:
    with pytest.raises(CallError, match="parts"):
        einc.compile("ij,jk->ik", splits=splits)


def test_a_keyword_asks_for_parts() -> None:
    a, b = torch.randn(3, 1000, dtype=torch.float64), torch.randn(1000, 4, dtype=torch.float64)
    product = einc.compile("ij,jk->ik", splits=7)
    assert "parts" in product.source(a, b)
    torch.testing.assert_close(product(a, b, backend="torch"), a @ b)
