"""Integers that change at each call, as the offset of a decoder does: what was made for one value serves the next."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import einc
from einc.base.targets import INTERPRETER
from einc.binding import bind
from einc.codegen.emit.index_width import LIMIT, digits, is_steady
from einc.driver import _compile, compile_program, elaborate, parse
from einc.runtime import prepared
from einc.runtime.again import Calls
from einc.runtime.prepared import Deciding, deciding
from tests.support.backends import normal

TEXT = """
def attention(Q[i, d], K[j, d], V[j, e], window: int, offset: int):
    S[i, j] = Q[i, d] * K[j, d]
    A[i, j] = where(j <= i + offset and i + offset - j < window, S, -inf)
    O[i, e] = softmax[j](A) * V[j, e]
    return O
"""


def exact(q: Tensor, k: Tensor, v: Tensor, window: int, offset: int) -> Tensor:
    at, j = torch.arange(len(q))[:, None] + offset, torch.arange(len(k))
    scores = (q.double() @ k.double().T).masked_fill((j > at) | (at - j >= window), -math.inf)
    return torch.softmax(scores, -1).nan_to_num() @ v.double()


@pytest.fixture
def made() -> Iterator[dict[str, int]]:
    """How many programs ran through the passes, and how many calls were prepared, since the test began."""
    prepared.forget()
    _compile.cache_clear()
    yield _Counts()
    prepared.forget()


class _Counts(dict[str, int]):
    def __missing__(self, name: str) -> int:
        return _compile.cache_info().misses if name == "passes" else len(prepared._kept)


@pytest.mark.parametrize(("backend", "calls"), [("torch", 5), ("interpret", 1)])
def test_passes_run_once_for_50_windows(backend: str, calls: int, made: dict[str, int]) -> None:
    """Emitted kernels take the integers as arguments; tiles run by torch are compiled for the first few."""
    f = einc.compile(TEXT)
    q, k, v = normal(3, 8, seed=1), normal(40, 8, seed=2), normal(40, 5, seed=3)
    for n in range(50):
        found = f(q, k, v, n, 2 * n - 20, backend=backend)
        torch.testing.assert_close(found.double(), exact(q, k, v, n, 2 * n - 20), rtol=1e-5, atol=1e-5)
    assert made["passes"] == 1
    assert made["prepared"] == calls


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_what_integers_decide_is_checked_for_each(backend: str, made: dict[str, int]) -> None:
    x = torch.arange(10.0)
    shifted = einc.compile("def f(x[j], n: int, m: int):\n    axis i = n\n    T[i] = x[i + m]\n    return T\n")
    divided = einc.compile("def f(x[i], n: int):\n    T[i] = x[i] * (i // n)\n    return T\n")
    for n, m in ((3, 0), (4, 2), (4, 6), (1, 9)):
        assert shifted(x, n, m, backend=backend).tolist() == x[m : m + n].tolist()
        with pytest.raises(einc.ShapeError):
            shifted(x, n, 11 - n, backend=backend)
        with pytest.raises(einc.ShapeError):
            shifted(x, n, -1, backend=backend)
        assert divided(x, n, backend=backend).tolist() == (x * (torch.arange(10) // n)).tolist()
        with pytest.raises(einc.ShapeError):
            divided(x, 0, backend=backend)
    assert made["passes"] <= 4  # by size classes of n


def test_defaults_follow_the_integers_given() -> None:
    f = einc.compile("def f(x[i], n: int, m: int = 2 * n):\n    return where(i < m, x[i] + n, 0)\n")
    x = torch.zeros(10)
    for backend in ("torch", "interpret"):
        for n in (1, 3, 2, 3):
            wanted = [float(n) if i < 2 * n else 0.0 for i in range(10)]
            assert f(x, n, backend=backend).tolist() == wanted
            assert f(x, n, m=1, backend=backend).tolist() == [float(n), *[0.0] * 9]


def test_positions_beyond_32_bits_widen_the_index_type() -> None:
    f = einc.compile("def f(x[i], n: int):\n    return where(i * n < 5 * n, x[i], 0)\n")
    x = torch.ones(10)
    for n in (1, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, 3):
        for backend in ("torch", "interpret"):
            assert f(x, n, backend=backend).sum() == 5


def test_which_scalars_decide() -> None:
    program = elaborate(
        parse(
            "def f(x[j], y[i], a: int, b: int, c: int, d: float, e: bool, s: int, h: int, g: int = h + 1):\n"
            "    axis k = a\n"
            "    T[i, k] = x[c] * where(i < b and e, d, rand(s, i)) * g * y[i] * k\n"
            "    return T\n",
            "<test>",
        )
    )
    found = deciding(program)
    assert found.of("triton") == {"a", "c", "e", "h"}
    assert found.of("torch") == {"a", "b", "c", "e", "g", "h"}


def test_integers_of_as_many_digits_share_what_was_made() -> None:
    calls = Calls(["x"], {"n": elaborate(parse(TEXT, "<test>")).scalars[0].dtype}, Deciding(baked=frozenset("n")))
    here, elsewhere = torch.zeros(2), torch.zeros(2, device="meta")

    def keys(x: Tensor) -> set[object]:
        return {found[0] for n in (4, 5, 7, 8) if (found := calls.read((x, n), {})) is not None}

    assert len(keys(here)) == 4
    assert len(keys(elsewhere)) == 2
    assert calls.varying((here,), {"n": 5}) == []
    assert calls.varying((elsewhere,), {"n": 5}) == ["n"]
    assert [digits(n) for n in (0, 1, -1, 7, -8, 8, (1 << 31) - 1, -1 << 31, 1 << 31)] == [0, 1, 0, 3, 3, 4, 31, 31, 32]


@pytest.mark.parametrize("rows", [10, 1000])
def test_a_launch_is_made_again_only_where_its_index_type_suits(rows: int) -> None:
    """Bounds are |n| * rows, more or less."""
    program = elaborate(parse("def f(x[i], n: int):\n    return where(i * n < 5, x[i], 0)\n", "<test>"))
    schedule = compile_program(program, 2, INTERPRETER, {"i": rows}).state.schedule
    assert schedule is not None
    for n in (1, 3, 1 << 10, LIMIT // rows // 2 - rows, LIMIT // rows - rows, LIMIT // rows + 1, 1 << 40):
        extents = bind(program, {"x": (rows,)}, {"n": n}).extents
        narrow = rows * n < LIMIT and rows * (1 << digits(n)) < LIMIT
        wide = rows * n >= LIMIT
        assert is_steady(schedule, extents, {"n": n}, ["n"]) == (narrow or wide), n
    assert is_steady(schedule, {"i": rows}, {"n": LIMIT // rows - rows}, [])
