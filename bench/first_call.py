"""How long the first call of a program takes in a new process, beyond importing torch and triton.

    python bench/first_call.py

Once without a cache on disk, once with an empty one, then with what that process has left: the median over runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping

ATTENTION = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = where(j <= i, S, -inf)
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
    return O
"""
SMALL = "x = torch.randn(1, 2, 64, 32, device=device)"
WORK = {  # name: what is there before the call, and the call
    "attention": (SMALL, f"einc.compile({ATTENTION!r})(x, x, x)"),
    "attention, source for sm_90": (
        "x = torch.empty(1, 8, 4096, 128, device='meta', dtype=torch.bfloat16)",
        f"einc.compile({ATTENTION!r}, target='sm_90').source(x, x, x)",
    ),
    'einsum("bik,bkj->bij")': (
        "x = torch.randn(2, 8, 8, device=device)",
        "einc.einsum('bik,bkj->bij', x, x)",
    ),
}
TIMED = """
import time, torch, triton
device = "cuda" if torch.cuda.is_available() else "cpu"
{before}
x.sum() if x.device.type != "meta" else None
torch.cuda.synchronize() if device == "cuda" else None
start = time.perf_counter()
import einc
{call}
torch.cuda.synchronize() if device == "cuda" else None
print(time.perf_counter() - start)
"""


def seconds(work: tuple[str, str], environment: Mapping[str, str]) -> float:
    """Seconds that importing einc and the call take in a new process."""
    before, call = work
    known = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(before=before, call=call)],
        capture_output=True, text=True, check=True, env={**known, **environment},
    )  # fmt: skip
    return float(done.stdout)


def measured(work: tuple[str, str], runs: int) -> dict[str, float]:
    """Medians over so many processes, each with what the last one left; without a cache, and with an empty one."""
    seconds(work, {"EINC_CACHE": "0"})  # Python compiles einc's own modules
    found: dict[str, list[float]] = {"off": [], "empty": [], "filled": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            kept = {"EINC_CACHE": "1", "EINC_CACHE_DIR": f"{folder}/einc", "TRITON_CACHE_DIR": f"{folder}/triton"}
            found["off"].append(seconds(work, {**kept, "EINC_CACHE": "0"}))
            found["empty"].append(seconds(work, kept))
            found["filled"].append(seconds(work, kept))
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="processes of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = {name: measured(work, options.runs) for name, work in WORK.items()}
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'ms beyond the imports':30}" + "".join(f"{name:>10}" for name in ("off", "empty", "filled")))
    for name, row in found.items():
        print(f"{name:30}" + "".join(f"{1e3 * t:10.0f}" for t in row.values()))


if __name__ == "__main__":
    main()
