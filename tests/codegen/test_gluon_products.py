"""Products whose warps have roles: what they compute on threads, and what they assemble to."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from einc import driver
from einc.base.types import BF16, F16, DType
from einc.codegen.run.aot import compile_ahead
from einc.driver import elaborate
from einc.evaluate import evaluate
from einc.tile.roles import Begin, Finish
from tests.codegen.test_gluon import compiled
from tests.support import warps
from tests.support.compiled import definition
from tests.support.sass import disassembled, loops

MANY = {"b": 8, "i": 4096, "j": 4096, "k": 4096}
PRODUCTS = {
    "rows_columns": "A[i, k], B[k, j]\nC[i, j] = sum[k](A[i, k] * B[k, j])",
    "rows_rows": "A[i, k], B[j, k]\nC[i, j] = sum[k](A[i, k] * B[j, k])",
    "columns_columns": "A[k, i], B[k, j]\nC[i, j] = sum[k](A[k, i] * B[k, j])",
    "columns_rows": "A[k, i], B[j, k]\nC[i, j] = sum[k](A[k, i] * B[j, k])",
    "batch": "A[b, i, k], B[b, k, j]\nC[b, i, j] = sum[k](A[b, i, k] * B[b, k, j])",
    "weights": "A[b, i, k], B[k, j]\nC[b, i, j] = sum[k](A[b, i, k] * B[k, j])",
    "bias": "A[i, k], B[k, j], v[j]\nC[i, j] = max(sum[k](A[i, k] * B[k, j]) + v[j], 0)",
    "residual": "A[i, k], B[k, j], R[i, j]\nC[i, j] = R[i, j] + 0.5 * sum[k](A[i, k] * B[k, j])",
    "gelu": "A[i, k], B[k, j], v[j]\nX[i, j] = sum[k](A[i, k] * B[k, j]) + v[j]\n"
    "C[i, j] = X * (1 + tanh(X + 0.1 * X * X * X))",
    "rows_scaled": "A[i, k], B[k, j], s[i]\nC[i, j] = s[i] * sum[k](A[i, k] * B[k, j])",
    "transposed": "A[i, k], B[k, j]\nC[j, i] = sum[k](A[i, k] * B[k, j])",
    "gated": "A[i, k], B[k, j], D[k, j]\nX[i, j] = sum[k](A[i, k] * B[k, j])\n"
    "Y[i, j] = sum[k](A[i, k] * D[k, j])\nC[i, j] = max(X, 0) * Y",
}  # fmt: skip
LENGTHS = [(200, 300, 150), (128, 256, 64), (70, 130, 257), (300, 64, 40)]


def program(name: str) -> str:
    return definition(PRODUCTS[name])


@pytest.mark.parametrize("name", PRODUCTS)
def test_threads_compute_what_the_program_means(name: str) -> None:
    text, (i, j, k) = program(name), LENGTHS[list(PRODUCTS).index(name) % len(LENGTHS)]
    made, exact = compiled(text, MANY), elaborate(driver.parse(text))
    assert made.state.schedule is not None
    (kernel,) = made.state.schedule.kernels
    assert kernel.roles is not None
    sizes = {"b": 2, "i": i, "j": j, "k": k}
    operands = [torch.randn([sizes[d[0]] for d in p.dims], dtype=torch.float64) for p in exact.operands]
    (meant,) = evaluate(exact, {p.name: x.numpy() for p, x in zip(exact.operands, operands, strict=True)}, {})
    found = torch.full(meant.shape, np.nan, dtype=torch.float64)
    warps.run(made.source, made.emitted.launcher, operands, [found])
    np.testing.assert_allclose(found.numpy(), meant, rtol=1e-9, atol=1e-9)


def test_a_dot_runs_while_the_next_one_begins() -> None:
    schedule = compiled(program("bias"), MANY).state.schedule
    assert schedule is not None
    (kernel,) = schedule.kernels
    assert kernel.roles is not None
    dots = [e for e in kernel.roles.events if isinstance(e, Begin | Finish)]
    assert [(type(e), e.step) for e in dots] == [(Begin, 0), (Finish, -1)]


def test_threads_find_a_block_that_is_given_up_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warps, "PATIENCE", 2.0)  # here they do wait for ever
    text = program("rows_columns")
    made = compiled(text, MANY)
    operands = [torch.randn(64, 1500, dtype=torch.float64), torch.randn(1500, 64, dtype=torch.float64)]
    broken = made.source.replace("_free.index((at - 1) & 3)", "_free.index(at & 3)")
    assert broken != made.source
    with pytest.raises(warps.Broken):
        warps.run(broken, made.emitted.launcher, operands, [torch.zeros(64, 64, dtype=torch.float64)])


ASSEMBLED = [
    pytest.param(name, dtype, marks=[pytest.mark.slow] * ((name, dtype) != ("residual", BF16)))
    for name in ("rows_columns", "columns_rows", "residual", "gelu")
    for dtype in (BF16, F16)
]


@pytest.mark.aot
@pytest.mark.parametrize(("name", "dtype"), ASSEMBLED)
def test_dots_follow_each_other_without_a_wait_between(name: str, dtype: DType) -> None:
    """One wait in a step, for all dots but those of this step; no registers in memory."""
    made = compiled(program(name), MANY, dtype)
    (kernel,) = compile_ahead(made.emitted, made.target, made.sizes)
    assert kernel.shared <= made.target.shared
    sass = disassembled(kernel.stages["cubin"])
    for body in sorted(loops(sass, "HGMMA"), key=len)[:2]:  # of each consumer
        dots = [k for k, x in enumerate(body) if "HGMMA" in x]
        waits = [k for k, x in enumerate(body) if "WARPGROUP.DEPBAR" in x]
        assert len(dots) == 4
        assert len(waits) == 1
        assert re.search(r"gsb0, 0x1\b", body[waits[0]])
    assert not re.search(r"\b(STL|LDL)\b", sass)


@pytest.mark.aot
def test_several_dots_of_a_step_are_compiled() -> None:
    made = compiled(program("gated"), MANY)
    (kernel,) = compile_ahead(made.emitted, made.target, made.sizes)
    assert kernel.spills == 0
