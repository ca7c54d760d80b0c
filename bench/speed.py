"""How fast the compiler itself is: import, text to Triton source, and a product in the interpreter. `make bench`"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

ATTENTION = """
def attention_{n}(Q_{n}[b, h, i, d], K_{n}[b, h, j, d], V_{n}[b, h, j, e], scale: float = rsqrt(|d|)):
    S_{n}[b, h, i, j] = scale * Q_{n}[b, h, i, d] * K_{n}[b, h, j, d]
    A_{n}[b, h, i, j] = where(j <= i, S_{n}, -inf)
    O_{n}[b, h, i, e] = softmax[j](A_{n}) * V_{n}[b, h, j, e]
    return O_{n}
"""
PRODUCT = """
def product_{n}(A_{n}[i, k], B_{n}[k, j]):
    C_{n}[i, j] = A_{n}[i, k] * B_{n}[k, j]
    return C_{n}
"""
SOFTMAX = """
def softmax_{n}(X_{n}[i, j]):
    Y_{n}[i, j] = bf16(softmax[j](X_{n}))
    return Y_{n}
"""
LAYERNORM = """
def layernorm_{n}(X_{n}[i, j], gain_{n}[j], bias_{n}[j]):
    Y_{n}[i, j] = bf16(layernorm[j](X_{n}) * gain_{n}[j] + bias_{n}[j])
    return Y_{n}
"""
CROSS_ENTROPY = """
def cross_entropy_{n}(X_{n}[i, d], W_{n}[k, d], label_{n}[i]: i64):
    Z_{n}[i, k] = X_{n}[i, d] * W_{n}[k, d]
    L_{n}[i] = logsumexp[k](Z_{n}) - Z_{n}[i, label_{n}[i]]
    return L_{n}
"""
Shapes = tuple[tuple[int, ...], ...]
PROGRAMS: dict[str, tuple[str, Shapes]] = {
    "attention": (ATTENTION, ((4, 16, 4096, 128),) * 3),
    "product": (PRODUCT, ((4096, 4096),) * 2),
    "softmax": (SOFTMAX, ((8192, 4096),)),
    "LayerNorm": (LAYERNORM, ((8192, 4096), (4096,), (4096,))),
    "linear cross-entropy": (CROSS_ENTROPY, ((8192, 4096), (128256, 4096), (8192,))),
}
MATMUL = "bik,bkj->bij"


def seconds(f: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    f()
    return clock() - start


def fresh(statement: str) -> float:
    """Seconds that a statement takes in a new process."""
    timed = f"import time; t = time.perf_counter()\n{statement}\nprint(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(done.stdout)


def source_of(text: str, shapes: Shapes, gradient: bool = False) -> str:
    """The source for a Hopper of a text that was not compiled before, with all checks between passes."""
    import torch

    import einc

    program = einc.compile(text, target="sm_90")
    types = {name: torch.int64 if name.startswith("label") else torch.bfloat16 for name in program.text.operands}
    given = [torch.empty(s, dtype=t, device="meta") for s, t in zip(shapes, types.values(), strict=True)]
    return program.source(*given, gradient=gradient)


def to_source(name: str, gradient: bool, runs: int, clock: Callable[[], float]) -> list[float]:
    """Seconds from text to source, for texts that differ in the names of all tensors."""
    text, shapes = PROGRAMS[name]
    numbered = [text.format(n=f"{clock.__name__}_{'b' if gradient else 'a'}{n}") for n in range(runs + 1)]
    source_of(numbered[0], shapes, gradient)
    return [seconds(partial(source_of, t, shapes, gradient), clock) for t in numbered[1:]]


def matmul(runs: int) -> list[float]:
    """Seconds of 2×512³ in Triton's interpreter."""
    import torch

    import einc

    product = einc.compile(MATMUL)
    a, b = torch.randn(2, 512, 512), torch.randn(2, 512, 512)
    return [seconds(lambda: product(a, b, backend="interpret")) for _ in range(runs)]


def measurements(runs: int) -> dict[str, float]:
    """Every figure, in seconds."""
    text, shapes = ATTENTION.format(n="cold"), PROGRAMS["attention"][1]
    cold = (
        f"import einc, torch\n"
        f"given = [torch.empty(s, dtype=torch.bfloat16, device='meta') for s in {shapes!r}]\n"
        f"einc.compile({text!r}, target='sm_90').source(*given)"
    )
    found = {
        "import einc": statistics.median(fresh("import einc") for _ in range(runs)),
        "attention, text to source, new process": statistics.median(fresh(cold) for _ in range(runs)),
    }
    for name in PROGRAMS:
        for gradient in (False, True):
            warm, busy = (to_source(name, gradient, runs, c) for c in (time.perf_counter, time.process_time))
            called = f"{name}{', gradient' if gradient else ''}, text to source"
            found |= {called: statistics.median(warm), f"{called}, CPU": statistics.median(busy)}
    product = matmul(runs)
    return {
        **found,
        "bik,bkj->bij 2×512³ interpreted, first": product[0],
        "bik,bkj->bij 2×512³ interpreted, median": statistics.median(product),
    }


def facts() -> dict[str, str]:
    """What the figures depend on."""
    versions = {name: version(name) for name in ("einc", "torch", "triton", "numpy")}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.system()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="repetitions of each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    os.environ["EINC_CACHE"] = "0"  # what another run has left on disk would be measured instead
    found, where = measurements(options.runs), facts()
    if options.json:
        print(json.dumps({"facts": where, "seconds": found}, indent=2))
        return
    print("\n".join(f"{name:10} {value}" for name, value in where.items()) + "\n")
    print("\n".join(f"{name:52} {1e3 * value:9.1f} ms" for name, value in found.items()))


if __name__ == "__main__":
    main()
