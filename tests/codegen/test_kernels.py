"""Tile programs written by hand, on every backend, against torch in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
import torch

from einc.base import types
from einc.base.ops import FUNCTIONS
from einc.base.types import BF16, BOOL, F8E4M3, F8E5M2, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, DType
from einc.ein import Monoid, Scalar
from einc.evaluate import philox
from tests.support import tileprograms as programs
from tests.support.backends import TORCH, Run, close, in_pieces, normal, run_in_torch, run_in_triton


@pytest.fixture(params=["triton", "torch", "torch in pieces"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """What runs a program for operands in order, scalars by name and an `out`."""
    if request.param == "torch in pieces":
        with in_pieces():
            yield run_in_torch
    else:
        yield run_in_triton if request.param == "triton" else run_in_torch


# ---------------------------------------------------------------------------------------------------------------------
# Contractions


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 33, 45, 17), (3, 16, 128, 64), (1, 5, 200, 3)])
def test_matmul_of_any_size(run: Run, shape: tuple[int, int, int, int]) -> None:
    b, i, k, j = shape
    x, y = normal(b, i, k), normal(b, k, j, seed=1)
    close(run(programs.matmul(), x, y), x.double() @ y.double())


@pytest.mark.parametrize(("dtype", "tolerance"), [(F16, 1e-3), (BF16, 1e-2), (F32, 1e-5), (F64, 1e-12)])
def test_matmul_is_as_close_as_its_type_allows(run: Run, dtype: DType, tolerance: float) -> None:
    x, y = normal(2, 37, 70, dtype=TORCH[dtype.name]), normal(2, 70, 21, dtype=TORCH[dtype.name], seed=1)
    got, exact = run(programs.matmul(dtype), x, y), x.double() @ y.double()
    assert got.dtype == x.dtype
    close(got, exact, tolerance * float(exact.abs().max()))


@pytest.mark.parametrize("dtype", [F8E4M3, F8E5M2])
def test_matmul_of_eight_bit_floats(run: Run, dtype: DType) -> None:
    x, y = normal(1, 20, 40, dtype=TORCH[dtype.name]), normal(1, 40, 20, dtype=TORCH[dtype.name], seed=1)
    close(run(programs.matmul(dtype, F32), x, y), x.double() @ y.double(), 1e-4)


def test_matmul_of_bytes_sums_in_32_bits(run: Run) -> None:
    x = torch.full((1, 16, 3000), 127, dtype=torch.int8)
    assert torch.equal(run(programs.matmul(I8, I32), x, x.mT), x.int() @ x.int().mT)


def test_strides_are_followed_and_out_is_written(run: Run) -> None:
    x = normal(30, 2, 20).permute(1, 2, 0)
    y = normal(2, 34, 60)[:, ::2, ::2].mT
    out = torch.zeros(40, 17, 2).permute(2, 0, 1)[:, ::2]
    assert run(programs.matmul(), x, y, out=out) is out
    close(out, x.double() @ y.double())


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0), (2, 3, 0, 5), (0, 0, 0, 0)])
def test_empty_axes(run: Run, shape: tuple[int, int, int, int]) -> None:
    b, i, k, j = shape
    assert torch.equal(run(programs.matmul(), torch.ones(b, i, k), torch.ones(b, k, j)), torch.zeros(b, i, j))


# ---------------------------------------------------------------------------------------------------------------------
# Reductions


@pytest.mark.parametrize("dtype", [F32, F64, I8, U8, I32, I64, U32, U64])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "argmax", "argmin"])
def test_reductions(run: Run, name: str, dtype: DType) -> None:
    low = 0 if dtype.kind == "u" else -2
    x = torch.randint(low, 3, (5, 43), generator=torch.Generator().manual_seed(1))
    out = types.accumulator(dtype) if name in ("sum", "prod") else None
    wanted = getattr(torch, {"max": "amax", "min": "amin"}.get(name, name))(x, 1)
    if name.startswith("arg"):
        wanted = (x == getattr(torch, f"a{name[3:]}")(x, 1, keepdim=True)).int().argmax(1)
    close(run(programs.reduction(name, dtype, out), x.to(TORCH[dtype.name])), wanted)


@pytest.mark.parametrize("name", ["any", "all"])
def test_logical_reductions(run: Run, name: str) -> None:
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(2)) > (0.7 if name == "any" else 0.3)
    assert torch.equal(run(programs.reduction(name, BOOL), x), getattr(torch, name)(x, 1))


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_a_nan_wins_and_ties_go_to_the_first(run: Run, name: str) -> None:
    x = normal(6, 40)
    x[1, 17] = x[1, 30] = x[2, 0] = math.nan
    x[3], x[4] = -math.inf, math.inf
    x[5] = 1.0
    wanted = getattr(torch, {"max": "amax", "min": "amin"}.get(name, name))(x, 1)
    close(run(programs.reduction(name), x), wanted)


def test_a_monoid_of_ones_own_keeps_the_order_of_its_operands(run: Run) -> None:
    """Affine maps under composition do not commute: (a, b) then (c, d) is (c a, c b + d)."""
    a, b = (Scalar("a0"), Scalar("a1")), (Scalar("b0"), Scalar("b1"))
    combine = (programs.apply("mul", b[0], a[0]), programs.apply("add", programs.apply("mul", b[0], a[1]), b[1]))
    affine = Monoid("affine", (1, 0), combine, results=(1,), commutative=False)
    x = torch.rand(3, 37, dtype=torch.float64)
    value = torch.zeros(3, dtype=torch.float64)
    for j in range(37):
        value = x[:, j] * value + j
    close(run(programs.recurrence(affine), x), value, 1e-12)


def test_two_states_in_one_loop(run: Run) -> None:
    for x in (normal(40, 40) * 30, (normal(40, 40) * 30).bfloat16()):
        kept = x.double().masked_fill(~torch.ones(40, 40).tril().bool(), -math.inf)
        wanted = (kept - kept.amax(1, keepdim=True)).exp().sum(1)
        close(run(programs.softmax_statistics(BF16 if x.dtype == torch.bfloat16 else F32), x), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# Memory


def test_gathers_give_0_out_of_range(run: Run) -> None:
    table, index = normal(11, 21), torch.randint(-30, 30, (50,), generator=torch.Generator().manual_seed(3))
    index[0], index[1] = 1 << 40, -(1 << 40)
    hit = (index >= 0) & (index < 11)
    close(run(programs.gather(), table, index), torch.where(hit[:, None], table[index.clamp(0, 10)], 0.0))
    close(run(programs.gather(), table.T.contiguous().T, index), torch.where(hit[:, None], table[index % 11], 0.0))
    assert run(programs.gather(), torch.zeros(0, 3), index).eq(0).all()


def test_flattened_groups_are_taken_apart(run: Run) -> None:
    x, y = normal(19, 3, 7), normal(7)
    close(run(programs.flattened(), x, y), (x + y).permute(1, 2, 0).reshape(21, 19))


def test_tiles_are_transposed_where_orders_differ(run: Run) -> None:
    x = normal(37, 50)
    close(run(programs.transposed(), x), (x * 2).T)


def test_complex_tensors_are_reached_by_parts(run: Run) -> None:
    x, y = (torch.complex(normal(40, seed=n), normal(40, seed=n + 1)) for n in (0, 2))
    out = torch.zeros(80, dtype=torch.complex64)[::2]
    close(run(programs.complex_product(), x, y, out=out), x * y)


def test_kernels_between_kernels(run: Run) -> None:
    x = normal(33, 40)
    close(run(programs.two_kernels(), x), x - x.amax(1, keepdim=True))


# ---------------------------------------------------------------------------------------------------------------------
# Scalar operations

UNARY = (*FUNCTIONS, "neg", "abs", "floor", "ceil", "round")
NUMBERS = [BOOL, I8, I16, I32, I64, U8, U16, U32, U64, F8E4M3, F8E5M2, F16, BF16, F32, F64]


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("op", UNARY)
def test_unary_operations(run: Run, op: str, dtype: DType) -> None:
    x = torch.cat([normal(400, dtype=torch.float64) * 4, torch.arange(-8, 8) / 2, torch.tensor([1e-8, 30.0, 1e4])])
    x = x.to(TORCH[dtype.name])
    exact = getattr(torch, op)(x.double())
    inside = exact.isfinite() & (exact.abs() < 1e20)
    x, exact = x[inside], exact[inside]
    assert len(x) > 100
    got = run(programs.elementwise(op, dtype), x).double()
    error = (got - exact).abs() / exact.abs().clamp(min=1e-30)
    assert error[exact != 0].max() < (2e-6 if dtype == F32 else 1e-12)
    assert torch.equal(got == 0, exact == 0)


def test_tanh_is_good_to_a_few_units_in_the_last_place_and_at_the_ends(run: Run) -> None:
    x = torch.cat([torch.logspace(-30, 2, 4000), torch.tensor([0.0, math.inf, math.nan])])
    x = torch.cat([x, -x])
    got, exact = run(programs.elementwise("tanh"), x), torch.tanh(x.double())
    ulp = torch.finfo(torch.float32).eps * exact.abs()
    assert ((got.double() - exact).abs() <= 4 * ulp)[~x.isnan()].all()
    assert got[x.isnan()].isnan().all()


@pytest.mark.parametrize("dtype", [I8, I32, I64, U8, U16, U32, U64], ids=str)
def test_integers_wrap_and_divide_downwards(run: Run, dtype: DType) -> None:
    signed, bits = dtype.kind == "i", dtype.bits
    ends = [-(1 << bits - 1), (1 << bits - 1) - 1] if signed else [(1 << bits) - 1, 1 << bits - 1, (1 << bits) - 2]
    values = [*range(-9 if signed else 0, 10), *ends]
    pairs = list(product(values, values))
    numpy = np.dtype(f"{'' if signed else 'u'}int{bits}")
    x, y = (torch.from_numpy(np.array([p[n] for p in pairs], numpy)) for n in (0, 1))
    exact: dict[str, Callable[[int, int], int]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "floordiv": int.__floordiv__,
        "mod": int.__mod__,
        "max": max,
        "min": min,
    }
    for op, f in exact.items():
        there = [n for n, (_, b) in enumerate(pairs) if b or op not in ("floordiv", "mod")]
        wanted = np.array([f(*pairs[n]) % (1 << bits) for n in there], f"uint{bits}").view(numpy)
        np.testing.assert_array_equal(run(programs.elementwise(op, dtype, 2), x, y).numpy()[there], wanted, op)
    for op in ("lt", "le", "gt", "ge", "eq", "ne"):
        got = run(programs.elementwise(op, dtype, 2, BOOL), x, y).tolist()
        assert got == [getattr(a, f"__{op}__")(b) for a, b in pairs], op


def test_powers(run: Run) -> None:
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0, math.inf])
    y = torch.tensor([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 2.5])
    a, b = (t.contiguous() for t in torch.cartesian_prod(x, y).T)
    close(run(programs.elementwise("pow", F32, 2), a, b), torch.pow(a.double(), b.double()), 1e-6)
    base = torch.linspace(0.1, 30, 200)
    error = run(programs.elementwise("pow", F32, 2), base, torch.full_like(base, 20.5)) / base.double() ** 20.5 - 1
    assert error.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [I8, I32, I64, U8, U32])
def test_powers_of_integers_wrap_around(run: Run, dtype: DType) -> None:
    pairs = list(product(range(-3 if dtype.kind == "i" else 0, 12), range(9)))
    numpy = np.dtype(f"{'' if dtype.kind == 'i' else 'u'}int{dtype.bits}")
    x, y = (torch.from_numpy(np.array([p[n] for p in pairs], numpy)) for n in (0, 1))
    wanted = np.array([a**b % (1 << dtype.bits) for a, b in pairs], f"uint{dtype.bits}").view(numpy)
    np.testing.assert_array_equal(run(programs.elementwise("pow", dtype, 2), x, y).numpy(), wanted)
    if dtype.kind == "i":
        ones = torch.tensor([1, -1, -1, 2, 0]).to(x.dtype)
        minus = torch.tensor([-1, -1, -2, -1, -3]).to(x.dtype)
        assert run(programs.elementwise("pow", dtype, 2), ones, minus).tolist() == [1, -1, 1, 0, 0]


@pytest.mark.parametrize("n", [-3, -1, -0.5, 0.5, 1, 2, 3, 6, 7])
def test_known_powers_are_products_and_roots(run: Run, n: float) -> None:
    x = torch.linspace(0.1, 3, 50)
    close(run(programs.power(n), x), x.double() ** n, 1e-6)


@pytest.mark.parametrize("dtype", [F32, F64, I32, U8, BOOL])
@pytest.mark.parametrize("op", ["max", "min"])
def test_the_greater_and_the_smaller(run: Run, op: str, dtype: DType) -> None:
    x, y = (torch.arange(40).remainder(n).to(TORCH[dtype.name]) for n in (7, 5))
    if dtype.is_float:
        x[3] = y[7] = math.nan
    close(run(programs.elementwise(op, dtype, 2), x, y), (torch.maximum if op == "max" else torch.minimum)(x, y))


@pytest.mark.parametrize("have", NUMBERS, ids=str)
def test_conversions(run: Run, have: DType) -> None:
    positive = torch.tensor([0.0, 0.25, 1.0, 1.75, 2.0, 3.1, 5.5, 7.0, 9.25, 100.0])
    for want in NUMBERS:
        signed = have.kind not in "bu" and want.kind not in "bu"
        x = torch.cat([positive, -positive] if signed else [positive]).to(TORCH[have.name])
        got = run(programs.conversion(have, want), x)
        assert got.dtype == TORCH[want.name]
        assert torch.equal(got, x.to(got.dtype)) or have.bits == want.bits == 8, want
        close(got, x.to(got.dtype), 1e-2)


def test_bf16_rounds_to_nearest_even(run: Run) -> None:
    x = torch.linspace(1, 2, 4001)
    assert torch.equal(run(programs.conversion(F32, BF16), x), x.bfloat16())


def test_the_upper_half_of_u64_is_converted_both_ways(run: Run) -> None:
    x = torch.from_numpy(np.array([0, 1, 1 << 63, (1 << 63) + 4096, (1 << 64) - 1], np.uint64))
    got = run(programs.conversion(U64, F64), x)
    assert got.tolist() == [0, 1, 2.0**63, 2.0**63 + 4096, 2.0**64]
    assert run(programs.conversion(F64, U64), got[:4]).tolist() == x[:4].tolist()


def test_rand_is_philox_at_an_index(run: Run) -> None:
    rows, rest = np.arange(40), np.full(40, 3)
    got = run(programs.random(2), torch.zeros(40), seed=12345678901)
    assert got.tolist() == philox.uniform(np.array(12345678901), [rows, rest]).tolist()
    got = run(programs.random(6), torch.zeros(40), seed=7)
    assert got.tolist() == philox.uniform(np.array(7), [rows, *[rest] * 5]).tolist()


def test_scalars_are_typed_and_have_defaults(run: Run) -> None:
    x = normal(20, dtype=torch.float64)
    assert torch.equal(run(programs.scaled(), x, shift=3, keep=True, scale=0.1), x * 0.1 + 3)
    close(run(programs.scaled(), x, shift=-1, keep=True), x / math.sqrt(21) - 1, 1e-15)
    assert torch.equal(run(programs.scaled(), x, shift=3, keep=False), torch.full_like(x, 0.1))
