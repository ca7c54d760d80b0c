"""What steps read beside sides of dots: biases, which are copied for them, tables and documents, which are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import einc
from einc import driver
from einc.base.types import BF16
from einc.codegen.run.aot import compile_ahead
from einc.driver import elaborate
from einc.evaluate import evaluate
from einc.trials.request import Request
from einc.trials.running import gradient_for
from tests.codegen.test_gluon import MANY, MASKS, compiled
from tests.support import warps
from tests.support.compiled import definition
from tests.support.sass import disassembled, loops

SCORES = "S[b, h, i, j] = sum[d](Q[b, h, i, d] * K[b, h, j, d]) * 0.1"
READS = {
    "pairs": ("T[h, i, j]", f"{SCORES} + T[h, i, j]"),
    "slopes": ("T[h]", f"{SCORES} - T[h] * (i - j)"),
    "distances": ("T[h, r]", f"{SCORES} + T[h, clamp(i - j + 8, 0, |r| - 1)]"),
    "documents": ("D[i]: i32, E[j]: i32", f"{SCORES} + where(D[i] == E[j], 0, -inf)"),
    "causal_documents": ("D[i]: i32, E[j]: i32", f"{SCORES} + where(D[i] == E[j] and j <= i, 0, -inf)"),
}


def program(name: str) -> str:
    operands, scores = READS[name]
    head = f"Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], {operands}"
    return definition(f"{head}\n{scores}\nO[b, h, i, e] = softmax[j](S) * V[b, h, j, e]")


@pytest.mark.parametrize("name", READS)
def test_threads_compute_what_the_program_means(name: str) -> None:
    text = program(name)
    made, exact = compiled(text, {**MANY, "i": 1024, "j": 1024, "r": 16}), elaborate(driver.parse(text))
    assert made.state.schedule is not None
    assert all(k.roles is not None for k in made.state.schedule.kernels)
    sizes = {"b": 1, "h": 2, "i": 200, "j": 300, "d": 64, "e": 64, "r": 16}
    shapes = {p.name: [sizes[d[0]] for d in p.dims] for p in exact.operands}
    operands = {n: torch.randn(shape, dtype=torch.float64) for n, shape in shapes.items()}
    for n in {"D", "E"} & operands.keys():
        operands[n] = torch.sort(torch.randint(0, 4, shapes[n])).values
    (meant,) = evaluate(exact, {n: x.numpy() for n, x in operands.items()}, {})
    found = torch.full(meant.shape, np.nan, dtype=torch.float64)
    warps.run(made.source, made.emitted.launcher, list(operands.values()), [found])
    np.testing.assert_allclose(found.numpy(), meant, rtol=1e-9, atol=1e-9)


BACKWARD = """
def backward(
    Q[b, h, i, d], K[b, h, j, d], V[b, h, j, d], T[{bias}], L[b, h, i], D[b, h, i], G[b, h, i, d]
):
    S[b, h, i, j] = sum[d](Q[b, h, i, d] * K[b, h, j, d]) * 0.1 + T[{bias}]
    P[b, h, i, j] = {mask}exp(S - L[b, h, i]){end}
    dS[b, h, i, j] = P * (sum[d](G[b, h, i, d] * V[b, h, j, d]) - D[b, h, i])
    dQ[b, h, i, d] = 0.1 * dS[b, h, i, j] * K[b, h, j, d]
    dK[b, h, j, d] = 0.1 * dS[b, h, i, j] * Q[b, h, i, d]
    dV[b, h, j, d] = P * G[b, h, i, d]
    dT[{bias}] = dS[b, h, i, j]
    return dQ, dK, dV, dT
