"""Every stage of a compilation is text that reads back: programs to equal programs, kernels to equal kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

import einc
from einc import driver, tile
from einc.base.recursion import make_room
from einc.base.source import Source
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import BF16, BOOL, F16, F32, F64, I32, I64, INT
from einc.binding import Bindings, completed
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.ein import Cast, Expr, Monoid, Program, Read
from einc.ein.monoids import MONOIDS
from einc.ein.printer import print_program
from einc.ein.rewriting import bottom_up
from einc.explain.plans import plans_of
from einc.frontend.tiles.kernels import read_kernels
from einc.stages import Stage
from einc.tile import Block, Dot, Fill, Fold, Let, Lit, Load, Ref, Scan, Store, TileType
from einc.tile.printer import print_schedule
from tests.compiler.test_evaluate import RECURRENCE
from tests.library.cases import agree
from tests.support import tileprograms
from tests.support.random_programs import programs
from tests.support.tileprograms import Scheduled, Sized, axis, conj, elem, inside, kernel, let, load, with_sizes
from tests.whole.test_library import CASES, compiled

SAMPLE = ("attention/paged", "attention/forgetting", "rows/layernorm_matmul")


def read(schedule: tile.Schedule) -> tile.Schedule:
    return read_kernels(Source("kernels", print_schedule(schedule)), 0).schedule


def again(c: Compiled, stage: Stage) -> Compiled:
    """The text of a stage, compiled for the same machine and sizes."""
    text = parse(stage.full)
    program = elaborate(text)
    extents = completed(program, Bindings(dict(c.context.sizes), {})).extents
    begin = driver.given(text, program)
    return compile_program(program, c.context.level, c.context.target, extents, begin=begin)


def unsettled(program: Program) -> Program:
    """The program without what a text leaves to be settled anew: the types that contractions multiply in, and with
    them the casts of tensors to the types that they are stored in."""
    dtypes = program.dtypes()

    def bare(e: Expr) -> Expr:
        match e:
            case Cast(dtype, Read(tensor=name) as read) if dtypes[name] == dtype:
                return read
            case _:
                return e

    return replace(
        program, equations=tuple(replace(e.map(lambda b: bottom_up(b, bare)), product=None) for e in program.equations)
    )


def check_stages(c: Compiled) -> None:
    """Every stage reads back equal, and from kernels on the passes that remain give the same."""
    for stage in c.stages:
        text = parse(stage.full)
        assert unsettled(elaborate(text)) == unsettled(stage.state.program)
        if stage.state.schedule is None:
            assert text.kernels is None
        else:
            assert text.kernels is not None
            assert text.kernels.schedule == stage.state.schedule
            assert text.kernels.after == stage.name


# ---------------------------------------------------------------------------------------------------------------------
# Kernels written by hand


def everything() -> Scheduled:
    """No kernel computes like this: each kind of node, and literals where nothing tells their type or all does."""
    p, schedule = tileprograms.two_kernels()
    row, zero = TileType(F32, ("i",)), Fill(Lit(0, F32))
    some, total = Ref("some"), Ref("sum")
    at_fixed = Load("X", (Ref("i"), Lit(0, INT)), F32, (True, False))
    made = schedule.kernels[1]
    body = (
        inside("i"),
        inside("j"),
        let("lowest", F32, "", Lit("lowest", F32)),
        let("flag", BOOL, "", elem("and", Lit(True, BOOL), elem("lt", Lit(0, I64), Lit(-1, I64)))),
        let("filled", F64, "", Fill(Lit(0, F64))),
        let("some", F32, "i j", elem("max", Lit("lowest", F32), at_fixed)),
        let("apart", F32, "i j", replace(load("X", "i j", mask="i"), apart=True)),
        let("sum", F32, "i j", elem("sub", load("X", "i j", mask="i"), elem("sub", load("X", "i j"), Ref("lowest")))),
        let("signs", F32, "i j", elem("neg", elem("pow", elem("neg", Ref("sum")), elem("neg", Lit(-2.0, F32))))),
        let("twice", F32, "i j", elem("add", total, Dot(some, total, zero, "i", "j", "k"))),
        let("thrice", F32, "i j", elem("add", Dot(some, total, total, "i", "j", "k"), total)),
        let("each", F32, "b i j", Dot(some, total, Fill(Lit(0.0, F32)), "i", "j", "k", "b")),
        Let(("v", "p"), (row, TileType(I64, ("i",))), Fold(MONOIDS["argmax"], "j", (Ref("some"), Lit(0, I64)))),
        let("last", F32, "i j", Scan(MONOIDS["sum"], "j", (Ref("some"),), True)),
        let("exact", INT, "", elem("exactdiv", tile.ExtentOf("i"), elem("floordiv", Lit(6, INT), Lit(3, INT)))),
        let("chain", BOOL, "i", elem("eq", elem("lt", Ref("i"), Lit(3, INT)), elem("not", Lit(False, BOOL)))),
        Store("R", (Ref("i"), Ref("j")), Ref("last"), TileType(F32, ("j", "i")), conj(Ref("i_in"), Ref("j_in"))),
    )
    grid = (
        axis("b", "row", None),
        axis("i", "batch", Block(4, 4), "i j"),
        tile.TileAxis("j", ("j",), "column"),
        axis("to", "row", None),
    )
    whole = (axis("k", "row", Block(16, tile.WHOLE)), Sized("e", (), "whole", True, Block(1, 2)))
    chosen = tile.Choices(warps=1, stages=7, section=3, ways=(("X", "pointer"),))
    more = replace(made, grid=grid, whole=whole, body=body, choices=chosen, title=("a b  ", "", "-- c"))
    return p, replace(schedule, kernels=(schedule.kernels[0], replace(made, extents=("j", "i")), with_sizes(more)))


def affine() -> Monoid:
    return replace(RECURRENCE, name="sum", inverse=RECURRENCE.combine[0])


HAND_MADE: dict[str, Scheduled] = {
    "matmul": tileprograms.matmul(),
    "bf16": tileprograms.matmul(BF16, F32),
    "f64": tileprograms.matmul(F64),
    "integers": tileprograms.matmul(I32),
    "complex": tileprograms.complex_product(),
    "statistics": tileprograms.softmax_statistics(F16),
    "gather": tileprograms.gather(),
    "flattened": tileprograms.flattened(),
    "transposed": tileprograms.transposed(),
    "power": tileprograms.power(-2.5),
    "random": tileprograms.random(4),
    "conversion": tileprograms.conversion(I32, F16),
    "scaled": tileprograms.scaled(),
    "two kernels": tileprograms.two_kernels(),
    "everything": everything(),
    "recurrence": tileprograms.recurrence(RECURRENCE),
    "a monoid named like another": tileprograms.recurrence(affine()),
    **{name: tileprograms.reduction(name, BOOL if name == "any" else F32) for name in ("sum", "any", "argmin")},
    **{name: tileprograms.renamed(name) for name in ("lowest", "where", "load", "nan", "kernel", "store", "within")},
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_kernels_written_by_hand_read_back_equal(name: str) -> None:
    _, schedule = HAND_MADE[name]
    assert read(schedule) == schedule


def test_types_of_literals_are_written_only_where_their_place_does_not_tell() -> None:
    text = print_schedule(everything()[1])
    assert "flag: bool = true and (0: i64) < (-1: i64)" in text
    assert "lowest: f32 = lowest" in text  # nothing is called so yet
    assert "max((lowest: f32), load X[i?, 0] by pointer)" in text
    assert "signs[i, j]: f32 = -(-sum) ** -(-2.0)" in text
    assert "twice[i, j]: f32 = sum + (dot[i, j : k](some, sum))" in text
    assert "thrice[i, j]: f32 = sum + dot[i, j : k](some, sum) + sum" in text
    assert "v[i]: f32, p[i]: i64 = argmax[j](some, 0)" in text


def test_deep_values_read_back() -> None:
    make_room(1100)
    p, schedule = tileprograms.elementwise_rows(F32)
    value: tile.Value = Ref("x")
    for _ in range(700):
        value = elem("add", value, elem("exp", Lit(1.0, F32)))
    for _ in range(300):
        value = elem("exp", value)
    made = kernel(p, 0, schedule.kernels[0].grid, [let("x", F32, "i j", load("X", "i j")), let("y", F32, "i j", value)])
    deep = tile.Schedule((made,), ())
    assert read(deep) == deep


# ---------------------------------------------------------------------------------------------------------------------
# What the compiler makes


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_every_stage_of_random_programs_reads_back(p: Program) -> None:
    read = elaborate(parse(print_program(p)))  # where a type is written, what reads the tensor says so
    for level in (0, 2):
        check_stages(compile_program(read, level, INTERPRETER))


@pytest.mark.parametrize("name", SAMPLE)
def test_every_stage_reads_back(name: str) -> None:
    case = next(c for c in CASES if c.name == name)
    c = compiled(case, 2, TARGETS["sm_90"], torch.float16 if torch.float16 in case.dtypes else case.dtypes[0])
    check_stages(c)
    assert c.state.schedule is not None
    assert c.state.plans == plans_of(c.state.program, c.state.schedule)
    for stage in c.stages:
        if stage.state.schedule is not None:
            assert again(c, stage).state.schedule == c.state.schedule


@pytest.mark.parametrize(
    "text",
    [
        "def f(X[i, j]: c64, Y[j]: c64):\n    T[i] = sum[j](X[i, j] * Y[j])\n    return T\n",
        "def f(A[i, j], B[j, k], C[k]):\n    T[i] = sum[j, k](A[i, j] * B[j, k] * C[k])\n    return T\n",
    ],
)
def test_kernels_stand_below_equations_that_no_pass_has_seen(text: str) -> None:
    made = compile_program(elaborate(parse(text)), 0, INTERPRETER).stage("lower").brief
    below = f"{text}\nkernels after lower\n{made}\n"
    program = elaborate(parse(below))
    found = compile_program(program, 2, INTERPRETER, begin=driver.given(parse(below), program))
    (plan,) = plans_of(found.state.program, found.state.schedule or tile.Schedule((), ()))
    assert plan.of(found.state.program).plan == plan
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.complex64 if "c64" in text else np.float32)
    rest = [x[0]] if "c64" in text else [x.T, x[:, 0]]
    np.testing.assert_allclose(einc.compile(below)(x, *rest), einc.compile(text)(x, *rest), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_stage_of_the_library_reads_back(case: Any, level: int) -> None:
    for name in ("sm_90", "interpret"):
        for dtype in case.dtypes:
            check_stages(compiled(case, level, TARGETS[name], dtype))


def runs(case: Any) -> None:
    """The text after each pass does what the program does."""
    operands = case.given(case.tiny, torch.float32)
    wanted = case.wanted(operands)
    stages = einc.compile(case.path).compiled(**operands, **case.scalars).stages
    for stage in stages:
        if stage.changed:
            found = einc.compile(stage.full)(**operands, **case.scalars)
            agree(case, case.tiny, torch.float32, found, wanted)


@pytest.mark.parametrize("name", ["attention/paged", "rows/layernorm_matmul"])
def test_the_text_after_each_pass_runs(name: str) -> None:
    runs(next(c for c in CASES if c.name == name))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_text_after_each_pass_runs_throughout_the_library(case: Any) -> None:
    runs(case)


def test_walks_in_parts_read_back_and_run() -> None:
    text = "def f(X[i, j], V[j, e]):\n    O[i, e] = softmax[j](X) * V[j, e]\n    return O\n"
    x, v = torch.randn(3, 200, dtype=torch.float64), torch.randn(200, 5, dtype=torch.float64)
    split = einc.compile(text, splits=4)
    assert "axis split = 4" in split.dump("lower", x, v)
    for stage in (s for s in split.compiled(x, v).stages if s.changed and s.state.schedule is not None):
        torch.testing.assert_close(einc.compile(stage.full)(x, v), x.softmax(1) @ v)


# ---------------------------------------------------------------------------------------------------------------------
# Texts of kernels as programs

ROWS = """def f(X[i, j]: f32):
    M[i] = max[j](X[i, j])
    return M

