"""Contractions of f32 that multiply less precisely: as exact as the formats allow, and nothing else changes."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import einc
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import BF16, BF16X3, F32, PRECISIONS, TF32, TF32X3
from einc.binding import bind
from einc.codegen import TRITON
from einc.driver import compile_program, elaborate, parse
from einc.ein.origins import fixed
from einc.evaluate import evaluate
from einc.tile.typing import multiplied
from tests.support.compiled import agree, magnitude, run_in_torch, tensors
from tests.support.compiled import precision as unit
from tests.support.random_programs import Case, cases

PRODUCT = "C[i, j] = A[i, k] * B[k, j]"
ATTENTION = "S[i, j] = Q[i, d] * K[j, d]\nO[i, e] = softmax[j](S) * V[j, e]"
SIZES = {"i": 33, "k": 70, "j": 29}
LESS = [name for name, t in PRECISIONS.items() if t != F32]
less = pytest.mark.parametrize("precision", LESS)

# What the products of two numbers are off by, of their size. Cut to a mantissa of 10 bits, each is off by 2^-10. As two
# numbers of 11 bits, rounded, each is off by 2^-22, and what both low ones make is 2^-22; of 8 bits it is 2^-16.
WITHIN = {"exact": 0.0, "tf32": 2 * 2.0**-10 + 2.0**-20, "tf32x3": 3 * 2.0**-22, "bf16x3": 3 * 2.0**-16}
SUMMED = 2.0**-23  # of each sum of f32, in whatever order


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def check(found: Tensor, left: Tensor, right: Tensor, precision: str) -> None:
    """The product of matrices is as exact as its formats allow."""
    wide, size = left.double() @ right.double(), left.double().abs() @ right.double().abs()
    least = 1.5 * WITHIN[precision] + left.shape[1] * SUMMED
    assert ((found.double() - wide).abs() <= least * size).all()


@pytest.mark.parametrize("backend", [None, "interpret"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_product_is_as_exact_as_its_formats(precision: str, backend: str | None) -> None:
    left, right = normal(33, 70), normal(70, 29, seed=1)
    product = einc.compile(PRODUCT, precision=precision)
    for _ in range(2):  # the second call is a tape of the first
        check(product(left, right, backend=backend), left, right, precision)


@less
def test_it_is_no_more_exact_than_asked(precision: str) -> None:
    """So that a laptop shows what a GPU gives: digits that are cut are lost."""
    x = torch.full((16, 16), 1 + 2.0**-10 + 2.0**-23)
    one = torch.eye(16)
    found = einc.compile(PRODUCT, precision=precision)(x, one)
    assert (found != x).all() == (precision != "tf32x3")
    assert ((found - x).abs() <= WITHIN[precision]).all()


@less
def test_einsum_takes_it(precision: str) -> None:
    left, right = normal(33, 70), normal(70, 29, seed=1)
    found = einc.einsum("ik,kj->ij", left, right, precision=precision)
    check(found, left, right, precision)
    assert torch.equal(found, einc.compile("ik,kj->ij", precision=precision)(left, right))
    assert not torch.equal(found, einc.einsum("ik,kj->ij", left, right))


@less
def test_gradients_multiply_so_too(precision: str) -> None:
    left, right, cotangent = normal(33, 70), normal(70, 29, seed=1), normal(33, 29, seed=2)
    x, y = left.clone().requires_grad_(), right.clone().requires_grad_()
    einc.compile(PRODUCT, precision=precision)(x, y).backward(cotangent)
    assert x.grad is not None
    assert y.grad is not None
    check(x.grad, cotangent, right.T, precision)
    check(y.grad, left.T, cotangent, precision)
    exact = cotangent.double() @ right.double().T
    off = ((x.grad.double() - exact).abs() / (cotangent.double().abs() @ right.double().abs().T)).max()
    assert off > WITHIN[precision] / 100 or precision == "tf32x3"  # the sums of f32 are off by as much


def test_infinities_stay_what_they_are() -> None:
    left = torch.tensor([[float("inf"), 1.0], [2.0, float("nan")], [1.0, 3e38]]).repeat(1, 8)
    right = torch.ones(16, 3)
    for precision in LESS:
        found = einc.compile(PRODUCT, precision=precision)(left, right)
        assert torch.equal(found[0], right[0] * float("inf"))
        assert found[1].isnan().all()


@less
def test_masked_positions_do_not_count(precision: str) -> None:
    text = "S[i, j] = Q[i, d] * K[j, d]\nO[i, e] = softmax[j](where(j <= i, S, -inf)) * V[j, e]"
    q, k, v = normal(20, 16), normal(20, 16, seed=1), normal(20, 16, seed=2)
    v[19] = float("nan")
    found = einc.compile(text, precision=precision)(q, k, v)
    assert found[:19].isfinite().all()
    assert found[19].isnan().all()


def test_the_meaning_is_exact() -> None:
    left, right = normal(5, 6), normal(6, 7, seed=1)
    found = einc.compile(PRODUCT, precision="tf32")(left, right, backend="evaluate")
    np.testing.assert_allclose(found, left.double() @ right.double(), rtol=1e-14)


@pytest.mark.parametrize("level", [0, 2])
@less
@settings(max_examples=15, deadline=None, derandomize=True)
@given(cases(product=True))
def test_random_programs_are_as_exact_as_their_formats(precision: str, level: int, case: Case) -> None:
    program = replace(case.program, precision=PRECISIONS[precision])
    operands = dict(zip((p.name for p in program.operands), tensors(case), strict=True))
    bindings = bind(program, {name: tuple(x.shape) for name, x in operands.items()}, case.scalars)
    found = run_in_torch(compile_program(program, level, INTERPRETER, case.sizes), operands, bindings)
    wanted = evaluate(program, case.operands, case.scalars)
    for name, got, value in zip(program.results, found, wanted, strict=True):
        agree(got, value, max(unit(program, name), WITHIN[precision]), magnitude(value))


@pytest.mark.parametrize("level", [0, 1, 2])
@less
def test_every_contraction_of_f32_has_it(precision: str, level: int) -> None:
    program = einc.compile(ATTENTION, level, "sm_90", precision=precision)
    schedule = program.compiled().state.schedule
    assert schedule is not None
    assert [t for k in schedule.kernels for _, t in multiplied(k)] == [PRECISIONS[precision]] * 2
    assert program.source().count(f'input_precision="{precision}"') >= 2


def test_other_types_are_left_alone() -> None:
    x = normal(32, 32).bfloat16()
    program = einc.compile(PRODUCT, precision="tf32")
    assert torch.equal(program(x, x), einc.compile(PRODUCT)(x, x))
    assert "tf32" not in program.source(x, x)
    wide = normal(32, 32).double()
    assert torch.equal(program(wide, wide), einc.compile(PRODUCT)(wide, wide))


@pytest.mark.parametrize("backend", [None, "interpret"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_eight_bits_take_scales(dtype: torch.dtype, backend: str | None) -> None:
    """Those of rows and columns multiply the sum, which is of f32; those of blocks multiply in bf16."""
    a, b = normal(33, 256).to(dtype), normal(256, 29, seed=1).to(dtype)
    s, t, blocks = (normal(*shape, seed=2).abs() + 0.5 for shape in ((33,), (29,), (33, 2)))
    wide, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    scale = s.double()[:, None] * t.double()
    found = einc.compile("C[i, j]: f32 = s[i] * t[j] * A[i, k] * B[k, j]")(s, t, a, b, backend=backend)
    assert ((found.double() - scale * wide).abs() <= 260 * SUMMED * scale * size).all()
    each = blocks.double().repeat_interleave(128, 1) * a.double()
    found = einc.compile("C[i, j]: f32 = s[i, k // 128] * A[i, k] * B[k, j]")(blocks, a, b, backend=backend)
    least = 2.0**-8 + 260 * SUMMED
    assert ((found.double() - each @ b.double()).abs() <= least * (each.abs() @ b.double().abs())).all()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_casts_to_eight_bits_are_as_in_torch(dtype: torch.dtype) -> None:
    name = {torch.float8_e4m3fn: "f8e4m3", torch.float8_e5m2: "f8e5m2"}[dtype]
    x = torch.tensor([449.0, 465.0, 1e5, -1e5, float("inf"), float("nan"), 61439.0, 61440.0, 2.0**-10, 1.0625])
    cast = einc.compile(f"T[i] = {name}(x[i])")
    for backend in (None, "interpret"):
        found = cast(x, backend=backend)
        assert found.dtype == dtype
        assert torch.equal(found.float().nan_to_num(nan=-1.0), x.to(dtype).float().nan_to_num(nan=-1.0))


def test_explain_names_it_and_says_where_it_has_no_effect() -> None:
    program = einc.compile(PRODUCT, precision="tf32")
    assert "C: tf32 in place of f32, of the operands A, B" in program.explain()
    x = normal(32, 32).bfloat16()
    said = re.sub(r"\W+", " ", program.explain(x, x))
    assert "C bf16 of the operands A B" in said
    assert "the precision tf32 has no effect none is of f32" in said
    assert "no effect" not in einc.compile(PRODUCT).explain(x, x)


def test_a_dump_shows_it_and_reads_back() -> None:
    program = einc.compile(PRODUCT, precision="bf16x3")
    text = program.dump("place-loads")
    assert "dot[i, j : k in bf16x3](a, b)" in text
    left, right = normal(33, 70), normal(70, 29, seed=1)
    assert torch.equal(einc.compile(text, precision="bf16x3")(left, right), program(left, right))
    with pytest.raises(einc.Error, match="no precision 'bf16x4'"):
        einc.compile(text.replace("bf16x3", "bf16x4"))


@less
def test_a_copy_of_a_program_has_it(precision: str) -> None:
    program = pickle.loads(pickle.dumps(einc.compile(PRODUCT, precision=precision)))
    left, right = normal(33, 70), normal(70, 29, seed=1)
    assert torch.equal(program(left, right), einc.compile(PRODUCT, precision=precision)(left, right))


def test_rates() -> None:
    for name in ("sm_80", "sm_90", "sm_100", "gfx942"):
        machine = TARGETS[name]
        half = machine.dot_rate(BF16)
        assert machine.dot_rate(TF32) == half / 2
        assert machine.dot_rate(TF32X3) == half / 6
        assert machine.dot_rate(BF16X3) == half / 3
        assert machine.dot_rate(F32) == machine.rates.vector


def test_a_less_precise_product_is_predicted_to_take_less() -> None:
    sizes = dict.fromkeys("ijk", 4096)
    times = {}
    for name in PRECISIONS:
        found = einc.compile(PRODUCT, target="sm_90", precision=name)
        times[name] = found.story_for({}, sizes).level.predicted_us
    assert times["tf32"] < times["bf16x3"] < times["tf32x3"] < times["exact"]


def test_machines_have_what_their_units_take() -> None:
    assert [n for n, t in PRECISIONS.items() if TRITON.multiplies(TARGETS["gfx950"], t)] == ["exact", "bf16x3"]
    assert [n for n, t in PRECISIONS.items() if TRITON.multiplies(TARGETS["gfx942"], t)] == ["exact", "tf32", "bf16x3"]
    for name in ("sm_80", "sm_90", "sm_100", "interpret", "cpu"):
        assert all(TRITON.multiplies(TARGETS[name], t) for t in PRECISIONS.values())
    with pytest.raises(einc.Error) as caught:
        einc.compile(PRODUCT, target="gfx950", precision="tf32").source()
    assert str(caught.value).splitlines() == [
        "gfx950 does not multiply f32 in tf32",
        "  it does in exact, bf16x3",
        '  try: precision="bf16x3"',
    ]


@pytest.mark.parametrize("wrong", ["tf33", "ieee", 3, None])
def test_an_unknown_precision_is_refused(wrong: object) -> None:
    for ask in (lambda: einc.compile(PRODUCT, precision=wrong), lambda: einc.einsum("ij->i", [[1.0]], precision=wrong)):  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(einc.Error, match="no precision is called") as caught:
            ask()
        assert caught.value.fact == "there are exact, tf32, tf32x3, bf16x3"


def test_the_program_keeps_it() -> None:
    program = replace(elaborate(parse(PRODUCT)), precision=TF32)
    assert [e.product for e in fixed(program).equations] == [TF32]
    assert compile_program(program, 2, TARGETS["sm_90"]).state.program.precision == TF32
    assert evaluate(program, {"A": np.ones((2, 3)), "B": np.ones((3, 2))})[0].tolist() == [[3, 3], [3, 3]]
