"""Calls on a GPU: nothing but launches, in any stream, under capture, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import einc

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

TEXT = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], n: int = |j|, scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    T[b, h, i, j] = where(j < n, S, -inf)
    O[b, h, i, e] = softmax[j](T) * V[b, h, j, e]
    L[b, h, i] = logsumexp[j](T)
    return O, L
"""
SPINS = """
def spin(A[i, k]: c64, B[k, j]: c64, seed: int):
    C[i, j] = A[i, k] * B[k, j]
    D[i, j] = C[i, j] * rand(seed, i, j)
    return D
"""


def operands(n: int = 5, m: int = 3000) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, 4, rows, 64, device="cuda", dtype=torch.bfloat16) for rows in (n, m, m))


def close(found: Any, wanted: Any) -> None:
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x.float().cpu(), torch.as_tensor(y).float(), rtol=2e-2, atol=2e-2)


def exact(f: einc.Program, *tensors: Tensor, **scalars: Any) -> Any:
    return f(*(t.double().cpu().numpy() for t in tensors), backend="evaluate", **scalars)


@contextmanager
def nothing_waits() -> Iterator[None]:
    """A context in which the host may not wait for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("n", [1, 70])
def test_calls_in_parts_and_in_one(n: int) -> None:
    f, tensors = einc.compile(TEXT), operands(n)
    close(f(*tensors), exact(f, *tensors))
    other = operands(n)
    with nothing_waits():
        found = f(*other)
        scaled = f(*other, scale=0.3)
    scaled = f(*other, scale=0.3)
    assert f._callee.calls is not None
    assert len(f._callee.calls.known) == 2
    close(found, exact(f, *other))
    close(scaled, exact(f, *other, scale=0.3))


def test_layouts_alignment_and_scalars_have_launches_of_their_own() -> None:
    f, (q, k, v) = einc.compile(TEXT), operands(70, 200)
    apart = torch.randn(2 * 4 * 70 * 64 + 1, device="cuda", dtype=torch.bfloat16)[1:].view(2, 4, 70, 64)
    turned = k.transpose(2, 3).contiguous().transpose(2, 3)
    for _ in range(2):
        for x, y, z in (
            (q, k, v),
            (apart, k, v),
            (q, turned, v),
            (q, k[:, :, :199], v[:, :, :199]),
            (q[:1], k[:1], v[:1]),
        ):
            for n in (1, 16, 150):
                close(f(x, y, z, n), exact(f, x, y, z, n=n))


@pytest.mark.parametrize("n", [1, 70])
def test_results_in_memory_that_is_given(n: int) -> None:
    """In rows of a longer buffer, which a first call and then launches alone write to."""
    f, memory = einc.compile(TEXT), torch.full((2, 4, 200, 64), 9.0, device="cuda", dtype=torch.bfloat16)
    for start in (0, 8, 64):
        tensors = operands(n)
        out = (
            memory[:, :, start : start + n],
            torch.empty(n, 4, 2, device="cuda", dtype=torch.bfloat16).permute(2, 1, 0),
        )
        memory.fill_(9)
        if start:
            with nothing_waits():
                assert f(*tensors, out=out) is out
        else:
            assert f(*tensors, out=out) is out
        close(out, exact(f, *tensors))
        assert (memory == 9).sum() >= memory.numel() - out[0].numel()
    assert f._callee.calls is not None
    assert len(f._callee.calls.known) == 1


def test_a_result_that_overlaps_an_operand() -> None:
    f = einc.compile("ij,jk->ki")
    a, b = (torch.randn(64, 64, device="cuda") for _ in range(2))
    for out in (torch.empty_like(a), torch.empty_like(a), a, b):
        wanted = (a.double() @ b.double()).T
        f(a, b, out=out)
        torch.testing.assert_close(out.double(), wanted, rtol=1e-2, atol=1e-2)


def test_capture_of_results_in_memory_that_is_given() -> None:
    f, tensors = einc.compile(TEXT), operands()
    out = tuple(torch.empty_like(t) for t in f(*tensors))
    f(*tensors, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        f(*tensors, out=out)
    for t in tensors:
        t.copy_(torch.randn_like(t))
    graph.replay()
    close(out, exact(f, *tensors))


def test_integers_of_as_many_digits_share_their_launches() -> None:
    f, tensors = einc.compile(TEXT), operands(5, 200)
    for n in range(1, 64):
        close(f(*tensors, n), exact(f, *tensors, n=n))
    assert f._callee.calls is not None
    assert len(f._callee.calls.known) == 6
    with nothing_waits():
        found = f(*tensors, 47)
    close(found, exact(f, *tensors, n=47))


def test_complex_tensors_and_seeds() -> None:
    f = einc.compile(SPINS)
    for k in range(3):
        a, b = (torch.randn(40, 40, device="cuda", dtype=torch.complex64) for _ in range(2))
        for seed in (k, 7, 2**40):
            wanted = f(a.cpu().numpy(), b.cpu().numpy(), seed, backend="evaluate")
            torch.testing.assert_close(
                f(a, b, seed).cpu(), torch.from_numpy(wanted).to(torch.complex64), rtol=1e-3, atol=1e-3
            )


def test_a_stream_that_is_not_the_default() -> None:
    f, tensors = einc.compile(TEXT), operands()
    f(*tensors)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
        other = [t * 2 for t in tensors]
        found = f(*other)
    stream.synchronize()
    close(found, exact(f, *other))


def test_capture_in_a_graph() -> None:
    f, tensors = einc.compile(TEXT), operands()
    f(*tensors)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = f(*tensors)
    for t in tensors:
        t.copy_(torch.randn_like(t))
    graph.replay()
    close(found, exact(f, *tensors))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_under_torch_compile(mode: str) -> None:
    torch._dynamo.reset()
    f = einc.compile(TEXT)
    compiled = torch.compile(lambda *t: f(*t)[0] * 2, fullgraph=True, mode=mode)
    for _ in range(4):
        tensors = operands()
        close([compiled(*tensors) / 2], exact(f, *tensors)[:1])


def test_threads_that_meet_in_a_first_call() -> None:
    f, tensors = einc.compile(TEXT), operands(3, 2000)
    barrier, found = threading.Barrier(4), list[Any]()

    def work() -> None:
        barrier.wait()
        found.extend(f(*tensors) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    wanted = exact(f, *tensors)
    assert len(found) == 20
    for results in found:
        close(results, wanted)


def test_hooks_of_launches_see_every_call() -> None:
    from triton import knobs

    seen: list[str] = []

    def hook(metadata: Any) -> None:
        seen.append(metadata.get()["name"])

    f, tensors = einc.compile(TEXT), operands()
    f(*tensors)
    knobs.runtime.launch_enter_hook.add(hook)
    try:
        f(*tensors)
        f(*tensors)
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
    f(*tensors)
    assert seen
    assert seen == 2 * seen[: len(seen) // 2]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one() -> None:
    f, tensors = einc.compile(TEXT), operands()
    other = [t.to("cuda:1") for t in tensors]
    for _ in range(2):
        close(f(*tensors), exact(f, *tensors))
        close(f(*other), exact(f, *tensors))
