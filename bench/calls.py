"""Host time of a call, beside a bare launch of the same kernel and beside torch: `python bench/calls.py`

On a GPU the rows are what a call costs the host while the GPU has nothing else to do, and for decoding the time until
the GPU is done; on a CPU, the whole call. Every number is the median over rounds in which all take turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

import einc
from einc.codegen.run.load import Launched, load, noted

ATTENTION = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]
    return O
"""
GROUPED = """
def decode(Q[b, (g r), i, d], K[b, g, j, d], V[b, g, j, e], scale: float = rsqrt(|d|)):
    S[b, g, r, i, j] = scale * Q[b, (g r), i, d] * K[b, g, j, d]
    O[b, (g r), i, e] = softmax[j](S) * V[b, g, j, e]
    return O
"""
Row = dict[str, Callable[[], object]]


def microseconds(calls: Row, rounds: int, repeats: int, whole: bool) -> dict[str, float]:
    """The median time of each call: of the host alone, or until the GPU is done."""
    sync: Any = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for call in calls.values():
        for _ in range(10):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            sync()
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            if whole:
                sync()
            times[name].append((time.perf_counter() - start) / repeats * 1e6)
            sync()
    return {name: statistics.median(found) for name, found in times.items()}


def bare(program: einc.Program, *operands: Any, **scalars: Any) -> Callable[[], object]:
    """The launches of a call, made by Triton's own `kernel[grid](...)`."""
    with noted() as launches:
        einc.Program.run(program, operands, scalars)
    emitted = program.compiled(*operands, **scalars).emitted
    module = load(emitted.source, emitted.launcher)

    def launched(k: Launched) -> Callable[[], object]:
        kernel = getattr(module, k.name)
        names = dict(zip(kernel.arg_names[len(k.args) :], k.constants, strict=True))
        return lambda: kernel[(k.programs,)](*k.args, **names)

    found = [launched(k) for k in launches]
    return lambda: [launch() for launch in found]


def writing(product: einc.Program, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Row:
    """A product of matrices in memory that is given."""
    return {
        "program": lambda: product(a, b, out=out), "einsum": lambda: einc.einsum("ij,jk->ik", a, b, out=out),
        "torch.matmul": lambda: torch.matmul(a, b, out=out),
    }  # fmt: skip


def on_gpu() -> Iterator[tuple[str, Row]]:
    """Calls of small tensors on a GPU."""
    kind: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    a, b, c = (torch.randn(64, 64, **kind) for _ in range(3))
    product = einc.compile("ij,jk->ik")
    yield "matmul 64x64", {
        "program": lambda: product(a, b), "einsum": lambda: einc.einsum("ij,jk->ik", a, b),
        "bare": bare(product, a, b), "torch.einsum": lambda: torch.einsum("ij,jk->ik", a, b),
        "torch.matmul": lambda: torch.matmul(a, b),
    }  # fmt: skip
    yield "matmul 64x64, out=", writing(product, a, b, c)
    attention = einc.compile(ATTENTION)
    q, k, v, o = (torch.randn(1, 2, 64, 64, **kind) for _ in range(4))
    yield "attention b1 h2 n64 d64", {
        "program": lambda: attention(q, k, v), "out=": lambda: attention(q, k, v, out=o),
        "with a scalar": lambda: attention(q, k, v, scale=0.1),
        "bare": bare(attention, q, k, v), "sdpa": lambda: sdpa(q, k, v),
    }  # fmt: skip
    one, many = torch.randn(1, 4, 1, 64, **kind), torch.randn(1, 4, 4096, 64, **kind)
    yield "decoding m4096, in parts", {
        "program": lambda: attention(one, many, many), "bare": bare(attention, one, many, many),
        "sdpa": lambda: sdpa(one, many, many),
    }  # fmt: skip


def decoding() -> Iterator[tuple[str, Row]]:
    """One query a row of the batch, 32 heads in groups of 4, beside both libraries that SDPA calls."""
    kind: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    attention = einc.compile(GROUPED)

    def by(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
        def call() -> object:
            with sdpa_kernel(backend):
                return sdpa(q, k, v, enable_gqa=True)

        return call

    for b, m in ((8, 8192), (1, 65536), (64, 2048), (1, 1000)):
        q, k, v = (torch.randn(b, h, n, 128, **kind) for h, n in ((32, 1), (8, m), (8, m)))
        yield f"decoding b{b} m{m}", {
            "program": partial(attention, q, k, v), "flash": by(SDPBackend.FLASH_ATTENTION, q, k, v),
            "cudnn": by(SDPBackend.CUDNN_ATTENTION, q, k, v), "sdpa": partial(sdpa, q, k, v, enable_gqa=True),
        }  # fmt: skip


def on_cpu() -> Iterator[tuple[str, Row]]:
    """Calls of small tensors on a CPU, and a product that is not small."""
    a, b, out = (torch.randn(8, 8) for _ in range(3))
    product, attention = einc.compile("ij,jk->ik"), einc.compile(ATTENTION)
    yield "matmul 8x8", {
        "program": lambda: product(a, b), "einsum": lambda: einc.einsum("ij,jk->ik", a, b),
        "torch.einsum": lambda: torch.einsum("ij,jk->ik", a, b), "torch.matmul": lambda: torch.matmul(a, b),
    }  # fmt: skip
    yield "matmul 8x8, out=", writing(product, a, b, out)
    x, y = a.numpy(), b.numpy()
    yield "matmul 8x8, NumPy", {
        "program": lambda: product(x, y), "einsum": lambda: einc.einsum("ij,jk->ik", x, y),
        "numpy.einsum": lambda: np.einsum("ij,jk->ik", x, y), "numpy.matmul": lambda: np.matmul(x, y),
    }  # fmt: skip
    q, k, v, o = (torch.randn(1, 2, 64, 32) for _ in range(4))
    yield "attention b1 h2 n64 d32", {
        "program": lambda: attention(q, k, v), "out=": lambda: attention(q, k, v, out=o), "sdpa": lambda: sdpa(q, k, v),
    }  # fmt: skip
    c, d = torch.randn(512, 512), torch.randn(512, 512)
    yield "matmul 512x512", {
        "program": lambda: product(c, d), "einsum": lambda: einc.einsum("ij,jk->ik", c, d),
        "torch.matmul": lambda: torch.matmul(c, d),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    rows = {}
    with torch.no_grad():
        for name, calls in on_gpu() if gpu else on_cpu():
            rows[name] = microseconds(calls, options.rounds, options.repeats, not gpu)
        for name, calls in decoding() if gpu else ():
            rows[f"{name}, with the GPU's time"] = microseconds(calls, options.rounds, options.repeats, True)
    about = {
        "device": torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine(),
        "torch": torch.__version__, "python": platform.python_version(), "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "unit": "us of host time a call, median",
    }  # fmt: skip
    if options.json:
        print(json.dumps({"about": about, "rows": rows}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    for name, found in rows.items():
        print(f"{name}: " + ", ".join(f"{what} {us:.1f}" for what, us in found.items()))


if __name__ == "__main__":
    main()
