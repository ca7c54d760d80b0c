"""Walks visit what their reductions need: the tiles are counted, and the results are those of the whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import einc
from einc import driver
from einc.base.targets import INTERPRETER
from einc.binding import Bindings, bind, completed
from einc.evaluate import evaluate
from einc.explain.grid import bounding
from einc.explain.visits import EMPTY, FULL, MIXED, Visits, bound_tensors, domain_picture, visits
from einc.tile import Dot, Load
from einc.tile.walk import values_in
from einc.trials.request import Request
from einc.trials.running import gradient_for
from tests.support.compiled import compiled, in_parts, in_small_tiles, run_in_torch, runner

Array = np.ndarray[Any, Any]
ATTENTION = 'softmax(where({}, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"'
SIZES = {"b": 2, "h": 4, "i": 4096, "j": 4096, "d": 64, "e": 64}
TILE = 16
N = 150


def in_one_part(text: str, level: int = 2, target: str = "sm_90", **sizes: int) -> driver.Compiled:
    """A program compiled with walks in one part."""
    return compiled(text, level, target, 1, **SIZES | sizes)


def in_small_tiles_and_one_part(text: str, level: int = 2, **sizes: int) -> driver.Compiled:
    """The same in so small tiles that a test has many."""
    program = driver.elaborate(driver.parse(text, "<test>"))
    sizes = SIZES | sizes
    return driver.compile_program(program, level, INTERPRETER, sizes, choices=in_parts(1), backend=in_small_tiles(TILE))


def seen(c: driver.Compiled, operands: dict[str, Array] | None = None, **extents: int) -> Visits:
    """What the last kernel visits of the axis that it walks."""
    assert c.state.schedule is not None
    scalars = {k: extents.pop(k) for k in list(extents) if any(p.name == k for p in c.program.scalars)}
    found = visits(c.state.program, c.state.schedule, SIZES | extents, scalars, operands)
    return next(iter(found[c.state.schedule.kernels[-1].name].values()))


def test_without_optimisation_everything_is_visited() -> None:
    assert seen(in_one_part(ATTENTION.format("j <= i"), level=1)).share == 1


def test_causal_attention_visits_half() -> None:
    rows = SIZES["i"] / 128
    assert 1 / 2 < seen(in_one_part(ATTENTION.format("j <= i"))).share <= 1 / 2 + 1 / rows


@pytest.mark.parametrize("window", [1, 100, 256, 1000])
def test_a_window_visits_its_width(window: int) -> None:
    n = SIZES["j"]
    share = seen(in_one_part(ATTENTION.format(f"j <= i and i - j < {window}"))).share
    assert share <= window / n + 2 * 128 / n


def test_a_picture_of_the_tiles() -> None:
    c = in_one_part(ATTENTION.format("j <= i"))
    assert c.state.schedule is not None
    picture = domain_picture(c.state.schedule.kernels[0], SIZES | {"i": 512, "j": 512})["j"]
    rows, columns = picture.shape
    i, j = np.arange(rows)[:, None] * (512 // rows), np.arange(columns)[None] * (512 // columns)
    last_i, last_j = i + 512 // rows - 1, j + 512 // columns - 1
    np.testing.assert_array_equal(picture, np.where(last_j <= i, FULL, np.where(j <= last_i, MIXED, EMPTY)))


# ---------------------------------------------------------------------------------------------------------------------
# Programs of one mask each: what it means, and whether a row's part of the walked axis is an interval that is found

LENGTH: Array = np.random.default_rng(5).integers(0, N, N)
Mask = Callable[[Array, Array], Array]
MASKS: dict[str, tuple[Mask, bool]] = {
    "j <= i": (lambda i, j: j <= i, True),
    "not (j > i)": (lambda i, j: j <= i, True),
    "j <= i and i - j < 37": (lambda i, j: (j <= i) & (i - j < 37), True),
    "not (j > i or i - j >= 37)": (lambda i, j: (j <= i) & (i - j < 37), True),
    "j <= i or j < 50": (lambda i, j: (j <= i) | (j < 50), True),
    "j <= i or j < length[i]": (lambda i, j: (j <= i) | (j < LENGTH[i]), True),
    "abs(i - j) < 20": (lambda i, j: abs(i - j) < 20, True),
    "i < 4 or j < 4 or abs(i - j) < 20": (lambda i, j: (i < 4) | (j < 4) | (abs(i - j) < 20), False),
    "j // 32 == i // 32": (lambda i, j: j // 32 == i // 32, True),
    "j // chunk <= i // chunk": (lambda i, j: j // 24 <= i // 24, True),
    "j <= i and (i - j) % 2 == 0": (lambda i, j: (j <= i) & ((i - j) % 2 == 0), True),
    "2 * j <= i": (lambda i, j: 2 * j <= i, True),
    "j < length[i]": (lambda i, j: j < LENGTH[i], True),
    "start[i] <= j and j < start[i] + 30": (lambda i, j: (LENGTH[i] // 2 <= j) & (j < LENGTH[i] // 2 + 30), True),
    "i < 40 or j < 1": (lambda i, j: (i < 40) | (j < 1), True),
    "i < 40": (lambda i, j: (i < 40) & (j >= 0), True),
    "length[i] > 120": (lambda i, j: (LENGTH[i] > 120) & (j >= 0), True),
    "i // 2 >= 30 and j >= i": (lambda i, j: (i // 2 >= 30) & (j >= i), True),
    "j < i - 100": (lambda i, j: j < i - 100, True),
    "j > i or j < i - 20": (lambda i, j: (j > i) | (j < i - 20), False),
    "max(i, j) < 60": (lambda i, j: (i < 60) & (j < 60), True),
}
TOLD_BY_ENDS = (
    "j <= i", "not (j > i)", "j <= i and i - j < 37", "j // 32 == i // 32", "2 * j <= i", "j < length[i]", "i < 40",
    "length[i] > 120", "j < i - 100", "max(i, j) < 60",
)  # fmt: skip
EVERY_FORM = ("i < 40", "not (j > i or i - j >= 37)", "j <= i or j < length[i]")
FORMS = {
    "masked": "A[i, j] = where({}, S, -inf)\n    P[i, j] = softmax[j](A)",
    "additive": "A[i, j] = S + where({}, 0, -inf)\n    P[i, j] = softmax[j](A)",
    "scaled": "A[i, j] = where({}, S, -inf) / sqrt(|d|)\n    P[i, j] = softmax[j](A)",
    "weights": "P[i, j] = where({}, 1 / (1 + exp(-S)), 0)",
    "product": "P[i, j] = f32({}) * S",
    "two": "A[i, j] = where({}, S, -inf)\n    P[i, j] = where(j >= 16, softmax[j](A), 0)",
}


def program(form: str, mask: str) -> str:
    return (
        "def f(Q[i, d], K[j, d], V[j, e], length[i]: i32, start[i]: i32, chunk: int = 24):\n"
        "    S[i, j] = Q[i, d] * K[j, d]\n"
        f"    {FORMS[form].format(mask)}\n"
        "    O[i, e] = P[i, j] * V[j, e]\n    return O\n"
    )


def operands(rows: int = N, columns: int = N, d: int = 16) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    found = {
        name: rng.standard_normal((n, d)).astype("f4") for name, n in (("Q", rows), ("K", columns), ("V", columns))
    }
    return found | {"length": LENGTH[:rows].astype("i4"), "start": (LENGTH[:rows] // 2).astype("i4")}


def in_torch(c: driver.Compiled, given: dict[str, Array]) -> Array:
    """The first result, of the tile program run with torch."""
    tensors = {p.name: torch.from_numpy(given[p.name]) for p in c.program.operands}
    bindings = bind(c.program, {name: tuple(x.shape) for name, x in tensors.items()})
    return run_in_torch(c, tensors, bindings, None)[0].numpy()


def interpreted(c: driver.Compiled, given: dict[str, Array]) -> Array:
    """The first result, of the kernels run in Triton's interpreter."""
    return runner(c)(*(torch.from_numpy(given[p.name]) if p.name in given else None for p in c.program.params))[
        0
    ].numpy()


