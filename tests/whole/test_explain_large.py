"""What it takes to explain a program does not grow with its operands, and what it says of large ones is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einc
from einc import driver, ein
from einc.base.targets import TARGETS
from einc.base.types import DType
from einc.evaluate.elementwise import Value, apply
from einc.explain import grid
from einc.explain.derivation import open_reductions
from einc.explain.figures import Decision
from einc.explain.visits import Visits, visited
from einc.passes.streaming import walks
from einc.passes.streaming.walks import written_out
from einc.present.report import purpose
from einc.present.terminal import as_text, explanation
from einc.trials.request import Request
from einc.trials.running import meaning, story_for
from tests.support.compiled import in_parts
from tests.support.explaining import told
from tests.support.places import EXAMPLES

SHOWN = sorted(EXAMPLES.rglob("*.ein"))
LONG = dict.fromkeys("ijntqx", 65536) | {"b": 64, "h": 16, "g": 4, "d": 128, "e": 128, "k": 4096, "v": 32768}
PROGRAMS = 100  # kernels of which bounds are evaluated for one explanation, at most
GATED = """
def f(Q[b, h, t, d], K[b, h, t, d], V[b, h, t, e], A[b, h, t, d]):
    C[b, h, t, d] = sum[s](where(s <= t, log(A[b, h, s, d]), 0))
    O[b, h, t, e] = sum[s, d](where(s <= t, Q[b, h, t, d] * exp(C - C[b, h, s, d]) * K[b, h, s, d] * V[b, h, s, e], 0))
    return O
"""


class Work:
    """The elements that loop bounds were evaluated for."""

    def __init__(self) -> None:
        self.elements = 0

    def apply(self, op: str, args: Sequence[Value], wide: DType | None = None) -> Value:
        found = apply(op, args, wide)
        self.elements += found.array.size
        return found


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    counted = Work()
    monkeypatch.setattr(grid, "apply", counted.apply)
    return counted


def large(text: str) -> tuple[einc.Program, Request]:
    """A program, and operands of large sizes that need not be there."""
    program = einc.compile(text)
    found = meaning(program, Request({}, {}, {}))
    sizes = {a.name: LONG.get(a.name, 64) for a in found.axes if a.extent is None}
    scalars = {p.name: 2 if p.dtype.is_int else 0.5 for p in found.scalars if p.default is None}
    return program, Request(sizes, {}, scalars)


def check(path: Path, work: Work) -> None:
    program, request = large(path.read_text(encoding="utf-8"))
    found = story_for(program, request)
    assert as_text(explanation(found))
    assert work.elements <= PROGRAMS * grid.MOST
    assert all(0 <= v.visited <= v.total for f in found.levels for k in f.kernels for v in k.tiles.values())
    assert all(np.size(x) <= 1 << 16 for f in found.levels for k in f.kernels for x in k.domains.values())


@pytest.mark.parametrize("name", ["documents", "neighbourhood_2d", "varlen", "mla"])
def test_an_example(name: str, work: Work) -> None:
    check(next(p for p in SHOWN if p.stem == name), work)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHOWN, ids=lambda p: p.stem)
def test_every_example(path: Path, work: Work) -> None:
    check(path, work)


def test_gated_linear_attention(work: Work) -> None:
    assert as_text(explanation(told(GATED, {"b": 64, "h": 16, "t": 65536, "d": 64, "e": 64})))
    assert work.elements <= PROGRAMS * grid.MOST


# ---------------------------------------------------------------------------------------------------------------------
# Counts of some programs for all

CAUSAL = 'softmax(where(j <= i, "bihd,bjhd->bhij", -inf)) * "bjhd->bihd"'
VARLEN = """
def f(Q[b, i, d], K[b, j, d], V[b, j, e], n[b]: i32):
    S[b, i, j] = Q[b, i, d] * K[b, j, d]
    O[b, i, e] = softmax[j](where(j <= i and j < n[b], S, -inf)) * V[b, j, e]
    return O
