"""Every pass on kernels keeps what random programs, random cascades and the library compute, to the last bits of f64.

Kernels are run in double precision whatever their types are, so that nothing but the pass tells two stages apart:
before and after it by torch operations over the same tiles, and once edges are masked also block by block, each whole
although it overhangs an extent, with poison beyond.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from einc import driver, ein
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import C128, F64, DType
from einc.binding import Bindings, bind
from einc.codegen import TRITON
from einc.codegen.executor.run import executor
from einc.passes import pipeline
from einc.stages import Stage
from einc.tile import Convert, Elem
from tests.library import cases as library
from tests.passes.test_cascades import ANY, LONG
from tests.support import padded
from tests.support.compiled import CPU, agree, magnitude, tensors
from tests.support.random_cascades import Cascade, cascades
from tests.support.random_programs import Case, cases
from tests.whole.test_library import CASES, compiled

Results = tuple[torch.Tensor, ...]
N = TypeVar("N")

NAMES = [p.name for p in pipeline(TRITON)]
LOWERED = next(p.name for p in pipeline(TRITON) if "lowered" in p.gives)
PASSES = NAMES[NAMES.index(LOWERED) + 1 :]
MASKED = PASSES[PASSES.index("mask-edges") :]
SAMPLE = (
    "attention/causal",
    "attention/decoding",
    "attention/paged",
    "attention/qk_norm",
    "products/swiglu",
    "rows/layernorm_matmul",
)
WINDOW = """def f(X[b, n, c]: bf16, W[r, c, o]: bf16):
    axis x = |n|
    Y[b, x, o] = where(x >= r, X[b, x - r, c], 0) * W[r, c, o]
    return Y