kernels after lower
kernel M
  reads X[i, j]: f32
  writes M[i]: f32
  takes |i|, |j|
  grid i[?]
    m[i]: f32 = lowest
    loop j[?]
      top[i]: f32 = max[j](load X[i, j])
      next[i]: f32 = max(m, top)
      m = next
    store M[i] = m as f32[i]
"""


def test_the_passes_that_remain_run() -> None:
    x = torch.randn(7, 50)
    program = einc.compile(ROWS)
    assert program.dump().startswith("lower\nplace-rows (unchanged)\nchoose-tiles\nmask-edges\n")
    torch.testing.assert_close(program(x), x.amax(1))
    torch.testing.assert_close(program(x, backend="interpret"), x.amax(1))
    first = program.dump("lower")
    assert einc.compile(first).dump("lower") == first


def test_kernels_without_a_stage_are_complete() -> None:
    done = einc.compile(ROWS).dump("load-ahead").replace("kernels after load-ahead\n", "kernels\n")
    program = einc.compile(done)
    assert program.dump() == "load-ahead\n"
    torch.testing.assert_close(program(torch.ones(2, 3)), torch.ones(2))


def test_what_the_kernels_say_is_done_and_not_what_the_equations_do() -> None:
    doubled = ROWS.replace("= m as", "= m * 2.0 as")
    x = torch.randn(4, 9)
    torch.testing.assert_close(einc.compile(doubled)(x), 2 * x.amax(1))
    np.testing.assert_allclose(einc.compile(doubled)(x, backend="evaluate"), x.amax(1).numpy())


def test_a_kernel_is_no_word_of_the_language() -> None:
    a, kernel_ = torch.randn(3), torch.randn(3)
    text = "kernels[i] = kernel[i] * within[i]\n"
    assert set(einc.compile(text).text.operands) == {"kernel", "within"}
    torch.testing.assert_close(einc.compile(text)(kernel=a, within=kernel_), a * kernel_)
    assert parse("kernel h, h w -> kernel w").form == "einsum"
    assert parse("S[i] = sum[within : within < |within| within within >= 0](A[i, within])").kernels is None
