"""Integers of every width, at the ends of their types: as subscripts, in bounds of walks, in comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einc

Array = np.ndarray[Any, np.dtype[Any]]

WIDTHS: dict[str, type[np.integer[Any]]] = {
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
}  # fmt: skip
WAYS = [(0, "torch"), (2, "torch"), (0, "interpret"), (2, "interpret")]
ROWS = 300  # more than any 8-bit integer


def ends(dtype: str, count: int, most: int = ROWS, seed: int = 0) -> Array:
    """Integers of a type: small ones, some of them below 0 and out of range, and the type's least and greatest."""
    known = np.iinfo(WIDTHS[dtype])
    drawn = np.random.default_rng(seed).integers(max(known.min, -9), min(known.max, most + 9) + 1, count)
    found = drawn.astype(WIDTHS[dtype])
    found[1], found[2] = known.min, known.max
    found[count - 2], found[count - 1] = known.max, known.min
    return found


def table(rows: int) -> Array:
    """What says by its value which row was read: none of them is 0."""
    return np.arange(1, rows + 1, dtype=np.float32)


def at(rows: Array, index: list[int]) -> Array:
    """The rows at these positions, whatever integers they are; 0 where there is none."""
    return np.array([rows[n] if 0 <= n < len(rows) else 0 for n in index], rows.dtype)


SUBSCRIPTS = """
def gather(T[v], t[m]: {0}, s[m]: {0}):
    A[m] = T[t[m]]
    B[m] = T[t[m] * 3 + 1]
    C[m] = T[280 - t[m]]
    D[m] = T[t[m] + m]
    E[m] = T[t[m] // 2 * 2 + m % 2]
    F[m] = T[max(t[m], 7) - min(s[m], 5) * s[m]]
    G[m] = T[where(t[m] > s[m], t[m] - s[m], s[m] + t[m])]
    U[v] = T[v] * 2
    H[m] = U[t[m]] + T[m + t[m]]
    return A, B, C, D, E, F, G, H
"""


@pytest.mark.parametrize(("level", "backend"), [(2, "evaluate"), *WAYS])
@pytest.mark.parametrize("dtype", WIDTHS)
def test_no_subscript_wraps(dtype: str, level: int, backend: str) -> None:
    x, t, s = table(ROWS), ends(dtype, 40), ends(dtype, 40, 9, seed=1)
    found = einc.compile(SUBSCRIPTS.format(dtype), level)(x, t, s, backend=backend)
    a, b = t.astype(object), s.astype(object)
    m = np.arange(40).astype(object)
    kept = (np.abs(a) < 1 << 60) & (np.abs(b) < 1 << 31)  # what 64 bits hold, whatever is done with it
    wanted = [
        a, a * 3 + 1, 280 - a, a + m, a // 2 * 2 + m % 2, np.maximum(a, 7) - np.minimum(b, 5) * b,
        np.where(a > b, a - b, b + a),
    ]  # fmt: skip
    for got, index in zip(found, wanted, strict=False):
        np.testing.assert_array_equal(got[kept], at(x, list(index))[kept])
    twice = at(2 * x, list(a)) + at(x, list(a + m))
    np.testing.assert_array_equal(found[7][kept], twice[kept])


@pytest.mark.parametrize(("level", "backend"), WAYS)
@pytest.mark.parametrize(("dtype", "rows"), [("u8", 256), ("i8", 128), ("u16", 65536), ("i16", 32768)])
def test_a_table_as_long_as_the_type_reaches(dtype: str, rows: int, level: int, backend: str) -> None:
    x, t = table(rows), ends(dtype, 20, rows)
    found = einc.compile(f"def f(T[v], t[m]: {dtype}):\n    Y[m] = T[t[m]]\n    return Y\n", level)(
        x, t, backend=backend
    )
    np.testing.assert_array_equal(found, at(x, list(t.astype(object))))


REDUCED = """
def reduced(T[v], t[m]: {0}):
    P[]: {1} = sum[m](t[m])
    Q[]: {1} = min[m](t[m])
    A[] = T[P[]]
    B[] = T[Q[]]
    C[] = T[v] * where(v == 0, f32(P[]), 0) + f32(Q[])
    return A, B, C
"""