"""
ULP = 2.0**-52


def widened(node: N) -> N:
    """The tiles in double precision: what they compute, but for rounding."""
    found: Any = node
    if isinstance(node, DType):
        found = C128 if node.is_complex else F64 if node.is_float else node
    elif isinstance(node, tuple):
        found = tuple(map(widened, node))
    elif is_dataclass(node) and not isinstance(node, type):
        found = replace(node, **{f.name: widened(getattr(node, f.name)) for f in fields(node) if f.init})
    if isinstance(found, Elem) and found.op == "rand":  # f32 wherever it is drawn
        found = Convert(F64, found)
    result: N = found
    return result


def wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.complex128) if x.is_complex() else x.double() if x.is_floating_point() else x


def runs(stage: Stage, operands: Mapping[str, torch.Tensor], bindings: Bindings) -> Iterator[tuple[str, Results]]:
    """What the kernels of a stage compute, by every executor that they are ready for."""
    program, schedule = stage.state.program, widened(stage.state.schedule)
    assert schedule is not None
    given = {name: wide(x) for name, x in operands.items()}
    yield "torch", executor(program, schedule, bindings, CPU).run(given, bindings.scalars, ())
    if stage.name in MASKED:
        yield "padded", padded.run(program, schedule, given, bindings)


def pairs(
    c: driver.Compiled, operands: Mapping[str, torch.Tensor], bindings: Bindings
) -> Iterator[tuple[str, Results, Results]]:
    """By pass on kernels that changed them: the results before and after it, by each executor."""
    before: Results | None = None
    for stage in c.stages[[s.name for s in c.stages].index(LOWERED) :]:
        if before is not None and not stage.changed:
            continue
        for how, found in runs(stage, operands, bindings):
            if before is not None:
                yield f"{stage.name}, by {how}", before, found
            before = found if how == "torch" else before


def bound(program: ein.Program, operands: Mapping[str, torch.Tensor], scalars: Mapping[str, Any] | None = None) -> Any:
    return bind(program, {name: tuple(x.shape) for name, x in operands.items()}, scalars)


# ---------------------------------------------------------------------------------------------------------------------


def check_program(case: Case, level: int, long: bool) -> None:
    operands = dict(zip((p.name for p in case.program.operands), tensors(case), strict=True))
    sizes = LONG if long else case.sizes
    c = driver.compile_program(case.program, level, INTERPRETER, sizes, verify=False)
    for where, before, after in pairs(c, operands, bound(case.program, operands, case.scalars)):
        try:
            for x, y in zip(before, after, strict=True):
                agree(y, x.numpy(), ULP, magnitude(x.numpy()))
        except Exception as error:
            error.add_note(f"{where}, level {level}\n{c.stages[0].text}")
            raise


def check_cascade(case: Cascade, level: int, long: bool, target: str) -> None:
    program = driver.elaborate(driver.parse(case.text, "cascade"))
    operands = {name: torch.from_numpy(x) for name, x in case.operands.items()}
    sizes = LONG if long else case.sizes
    c = driver.compile_program(program, level, TARGETS[target], sizes, verify=False)
    for where, before, after in pairs(c, operands, bound(program, operands)):
        try:
            for x, y, error in zip(before, after, case.errors, strict=True):
                np.testing.assert_allclose(y.numpy(), x.numpy(), rtol=0, atol=8 * error * ULP)  # 4 on either side
        except Exception as failure:
            failure.add_note(f"{where}, level {level}, long {long}, {target}\n{case.text}")
            raise


levels = st.sampled_from([2, 1, 0])
targets = st.sampled_from(["interpret", "sm_90"])


@given(case=cases(most=3), level=levels, long=st.booleans())
@settings(ANY, max_examples=30)
def test_random_programs(case: Case, level: int, long: bool) -> None:
    check_program(case, level, long)


@given(case=cascades(), level=levels, long=st.booleans(), target=targets)
@settings(ANY, max_examples=5)
def test_random_cascades(case: Cascade, level: int, long: bool, target: str) -> None:
    check_cascade(case, level, long, target)


def check_library(case: library.Case) -> set[str]:
    """The passes on kernels that the program shows at work, each of which left its results as they were."""
    c = compiled(case, 2, TARGETS["sm_90"], torch.float32)
    operands = case.given(case.tiny, torch.float32)
    for where, before, after in pairs(c, operands, bound(c.program, operands, case.scalars)):
        try:
            library.agree(case, case.tiny, torch.float64, after, before)
        except AssertionError as error:
            error.add_note(where)
            raise
    return {s.name for s in c.stages if s.changed} & {*PASSES}


def check_window() -> set[str]:
    """The passes on kernels that a causal convolution shows at work."""
    program = driver.elaborate(driver.parse(WINDOW, "window"))
    c = driver.compile_program(
        program, 2, TARGETS["sm_90"], {"b": 32, "n": 4096, "x": 4096, "r": 3, "c": 256, "o": 256}
    )
    rng = np.random.default_rng(0)
    shapes = {"X": (2, 70, 20), "W": (3, 20, 18)}
    operands = {name: torch.from_numpy(rng.standard_normal(shape)).bfloat16() for name, shape in shapes.items()}
    for where, (before,), (after,) in pairs(c, operands, bound(program, operands)):
        np.testing.assert_allclose(after.numpy(), before.numpy(), rtol=1e-12, atol=1e-12, err_msg=where)
    return {s.name for s in c.stages if s.changed} & {*PASSES}


def check_walk() -> set[str]:
    """The passes on kernels that a walk along columns shows at work."""
    program = driver.elaborate(driver.parse("def f(X[j, i]: f32):\n    Y[i] = sum[j](X[j, i])\n    return Y\n", "walk"))
    c = driver.compile_program(program, 2, TARGETS["sm_90"], {"i": 512, "j": 1 << 16})
    operands = {"X": torch.from_numpy(np.random.default_rng(0).standard_normal((70, 3))).float()}
    for where, (before,), (after,) in pairs(c, operands, bound(program, operands)):
        np.testing.assert_allclose(after.numpy(), before.numpy(), rtol=1e-12, atol=1e-12, err_msg=where)
    return {s.name for s in c.stages if s.changed} & {*PASSES}


def test_a_sample_of_the_library_a_window_and_a_walk_show_every_pass_at_work() -> None:
    shown = [check_library(case) for case in CASES if case.name in SAMPLE]
    assert set().union(*shown, check_window(), check_walk()) == {*PASSES}


def test_random_numbers_beside_one_number_are_of_double_precision() -> None:
    """A tile of single precision times one number of double precision, without axes, is rounded by torch."""
    text = (
        "def f(x[i], y[]):\n    axis j = 1\n    T[j]: f64 = sum[i](x[i] * rand(7, i) * 0.5 ** j * y[])\n    return T\n"
    )
    program = driver.elaborate(driver.parse(text, "random"))
    c = driver.compile_program(program, 0, INTERPRETER, LONG, verify=False)
    operands = {"x": torch.linspace(0.1, 1, 5), "y": torch.tensor(0.3)}
    for where, (before,), (after,) in pairs(c, operands, bound(program, operands)):
        np.testing.assert_allclose(after.numpy(), before.numpy(), rtol=1e-12, err_msg=where)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_library(case: library.Case) -> None:
    assert check_library(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(10))
@given(case=cases(most=6), level=levels, long=st.booleans())
@settings(ANY, max_examples=300, derandomize=False)
def test_many_random_programs(_batch: int, case: Case, level: int, long: bool) -> None:
    check_program(case, level, long)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(10))
@given(case=cascades(most=10), level=levels, long=st.booleans(), target=targets)
@settings(ANY, max_examples=100, derandomize=False)
def test_many_random_cascades(_batch: int, case: Cascade, level: int, long: bool, target: str) -> None:
    check_cascade(case, level, long, target)
