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
def attention_{n}(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    L[b, h, i]    = logsumexp[j](S)
    O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]
    return O, L
"""
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


def source_of(text: str) -> str:
    """The Triton source of a text that was not compiled before, without the checks between passes."""
    import einc

    return einc.compile(text, verify=False).source()


def to_source(runs: int, clock: Callable[[], float]) -> list[float]:
    """Seconds from text to source, for texts that differ in their name."""
    name = clock.__name__
    source_of(ATTENTION.format(n=name))
    return [seconds(partial(source_of, ATTENTION.format(n=f"{name}_{n}")), clock) for n in range(runs)]


def matmul(runs: int) -> list[float]:
    """Seconds of 2×512³ in Triton's interpreter."""
    import torch

    import einc

    product = einc.compile(MATMUL)
    a, b = torch.randn(2, 512, 512), torch.randn(2, 512, 512)
    return [seconds(lambda: product(a, b, backend="interpret")) for _ in range(runs)]


def measurements(runs: int) -> dict[str, float]:
    """Every figure, in seconds."""
    cold = f"import einc\neinc.compile({ATTENTION.format(n='cold')!r}, verify=False).source()"
    warm, busy = to_source(5 * runs, time.perf_counter), to_source(5 * runs, time.process_time)
    product = matmul(runs)
    return {
        "import einc": statistics.median(fresh("import einc") for _ in range(runs)),
        "attention, text to source, new process": statistics.median(fresh(cold) for _ in range(runs)),
        "attention, text to source, warm, median": statistics.median(warm),
        "attention, text to source, warm, worst": max(warm),
        "attention, text to source, warm, CPU time": statistics.median(busy),
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
    print("\n".join(f"{name:42} {1e3 * value:9.1f} ms" for name, value in found.items()))


if __name__ == "__main__":
    main()