def needed(mask: str) -> int:
    return hull_tiles(MASKS[mask][0](np.arange(N)[:, None], np.arange(N)[None]))


def hull_tiles(allowed: Array, width: int = TILE) -> int:
    """The number of tiles that a walk over the hull of what each block of rows needs visits, from a multiple of 16."""
    count = 0
    for first in range(0, N, TILE):
        columns = np.flatnonzero(allowed[first : first + TILE].any(0))
        count += 0 if not columns.size else -(-(columns[-1] + 1 - columns[0] // 16 * 16) // width)
    return count


@pytest.mark.parametrize(("form", "mask"), [(f, m) for m in MASKS for f in FORMS if f == "masked" or m in EVERY_FORM])
def test_a_mask_bounds_the_walk(mask: str, form: str) -> None:
    c = in_small_tiles_and_one_part(program(form, mask), d=16, e=16, i=N, j=N)
    given = operands()
    (wanted,) = evaluate(c.program, given)
    assert c.state.schedule is not None
    assert not {"i", "j"} <= {a for b in c.state.schedule.intermediates for dim in b.dims for a in dim}
    got = seen(c, given, i=N, j=N, d=16, e=16, chunk=24)
    if form == "two":  # a second mask, on the weights, leaves the product a walk of its own
        assert got.visited <= 2 * needed(mask)
    elif MASKS[mask][1]:
        assert got.visited == needed(mask)
    np.testing.assert_allclose(in_torch(c, given), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "mask", ["j <= i or j < length[i]", "j // chunk <= i // chunk", "abs(i - j) < 20", "j < i - 100"]
)
def test_a_mask_in_the_interpreter(mask: str) -> None:
    c = in_small_tiles_and_one_part(program("masked", mask), d=16, e=16, i=N, j=N)
    given = operands()
    (wanted,) = evaluate(c.program, given)
    np.testing.assert_allclose(interpreted(c, given), wanted, rtol=1e-4, atol=1e-5)


SUMMED = """def f(Q[b, i, d], K[b, j, d], length[i]: i32, start[i]: i32, chunk: int = 24):
    T[i, j] = sum[b](where({}, tanh(sum[d](Q[b, i, d] * K[b, j, d])), 0))
    return T
"""


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_of_a_tile_bounds_a_walk_along_batches(mask: str) -> None:
    """All of the walk counts for a tile or nothing does, which the ends of its rows and columns tell."""
    c = in_small_tiles_and_one_part(SUMMED.format(mask), b=4, d=16, i=N, j=N)
    rng = np.random.default_rng(11)
    given = {x: rng.standard_normal((4, N, 16)).astype("f4") for x in "QK"}
    given |= {x: v for x, v in operands().items() if x in ("length", "start")}
    (wanted,) = evaluate(c.program, given)
    np.testing.assert_allclose(in_torch(c, given), wanted, rtol=1e-4, atol=1e-5)
    allowed = np.broadcast_to(MASKS[mask][0](np.arange(N)[:, None], np.arange(N)[None]), (N, N))
    blocks = range(0, N, TILE)
    tiles = np.array([[allowed[i : i + TILE, j : j + TILE].any() for j in blocks] for i in blocks])
    got = seen(c, given, b=4, i=N, j=N, d=16, chunk=24)
    assert got.share >= tiles.mean()
    if mask in TOLD_BY_ENDS:
        assert got.share == tiles.mean()
    if got.share < 1:
        assert re.search(
            r"^    if .* < .*:\n(        .*\n)*        for b0 in ", c.emitted.source, re.MULTILINE
        )  # nothing is begun for others


def test_a_neighbourhood_in_two_dimensions() -> None:
    """Of two walked axes, only what is near along the outer one is visited."""
    text = (
        "def f(Q[y, x, d], K[u, v, d], V[u, v, e], r: int = 2):\n"
        "    S[y, x, u, v] = Q[y, x, d] * K[u, v, d]\n"
        "    A[y, x, u, v] = where(abs(y - u) <= r and abs(x - v) <= r, S, -inf)\n"
        "    O[y, x, e] = softmax[u, v](A) * V[u, v, e]\n    return O\n"
    )
    c = in_small_tiles_and_one_part(text, **dict.fromkeys("yxuv", 64), d=16, e=16)
    n = 20
    rng = np.random.default_rng(7)
    given = {name: rng.standard_normal((n, n, 16)).astype("f4") for name in "QKV"}
    (wanted,) = evaluate(c.program, given)
    np.testing.assert_allclose(in_torch(c, given), wanted, rtol=1e-4, atol=1e-5)
    got = seen(c, None, **dict.fromkeys("yxuv", n), d=16, e=16, r=2)
    assert got.share <= (5 + 2) / n + 2 * TILE / n**2


# ---------------------------------------------------------------------------------------------------------------------
# Masks that read data along the walked axis

LONG = {"i": 1 << 15, "j": 1 << 15, "n": 1 << 15, "b": 1, "d": 64, "e": 64}  # hints that make it pay to look at data
DATA = {
    "doc[i] == doc[j]": lambda i, j, x: x[i] == x[j],
    "doc[i] == doc[j] and j <= i": lambda i, j, x: (x[i] == x[j]) & (j <= i),
    "j <= i and doc[i] == doc[j]": lambda i, j, x: (x[i] == x[j]) & (j <= i),
    "not (doc[i] != doc[j] or j > i)": lambda i, j, x: (x[i] == x[j]) & (j <= i),
    "doc[j] <= doc[i]": lambda i, j, x: x[j] <= x[i],
    "doc[j] < 3": lambda i, j, x: (x[j] < 3) & (i >= 0),
    "abs(doc[i] - doc[j]) <= 1": lambda i, j, x: abs(x[i] - x[j]) <= 1,
    "doc[i] == doc[j] or j < 5": lambda i, j, x: (x[i] == x[j]) | (j < 5),
    "allowed[i // 32, j // 32]": lambda i, j, x: TABLE[i // 32, j // 32],
    "kept[j]": lambda i, j, x: KEPT[j] & (i >= 0),
}
TABLE: Array = np.tril(np.ones((5, 5), bool)) & ~np.tril(np.ones((5, 5), bool), -3)
KEPT: Array = (np.arange(N) >= 40) & (np.arange(N) < 71)
PACKED = {
    "documents": np.repeat(np.arange(6), (30, 7, 1, 61, 18, 33)),
    "one": np.zeros(N, int),
    "shuffled": np.random.default_rng(2).permutation(N) // 30,
}


def documents(mask: str) -> str:
    return (
        "def f(Q[i, d], K[j, d], V[j, e], doc[n]: i32, allowed[q, k]: bool, kept[j]: bool):\n"
        "    S[i, j] = Q[i, d] * K[j, d]\n"
        f"    A[i, j] = where({mask}, S, -inf)\n"
        "    O[i, e] = softmax[j](A) * V[j, e]\n    return O\n"
    )


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("mask", DATA)
def test_data_bounds_the_walk(mask: str, kind: str) -> None:
    c = in_small_tiles_and_one_part(documents(mask), **LONG)
    x = PACKED[kind]
    whole = operands() | {"doc": x.astype("i4"), "allowed": TABLE, "kept": KEPT}
    given = {p.name: whole[p.name] for p in c.program.operands}
    assert c.state.schedule is not None
    (wanted,) = evaluate(c.program, given)
    np.testing.assert_allclose(in_torch(c, given), wanted, rtol=1e-4, atol=1e-5)
    got = seen(c, given, i=N, j=N, d=16, e=16, n=N, q=5, k=5)
    allowed = DATA[mask](np.arange(N)[:, None], np.arange(N)[None], x)
    if kind != "shuffled":
        block = c.state.schedule.kernels[-1].choices.tile("j")
        assert block is not None
        width = block.cap
        assert got.visited == hull_tiles(allowed, width)
    between = [{a for dim in b.dims for a in dim} for b in c.state.schedule.intermediates]
    assert not any({"i", "j"} & axes for axes in between)


# ---------------------------------------------------------------------------------------------------------------------
# Random masks: no tile that is needed is left out, none is taken for full that is not, and levels agree


_ATOMS = (
    "j <= i", "i - j < {k}", "abs(i - j) <= {k}", "j // {c} == i // {c}", "j // {c} <= i // {c}", "(i - j) % 2 == 0",
    "j >= {k}", "i < {k}", "2 * j <= i + {k}", "j < length[i]", "length[i] > 70", "doc[i] == doc[j]", "kept[j]",
    "doc[j] <= doc[i]", "abs(doc[i] - doc[j]) < {c}", "kept[i]", "allowed[i // 32, j // 32]",
)  # fmt: skip


@st.composite
def masks(draw: Any, depth: int = 2) -> str:
    """Comparisons of positions and of data under `and`, `or` and `not`."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        atom: str = draw(st.sampled_from(_ATOMS))
        return atom.format(k=draw(st.integers(-2, 60)), c=draw(st.sampled_from([1, 8, 24, 32])))
    op = draw(st.sampled_from(["and", "or", "not"]))
    if op == "not":
        return f"not ({draw(masks(depth - 1))})"
    return f"({draw(masks(depth - 1))}) {op} ({draw(masks(depth - 1))})"


def masked(mask: str, form: str) -> str:
    return (
        "def f(Q[i, d], K[j, d], V[j, e], doc[n]: i32, allowed[q, k]: bool, kept[n]: bool, length[i]: i32):\n"
        f"    S[i, j] = Q[i, d] * K[j, d]\n    {FORMS[form].format(mask)}\n"
        f"    B[i, j] = i64({mask})\n    O[i, e] = P[i, j] * V[j, e]\n"
    )


@given(mask=masks(), form=st.sampled_from(["masked", "additive", "weights"]), kind=st.sampled_from(sorted(PACKED)))
@settings(max_examples=12, deadline=None)
def test_random_masks(mask: str, form: str, kind: str) -> None:
    text = masked(mask, form)
    whole = operands() | {
        "doc": PACKED[kind].astype("i4"),
        "allowed": TABLE,
        "kept": KEPT,
        "length": LENGTH.astype("i4"),
    }
    both = driver.elaborate(driver.parse(f"{text}    return O, B\n", "<test>"))
    wanted, allowed = evaluate(both, {p.name: whole[p.name] for p in both.operands})
    for level in (0, 1, 2):
        c = in_small_tiles_and_one_part(f"{text}    return O\n", level, **LONG)
        data = {p.name: whole[p.name] for p in c.program.operands}
        np.testing.assert_allclose(in_torch(c, data), wanted, rtol=1e-4, atol=1e-5)
    assert c.state.schedule is not None
    kernel = c.state.schedule.kernels[-1]
    given = {"i": N, "j": N, "d": 16, "e": 16, "n": N, "q": 5, "k": 5}
    extents = completed(c.state.program, Bindings(given, {})).extents
    tensors = bound_tensors(c.state.program, c.state.schedule, extents, {}, data)
    picture = domain_picture(kernel, extents, {}, tensors).get("j", np.zeros((0, 0)))
    block = kernel.choices.tile("j")
    width = TILE if block is None else block.cap
    for (row, column), state in np.ndenumerate(picture):
        part = allowed[row * TILE : (row + 1) * TILE, column * width : (column + 1) * width]
        assert not part.any() if state == EMPTY else state == MIXED or part.all()


@pytest.mark.parametrize("mask", ["doc[i] == doc[j] and j <= i", "allowed[i // 32, j // 32]"])
def test_data_bounds_the_walk_in_the_interpreter(mask: str) -> None:
    c = in_small_tiles_and_one_part(documents(mask), **LONG)
    whole = operands() | {"doc": PACKED["documents"].astype("i4"), "allowed": TABLE, "kept": KEPT}
    given = {p.name: whole[p.name] for p in c.program.operands}
    (wanted,) = evaluate(c.program, given)
    np.testing.assert_allclose(interpreted(c, given), wanted, rtol=1e-4, atol=1e-5)


def test_gradients_of_what_scores_are_made_with_are_bounded_by_data_too() -> None:
    """They are sums over batches as well, along the same walks: what one of them needs all of, all visit."""
    text = """def f(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16, V[b, h, j, e]: bf16, T[h, j]: bf16, D[n]: i32):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = where(j <= i and D[i] == D[j], S + T[h, j], -inf)
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
    return O
"""
    sizes = {"b": 8, "h": 12, "i": 864, "j": 864, "n": 864, "d": 128, "e": 128}
    schedule = gradient_for(einc.compile(text, target="sm_90"), Request(sizes), []).compiled().state.schedule
    assert schedule is not None
    multiplying = [k for k in schedule.kernels if any(isinstance(v, Dot) for v in values_in(k.body))]
    assert len(multiplying) > 1
    for kernel in multiplying:
        read = {v.tensor for v in bounding(kernel) if isinstance(v, Load)}
        assert any(name.endswith("_first") for name in read)
