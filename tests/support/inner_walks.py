"""Programs whose kernels walk within a walk: what is contracted, what is made of it, and what reduces that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

Array = np.ndarray[Any, np.dtype[Any]]

LONG = {"n": 1 << 13, "d": 1 << 12, "v": 1 << 17, "e": 64}  # hints that make d too long to be held, n x v large

# What is reduced over d, of X[n, d], Y[n, d], W[v, d], U[v, d] and g[d].
_SUMS = (
    "Z[n, v] = X[n, d] * W[v, d]",
    "Z[n, v] = sum[d](X[n, d] * g[d] * W[v, d])",
    "Z[n, v] = sum[d](exp(X[n, d]) * (W[v, d] - g[d]))",
    "Z[n, v] = sum[d](X[n, d] * W[v, d] - Y[n, d] * U[v, d])",
    "Z[n, v] = sum[d](X[n, d] * W[v, d]) - sum[d](W[v, d] * W[v, d])",
    "Z[n, v] = sum[d](X[n, d] * W[v, d]) * rsqrt(1 + sum[d](X[n, d] ** 2))",
    "Z[n, v] = sum[d : d <= v](X[n, d] * W[v, d])",
    "Z[n, v] = sum[d](where(d < n + 2, X[n, d], 0) * W[v, d])",
    "Z[n, v] = sum[d]((X[n, d] - W[v, d]) ** 2)",
    "Z[n, v] = max[d](X[n, d] + W[v, d])",
    "Z[n, v] = sum[d](abs(X[n, d] - W[v, d])) - sum[d](Y[n, d] * U[v, d])",
)
# What is made of it, position by position.
_MAPS = (
    "S[n, v] = Z[n, v]",
    "S[n, v] = 0.25 * Z[n, v]",
    "S[n, v] = 3 * tanh(Z[n, v] / 3)",
    "S[n, v] = where(v <= 20 * n, Z[n, v], -inf)",
    "S[n, v] = where(v < length[n], Z[n, v], -inf)",
    "S[n, v] = where(v % 7 != 3, Z[n, v], -inf)",
)
# What reduces that over v.
_RESULTS = (
    "R[n] = logsumexp[v](S)",
    "R[n] = max[v](S)",
    "R[n] = argmax[v](round(S))",
    "R[n] = sum[v : v < length[n]](S[n, v] ** 2)",
    "R[n, e] = softmax[v](S) * V[v, e]",
    "R[n] = logsumexp[v](S) - S[n, target[n]]",
    "R[n] = sum[v](where(S[n, v] > S[n, target[n]], 1, 0))",
    "R[n] = logsumexp[v](S) - S[n, n]",
    "m[n] = sum[v](Z) / |v|\nR[n] = sum[v]((Z[n, v] - m[n]) ** 2)",
    "m[n] = max[v](S)\nR[n] = sum[v](where(S[n, v] == m[n], 1, 0))",
)


@dataclass(frozen=True)
class Case:
    """A program's text, and values for its operands."""

    text: str
    operands: dict[str, Array]


@st.composite
def inner_walks(draw: st.DrawFn) -> Case:
    """A program over drawn extents, some of them empty; values are multiples of a quarter."""
    result = draw(st.sampled_from(_RESULTS))
    ranks = any(mark in result for mark in ("S > ", "S[n, v] > ", "==", "argmax"))
    kinds = ([line for line in kind if not ranks or _is_exact(line)] for kind in (_SUMS, _MAPS))
    lines = [*(draw(st.sampled_from(kind)) for kind in kinds), result]
    sizes = {"n": draw(st.sampled_from([1, 3, 18])), "d": draw(st.sampled_from([0, 1, 5, 33, 70]))}
    sizes |= {"v": draw(st.sampled_from([18, 19, 40, 130])), "e": 3}
    return case("\n".join(lines), sizes, draw(st.integers(0, 99)))


def _is_exact(line: str) -> bool:
    """Does f32 compute a line exactly from multiples of a quarter, so that equal values are equal there too?"""
    return not any(function in line for function in ("exp", "tanh", "rsqrt"))


def case(body: str, sizes: dict[str, int], seed: int = 0) -> Case:
    """The program of some lines that make R, on values for these extents."""
    values = np.random.default_rng(seed)
    shapes = {"X": "n d", "Y": "n d", "W": "v d", "U": "v d", "g": "d", "V": "v e", "length": "n", "target": "n"}
    used = {name: axes.split() for name, axes in shapes.items() if name in _words(body)}
    whole = {"length": (0, sizes["v"] + 1), "target": (-1, sizes["v"] + 1)}
    operands: dict[str, Array] = {}
    for name, axes in used.items():
        shape = [sizes[a] for a in axes]
        operands[name] = (
            values.integers(*whole[name], shape) if name in whole else (values.integers(-4, 5, shape) / 4).astype("f4")
        )
    params = ", ".join(f"{n}[{', '.join(axes)}]{': i64' if n in whole else ''}" for n, axes in used.items())
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return Case(f"def f({params}):\n{lines}    return R\n", operands)


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())
