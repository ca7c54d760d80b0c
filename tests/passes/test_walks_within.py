"""Walks within walks: which plans have them, and that their kernels give what the programs mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

import einc
from einc import driver, tile
from einc.base.targets import INTERPRETER, TARGETS
from einc.binding import bind
from einc.codegen import TRITON
from einc.derive import ahead, behind
from einc.evaluate import evaluate
from einc.explain.plans import plans_of
from einc.pipeline.plan import Plan
from einc.tile.walk import loops
from tests.support import padded
from tests.support.backends import in_pieces
from tests.support.compiled import agree, in_parts, in_small_tiles, magnitude, run_in_torch, runner
from tests.support.inner_walks import LONG, Case, case, inner_walks

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))
ULP = 2.0**-23

LOGSUMEXP = "Z[n, v] = X[n, d] * W[v, d]\nR[n] = logsumexp[v](Z)"
CROSS_ENTROPY = "Z[n, v] = X[n, d] * W[v, d]\nR[n] = logsumexp[v](Z) - Z[n, target[n]]"
NEAREST = "Z[n, v] = sum[d](W[v, d] ** 2) - 2 * sum[d](X[n, d] * W[v, d])\nR[n] = argmin[v](Z)"
FARTHEST = "Z[n, v] = sum[d]((X[n, d] - W[v, d]) ** 2)\nR[n] = max[v](Z)"
CONTRASTIVE = (
    "Z[n, v] = sum[d](X[n, d] * W[v, d]) * rsqrt(sum[d](X ** 2)) * rsqrt(sum[d](W ** 2))\n"
    "R[n] = logsumexp[v](Z) - Z[n, n]"
)
WIDE_HEADS = "Z[n, v] = X[n, d] * W[v, d]\nR[n, e] = softmax[v](Z) * V[v, e]"
PROGRAMS = {
    "logsumexp": LOGSUMEXP, "cross-entropy": CROSS_ENTROPY, "nearest": NEAREST, "farthest": FARTHEST,
    "contrastive": CONTRASTIVE, "wide heads": WIDE_HEADS,
}  # fmt: skip
SMALL = {"n": 18, "d": 70, "v": 130, "e": 3}


def compiled(
    text: str, sizes: dict[str, int], target: str = "interpret", splits: int | None = None, most: int | None = None
) -> driver.Compiled:
    """Compiled as if the axes were so long, with walks in so many parts and tiles of at most so many positions."""
    program = driver.elaborate(driver.parse(text, "<test>"))
    backend = TRITON if most is None else in_small_tiles(most)
    where = INTERPRETER if target == "interpret" else TARGETS[target]
    return driver.compile_program(program, 2, where, sizes, choices=in_parts(splits), backend=backend)


def schedule(c: driver.Compiled) -> tile.Schedule:
    assert c.state.schedule is not None
    return c.state.schedule


def walking(c: driver.Compiled) -> list[Plan]:
    return [p for p in c.state.plans if p.inner]


def check(c: driver.Compiled, it: Case, how: str) -> None:
    """The results are those that the text means, to the last units of f32."""
    operands = {name: torch.from_numpy(x) for name, x in it.operands.items()}
    bindings = bind(c.program, {name: tuple(x.shape) for name, x in operands.items()})
    if how == "padded":
        found = padded.run_compiled(c, operands, bindings)
    elif how == "triton":
        found = runner(c)(*operands.values())
    elif how == "pieces":
        with in_pieces(600):
            found = run_in_torch(c, operands, bindings)
    else:
        found = run_in_torch(c, operands, bindings)
    with np.errstate(all="ignore"):
        wanted = evaluate(c.program, it.operands)
    for got, value in zip(found, wanted, strict=True):
        agree(got, value, ULP, magnitude(value))


# ---------------------------------------------------------------------------------------------------------------------
# Plans


@pytest.mark.parametrize("body", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_no_tensor_of_all_pairs_is_stored(body: str) -> None:
    """Where d is too long to be held, the results of the contraction still stay in the kernel that reduces them."""
    c = compiled(case(body, SMALL).text, LONG | {"n": 1 << 15 if "Z[n, n]" in body else LONG["n"]}, "sm_90")
    (plan,) = walking(c)
    assert plan.walked == ("v",)
    assert plan.inner == (("d",),)
    pairs = [b.name for k in schedule(c).kernels for b in k.buffers if {"n", "v"} <= {a for dim in b.dims for a in dim}]
    assert pairs == []
    nested = [o for k in schedule(c).kernels for outer in loops(k.body) for o in loops(outer.body)]
    assert {o.axis.name for o in nested} == {"d"}


@pytest.mark.parametrize("d", [64, 128, 256, 512])
def test_what_can_be_held_is_held(d: int) -> None:
    c = compiled(case(LOGSUMEXP, SMALL).text, LONG | {"d": d}, "sm_90")
    assert not walking(c)
    assert any("d" in p.whole and p.walked == ("v",) for p in c.state.plans)


def test_two_contractions_of_their_own_length_share_a_kernel() -> None:
    """One is walked, and the other walks by itself afterwards: for the walk's rows and columns, not its blocks."""
    text = """def f(X[n, d], W[d, v], Y[n, e], V[e, v]):
    A[n, v] = X[n, d] * W[d, v]
    R[n, v] = A[n, v] * sigmoid(sum[e](Y[n, e] * V[e, v]))
    return R
"""
    c = compiled(text, {"n": 1 << 13, "v": 1 << 13, "d": 1 << 12, "e": 1 << 11}, "sm_90")
    (plan,) = c.state.plans
    assert (plan.walked, plan.inner) == (("d",), (("e",),))


