"""Kernels interpreted in this process: as compiled ones would compute, and without a trace left in Triton."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language import core

from einc.codegen.run import interpret
from einc.codegen.run.load import launch


@triton.jit
def _twice(x):  # type: ignore[no-untyped-def]
    return x * 2


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _copy_kernel(X, R, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(R + i, _twice(tl.load(X + i, mask=i < n)), mask=i < n)


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _statistics_kernel(X, R, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    x = tl.load(X + i[:, None] * BLOCK + i[None, :])
    tl.store(R + i, tl.sum(x, 1))
    tl.store(R + BLOCK + i, tl.max(x, 0))
    tl.store(R + 2 * BLOCK + i, tl.argmin(x, 1).to(tl.float32))
    tl.store(R + 3 * BLOCK + i, tl.rand(7, i))
    tl.store(R + 4 * BLOCK, tl.sum(x))


@triton.jit
def _second(a, b):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return b


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _last_kernel(X, R, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    tl.store(R, tl.reduce(tl.load(X + i), 0, _second))


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _narrow_kernel(X, Y, R, D, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    at = i[:, None] * BLOCK + i[None, :]
    x, y = tl.load(X + at), tl.load(Y + at)
    tl.store(R + at, tl.where(x < y, -x * y + x, x / y))
    tl.store(D + at, tl.dot(x, y))


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _unsigned_kernel(X, R, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    x = tl.load(X + i)
    tl.store(R + i, (x.to(tl.uint8) // 2).to(tl.int32) + (x.to(tl.float32) * -1).to(tl.int32))


@triton.jit
def _programs_kernel(R):  # type: ignore[no-untyped-def]  # noqa: N803
    tl.store(R + tl.program_id(0), tl.num_programs(0) * 10 + tl.program_id(0))


def test_kernels_call_each_other() -> None:
    x, r = torch.arange(10.0), torch.zeros(10)
    interpret.run(_copy_kernel, 3, x, r, 10, BLOCK=4)
    assert torch.equal(r, x * 2)


def test_the_library_of_the_language_is_there() -> None:
    x, r = torch.randn(16, 16), torch.zeros(80)
    interpret.run(_statistics_kernel, 1, x, r, BLOCK=16)
    torch.testing.assert_close(r[:16], x.sum(1))
    assert torch.equal(r[16:32], x.amax(0))
    assert torch.equal(r[32:48], x.argmin(1).float())
    assert ((r[48:64] >= 0) & (r[48:64] < 1)).all()
    assert len(set(r[48:64].tolist())) == 16
    torch.testing.assert_close(r[64], x.sum())


def test_a_combine_function_keeps_the_order_of_its_operands() -> None:
    r = torch.zeros(1)
    interpret.run(_last_kernel, 1, torch.arange(32.0), r, BLOCK=32)
    assert r.item() == 31


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_compute_and_round_as_on_a_gpu(dtype: torch.dtype) -> None:
    x, y = torch.randn(16, 16).to(dtype), torch.randn(16, 16).abs().to(dtype)
    r, d = torch.zeros(16, 16, dtype=dtype), torch.zeros(16, 16)
    interpret.run(_narrow_kernel, 1, x, y, r, d, BLOCK=16)
    assert torch.equal(r, torch.where(x < y, -x * y + x, x / y))
    torch.testing.assert_close(d.double(), x.double() @ y.double(), rtol=1e-5, atol=1e-5)


def test_unsigned_integers_keep_their_sign() -> None:
    x, r = torch.tensor([200, 255, 0, 7], dtype=torch.uint8), torch.zeros(4, dtype=torch.int32)
    interpret.run(_unsigned_kernel, 1, x, r, BLOCK=4)
    assert r.tolist() == [100 - 200, 127 - 255, 0, 3 - 7]


def test_runs_overlap_in_threads() -> None:
    def one(n: int) -> torch.Tensor:
        r = torch.zeros(n, dtype=torch.int32)
        interpret.run(_programs_kernel, n, r)
        return r

    with ThreadPoolExecutor(4) as pool:
        for n, r in zip(range(1, 40), pool.map(one, range(1, 40)), strict=True):
            assert r.tolist() == [n * 10 + k for k in range(n)]


def test_an_error_in_a_kernel_leaves_nothing_behind() -> None:
    with pytest.raises(AttributeError):
        interpret.run(_copy_kernel, 1, torch.ones(4), None, 4, BLOCK=4)
    r = torch.zeros(2, dtype=torch.int32)
    interpret.run(_programs_kernel, 2, r)
    assert r.tolist() == [20, 21]


def test_triton_is_left_as_it_was() -> None:
    """No attribute of the language changes, not even while a kernel runs: another thread looks at it all the time."""
    before = _language()
    stop, seen = threading.Event(), list[bool]()

    def watch() -> None:
        while not stop.is_set():
            seen.append(_language() == before)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):
            interpret.run(_statistics_kernel, 1, torch.randn(16, 16), torch.zeros(80), BLOCK=16)
    finally:
        stop.set()
        watcher.join()
    assert seen
    assert all(seen)
    assert _language() == before
    with pytest.raises(Exception, match=r"forget to add @triton\.jit|outside of the scope"):
        tl.zeros([4], tl.float32)


def _language() -> dict[str, Any]:
    places = {"tl": tl, "core": core, "tensor": core.tensor, "math": tl.math, "jit": triton.JITFunction}
    return {f"{place}.{name}": id(value) for place, module in places.items() for name, value in vars(module).items()}


def test_kernels_compile_before_and_after_a_run() -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def compiled() -> str:
        signature = {"X": "*fp32", "R": "*fp32", "BLOCK": "constexpr"}
        source = ASTSource(_statistics_kernel, signature=signature, constexprs={"BLOCK": 16})
        return str(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ttir"])

    before = compiled()
    interpret.run(_statistics_kernel, 1, torch.randn(16, 16), torch.zeros(80), BLOCK=16)
    assert compiled() == before


def test_an_empty_grid_runs_nothing() -> None:
    launch(_programs_kernel, 0, torch.zeros(0, dtype=torch.int32))


def test_integers_wrap_and_divisions_by_zero_are_silent() -> None:
    x = torch.tensor([1.0, 0.0]) / 0
    r = torch.zeros(2)
    with np.errstate(all="raise"):
        interpret.run(_copy_kernel, 1, x, r, 2, BLOCK=2)
    assert r[0] == float("inf")
