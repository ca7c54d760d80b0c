"""Tiles of folds: of rows and of columns as they lie in memory, few or many, read at once or one by one."""

from __future__ import annotations

import re

import pytest
import torch

import einc
from einc import tile
from einc.base.targets import TARGETS
from einc.binding import bind
from einc.codegen.run.aot import CompiledKernel, compile_ahead
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.runtime.tensors import layout
from tests.support.sass import disassembled, loops

SM_90 = TARGETS["sm_90"]
ROWS = "def f(X[n, r]: {dtype}):\n    Y[n] = {fold}[r](f32(X[n, r]))\n    return Y\n"
COLUMNS = ROWS.replace("X[n, r]:", "X[r, n]:").replace("X[n, r])", "X[r, n])")
NORM = "def f(X[n, r]: bf16):\n    Y[n, r] = bf16(rmsnorm[r](f32(X[n, r])))\n    return Y\n"


def made(text: str, *shape: int, dtype: str = "bf16", fold: str = "var", **others: tuple[int, ...]) -> Compiled:
    """The kernels for an operand X, and others, that lie in memory as they are made."""
    program = elaborate(parse(text.format(dtype=dtype, fold=fold)))
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    shapes = {"X": shape, **others}
    lying = {n: layout(torch.empty(s, dtype=kind, device="meta")) for n, s in shapes.items()}
    return compile_program(program, 2, SM_90, bind(program, shapes, {}).extents, layouts=lying)


def kernels(c: Compiled) -> tuple[tile.Kernel, ...]:
    assert c.state.schedule is not None
    return c.state.schedule.kernels


def size(kernel: tile.Kernel, axis: str) -> int:
    block = kernel.choices.tile(axis)
    assert block is not None
    return block.cap


def ahead(c: Compiled, **sizes: int) -> list[CompiledKernel]:
    return list(compile_ahead(c.emitted, SM_90, sizes))


@pytest.mark.parametrize(("width", "rows"), [(64, 16), (394, 2), (512, 2), (1000, 1)])
@pytest.mark.parametrize("fold", ["sum", "logsumexp", "var", "argmax"])
def test_one_warp_folds_what_it_holds_without_waiting_for_another(width: int, rows: int, fold: str) -> None:
    c = made(ROWS, 60000, width, dtype="f32" if fold == "argmax" else "bf16", fold=fold)
    (kernel,) = kernels(c)
    assert (size(kernel, "n"), kernel.choices.warps) == (rows, 1)
    (compiled,) = ahead(c, n=60000, r=width)
    assert "BAR.SYNC" not in disassembled(compiled.stages["cubin"])


@pytest.mark.parametrize(("width", "warps"), [(901, 4), (2001, 8), (14637, 32)])
def test_rows_that_are_read_one_by_one_go_in_pairs_with_fewer_elements_to_a_thread(width: int, warps: int) -> None:
    """One row of each program left a processor with half as many loads on their way."""
    (kernel,) = kernels(made(NORM, 2273, width))
    assert (size(kernel, "n"), kernel.choices.warps) == (2, warps)
    (aligned,) = kernels(made(NORM, 2273, width // 16 * 16))
    assert size(aligned, "n") == 1
    assert aligned.choices.warps <= warps
    (few,) = kernels(made(NORM, 19, width))
    assert size(few, "n") == 1


@pytest.mark.parametrize(("text", "shape"), [(NORM, (24, 96)), (NORM.replace("[n, r]", "[r, n]"), (181, 122))])
def test_few_positions_are_spread_over_processors(text: str, shape: tuple[int, int]) -> None:
    c = made(text, *shape)
    (kernel,) = kernels(c)
    count = shape[0] if text is NORM else shape[1]
    programs = -(-count // size(kernel, "n"))
    assert programs == count or 4 * programs > SM_90.rates.processors


@pytest.mark.parametrize("fold", ["logsumexp", "var"])
def test_one_warp_walks_a_part_of_columns_that_are_folded_at_every_step(fold: str) -> None:
    """Several exchange what they have folded."""
    c = made(COLUMNS, 35136, 416, fold=fold)
    parts, merged = kernels(c)
    assert (size(parts, "n"), parts.choices.warps) == (16, 1)
    walking = ahead(c, r=35136, n=416, split=132)[0]
    sass = disassembled(walking.stages["cubin"])
    assert (found := loops(sass))
    assert not any("BAR.SYNC" in line for walk in found for line in walk)
    assert re.search(r"LDG\.E\.(128|64)", sass)
    assert -(-416 // size(merged, "n")) * 4 > SM_90.rates.processors


SOFTMAX = "def f(X[r, n]: bf16):\n    Y[r, n] = softmax[r](X[r, n])\n    return Y\n"


@pytest.mark.parametrize("shape", [(1467, 39590), (1467, 39591), (1346, 23100)])
def test_several_warps_walk_along_columns_that_are_not_in_parts(shape: tuple[int, int]) -> None:
    """Two sectors of a row at least come together, wherever it begins."""
    (kernel,) = kernels(made(SOFTMAX, *shape))
    assert (size(kernel, "n"), size(kernel, "r"), kernel.choices.warps) == (32, 256, 8)


def test_steps_are_no_longer_than_parts() -> None:
    parts, _ = kernels(made(COLUMNS, 7320, 16, fold="sum"))
    assert parts.parts_of
    assert size(parts, "r") <= 2 * -(-7320 // parts.choices.parts)


HELD = """def f(X[n]: bf16, Y[r]: bf16):
    P[r, n] = softmax[n](X[n] * Y[r])
    Z[n] = sum[r](P[r, n])
    return Z
"""


def test_what_a_block_holds_whole_has_no_size_where_states_of_parts_are_merged() -> None:
    """A fold along the parts is of columns, but there is no other tile for those that one would leave."""
    parts, merge = kernels(made(HELD, 1680, Y=(1056,)))
    assert merge.merges
    assert [a.name for a in parts.whole] == ["n"]
    assert all(size(k, a.name) == tile.WHOLE for k in (parts, merge) for a in k.whole)


# Sums over what is neither the rows nor the columns of memory, with several rows to a thread.
BETWEEN = "def f(X[b, n, j]: f32):\n    Y[b, j] = {fold}[n](X[b, n, j])\n    return Y\n"


@pytest.mark.aot
@pytest.mark.parametrize("fold", ["sum", "max", "min", "prod"])
def test_triton_orders_no_elements_anew_to_fold_them(fold: str) -> None:
    """It would take the sum of one row for that of another: the rows of a thread come in another order then."""
    (compiled,) = ahead(made(BETWEEN, 2, 4, 1024, dtype="f32", fold=fold), b=2, n=4, j=1024)
    assert "allow_reorder" not in str(compiled.stages["ttgir"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("folds", ["early", "late"])
@pytest.mark.parametrize("shape", [(2, 4, 1024), (7, 3, 513), (1, 33, 5000), (64, 16, 4096)])
@pytest.mark.parametrize("fold", ["sum", "max"])
def test_folds_between_other_axes_keep_rows_apart(fold: str, shape: tuple[int, int, int], folds: str) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = x.double().sum(1) if fold == "sum" else x.double().amax(1)
    program = einc.compile(BETWEEN.format(fold=fold), choices={"folds": folds})
    assert (program(x.cuda()).cpu() - exact).abs().max() <= 1e-6 * shape[1] * exact.abs().max()