"""


def counted(text: str, sizes: dict[str, int], tensors: dict[str, np.ndarray[Any, Any]] | None = None) -> Visits:
    """What the kernel that walks j visits of it."""
    program = driver.elaborate(driver.parse(text, "<test>"))
    schedule = driver.compile_program(program, 2, TARGETS["sm_90"], sizes, choices=in_parts(1)).state.schedule
    assert schedule is not None
    (found,) = [v for k in schedule.kernels for a, v in visited(k, sizes, {}, tensors).items() if a == "j"]
    return found


def test_axes_that_bounds_do_not_depend_on_multiply(work: Work) -> None:
    one = counted(CAUSAL, {"b": 1, "h": 1, "i": 65536, "j": 65536, "d": 64})
    before, work.elements = work.elements, 0
    many = counted(CAUSAL, {"b": 64, "h": 16, "i": 65536, "j": 65536, "d": 64})
    assert (many.total, many.mixed, many.full) == (1024 * one.total, 1024 * one.mixed, 1024 * one.full)
    assert work.elements == before
    assert not many.sample


@pytest.mark.parametrize("most", [1 << 10, 1 << 12, 1 << 14])
def test_a_sample_is_near_and_says_so(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"b": 40, "i": 4096, "j": 4096, "d": 64, "e": 64}
    tensors = {"n": np.random.default_rng(0).integers(0, 4096, 40).astype(np.int32)}
    exact = counted(VARLEN, sizes, tensors)
    monkeypatch.setattr(grid, "MOST", most)
    found = counted(VARLEN, sizes, tensors)
    assert not exact.sample
    assert found.sample
    assert found.total == exact.total
    looked = max(most // 256, 1)  # programs, of blocks of at most 256 rows
    assert abs(found.share - exact.share) < 2 / looked**0.5


def test_spaced_positions_are_in_range_and_apart() -> None:
    for n in (1, 2, 7, 100):
        np.testing.assert_array_equal(grid.spaced(n, n), np.arange(n))
        for count in range(1, n):
            found = grid.spaced(n, count)
            assert found[0] >= 0
            assert found[-1] < n
            assert np.diff(found).min(initial=n) >= n // count
    assert grid.spaced(0, 0).size == 0


def test_lengths_are_cut_where_they_are_longest() -> None:
    assert grid.shortened([8, 100, 3], 100) == [4, 6, 3]
    assert grid.shortened([5, 5], 25) == [5, 5]
    assert grid.shortened([], 4) == []
    assert grid.shortened([0, 9], 4) == [0, 9]
    assert grid.shortened([9, 9], 0) == [1, 1]


# ---------------------------------------------------------------------------------------------------------------------
# Chains


def normalised(times: int) -> str:
    lines = "".join(f"    a{k + 1} = softmax[j](a{k})\n" for k in range(times))
    return f"def f(x[i, j]):\n    a0 = x\n{lines}    return a{times}\n"


def written(times: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The nodes of all equations that are written out to say which reductions of a chain are closed."""
    nodes = 0

    def counting(eq: ein.Equation, *args: Any) -> ein.Equation:
        nonlocal nodes
        found = written_out(eq, *args)
        nodes += sum(1 for b in found.bodies for _ in ein.walk(b))
        return found

    monkeypatch.setattr(walks, "written_out", counting)
    walks.walks.cache_clear()
    walks._walks.cache_clear()
    found = open_reductions(driver.elaborate(driver.parse(normalised(times), "<test>")))
    assert len(found) == 2 * (times - 1)
    assert all(len(o.part) < 300 for o in found)
    return nodes


def test_a_chain_is_written_out_as_far_as_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(12, monkeypatch) <= 4 * written(6, monkeypatch)


def test_what_was_compared_leads_to_the_kernels() -> None:
    """A kernel may have equations that were not there when it was joined, such as one that another reads."""
    program = driver.elaborate(driver.parse(normalised(3), "<test>"))
    compiled = driver.compile_program(program, 2, TARGETS["sm_90"], {"i": 4096, "j": 4096})
    state = compiled.stage("partition").state
    groups = {frozenset([eq.name]) for eq in state.program.equations}
    for join in (join for join in state.joins if join.taken):
        parts = {frozenset(p.plan.equations) for p in join.kernels}
        assert len(parts) > 1
        assert parts <= groups
        groups = groups - parts | {frozenset().union(*parts)}
    assert all(any(group <= {*p.equations} for p in state.plans) for group in groups)
    assert len(state.plans) == len([g for g in groups if len(g) > 1])


# ---------------------------------------------------------------------------------------------------------------------
# Words


def test_a_join_that_takes_longer_says_what_for() -> None:
    def words(apart: float, together: float, spared: tuple[str, ...]) -> str:
        return purpose(Decision((("S",), ("O",)), True, apart, together, "", spared))

    assert words(2.0, 1.0, ("S",)) == ""
    assert words(1.0, 2.0, ("S",)) == " is slower, but S is then not stored"
    assert words(1.0, 2.0, ("S", "P")) == " is slower, but S, P are then not stored"
    assert words(1.0, 2.0, ()) == " is slower by itself, and part of a larger join that pays"