def test_reductions_over_one_axis_that_follow_each_other_walk_it_in_turn() -> None:
    """A variance about a mean of the same long rows: each is a loop of its own, before the walk that needs them."""
    body = (
        "m[n] = sum[d](X[n, d]) / |d|\ns[n] = sum[d]((X[n, d] - m[n]) ** 2) / |d|\n"
        "Z[n, v] = sum[d]((X[n, d] - m[n]) * rsqrt(s[n] + 1) * W[v, d])\nR[n] = logsumexp[v](Z)"
    )
    it = case(body, SMALL)
    c = compiled(it.text, LONG, splits=1)
    (plan,) = walking(c)
    named = {eq.name: eq for eq in c.state.program.equations}
    within = [named[name] for name in plan.equations if named[name].over == ("d",)]
    assert all("d" not in eq.axes for eq in within)
    (kernel,) = (k for k in schedule(c).kernels if k.name == plan.name)
    outer = [s.axis.name for s in kernel.body if isinstance(s, tile.Loop)]
    assert outer.count("d") == len(within) - 1 > 0
    assert outer[-1] == "v"
    check(c, it, "padded")


def test_the_gradient_of_a_cross_entropy_reads_no_stored_logits() -> None:
    """The statistics of the softmax are saved, and the logits computed again in the kernel of their gradient."""
    program = driver.elaborate(driver.parse(case(CROSS_ENTROPY, SMALL).text, "<test>"))
    first = ahead(program, ("X", "W"), 2, TARGETS["sm_90"], LONG)
    c = driver.compile_program(first.program, 2, TARGETS["sm_90"], LONG)
    assert walking(c)
    assert all({"n", "v"} - {a for dim in b.dims for a in dim} for k in schedule(c).kernels for b in k.buffers)
    second = driver.compile_program(behind(first, program.results).program, 2, TARGETS["sm_90"], LONG)
    assert {a for p in second.program.operands for dim in p.dims for a in dim} == {"n", "d", "v"}
    assert [b.name for b in schedule(second).intermediates if b.dims] == ["dZ"]  # beside single numbers


# ---------------------------------------------------------------------------------------------------------------------
# Meaning


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("how", ["torch", "pieces", "padded", "triton"])
@pytest.mark.parametrize("body", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_programs(body: str, how: str, splits: int) -> None:
    it = case(body, SMALL | {"d": 40} if how == "triton" else SMALL)
    c = compiled(it.text, LONG, splits=splits, most=32 if how in ("padded", "triton") else None)
    assert walking(c)
    check(c, it, how)


@pytest.mark.parametrize("how", ["torch", "pieces", "padded"])
@given(it=inner_walks())
@settings(ANY, max_examples=15)
def test_random_programs(how: str, it: Case) -> None:
    """Sums, maxima and folds over d, scaled, capped and masked, reduced over v in one walk or two, in parts or not."""
    c = compiled(it.text, LONG, splits=1 + len(it.text) % 3, most=16 if how == "padded" else None)
    try:
        check(c, it, how)
    except Exception as failure:
        failure.add_note(it.text)
        raise


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("body", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_their_text_says_all_of_them(body: str, splits: int) -> None:
    """Kernels that are read back have the plans that they were made by, and give the same."""
    it = case(body, SMALL)
    c = compiled(it.text, LONG, splits=splits)
    assert plans_of(c.state.program, schedule(c)) == c.state.plans
    again = einc.compile(c.stages[-1].full)
    operands = [torch.from_numpy(x) for x in it.operands.values()]
    (wanted,) = evaluate(c.program, it.operands)
    agree(again(*operands), wanted, ULP, magnitude(wanted))


@pytest.mark.parametrize("target", [-1, 0, 129, 130, 1 << 40])
def test_what_is_picked_out_of_range_is_zero(target: int) -> None:
    it = case(CROSS_ENTROPY, SMALL)
    it.operands["target"][:] = target
    c = compiled(it.text, LONG)
    assert "Z_at" in {eq.name for eq in c.state.program.equations}
    check(c, it, "torch")


@pytest.mark.aot
@pytest.mark.parametrize("body", [LOGSUMEXP, CROSS_ENTROPY, NEAREST], ids=["logsumexp", "cross-entropy", "nearest"])
def test_they_compile_for_a_machine_at_the_speed_of_products(body: str) -> None:
    """The widest tile of a product, its operands in flight, and no register spilled."""
    from einc.codegen.run.aot import compile_ahead

    signature, rest = case(body, SMALL).text.split("\n", 1)
    c = compiled(f"{signature.replace('d]', 'd]: bf16')}\n{rest}", LONG, "sm_90")
    found = compile_ahead(c.emitted, TARGETS["sm_90"], LONG)
    main = next(k for k in found if "wgmma" in str(k.stages["ptx"]))
    assert (main.spills, main.warps) == (0, 8)
    assert main.shared >= 3 * (128 + 128) * 64 * 2