"""


def backward(bias: str, mask: str) -> str:
    begin, end = MASKS[mask]
    return BACKWARD.format(bias=bias, mask=begin, end=end)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("bias", ["h, i, j", "i, j", "b, i, j"])
def test_threads_compute_the_gradients_of_a_bias(bias: str, mask: str) -> None:
    """A tile is copied for steps that compute with it, as rows or as columns; sums over batches, or over heads, walk
    these one by one, and copy it once, if they walk any."""
    sizes = {"b": 3, "h": 2, "i": 200, "j": 300, "d": 64}
    text = backward(bias, mask)
    made, exact = compiled(text, {**MANY, "i": 1024, "j": 1024}), elaborate(driver.parse(text))
    assert made.state.schedule is not None
    assert all(k.roles is not None and "t" in k.roles.loads for k in made.state.schedule.kernels)
    operands = [torch.randn([sizes[d[0]] for d in p.dims], dtype=torch.float64) for p in exact.operands]
    meant = evaluate(exact, {p.name: x.numpy() for p, x in zip(exact.operands, operands, strict=True)}, {})
    results = [torch.full(x.shape, np.nan, dtype=torch.float64) for x in meant]
    warps.run(made.source, made.emitted.launcher, operands, results)
    for found, wanted in zip(results, meant, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-9)


def test_a_slot_is_filled_again_when_threads_have_read_it() -> None:
    """Copies do not wait for what threads have begun to read: a fence does, without which this fails."""
    text = backward("h, i, j", "full")
    made = compiled(text, {**MANY, "i": 1024, "j": 1024})
    exact, sizes = elaborate(driver.parse(text)), {"b": 2, "h": 2, "i": 200, "j": 200, "d": 64}
    operands = [torch.randn([sizes[d[0]] for d in p.dims], dtype=torch.float64) for p in exact.operands]
    results = [torch.empty_like(x) for x in operands[:4]]
    unfenced = made.source.replace("hopper.fence_async_shared()", "pass")
    with pytest.raises(warps.Broken, match="a copy may come before"):
        warps.run(unfenced, made.emitted.launcher, operands, results)


@pytest.mark.parametrize("name", ["documents", "causal_documents"])
def test_what_no_row_counts_may_be_anything(name: str) -> None:
    """Also where rows beyond the last one would count it: their document is that of no row."""
    text = program(name)
    made = compiled(text, {**MANY, "i": 1024, "j": 1024})
    q, k, v = (torch.randn(1, 1, n, 64, dtype=torch.float64) for n in (100, 300, 300))
    rows, keys = torch.arange(100) // 40 + 1, torch.arange(300) // 40
    found, wanted = (torch.full((1, 1, 100, 64), np.nan, dtype=torch.float64) for _ in range(2))
    warps.run(made.source, made.emitted.launcher, [q, k, v, rows, keys], [wanted])
    unread = ~torch.isin(keys, rows)
    k[:, :, unread], v[:, :, unread] = np.inf, np.nan
    warps.run(made.source, made.emitted.launcher, [q, k, v, rows, keys], [found])
    assert torch.equal(found, wanted)
    assert not wanted.isnan().any()


@pytest.mark.aot
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "pairs")) for n in READS])
def test_what_is_read_leaves_registers_for_the_rest(name: str) -> None:
    sizes = {**MANY, "i": 4096, "j": 4096, "d": 128, "e": 128, "r": 64}
    made = compiled(program(name), sizes, BF16)
    (kernel,) = compile_ahead(made.emitted, made.target, made.sizes)
    assert kernel.shared <= made.target.shared
    unmasked = sorted((b for b in loops(disassembled(kernel.stages["cubin"]), "HGMMA")), key=len)[:2]
    for body in unmasked:
        assert not any(x.startswith(("STL", "LDL")) for x in body)


LEGAL = {
    "a bound of pairs": (
        "T[h, i, j]",
        "O[b, h, i, e] = softmax[j](where(j < 100 or j <= i, S + T[h, i, j], -inf)) * V[b, h, j, e]",
    ),
    "bodies that differ": (
        "T[i, j], D[b, n]: i32",
        "A[b, h, i, j] = where((i + j) % 2 == 0 and D[b, i] == D[b, j], S + T[i, j], -inf)\n"
        "O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]",
    ),
    "folds of dots": (
        "T[i, j]: f32, U[h]: f32",
        "P[b, h, i, j] = sigmoid(S + T[i, j] + 0.02 * U[h] * (j - i) - 3)\n"
        "O[b, h, i, e] = sum[j](P[b, h, i, j] * V[b, h, j, e])",
    ),
}


@pytest.mark.parametrize("name", LEGAL)
def test_gradients_are_legal_wherever_roles_are(name: str) -> None:
    """Bounds that pairs of positions decide have no roles; names mean what a body binds them to; what one dot decides
    may be a part of what is folded."""
    operands, lines = LEGAL[name]
    head = f"Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], {operands}"
    text = definition(f"{head}\nS[b, h, i, j] = 0.1 * Q[b, h, i, d] * K[b, h, j, d]\n{lines}")
    sizes = {"b": 2, "h": 4, "i": 1536, "j": 1536, "d": 96, "e": 96} | ({"n": 1536} if "D" in operands else {})
    program = einc.compile(text, target="sm_90", generator="gluon")
    made = gradient_for(program, Request(sizes, {"": BF16}), [])
    assert made.together.source.count("gl.warp_specialize(") >= 2
