"""Every program of the library, at every level and on every backend, does what the published operator does.

Each runs at every level and in every way, at the highest level in each; of the lower two, ways take turns: any two of
program, level and way meet. In narrow types, and scheduled as if it were long at a lower level, every other one runs.
The slow tier has all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import einc
from einc import driver
from einc.base.targets import INTERPRETER, TARGETS, Target
from einc.binding import bind
from einc.runtime.tensors import fact
from tests.library import attention, products, rows
from tests.library.cases import FLOATS, Case, Sizes, agree
from tests.support import padded
from tests.support.backends import in_pieces
from tests.support.compiled import run_in_torch
from tests.support.places import EXAMPLES

CASES: tuple[Case, ...] = (*attention.CASES, *rows.CASES, *products.CASES)
LONG = 1024  # positions; axes shorter than that are not long

every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
every_level = pytest.mark.parametrize("level", [0, 1, 2])


def in_turns(shift: int, each: int = 1) -> pytest.MarkDecorator:
    """Every case at level 2, and `each` so many of them at one of the lower levels; at both in the slow tier."""
    now = {n: 1 - (n // each + shift) % 2 for n in range(0, len(CASES), each)}  # the lower level of a case
    pairs = [
        pytest.param(case, level, id=f"{case.name}-{level}", marks=[pytest.mark.slow] * (level not in (2, now.get(n))))
        for n, case in enumerate(CASES)
        for level in (0, 1, 2)
    ]
    return pytest.mark.parametrize(("case", "level"), pairs)


@lru_cache(maxsize=16)
def expected(
    name: str, sizes: tuple[tuple[str, int], ...], dtype: torch.dtype
) -> tuple[Mapping[str, torch.Tensor], tuple[torch.Tensor, ...]]:
    """Operands and results of a case, which levels and ways have in common."""
    case = next(c for c in CASES if c.name == name)
    operands = case.given(dict(sizes), dtype)
    return operands, case.wanted(operands)


def run(case: Case, sizes: Sizes, dtype: torch.dtype, level: int, backend: str) -> None:
    operands, wanted = expected(case.name, tuple(sizes.items()), dtype)
    given: dict[str, Any] = {**operands, **case.scalars}
    found = einc.compile(case.path, level=level)(**given, backend=backend)
    agree(case, sizes, dtype, found, wanted)


def compiled(case: Case, level: int, target: Target, dtype: torch.dtype) -> driver.Compiled:
    """The case compiled for its long sizes, with operands that have no memory."""
    with FakeTensorMode():
        operands = case.given(case.long, dtype)
    facts = {name: fact(t, name) for name, t in operands.items()}
    program = driver.elaborate(driver.parse(case.path.read_text(), case.name), facts)
    extents = bind(program, {name: f.shape for name, f in facts.items()}, case.scalars).extents
    return driver.compile_program(program, level, target, extents)


def large(c: driver.Compiled) -> list[str]:
    """The intermediates that have two long axes, or more positions than any operand and result."""
    assert c.state.schedule is not None
    results = [e.dims for e in c.program.equations if {t.name for t in e.outputs} & set(c.program.results)]

    def extents(dims: tuple[tuple[str, ...], ...]) -> list[int]:
        return [c.context.sizes.get(axis, 1) for group in dims for axis in group]

    most = max(math.prod(extents(dims)) for dims in (*(p.dims for p in c.program.operands), *results))
    kept = {b.name: extents(b.dims) for b in c.state.schedule.intermediates}
    return [name for name, sizes in kept.items() if math.prod(sizes) > most or sum(n >= LONG for n in sizes) > 1]


def test_every_program_has_a_case() -> None:
    assert sorted(p for p in EXAMPLES.glob("*/*.ein")) == sorted(case.path for case in CASES)


@every_case
def test_a_program_says_what_it_is(case: Case) -> None:
    first, second, *_ = case.path.read_text().splitlines()
    assert first.startswith("# ")
    assert first.endswith(".")
    assert len(first) <= 120
    assert not second.startswith("#")


@in_turns(0)
def test_in_torch(case: Case, level: int) -> None:
    run(case, {}, case.floats, level, "torch")


@every_case
def test_in_small_boxes(case: Case) -> None:
    """In boxes that cut every axis, of which each takes the memory of tiles that those before it have left."""
    with in_pieces():
        run(case, {}, case.floats, 2, "torch")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{case.name}-{dtype}", marks=[pytest.mark.slow] * ((n + k) % 2))
        for n, case in enumerate(CASES)
        for k, dtype in enumerate((torch.float16, torch.bfloat16))
    ],
)
def test_narrow_types(case: Case, dtype: torch.dtype) -> None:
    if dtype not in case.dtypes:
        pytest.skip(case.why_dtypes)
    run(case, {}, dtype, 2, "torch")


@in_turns(1)
def test_in_the_interpreter(case: Case, level: int) -> None:
    run(case, case.tiny, case.floats, level, "interpret")


@in_turns(0, each=2)
def test_scheduled_as_if_long(case: Case, level: int) -> None:
    """What is compiled for long axes is right for short ones too: blocks, splits and walks that they only begin.

    And no result depends on what lies beyond extents in the blocks of a GPU.
    """
    c = compiled(case, level, INTERPRETER, torch.float32)

    def check(sizes: Sizes, runs: Callable[..., tuple[torch.Tensor, ...]]) -> None:
        operands, wanted = expected(case.name, tuple(sizes.items()), torch.float32)
        bindings = bind(c.program, {name: tuple(t.shape) for name, t in operands.items()}, case.scalars)
        agree(case, sizes, torch.float32, runs(c, operands, bindings), wanted)

    if level:
        check({}, run_in_torch)
    check(case.tiny, padded.run_compiled)


@every_case
def test_fused(case: Case) -> None:
    c = compiled(case, 2, TARGETS["sm_90"], torch.bfloat16)
    assert c.state.schedule is not None
    assert large(c) == list(case.unfused)
    assert len(c.state.plans) == case.kernels, [k.title for k in c.state.schedule.kernels]


SCORED = [
    case
    for case in CASES
    if case.name.startswith("attention/")
    and case.name != "attention/talking_heads"  # which says why it takes several kernels
    and all((dict(case.sizes) | dict(case.long)).get(axis, 0) >= LONG for axis in "ij")
]


@pytest.mark.parametrize(
    ("case", "n"),
    [
        pytest.param(case, n, id=f"{case.name}-{n}", marks=[pytest.mark.slow] * (m % 3 != k))
        for m, case in enumerate(SCORED)
        for k, n in enumerate((512, 1024, 4096))
    ],
)
def test_scores_of_a_single_head_are_not_stored(case: Case, n: int) -> None:
    """Though few programs share the work, and single precision makes it long. The slow tier has every length."""
    sizes = dict.fromkeys("ijn", n) | dict.fromkeys("bh", 1)
    known = dict(case.sizes) | dict(case.long)
    alone = replace(case, long={axis: sizes.get(axis, extent) for axis, extent in known.items()})
    schedule = compiled(alone, 2, TARGETS["sm_90"], torch.float32).state.schedule
    assert schedule is not None
    assert not [b.name for b in schedule.intermediates if {"i", "j"} <= {axis for dim in b.dims for axis in dim}]


@every_case
def test_a_wish_has_a_reason(case: Case) -> None:
    assert not case.unfused or case.wish
    assert case.dtypes == FLOATS or case.why_dtypes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@every_level
@every_case
def test_on_a_gpu(case: Case, level: int, dtype: torch.dtype) -> None:
    if dtype not in case.dtypes:
        pytest.skip(case.why_dtypes)
    operands = {name: t.cuda() for name, t in case.given({}, dtype).items()}
    given: dict[str, Any] = operands | dict(case.scalars)
    found = einc.compile(case.path, level=level)(**given)
    agree(case, {}, dtype, found, case.wanted(operands))
