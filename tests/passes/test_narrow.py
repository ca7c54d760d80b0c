"""What passes between kernels is stored in the type that its readers multiply in, and no result changes."""

from __future__ import annotations

import pytest
import torch

from einc import driver
from einc.base.targets import INTERPRETER, TARGETS
from einc.binding import bind
from einc.ein import Program
from einc.passes.planning import partition
from tests.support.compiled import run_in_torch

SIZES = {"i": 4096, "j": 4096, "k": 4096, "l": 4096}
CHAIN = "C[i, j] = sum[k](A[i, k] * B[k, j])\nT[i, l] = sum[j](C[i, j] * D[j, l])"
GRADIENT = (
    "C[i, j] = exp(sum[k](A[i, k] * B[k, j]) - m[i])\nU[j, k] = sum[i](C[i, j] * A[i, k])\n"
    "T[i, l] = sum[j](C[i, j] * D[j, l]) + sum[j, k](U[j, k] * B[k, j])"
)
SCALED = "C[i, j] = sum[k](A[i, k] * B[k, j])\nT[i, l] = sum[j](C[i, j] * q[j] * D[j, l])"
COUNTED = "C[i, j] = sum[k](A[i, k] * B[k, j])\nT[i, l] = sum[j](C[i, j] * D[j, l]) + max[j](C[i, j])"
SEEN = "C[i, j] = sum[k](A[i, k] * B[k, j])\nT[i, l] = sum[j](C[i, j] * D[j, l])\nM[j] = max[i](C[i, j])"


def program(body: str, dtype: str, name: str = "f") -> Program:
    results = "T, M" if "M[j]" in body else "T"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    head = f"def {name}(A[i, k]: {dtype}, B[k, j]: {dtype}, D[j, l]: {dtype}, m[i], q[j]):\n"
    return driver.elaborate(driver.parse(f"{head}{lines}    return {results}\n", "<test>"))


def between(body: str, dtype: str) -> dict[str, str]:
    """The types of what passes between kernels."""
    c = driver.compile_program(program(body, dtype), 2, TARGETS["sm_90"], SIZES)
    assert c.state.schedule is not None
    return {b.name: b.dtype.name for b in c.state.schedule.intermediates}


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_what_only_products_read_is_stored_as_they_multiply(dtype: str) -> None:
    assert between(CHAIN, dtype)["C"] == dtype
    assert between(GRADIENT, dtype)["C"] == dtype


def test_products_of_single_precision_keep_it() -> None:
    assert between(CHAIN, "f32")["C"] == "f32"


@pytest.mark.parametrize("body", [SCALED, COUNTED, SEEN], ids=["scaled", "counted", "seen"])
def test_what_is_read_otherwise_keeps_its_type(body: str) -> None:
    """A factor that is multiplied by another before it is rounded, one that a maximum is taken of."""
    assert between(body, "bf16").get("C", "f32") == "f32"


@pytest.mark.parametrize("body", [CHAIN, GRADIENT], ids=["chain", "gradient"])
def test_every_value_is_the_same(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extents = {"i": 33, "j": 70, "k": 40, "l": 21}
    operands = {p.name: torch.randn([extents[a] for (a,) in p.dims]) for p in program(body, "bf16").operands}
    operands = {n: x if n in "mq" else x.bfloat16() for n, x in operands.items()}

    def run(name: str) -> tuple[torch.Tensor, ...]:
        p = program(body, "bf16", name)
        bindings = bind(p, {n: tuple(x.shape) for n, x in operands.items()})
        return run_in_torch(driver.compile_program(p, 2, INTERPRETER, SIZES), operands, bindings)

    narrow = run("narrow")
    monkeypatch.setattr(partition, "narrowed", lambda p, *_: p)
    for got, wide in zip(narrow, run("wide"), strict=True):
        assert torch.equal(got, wide)
