"""`Program.prepare`: compiled ahead, for this machine or another, for one call or many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import einc
from einc.base.errors import RoomError
from einc.base.targets import TARGETS
from einc.codegen.run import warm
from einc.codegen.run.load import load
from einc.driver import elaborate
from einc.runtime.ahead import without_memory
from tests.cache.conftest import forget

ATTENTION = """
def attention(Q[b, i, d], K[b, j, d], V[b, j, e], window: int, scale: float = rsqrt(|d|)):
    S[b, i, j] = scale * Q[b, i, d] * K[b, j, d]
    A[b, i, j] = where(j <= i and i - j < window, S, -inf)
    O[b, i, e] = softmax[j](A) * V[b, j, e]
    return O
"""
SHAPE = (2, 256, 64)


@pytest.fixture
def triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Triton keeps what it compiles, empty."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    load.cache_clear()
    return tmp_path / "triton"


def compiled(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*.cubin")}


@pytest.mark.usefixtures("cache")
def test_a_call_on_the_cpu_finds_what_was_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    program = einc.compile(ATTENTION)
    assert program.prepare((2, 9, 4), (2, 9, 4), (2, 9, 4), 3, device="cpu") is program
    monkeypatch.setattr("einc.stages.run_passes", None)
    x = torch.randn(2, 9, 4)
    assert program(x, x, x, 3).shape == (2, 9, 4)


@pytest.mark.aot
@pytest.mark.usefixtures("cache")
def test_kernels_are_compiled_for_another_machine(triton: Path) -> None:
    program = einc.compile(ATTENTION, target="sm_90")
    program.prepare(SHAPE, SHAPE, SHAPE, window=8, dtype="bf16")
    assert len(compiled(triton)) == 1
    meta = torch.empty(SHAPE, dtype=torch.bfloat16, device="meta")
    (ptx,) = triton.rglob("*.ptx")
    assert ".target sm_90a" in ptx.read_text()
    source = program.source(meta, meta, meta, 8)
    (kernel,) = triton.rglob("*.source")
    assert "O_kernel" in kernel.read_text()
    assert "def O_kernel" in source


@pytest.mark.aot
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="Triton compiles for the GPU that is there, and this asks for another"
)
@pytest.mark.usefixtures("cache")
def test_many_calls_are_prepared_at_once(triton: Path) -> None:
    program = einc.compile("bik,bkj->bij")
    calls: list[Any] = [((2, 64, 64), (2, 64, 64)), ((2, 64, 64), (2, 64, 64)), {"A": (2, 33, 7), "B": (2, 7, 5)}]
    program.prepare(calls, dtype=torch.float16, target="sm_80")
    first = compiled(triton)
    assert len(first) == 2
    load.cache_clear()
    forget()
    program.prepare(calls, dtype=torch.float16, target="sm_80")
    assert compiled(triton) == first


@pytest.mark.aot
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("shape", [SHAPE, (2, 250, 64), (1, 1, 64), (2, 33, 40)])
def test_a_launch_asks_for_what_was_prepared(triton: Path, shape: tuple[int, ...]) -> None:
    """Triton's own way from the arguments of a launch to a kernel, for operands that have memory."""
    program = einc.compile(ATTENTION, target="sm_90")
    program.prepare(shape, shape, shape, 8, dtype="f16")
    before = compiled(triton)
    assert before
    load.cache_clear()
    x = torch.zeros(shape, dtype=torch.float16)
    emitted = program.compiled(x.to("meta"), x.to("meta"), x.to("meta"), 8).emitted
    launches = warm.launches(emitted, [x, x, x, 8], {})
    with warm._device(TARGETS["sm_90"]):
        for launch in launches:
            launch.kernel.warmup(*launch.args, grid=(launch.programs,), **launch.meta)
    assert compiled(triton) == before


@pytest.mark.aot
@pytest.mark.usefixtures("cache", "triton")
def test_what_needs_too_much_is_prepared_in_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    program = einc.compile("ik,kj->ij", target="sm_90")
    whole, made = warm._device, []

    @contextmanager
    def narrow(where: Any) -> Iterator[int]:
        with whole(where):
            made.append(where)
            yield 60_000

    monkeypatch.setattr(warm, "_device", narrow)
    program.prepare((4096, 4096), (4096, 4096), dtype="bf16")
    assert len(made) > 1
    again = len(made)
    forget()
    load.cache_clear()
    program.prepare((4096, 4096), (4096, 4096), dtype="bf16")
    assert len(made) == again + 1  # what fits is known


@pytest.mark.aot
@pytest.mark.usefixtures("cache", "triton")
def test_what_never_fits_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_compiled", lambda *_: RoomError("too much"))
    with pytest.raises(RoomError, match="too much"):
        einc.compile("ik,kj->ij", target="sm_90").prepare((64, 64), (64, 64))


