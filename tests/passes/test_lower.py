"""Random programs through every pass and the interpreter mean what the evaluator says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from einc import driver, tile
from einc.base.targets import INTERPRETER
from einc.binding import bind
from einc.ein import Program
from einc.evaluate import evaluate
from einc.tile.walk import values_in, walk_values
from tests.support.compiled import agree, execute, in_small_tiles, magnitude, precision, run_in_torch, runner, tensors
from tests.support.random_programs import Case, cases


def check(case: Case, level: int) -> None:
    """The program compiled at a level and run gives what it means."""
    program: Program = case.program
    scalars: Mapping[str, Any] = case.scalars
    wanted = evaluate(program, case.operands, scalars)
    found = execute(program, tensors(case), scalars, level, backend="interpret")
    for name, got, value in zip(program.results, found, wanted, strict=True):
        agree(got, value, precision(program, name), magnitude(value))


@pytest.mark.parametrize("level", [0, 2])
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_random_programs(level: int, case: Case) -> None:
    check(case, level)


@pytest.mark.parametrize("text", ["ik,kj->ij", "bik,bkj->bij"])
def test_sections_of_a_grid_cover_it(text: str) -> None:
    program = driver.elaborate(driver.parse(text, "<test>"))
    sizes = {"b": 2, "i": 150, "j": 140, "k": 20}
    compiled = driver.compile_program(program, 2, INTERPRETER, sizes, backend=in_small_tiles(16))
    assert "# sections of" in compiled.source
    shapes = [(150, 20), (20, 140)] if text[0] == "i" else [(2, 150, 20), (2, 20, 140)]
    operands = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    (found,) = runner(compiled)(*operands)
    torch.testing.assert_close(found, torch.einsum(text, *operands), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hints", [{"i": 64, "j": 1 << 20}, {"i": 64, "j": 16}], ids=["walked", "whole"])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("index", ["0", "i // 2"])
def test_nothing_is_read_for_an_empty_reduction(index: str, level: int, hints: dict[str, int]) -> None:
    """No call checks the range of what an empty sum would read, and a load before the loop must not read it."""
    text = f"def f(A[i, j], B[k]):\n    return sum[j](max(A[i, j], B[{index}])), A[i, j] * B[{index}]\n"
    program = driver.elaborate(driver.parse(text, "<test>"))
    compiled = driver.compile_program(program, level, INTERPRETER, hints)
    assert compiled.state.schedule is not None
    for kernel in compiled.state.schedule.kernels:
        loads = (v for v in values_in(kernel.body) if isinstance(v, tile.Load) and v.tensor == "B")
        grid = {a for axis in kernel.grid for a in axis.axes}
        assert "j" in grid or all(v.mask is not None and tile.ExtentOf("j") in walk_values(v.mask) for v in loads)
    operands = {"A": torch.zeros(5, 0), "B": torch.zeros(0)}
    bindings = bind(program, {name: tuple(x.shape) for name, x in operands.items()})
    for found in (run_in_torch(compiled, operands, bindings, None), runner(compiled)(*operands.values())):
        assert torch.equal(found[0], torch.zeros(5))
        assert found[1].shape == (5, 0)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_mask_that_reads_a_composite_dimension(level: int) -> None:
    """What it is made of is read at the position along each axis of the dimension."""
    text = """def f(X[i, j], Y[i, j]):
    S[(i j)] = exp(X[i, j])
    E[i, j] = exp(where(S[i * |j| + j] > 1, X[i, j], -inf))
    T[i] = sum[j](E[i, j] * cos(Y[i, j]))
    return T, E, S
"""
    program = driver.elaborate(driver.parse(text))
    x, y = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    wanted = evaluate(program, {"X": x.numpy(), "Y": y.numpy()})
    for name, got, value in zip(program.results, execute(program, [x, y], level=level), wanted, strict=True):
        agree(got, value, precision(program, name), magnitude(value))
