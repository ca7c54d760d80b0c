"""Random programs through every pass and the interpreter mean what the evaluator says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from einc import driver, tile
from einc.base.targets import INTERPRETER
from einc.binding import bind
from einc.ein import Program
from einc.evaluate import evaluate
from einc.runtime.execution import execute, run_in_torch, runner
from tests.support.random_programs import Case, cases

_TORCH = {
    "bool": torch.bool, "i8": torch.int8, "i32": torch.int32, "i64": torch.int64,
    "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64,
    "c64": torch.complex64, "c128": torch.complex128,
}  # fmt: skip
# Relative error of a few dozen operations, each rounded once: 64 units in the last place of the stored type.
_ULPS = 64


def tensors(case: Case) -> list[torch.Tensor]:
    """The operands as torch tensors of their declared types."""
    return [torch.from_numpy(np.asarray(case.operands[p.name])).to(_TORCH[p.dtype.name]) for p in case.program.operands]


def precision(program: Program, name: str) -> float:
    """One unit in the last place, relative: of the result's type, or of the narrowest arithmetic on the way to it."""
    dtypes = program.dtypes()
    floats = [t for t in dtypes.values() if (t.is_float or t.is_complex) and t.bits > 0]
    wide = all(t.part.bits == 64 for t in floats)
    return {"f16": 2.0**-10, "bf16": 2.0**-7}.get(dtypes[name].name, 2.0**-52 if wide else 2.0**-23)


def magnitude(value: np.ndarray[Any, Any]) -> float:
    """The size of the largest finite value, at least that of the values programs are drawn with."""
    finite = np.abs(value[np.isfinite(value)]) if value.dtype.kind in "fc" else np.zeros(0)
    return float(max(finite.max(initial=0.0), 16.0))


def agree(got: torch.Tensor, wanted: np.ndarray[Any, Any], ulp: float, scale: float) -> None:
    """Equal, or as near as units in the last place and the magnitudes in the program allow."""
    if got.is_floating_point() or got.is_complex():
        found = got.to(torch.complex128 if got.is_complex() else torch.float64).numpy()
        np.testing.assert_allclose(found, wanted, rtol=_ULPS * ulp, atol=_ULPS * ulp * scale)
    else:
        np.testing.assert_array_equal(got.numpy(), wanted)


def check(case: Case, level: int) -> None:
    """The program compiled at a level and run gives what it means."""
    program: Program = case.program
    scalars: Mapping[str, Any] = case.scalars
    wanted = evaluate(program, case.operands, scalars)
    found = execute(program, tensors(case), scalars, case.sizes, level, backend="interpret")
    for name, got, value in zip(program.results, found, wanted, strict=True):
        agree(got, value, precision(program, name), magnitude(value))


@pytest.mark.parametrize("level", [0, 2])
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_random_programs(level: int, case: Case) -> None:
    check(case, level)


@pytest.mark.parametrize("text", ["ik,kj->ij", "bik,bkj->bij"])
def test_sections_of_a_grid_cover_it(text: str) -> None:
    target = replace(INTERPRETER, dot=(16, 16, 32))
    program = driver.elaborate(driver.parse(text, "<test>"))
    compiled = driver.compile_program(program, 2, target, {"b": 2, "i": 270, "j": 300, "k": 20})
    assert "# sections of" in compiled.source
    shapes = [(270, 20), (20, 300)] if text[0] == "i" else [(2, 270, 20), (2, 20, 300)]
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
        loads = (v for v in tile.values_in(kernel.body) if isinstance(v, tile.Load) and v.tensor == "B")
        grid = {a for axis in kernel.grid for a in axis.axes}
        assert "j" in grid or all(v.mask is not None and tile.ExtentOf("j") in tile.walk_values(v.mask) for v in loads)
    operands = {"A": torch.zeros(5, 0), "B": torch.zeros(0)}
    bindings = bind(program, {name: tuple(x.shape) for name, x in operands.items()})
    for found in (run_in_torch(compiled, operands, bindings, None), runner(compiled)(*operands.values())):
        assert torch.equal(found[0], torch.zeros(5))
        assert found[1].shape == (5, 0)