@pytest.mark.turns(2)
@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("count", [6, 5000], ids=["whole", "walked"])
@pytest.mark.parametrize("stored", WIDTHS)
def test_a_reduction_has_the_type_that_it_is_declared_with(stored: str, count: int, backend: str) -> None:
    """In the kernel that computes it as in memory: wrapped, and a subscript, whatever its terms are."""
    rows = table(ROWS)
    for dtype in ("i32", "u8", "u32"):
        t = np.zeros(count, WIDTHS[dtype])
        t[:3] = (200, 45, 30) if dtype[0] == "u" else (200, 105, -40)
        whole = t.astype(np.int64)
        p, q = (np.int64(x).astype(WIDTHS[stored]).item() for x in (whole.sum(), whole.min()))
        wanted = (*at(rows, [p, q]), rows[0] * np.float32(p) + np.float32(q))
        found = einc.compile(REDUCED.format(dtype, stored), level=2)(rows, t, backend=backend)
        np.testing.assert_allclose(np.array(found), np.array(wanted, np.float32), rtol=1e-6, err_msg=dtype)


@pytest.mark.parametrize(("level", "backend"), WAYS)
@pytest.mark.parametrize("dtype", WIDTHS)
def test_read_backwards(dtype: str, level: int, backend: str) -> None:
    t = ends(dtype, 40)
    found = einc.compile(f"def f(t[i]: {dtype}):\n    Y[i] = t[|i| - 1 - i]\n    return Y\n", level)(t, backend=backend)
    np.testing.assert_array_equal(found, t[::-1])


MASKS = [
    "j < t[i]", "t[i] <= j", "j < t[i] * 3", "j >= t[i] * 3 + 1", "j - t[i] < 4", "t[i] - j > 4", "j + t[i] >= 130",
    "j // 16 <= t[i] // 16", "2 * j <= t[i] + t[i]", "abs(t[i] - s[j]) <= 1", "s[j] * 2 <= t[i]", "s[j] == t[i]",
    "-s[j] < t[i] - 3", "i64(j - t[i]) < 9", "t[i] < s[j] and j <= i + t[i]", "max(j, t[i]) < 90",
    "j <= t[i]", "t[i] < j", "s[j] <= t[i] and j != t[i]",
]  # fmt: skip


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", WIDTHS)
def test_walks_stop_where_masks_end(mask: str, dtype: str) -> None:
    """Pruned or not, in narrow types that wrap or not, a walk sees what its mask leaves."""
    text = f"def f(x[j], t[i]: {dtype}, s[j]: {dtype}):\n    Y[i] = sum[j](where({mask}, x[j], 0))\n    return Y\n"
    x, t, s = table(290), ends(dtype, 40), np.sort(ends(dtype, 290, seed=1))
    if dtype in ("i64", "u64") and any(op in mask for op in "*+-/"):  # no wider type computes the bounds
        t, s = (np.clip(n, -(1 << 40), 1 << 40) if dtype == "i64" else n % 1024 for n in (t, s))
    wanted = einc.compile(text)(x, t, s, backend="evaluate")
    for level in (0, 2):
        np.testing.assert_array_equal(einc.compile(text, level)(x, t, s), wanted, err_msg=f"level {level}")


def test_an_index_times_a_stride_beyond_32_bits() -> None:
    """A page far away: its number fits 32 bits, its place in memory does not."""
    pages, far = 3, (1 << 30) + 8
    pool = torch.empty(pages * far, dtype=torch.int8).as_strided((pages, 2, 2), (far, 2, 1))  # touched in few places
    pool[:] = torch.arange(12, dtype=torch.int8).view(pages, 2, 2)
    text = """
def f(K[p, s, d]: i8, page[b, m]: i32):
    axis j = |m| * |s|
    Y[b, j, d] = K[page[b, j // |s|], j % |s|, d]
    return Y
"""
    page = torch.tensor([[2, 1], [0, 2]], dtype=torch.int32)
    for level, backend in WAYS:
        found = einc.compile(text, level)(pool, page, backend=backend)
        assert torch.equal(found, pool[page.long()].reshape(2, 4, 2)), (level, backend)


def test_an_operand_of_64_bits_is_only_read() -> None:
    t = np.arange(9, dtype=np.uint64)
    program = einc.compile("def f(T[v], t[m]: u64):\n    Y[m] = T[t[m] * 3 + 1]\n    return Y\n")
    np.testing.assert_array_equal(program(table(40), t), table(40)[t * 3 + 1])
    np.testing.assert_array_equal(t, np.arange(9))
