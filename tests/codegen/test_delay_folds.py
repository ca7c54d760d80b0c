"""Walks whose folds wait until they end: what they compute, which may wait, and what threads do meanwhile."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import einc
from einc import tile
from einc.base.errors import CallError
from einc.base.targets import INTERPRETER, TARGETS, Target
from einc.base.types import INT
from einc.binding import bind
from einc.codegen.run.aot import compile_ahead
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.evaluate import evaluate
from einc.runtime.tensors import layout
from einc.tile.asked import check_heeded, choice
from einc.tile.walk import loops
from tests.passes.test_cascades import ANY
from tests.support import padded
from tests.support.backends import TORCH
from tests.support.compiled import Array, agree, definition, magnitude, precision, run_in_torch, runner
from tests.support.sass import disassembled
from tests.support.sass import loops as walks

SM_90 = TARGETS["sm_90"]
LONG = {"i": 512, "j": 1 << 16}
FEW = 16  # positions of a block, so that an axis of a test has several
ARGMAX = definition("X[i, j]: f32\n V[i], I[i] = argmax[j](X[i, j], j)\n return V, I")


def made(text: str, target: Target = SM_90, **choices: object) -> Compiled:
    """The kernels for long rows."""
    asked = tuple(choice(name, value) for name, value in choices.items())
    return compile_program(elaborate(parse(text)), 2, target, LONG, choices=asked)


def kernels(c: Compiled) -> tuple[tile.Kernel, ...]:
    assert c.state.schedule is not None
    return c.state.schedule.kernels


def states(c: Compiled) -> list[tile.Carried]:
    """The states of walks that have all positions of a block."""
    return [s for k in kernels(c) for loop in loops(k.body) for s in loop.carried if loop.axis.name in s.type.axes]


# ---------------------------------------------------------------------------------------------------------------------
# What they compute

FOLDS = {
    "sum": "sum[j]({x})", "squares": "sum[j]({x} ** 2)", "prod": "prod[j]({x})", "max": "max[j]({x})",
    "min": "min[j]({x})", "any": "any[j]({x} > 1)", "all": "all[j]({x} > -2)",
    "masked": "max[j](where(j <= i, {x}, -inf))", "argmax": "argmax[j]({x})", "argmin": "argmin[j]({x})",
}  # fmt: skip


@st.composite
def walked(draw: st.DrawFn) -> tuple[str, Array]:
    """Some folds of rows or of columns, with equal terms and some that are not finite."""
    n, length = draw(st.integers(1, 5)), draw(st.integers(0, 70))
    names = [name for name in FOLDS if length or not name.startswith("arg")]  # a position of nothing is an error
    folds = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
    dtype, dims = draw(st.sampled_from(["f32", "bf16", "f16"])), draw(st.sampled_from(["i, j", "j, i"]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    x = rng.integers(-5, 6, (n, length)) / 4.0
    for bad in draw(st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), max_size=2)) if length else ():
        x[rng.integers(n), rng.integers(length)] = bad
    if draw(st.booleans()):
        x[rng.integers(n)] = -math.inf
    lines = [f"R{k}[i] = {FOLDS[fold].format(x=f'f32(X[{dims}])')}" for k, fold in enumerate(folds)]
    results = ", ".join(f"R{k}" for k in range(len(folds)))
    return definition(f"X[{dims}]: {dtype}\n" + "\n".join([*lines, f"return {results}"])), x if dims == "i, j" else x.T


def check(case: tuple[str, Array], how: str) -> None:
    text, x = case
    c = made(text, folds="late", BJ=FEW)
    assert states(c)
    (operand,) = c.program.operands
    given = torch.from_numpy(x.copy()).to(TORCH[operand.dtype.name])
    wanted = evaluate(c.program, {"X": given.double().numpy()}, {})
    bindings = bind(c.program, {"X": x.shape}, {})
    if how == "interpret":
        found = runner(c)(given)
    else:
        found = (padded.run_compiled if how == "padded" else run_in_torch)(c, {"X": given}, bindings)
    for name, got, value in zip(c.program.results, found, wanted, strict=True):
        agree(got, value, precision(c.program, name), magnitude(value))


@pytest.mark.parametrize("how", ["padded", "torch"])
@given(case=walked())
@settings(ANY, max_examples=40)
def test_random_walks(how: str, case: tuple[str, Array]) -> None:
    check(case, how)


@given(case=walked())
@settings(ANY, max_examples=8)
def test_random_walks_in_the_interpreter(case: tuple[str, Array]) -> None:
    check(case, "interpret")


def test_the_first_of_equal_terms_wins_wherever_it_lies_in_a_block() -> None:
    x = torch.zeros(4, 3 * FEW + 5)
    x[1, 2 * FEW + 3] = x[1, FEW + 7] = 2.0  # the later one first in its block
    x[2] = -math.inf
    x[3, 40] = x[3, 33] = math.nan
    c = made(ARGMAX, folds="late", BJ=FEW)
    value, place = runner(c)(x)
    assert place.tolist() == [0, FEW + 7, 0, 33]
    torch.testing.assert_close(value, x.max(1).values, equal_nan=True, rtol=0, atol=0)


def test_parts_of_a_walk_that_have_no_positions() -> None:
    """Their states come after all others, though each term is the least there is."""
    text = definition("X[i, j]: f32\n I[i] = argmax[j](X[i, j])\n return I")
    x = torch.full((3, 2 * FEW), -math.inf)
    x[1, 20] = 0.0
    c = made(text, folds="late", parts=8, BJ=FEW)
    assert len(kernels(c)) == 2
    assert runner(c)(x)[0].tolist() == [0, 20, 0]
    (found,) = run_in_torch(c, {"X": x}, bind(c.program, {"X": x.shape}, {}))
    assert found.tolist() == [0, 20, 0]


def test_texts_of_kernels_with_such_walks_read_back_and_run() -> None:
    x = torch.randn(3, 70)
    for stage in made(ARGMAX).stages:
        if stage.changed and stage.state.schedule is not None:
            value, place = einc.compile(stage.full)(x)
            assert torch.equal(value, x.amax(1))
            assert torch.equal(place, x.argmax(1))


# ---------------------------------------------------------------------------------------------------------------------
# Which wait


def test_positions_are_carried_as_wide_as_they_are() -> None:
    c = made(ARGMAX)
    value, place = states(c)
    assert place.type.dtype == INT
    assert value.type.axes == place.type.axes
    assert place.type.axes[-1] == "j"


@pytest.mark.parametrize(
    "text",
    [
        "X[i, j]: f32\n Y[i] = logsumexp[j](X[i, j])",
        "X[i, j]: f32\n Y[i] = var[j](X[i, j])",
        "X[i, j]: f32\n Y[i, j] = sum[k](where(k <= j, X[i, k], 0))",
        "X[i, j]: f32, W[j, k]: f32\n Y[i, k] = X[i, j] * W[j, k]",
    ],
    ids=["moved", "read", "prefixes", "dots"],
)
def test_states_that_do_more_than_combine_fold_at_every_step(text: str) -> None:
    c = made(definition(f"{text}\n return Y"), folds="late", parts=1)
    assert not states(c)
    with pytest.raises(CallError, match="there is no folds to choose"):
        check_heeded([choice("folds", "late")], kernels(c))


def test_short_walks_fold_at_every_step() -> None:
    program = elaborate(parse(ARGMAX))
    c = compile_program(program, 2, SM_90, {"i": 512, "j": 4096})
    assert [k.choices.folds for k in kernels(c)] == ["early"]
    assert not states(c)


def test_torch_has_no_such_walks() -> None:
    c = made(ARGMAX, INTERPRETER)
    assert not states(c)
    assert not any(k.choices.folds for k in kernels(c))


def test_what_is_asked_for_is_done() -> None:
    assert not states(made(ARGMAX, folds="early"))
    with pytest.raises(CallError, match="early or late"):
        choice("folds", "sometimes")


# ---------------------------------------------------------------------------------------------------------------------
# What threads do


@pytest.mark.parametrize(("fold", "columns"), [("argmax", False), ("argmax", True), ("sum", True)])
def test_threads_exchange_nothing_on_the_way(fold: str, columns: bool) -> None:
    dims, shape = ("r, n", (60781, 525)) if columns else ("n, r", (525, 60781))
    program = elaborate(parse(definition(f"X[{dims}]: f32\n Y[n] = {fold}[r](X[{dims}])\n return Y")))
    lying = {"X": layout(torch.empty(shape, device="meta"))}
    extents = bind(program, {"X": shape}, {}).extents
    c = compile_program(program, 2, SM_90, extents, layouts=lying)
    assert kernels(c)[0].choices.folds == "late"
    walking = next(iter(compile_ahead(c.emitted, SM_90, {**extents, "split": kernels(c)[0].choices.parts})))
    assert walking.spills == 0
    assert (found := walks(disassembled(walking.stages["cubin"]), "LDG"))
    assert not any(re.search(r"BAR\.SYNC|SHFL", line) for walk in found for line in walk)