MIXED = einc.compile("def f(A[i, k], B[k, j]: f64, n[i]: i64, s: float):\n    O[i, j] = A * B * n * s\n    return O")


@pytest.mark.parametrize(
    ("dtype", "types"),
    [
        (None, "float32 float64 int64"),
        ("bf16", "bfloat16 float64 int64"),
        (torch.float16, "float16 float64 int64"),
        ({"A": "f16", "n": "i32"}, "float16 float64 int32"),
    ],
)
def test_shapes_have_the_types_of_the_text(dtype: Any, types: str) -> None:
    program = elaborate(MIXED.text)
    shapes = ((3, 4), (4, 5), (3,))
    by_position, named = without_memory((*shapes, 2.0), {}, program, dtype)
    assert [tuple(x.shape) for x in by_position[:3]] == list(shapes)
    assert [str(x.dtype) for x in by_position[:3]] == [f"torch.{name}" for name in types.split()]
    assert all(x.device.type == "meta" for x in by_position[:3])
    assert (by_position[3], named) == (2.0, {})
    _, named = without_memory({"A": (3, 4)}, {"s": 2.0, "n": torch.ones(3)}, program, dtype)
    assert (named["A"].shape, named["s"], named["n"].device.type) == ((3, 4), 2.0, "cpu")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "prepare",
    [
        lambda p: p.prepare((3, 4), (4, 5)),
        lambda p: p.prepare(A=(3, 4), B=(4, 5)),
        lambda p: p.prepare(torch.empty(3, 4, device="meta"), (4, 5), dtype="f32"),
        lambda p: p.prepare(torch.empty(3, 4), np.ones((4, 5), np.float32)),
        lambda p: p.prepare([((1, 2), (2, 3)), {"A": (3, 4), "B": (4, 5)}], device="cpu"),
    ],
)
def test_a_call_is_described_in_many_ways(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # where there is a GPU, it is prepared for that
    program = einc.compile("ik,kj->ij")
    prepare(program)
    monkeypatch.setattr("einc.driver.compile_program", None)
    monkeypatch.setattr("einc.runtime.prepared.compile_program", None)
    assert torch.equal(program(torch.ones(3, 4), torch.ones(4, 5)), torch.full((3, 5), 4.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.prepare((3, 4)), "operand 'B' is missing"),
        (lambda p: p.prepare((3, 4), (5, 6)), "k"),
        (lambda p: p.prepare((3, 4), (4, 5), (5, 6)), "3 arguments are given"),
        (lambda p: p.prepare((3, 4), (4, 5), dtype="bf17"), "there is no element type 'bf17'"),
        (lambda p: p.prepare((3, 4), (4, 5), device="nowhere"), "there is no device 'nowhere'"),
        (lambda p: p.prepare((3, 4), (4, 5), target="sm_1"), "sm_1"),
        (lambda p: p.prepare((3, 4), (4, 5), backend="x"), "there is no backend 'x'"),
        (lambda p: p.prepare((3, -4), (4, 5)), "A"),
        (lambda p: p.prepare("ab", (4, 5)), "operand 'A' is not a tensor"),
        (lambda p: p.prepare(C=(1, 2)), "no operand or scalar 'C'"),
    ],
)
def test_wrong_descriptions(call: Any, message: str) -> None:
    with pytest.raises(einc.Error) as caught:
        call(einc.compile("ik,kj->ij"))
    assert message in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(einc.TargetError, match="there is no GPU here"):
        einc.compile("ik,kj->ij").prepare((3, 4), (4, 5), device="cuda")


def test_an_operand_may_be_called_as_an_option() -> None:
    program = einc.compile("O[i] = 2 * device[i]")
    program.prepare(device=(5,))
    assert torch.equal(program(torch.ones(5)), torch.full((5,), 2.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("shape", [SHAPE, (2, 250, 64), (2, 33, 40)])
def test_a_call_on_a_gpu_compiles_nothing_that_was_prepared(triton: Path, shape: tuple[int, ...]) -> None:
    program = einc.compile(ATTENTION)
    program.prepare(shape, shape, shape, 8, dtype="f16", device="cuda")
    before = compiled(triton)
    assert before
    x = torch.randn(shape, dtype=torch.float16, device="cuda")
    forget()
    load.cache_clear()
    found = program(x, x, x, 8)
    assert compiled(triton) == before
    exact = program(x.double(), x.double(), x.double(), 8, backend="evaluate")
    assert np.abs(found.double().cpu().numpy() - np.asarray(exact)).max() < 1e-2
