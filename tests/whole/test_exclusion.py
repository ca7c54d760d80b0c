"""What a mask excludes from a reduction contributes nothing, whatever lies there: at every level, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from einc import driver
from einc.base.targets import INTERPRETER, TARGETS
from einc.binding import bind
from einc.evaluate import evaluate
from einc.tile import Dot, Load, Loop
from einc.tile.asked import choice
from einc.tile.masks import conjuncts
from einc.tile.walk import values_in
from tests.support.compiled import in_parts, run_in_torch, runner

Array = np.ndarray[Any, Any]
ROWS, COLUMNS, DEPTH = 6, 70, 16
LENGTH = np.array([5, 33, 0], np.int32)
SIGNATURE = (
    "def f(Q[b, i, d], K[b, j, d], V[b, j, e], X[b, i, j], length[b]: i32, keep[b, i, j]: bool, page[b, c]: i64):\n"
    "    S[b, i, j] = Q[b, i, d] * K[b, j, d]\n"
)
WEIGHTED = {
    "softmax": "P[b, i, j] = softmax[j](where({}, S, -inf))",
    "additive": "P[b, i, j] = softmax[j](S + where({}, 0, -inf))",
    "retention": "P[b, i, j] = where({}, S, 0)",
    "other": "P[b, i, j] = where(not ({}), 0, exp(tanh(S)))",
    "product": "P[b, i, j] = f32({}) * tanh(where({}, S, 0))",
    "nested": "P[b, i, j] = where(j >= 2, softmax[j](where({}, S, -inf)), 0)",
}
REDUCED = {
    "dot": "O[b, i, e] = P * V[b, j, e]",
    "at once": "O[b, i, e] = sum[j](P * exp(V[b, j, e]))",
    "logarithm": "O[b, i, e] = sum[j](P * log(abs(V[b, j, e])))",
    "quotient": "O[b, i, e] = sum[j](P / V[b, j, e])",
    "largest": "O[b, i, e] = max[j](P * V[b, j, e])",
    "two": "O[b, i, e] = sum[j](P * V[b, j, e] * tanh(V[b, j, e]))",
    "gathered": "O[b, i, e] = sum[j](P * V[b, page[b, j // 16] * 16 + j % 16, e])",
}
EXCLUDED = {
    "entropy": "O[b, i] = entropy[j](where({}, X, -inf))",
    "logarithm": "O[b, i] = logsumexp[j](X + where({}, 0, -inf))",
    "largest": "O[b, i] = max[j](X + where({}, 0, -inf))",
    "place": "O[b, i] = argmax[j](X + where({}, 0, -inf))",
    "least": "O[b, i] = min[j](X - where({}, 0, -inf))",
    "any": "O[b, i] = any[j]({} and X > 0.5)",
    "moments": "O[b, i] = sum[j](where({}, (X - 1) ** 2, 0))",
    "domain": "O[b, i] = sum[j : {}](X * X)",
    "powers": "O[b, i] = prod[j](where({}, X, 1))",
}
MASKS = {
    "length": "j < length[b]",
    "causal": "j <= i + 2 and j < length[b]",
    "data": "keep[b, i, j] and j < length[b]",
}
WAYS = [(0, False, 1), (1, True, 1), (2, True, 3)]
levels = pytest.mark.parametrize(("level", "walked", "splits"), WAYS)


def operands(poison: float, middle: bool = True) -> dict[str, Array]:
    """Values up to a length, and something else after it, where no row looks; and in the middle, where some do."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype("f4")

    b = len(LENGTH)
    found = {
        "Q": normal(b, ROWS, DEPTH) / 4, "K": normal(b, COLUMNS, DEPTH), "V": normal(b, COLUMNS, DEPTH),
        "X": normal(b, ROWS, COLUMNS), "length": LENGTH, "keep": rng.integers(0, 2, (b, ROWS, COLUMNS)) > 0,
        "page": np.tile(np.arange(5), (b, 1)),
    }  # fmt: skip
    for row, n in enumerate(LENGTH):
        for name in "KV":
            found[name][row, n:] = poison
        found["X"][row, :, n:] = poison
        found["page"][row, -(-n // 16) :] = 1 << 40
    if middle:
        found["V"][1, 4] = poison
    return found


def check(text: str, given: dict[str, Array], level: int, walked: bool, splits: int, backends: str = "torch") -> None:
    program = driver.elaborate(driver.parse(text, "exclusion"))
    given = {p.name: given[p.name] for p in program.operands}
    wanted = evaluate(program, given)[0]
    assert np.isfinite(wanted[0].astype(float)).all()
    tensors = {name: torch.from_numpy(x) for name, x in given.items()}
    bindings = bind(program, {name: tuple(x.shape) for name, x in tensors.items()})
    hints = bindings.extents | ({"j": 1 << 20} if walked else {})
    c = driver.compile_program(program, level, INTERPRETER, hints, choices=in_parts(splits))
    found = [run_in_torch(c, tensors, bindings, None)[0]]
    if "interpret" in backends:
        found.append(runner(c)(*tensors.values())[0])
    for x in found:
        np.testing.assert_allclose(x.double().numpy(), wanted, rtol=1e-4, atol=1e-5)


@levels
@pytest.mark.parametrize(("mask", "poison"), [("length", np.inf), ("causal", np.nan)])
@pytest.mark.parametrize("form", WEIGHTED)
def test_weights(form: str, mask: str, poison: float, level: int, walked: bool, splits: int) -> None:
    text = f"{SIGNATURE}    {WEIGHTED[form].replace('{}', MASKS[mask])}\n    {REDUCED['dot']}\n    return O\n"
    check(text, operands(poison), level, walked, splits)


@levels
@pytest.mark.parametrize("reduced", REDUCED)
@pytest.mark.parametrize("form", ["softmax", "retention"])
def test_what_is_weighted(form: str, reduced: str, level: int, walked: bool, splits: int) -> None:
    text = f"{SIGNATURE}    {WEIGHTED[form].replace('{}', MASKS['causal'])}\n    {REDUCED[reduced]}\n    return O\n"
    check(text, operands(np.nan), level, walked, splits)


@levels
@pytest.mark.parametrize("mask", ["causal"])
@pytest.mark.parametrize("form", EXCLUDED)
def test_what_is_left_out(form: str, mask: str, level: int, walked: bool, splits: int) -> None:
    text = f"{SIGNATURE}    {EXCLUDED[form].replace('{}', MASKS[mask])}\n    return O\n"
    check(text, operands(np.nan), level, walked, splits)


@pytest.mark.parametrize(("form", "mask"), [("softmax", "length"), ("additive", "data"), ("retention", "causal")])
def test_in_the_interpreter(form: str, mask: str) -> None:
    text = f"{SIGNATURE}    {WEIGHTED[form].replace('{}', MASKS[mask])}\n    {REDUCED['dot']}\n    return O\n"
    check(text, operands(np.nan, middle=False), 2, True, 1, "torch interpret")


ACROSS = {
    "quotient": """s[b, i] = max[j](where(j < length[b], X, -9))
        T[b, i] = where(length[b] > 0, s[b, i], 0) / length[b]
        O[b, i] = sum[j](tanh(f32(keep) - T[b, i]))""",
    "difference": """s[b, i] = max[j](where(j < length[b], X, -9))
        T[b, i] = where(length[b] > 0, s[b, i], -inf) - log(length[b])
        O[b, i] = sum[j](tanh(f32(keep) - T[b, i]))""",
}


@pytest.mark.parametrize("results", ["O", "O, T"])
@pytest.mark.parametrize("form", ACROSS)
def test_what_an_earlier_kernel_left_out(form: str, results: str) -> None:
    """A kernel that reads T, and not what T is made of, knows from T's mask where T counts: these 0 / 0 and inf - inf
    are not read."""
    text = f"{SIGNATURE}    {ACROSS[form]}\n".replace("        ", "    ") + f"    return {results}\n"
    program = driver.elaborate(driver.parse(text, "exclusion"))
    c = driver.compile_program(program, 2, INTERPRETER, {"b": 3, "i": ROWS, "j": 1 << 20}, choices=in_parts(3))
    assert not any({"T", "O"} <= set(plan.equations) for plan in c.state.plans)
    for level, walked, splits in WAYS:
        check(text, operands(np.nan), level, walked, splits)


BY_HAND = "A[i, j] = S + M\n    m[i] = max[j](A)\n    E[i, j] = {}\n    O[i, e] = sum[j](E * V[j, e]) / sum[j](E)"


@pytest.mark.parametrize(
    "lines",
    [
        "O[i, e] = softmax[j](S + M) * V[j, e]",
        BY_HAND.format("where(A == -inf, 0, exp(A - m))"),
        BY_HAND.format("where(A != -inf, exp(A - m), 0)"),
    ],
    ids=["softmax", "left out", "taken in"],
)
def test_an_additive_mask_from_memory(lines: str) -> None:
    """Only what the text masks is excluded: where an operand holds -inf, weights are 0, and 0 * NaN is NaN."""
    text = f"def f(S[i, j], M[i, j], V[j, e]):\n    {lines}\n    return O\n"
    rng = np.random.default_rng(0)
    s, v = rng.standard_normal((4, 70)).astype("f4"), rng.standard_normal((70, 16)).astype("f4")
    m = np.where(np.arange(70) <= np.arange(4)[:, None] + 5, 0, -np.inf).astype("f4")
    v[7] = np.nan
    for level in (0, 1, 2):
        program = driver.elaborate(driver.parse(text, "exclusion"))
        (wanted,) = evaluate(program, {"S": s, "M": m, "V": v})
        assert np.isnan(wanted).all()
        tensors = {"S": torch.from_numpy(s), "M": torch.from_numpy(m), "V": torch.from_numpy(v)}
        c = driver.compile_program(program, level, INTERPRETER, {"i": 64, "j": 1 << 20, "e": 16})
        (found,) = run_in_torch(c, tensors, bind(program, {name: tuple(x.shape) for name, x in tensors.items()}), None)
        np.testing.assert_allclose(found.double().numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_full_blocks_have_no_guards() -> None:
    """Blocks of which every position counts multiply as they would without a mask."""
    text = 'softmax(where(j <= i, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"'
    program = driver.elaborate(driver.parse(text, "exclusion"))
    sizes = {"b": 2, "h": 4, "i": 4096, "j": 4096, "d": 64, "e": 64}
    c = driver.compile_program(program, 2, TARGETS["sm_90"], sizes, choices=in_parts(1))
    assert c.state.schedule is not None
    (loop,) = [s for s in c.state.schedule.kernels[-1].body if isinstance(s, Loop)]
    assert loop.full is not None
    assert loop.full.body is not None

    def guarded(body: Any) -> list[bool]:
        return [v.left_in is not None for v in values_in(body) if isinstance(v, Dot)]

    def masks(body: Any) -> list[int]:
        return [len(conjuncts(v.mask)) for v in values_in(body) if isinstance(v, Load)]

    assert guarded(loop.body) == guarded(loop.full.body) == [False, False]  # loads have the guards
    assert masks(loop.body) == [2, 3]
    assert masks(loop.full.body) == [1, 1]


@pytest.mark.parametrize(
    ("mask", "by_loads"),
    [
        ("j <= i", True),
        ("j <= i and i - j < 9", True),
        ("j <= i and i < j + 0 * 9", True),  # no row counts any
        ("abs(i - j) < 9 and j > 1", False),
        ("(i + j) % 3 == 0", False),  # no interval
    ],
)
def test_what_no_row_counts_is_not_loaded(mask: str, by_loads: bool) -> None:
    """Where rows that count are an interval, loads leave out the others, and a dot has no condition: V is NaN there."""
    text = (
        "def f(Q[i, d], K[j, d], V[j, e]):\n    S[i, j] = Q[i, d] * K[j, d]\n"
        f"    P[i, j] = where({mask}, S, 0)\n    O[i, e] = P * V[j, e]\n    return O\n"
    )
    rng = np.random.default_rng(0)
    queries = 24 if by_loads else 32  # a whole block
    given = {n: rng.standard_normal((rows, 16)).astype("f4") for n, rows in (("Q", queries), ("K", 70), ("V", 70))}
    program = driver.elaborate(driver.parse(text, "exclusion"))
    (wanted,) = evaluate(program, given)
    c = driver.compile_program(
        program, 2, TARGETS["sm_90"], {"i": 24, "j": 1 << 20, "d": 16, "e": 16}, choices=in_parts(1)
    )
    assert c.state.schedule is not None
    dots = [v for kernel in c.state.schedule.kernels for v in values_in(kernel.body) if isinstance(v, Dot)]
    assert any(d.left_in is not None for d in dots) == (not by_loads)
    counting = f"def m(A[i], B[j]):\n    O[j] = any[i](({mask}) and A == 0 and B == 0)\n    return O\n"
    zeros = {"A": np.zeros(queries, "f4"), "B": np.zeros(70, "f4")}
    (counts,) = evaluate(driver.elaborate(driver.parse(counting, "counting")), zeros)
    for name in "KV":
        given[name][~counts.astype(bool)] = np.nan
    found = runner(c.on(INTERPRETER))(*map(torch.from_numpy, given.values()))[0].double().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mask", ["j <= i and T[i] == U[j]", "T[i] == U[j]", "T[i] != U[j] and j > i", "U[j] > T[i]"])
@pytest.mark.parametrize("kind", ["packed", "mixed"])
def test_what_data_excludes_for_a_whole_tile_is_not_loaded(mask: str, kind: str) -> None:
    """A position that no row of a tile counts is not read for it, whether all rows of the tile have the same or not."""
    text = (
        "def f(Q[i, d], K[j, d], V[j, e], T[i]: i32, U[j]: i32):\n    S[i, j] = Q[i, d] * K[j, d]\n"
        f"    O[i, e] = softmax[j](where({mask}, S, -inf)) * V[j, e]\n    return O\n"
    )
    rng, rows = np.random.default_rng(0), 88
    given = {n: rng.standard_normal((rows, 16)).astype("f4") for n in "QKV"}
    ids = (np.arange(rows) // 24 if kind == "packed" else rng.integers(0, 4, rows)).astype("i4")
    given |= {"T": ids, "U": ids}
    program = driver.elaborate(driver.parse(text, "exclusion"))
    c = driver.compile_program(
        program, 2, TARGETS["sm_90"], {"i": 4096, "j": 4096, "d": 16, "e": 16},
        choices=(*in_parts(1), choice("BI", 16), choice("BJ", 16)),
    )  # fmt: skip
    assert c.state.schedule is not None
    dots = [v for kernel in c.state.schedule.kernels for v in values_in(kernel.body) if isinstance(v, Dot)]
    assert dots
    assert all(d.left_in is None for d in dots)
    run = runner(c.on(INTERPRETER))
    (wanted,) = evaluate(program, given)
    i, j = np.arange(rows)[:, None], np.arange(rows)
    counts = {
        "j <= i and T[i] == U[j]": (j <= i) & (ids[:, None] == ids), "T[i] == U[j]": ids[:, None] == ids,
        "T[i] != U[j] and j > i": (ids[:, None] != ids) & (j > i), "U[j] > T[i]": ids > ids[:, None],
    }[mask]  # fmt: skip
    for first in range(0, rows, 16):
        tile = slice(first, first + 16)
        excluded = ~counts[tile].any(0)
        poisoned = {n: np.where(excluded[:, None], np.nan, x) if n in "KV" else x for n, x in given.items()}
        found = run(*map(torch.from_numpy, poisoned.values()))[0].double().numpy()
        np.testing.assert_allclose(found[tile], wanted[tile], rtol=1e-4, atol=1e-4)


def test_what_another_dot_counts_is_loaded() -> None:
    """V is read whole where a dot without a mask reads it as well, and has its guard in the other dot."""
    text = (
        "def f(Q[i, d], K[j, d], V[j, e]):\n    S[i, j] = Q[i, d] * K[j, d]\n    P[i, j] = where(j <= i, S, 0)\n"
        "    O[i, e] = P * V[j, e]\n    U[i, e] = tanh(S) * V[j, e]\n    return O, U\n"
    )
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal((rows, 16)).astype("f4") for n, rows in (("Q", 24), ("K", 70), ("V", 70))}
    program = driver.elaborate(driver.parse(text, "exclusion"))
    wanted = evaluate(program, given)
    sizes = {"i": 24, "j": 1 << 20, "d": 16, "e": 16}
    c = driver.compile_program(program, 2, TARGETS["sm_90"], sizes, choices=in_parts(1))
    assert c.state.schedule is not None
    (kernel,) = c.state.schedule.kernels
    assert any(v.left_in is not None for v in values_in(kernel.body) if isinstance(v, Dot))
    for found, exact in zip(runner(c.on(INTERPRETER))(*map(torch.from_numpy, given.values())), wanted, strict=True):
        np.testing.assert_allclose(found.double().numpy(), exact, rtol=1e-4, atol=1e-4)
