"""Attention on the CPU, the compiled program beside PyTorch's own and the three operations it consists of.

`python bench/cpu_attention.py` prints the ratios; `measure` gives the figures to other programs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from torch import Tensor

from einc.binding import Fact, bind
from einc.codegen.torch_run import run
from einc.driver import compile_program, elaborate, parse
from einc.targets import INTERPRETER
from einc.types import F32

ATTENTION = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]
    return O
"""


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores and weights in memory."""
    return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1) @ v


def compiled(q: Tensor, k: Tensor, v: Tensor, level: int) -> Callable[[], Tensor]:
    """The program at a level as a function of nothing."""
    given = {"Q": q, "K": k, "V": v}
    shapes = {name: tuple(x.shape) for name, x in given.items()}
    program = elaborate(parse(ATTENTION, "attention"), {name: Fact(shape, F32) for name, shape in shapes.items()})
    bindings = bind(program, shapes)
    state = compile_program(program, level, INTERPRETER, bindings.extents).state
    schedule = state.schedule
    assert schedule is not None
    return lambda: run(state.program, schedule, given, bindings)[0]


def measure(n: int = 4096, heads: int = 8, width: int = 64, level: int = 2, repeats: int = 5) -> dict[str, float]:
    """Least seconds of each over repeats that alternate, the ratios between them, and the largest difference."""
    q, k, v = (torch.randn(1, heads, n, width) for _ in range(3))
    ways: dict[str, Callable[[], Tensor]] = {
        "einc": compiled(q, k, v, level),
        "sdpa": lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v),
        "naive": lambda: naive(q, k, v),
    }
    results = {name: f() for name, f in ways.items()}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, f in ways.items():
            start = time.perf_counter()
            f()
            best[name] = min(best[name], time.perf_counter() - start)
    error = float((results["einc"] - results["sdpa"]).abs().max())
    return best | {"to_sdpa": best["einc"] / best["sdpa"], "to_naive": best["einc"] / best["naive"], "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.n, args.heads, args.width, args.level)
    where = {
        "date": datetime.now(UTC).date().isoformat(),
        "torch": version("torch"),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if args.json:
        print(json.dumps(where | found))
        return
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    print(f"attention f32, 1 x {args.heads} x {args.n} x {args.width}, level {args.level}")
    for name in ("einc", "sdpa", "naive"):
        print(f"  {name:6} {found[name] * 1e3:9.1f} ms")
    ratios = f"{found['to_sdpa']:.2f} x SDPA, {found['to_naive']:.2f} x naive"
    print(f"  einc takes {ratios}; the largest difference is {found['error']:.1e}")


if __name__ == "__main__":
    main()
