"""Emitted Triton: what it computes, against torch in double precision, and how it reads."""

from __future__ import annotations

import ast
import inspect
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einc import philox, tile, types
from einc.codegen import emit, emit_file
from einc.codegen.layout import WIDTH, wrapped
from einc.codegen.names import Names, identifier
from einc.codegen.run import launcher, load
from einc.driver import compile_program, elaborate, parse
from einc.ein import AxisDecl, Const, Extent, Monoid, Operand, Scalar
from einc.targets import INTERPRETER, TARGETS
from einc.tile import Block
from einc.tiletypes import verify
from einc.types import BF16, BOOL, F8E4M3, F8E5M2, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, DType
from tests import tileprograms as programs
from tests.tileprograms import Scheduled

EMITTED = Path(__file__).parent / "emitted"
TORCH = {
    "bool": torch.bool, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
    "u8": torch.uint8, "u16": torch.uint16, "u32": torch.uint32, "f16": torch.float16, "bf16": torch.bfloat16,
    "f32": torch.float32, "f64": torch.float64, "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2,
}  # fmt: skip


def run(scheduled: Scheduled, *args: Any, **named: Any) -> Any:
    program, schedule = scheduled
    verify(schedule)
    emitted = emit_file(program, schedule, INTERPRETER)
    return launcher(emitted.source, emitted.launcher)(*args, **named)


def close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    torch.testing.assert_close(got.to(wide), wanted.to(wide), rtol=tolerance, atol=tolerance, equal_nan=True)


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Contractions


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 33, 45, 17), (3, 16, 128, 64), (1, 5, 200, 3)])
def test_matmul_of_any_size(shape: tuple[int, int, int, int]) -> None:
    b, i, k, j = shape
    x, y = normal(b, i, k), normal(b, k, j, seed=1)
    close(run(programs.matmul(), x, y), x.double() @ y.double())


@pytest.mark.parametrize(("dtype", "tolerance"), [(F16, 2e-3), (BF16, 1e-2), (F32, 1e-5), (F64, 1e-12)])
def test_matmul_is_as_close_as_its_type_allows(dtype: DType, tolerance: float) -> None:
    x, y = normal(2, 37, 70, dtype=TORCH[dtype.name]), normal(2, 70, 21, dtype=TORCH[dtype.name], seed=1)
    got, exact = run(programs.matmul(dtype), x, y), x.double() @ y.double()
    assert got.dtype == x.dtype
    close(got, exact, tolerance * float(exact.abs().max()))


@pytest.mark.parametrize("dtype", [F8E4M3, F8E5M2])
def test_matmul_of_eight_bit_floats(dtype: DType) -> None:
    x, y = normal(1, 20, 40, dtype=TORCH[dtype.name]), normal(1, 40, 20, dtype=TORCH[dtype.name], seed=1)
    close(run(programs.matmul(dtype, F32), x, y), x.double() @ y.double(), 1e-4)


def test_matmul_of_bytes_sums_in_32_bits() -> None:
    x = torch.full((1, 16, 300), 127, dtype=torch.int8)
    got = run(programs.matmul(I8, I32), x, x.mT)
    assert got.dtype == torch.int32
    assert torch.equal(got, x.int() @ x.int().mT)


def test_strides_are_followed_and_out_is_written() -> None:
    x = normal(30, 2, 20).permute(1, 2, 0)
    y = normal(2, 34, 60)[:, ::2, ::2].mT
    out = torch.zeros(40, 17, 2).permute(2, 0, 1)[:, ::2]
    got = run(programs.matmul(), x, y, out=out)
    assert got is out
    close(got, x.double() @ y.double())


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0), (2, 3, 0, 5), (0, 0, 0, 0)])
def test_empty_axes(shape: tuple[int, int, int, int]) -> None:
    b, i, k, j = shape
    got = run(programs.matmul(), torch.ones(b, i, k), torch.ones(b, k, j))
    assert torch.equal(got, torch.zeros(b, i, j))


def test_offsets_beyond_32_bits() -> None:
    """The last rows lie 2**33 elements behind the first; only they are touched."""
    try:
        store = torch.empty((1 << 33) + 64, dtype=torch.uint8)  # pages that nothing touches take no memory
    except RuntimeError:
        pytest.skip("no address space for 8 GiB")
    x = store.as_strided((2, 16), (1 << 33, 1))
    x.copy_(torch.arange(32, dtype=torch.uint8).view(2, 16))
    got = run(programs.elementwise_rows(U8), x)
    assert torch.equal(got, x.contiguous())


# ---------------------------------------------------------------------------------------------------------------------
# Reductions


@pytest.mark.parametrize("dtype", [F32, F64, I8, U8, I32, I64])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "argmax", "argmin"])
def test_reductions(name: str, dtype: DType) -> None:
    x = torch.randint(-2 if dtype.kind != "u" else 0, 3, (5, 43), generator=torch.Generator().manual_seed(1))
    x = x.to(TORCH[dtype.name])
    out = types.accumulator(dtype) if name in ("sum", "prod") else None
    wanted = getattr(torch, {"max": "amax", "min": "amin"}.get(name, name))(x, 1)
    if name.startswith("arg"):
        wanted = (x == getattr(torch, f"a{name[3:]}")(x, 1, keepdim=True)).int().argmax(1)
    close(run(programs.reduction(name, dtype, out), x), wanted)


@pytest.mark.parametrize("name", ["any", "all"])
def test_logical_reductions(name: str) -> None:
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(2)) > (0.7 if name == "any" else 0.3)
    assert torch.equal(run(programs.reduction(name, BOOL), x), getattr(torch, name)(x, 1))


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_a_nan_wins_and_ties_go_to_the_first(name: str) -> None:
    x = normal(6, 40)
    x[1, 17] = x[1, 30] = x[2, 0] = math.nan
    x[3], x[4] = -math.inf, math.inf
    x[5] = 1.0
    wanted = getattr(torch, {"max": "amax", "min": "amin"}.get(name, name))(x, 1)
    close(run(programs.reduction(name), x), wanted)


def test_a_monoid_of_ones_own_keeps_the_order_of_its_operands() -> None:
    """Affine maps under composition do not commute: (a, b) then (c, d) is (c a, c b + d)."""
    a, b = (Scalar("a0"), Scalar("a1")), (Scalar("b0"), Scalar("b1"))
    combine = (programs.apply("mul", b[0], a[0]), programs.apply("add", programs.apply("mul", b[0], a[1]), b[1]))
    affine = Monoid("affine", (1, 0), combine, results=(1,), commutative=False)
    x = torch.rand(3, 37, dtype=torch.float64)
    value = torch.zeros(3, dtype=torch.float64)
    for j in range(37):
        value = x[:, j] * value + j
    got = run(programs.recurrence(affine), x)
    close(got, value, 1e-12)


def test_two_states_in_one_loop() -> None:
    x = normal(40, 40) * 30
    visible = torch.ones(40, 40).tril().bool()
    kept = x.double().masked_fill(~visible, -math.inf)
    close(run(programs.softmax_statistics(), x), (kept - kept.amax(1, keepdim=True)).exp().sum(1))
    close(run(programs.softmax_statistics(BF16), x.bfloat16()), _statistics(x.bfloat16()))


def _statistics(x: torch.Tensor) -> torch.Tensor:
    kept = x.double().masked_fill(~torch.ones(x.shape).tril().bool(), -math.inf)
    return (kept - kept.amax(1, keepdim=True)).exp().sum(1)


# ---------------------------------------------------------------------------------------------------------------------
# Indices


def test_gathers_give_0_out_of_range() -> None:
    table, index = normal(11, 21), torch.randint(-30, 30, (50,), generator=torch.Generator().manual_seed(3))
    index[0], index[1] = 1 << 40, -(1 << 40)
    hit = (index >= 0) & (index < 11)
    wanted = torch.where(hit[:, None], table[index.clamp(0, 10)], 0.0)
    close(run(programs.gather(), table, index), wanted)


def test_flattened_groups_are_taken_apart() -> None:
    x, y = normal(19, 3, 7), normal(7)
    close(run(programs.flattened(), x, y), (x + y).permute(1, 2, 0).reshape(21, 19))


def test_tiles_are_transposed_where_orders_differ() -> None:
    x = normal(37, 50)
    close(run(programs.transposed(), x), (x * 2).T)


def test_complex_tensors_are_reached_by_parts() -> None:
    x, y = normal(40, dtype=torch.complex64), normal(40, dtype=torch.complex64, seed=1)
    x = torch.complex(normal(40), normal(40, seed=2))
    out = torch.zeros(80, dtype=torch.complex64)[::2]
    close(run(programs.complex_product(), x, y, out=out), x * y)


def test_division_rounds_down() -> None:
    pairs = torch.cartesian_prod(torch.arange(-9, 10), torch.tensor([-4, -3, -1, 1, 2, 5]))
    for dtype in (I8, I32, I64):
        x, y = (pairs[:, n].to(TORCH[dtype.name]).contiguous() for n in (0, 1))
        assert torch.equal(run(programs.elementwise("floordiv", dtype, 2), x, y), x // y)
        assert torch.equal(run(programs.elementwise("mod", dtype, 2), x, y), x % y)


def test_positions_divide_without_correction_and_others_with() -> None:
    assert "floor_mod" not in _source(programs.flattened())
    assert "floor_mod" in _source(programs.elementwise("mod", I32, 2))
    assert "floor_mod" not in _source(programs.elementwise("mod", U8, 2))


def test_kernels_between_kernels() -> None:
    x = normal(33, 40)
    close(run(programs.two_kernels(), x), x - x.amax(1, keepdim=True))


# ---------------------------------------------------------------------------------------------------------------------
# Scalar operations

UNARY = {
    "neg": torch.neg, "abs": torch.abs, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "exp": torch.exp, "exp2": torch.exp2,
    "log": torch.log, "log2": torch.log2, "tanh": torch.tanh, "erf": torch.erf, "sin": torch.sin, "cos": torch.cos,
    "tan": torch.tan, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("op", UNARY)
def test_unary_operations(op: str, dtype: DType) -> None:
    x = torch.cat([normal(400, dtype=torch.float64) * 4, torch.arange(-8, 8) / 2, torch.tensor([1e-8, 30.0, 1e4])])
    x = (x.abs() + 1e-3 if op in ("sqrt", "rsqrt", "log", "log2") else x).to(TORCH[dtype.name])
    if op in ("exp", "exp2"):
        x = x.clamp(-40, 40)
    exact = UNARY[op](x.double())
    got = run(programs.elementwise(op, dtype), x).double()
    error = (got - exact).abs() / exact.abs().clamp(min=1e-30)
    assert error[exact != 0].max() < (2e-6 if dtype == F32 else 1e-12)
    assert torch.equal(got == 0, exact == 0)


def test_tanh_is_good_to_a_few_units_in_the_last_place_and_at_the_ends() -> None:
    x = torch.cat([torch.logspace(-30, 2, 4000), torch.tensor([0.0, math.inf, math.nan])])
    x = torch.cat([x, -x])
    got, exact = run(programs.elementwise("tanh"), x), torch.tanh(x.double())
    ulp = torch.finfo(torch.float32).eps * exact.abs()
    assert ((got.double() - exact).abs() <= 4 * ulp)[~x.isnan()].all()
    assert got[x.isnan()].isnan().all()


@pytest.mark.parametrize("dtype", [F32, F64, I32, U8, BOOL])
@pytest.mark.parametrize("op", ["max", "min"])
def test_the_greater_and_the_smaller(op: str, dtype: DType) -> None:
    x = torch.arange(40).remainder(7).to(TORCH[dtype.name])
    y = torch.arange(40).remainder(5).to(TORCH[dtype.name])
    if dtype.is_float:
        x[3] = y[7] = math.nan
    wanted = (torch.maximum if op == "max" else torch.minimum)(x, y)
    close(run(programs.elementwise(op, dtype, 2), x, y), wanted)


def test_powers() -> None:
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0, math.inf])
    y = torch.tensor([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 2.5])
    a, b = (t.contiguous() for t in torch.cartesian_prod(x, y).T)
    close(run(programs.elementwise("pow", F32, 2), a, b), torch.pow(a.double(), b.double()), 1e-6)
    base = torch.linspace(0.1, 30, 200)
    error = run(programs.elementwise("pow", F32, 2), base, torch.full_like(base, 20.5)) / base.double() ** 20.5 - 1
    assert error.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [I8, I32, I64, U8])
def test_powers_of_integers_wrap_around(dtype: DType) -> None:
    x, y = torch.cartesian_prod(torch.arange(-3 if dtype.kind == "i" else 0, 12), torch.arange(0, 9)).T
    a, b = (t.to(TORCH[dtype.name]).contiguous() for t in (x, y))
    assert torch.equal(run(programs.elementwise("pow", dtype, 2), a, b), torch.pow(a, b))
    if dtype.kind == "i":
        ones = torch.tensor([1, -1, -1, 2, 0], dtype=a.dtype)
        minus = torch.tensor([-1, -1, -2, -1, -3], dtype=a.dtype)
        assert run(programs.elementwise("pow", dtype, 2), ones, minus).tolist() == [1, -1, 1, 0, 0]


@pytest.mark.parametrize("n", [-3, -1, -0.5, 0.5, 1, 2, 3, 6, 7])
def test_known_powers_are_products_and_roots(n: float) -> None:
    x = torch.linspace(0.1, 3, 50)
    scheduled = programs.power(n)
    close(run(scheduled, x), x.double() ** n, 1e-6)
    assert "tl.log2" not in _source(scheduled)


NUMBERS = [BOOL, I8, I16, I32, I64, U8, U16, U32, F8E4M3, F8E5M2, F16, BF16, F32, F64]


@pytest.mark.parametrize("have", NUMBERS, ids=str)
def test_conversions(have: DType) -> None:
    positive = torch.tensor([0.0, 0.25, 1.0, 1.75, 2.0, 3.1, 5.5, 7.0, 9.25, 100.0])
    for want in NUMBERS:
        signed = have.kind not in "bu" and want.kind not in "bu"
        x = torch.cat([positive, -positive] if signed else [positive]).to(TORCH[have.name])
        got = run(programs.conversion(have, want), x)
        assert torch.equal(got, x.to(TORCH[want.name])) or have.bits == want.bits == 8, (have, want)
        close(got, x.to(TORCH[want.name]), 1e-2)


def test_bf16_rounds_to_nearest_even() -> None:
    x = torch.linspace(1, 2, 4001)
    assert torch.equal(run(programs.conversion(F32, BF16), x), x.bfloat16())


def test_rand_is_philox_at_an_index() -> None:
    got = run(programs.random(2), torch.zeros(40), 12345678901)
    rows, rest = np.arange(40), np.full(40, 3)
    close(got, torch.from_numpy(philox.uniform(np.array(12345678901), [rows, rest])), 0)
    got = run(programs.random(6), torch.zeros(40), 7)
    close(got, torch.from_numpy(philox.uniform(np.array(7), [rows, *[rest] * 5])), 0)


def test_scalars_are_typed_and_have_defaults() -> None:
    x = normal(20, dtype=torch.float64)
    assert torch.equal(run(programs.scaled(), x, 3, True, 0.1), x * 0.1 + 3)
    close(run(programs.scaled(), x, shift=-1, keep=True), x / math.sqrt(21) - 1, 1e-15)
    assert torch.equal(run(programs.scaled(), x, 3, False), torch.full_like(x, 0.1))


# ---------------------------------------------------------------------------------------------------------------------
# The launcher


def test_extents_come_from_dimensions_products_and_formulas() -> None:
    p, schedule = programs.flattened()
    grouped = programs.program(
        "grouped",
        [Operand("Y", programs.dims("r"), F32), Operand("X", programs.dims("i (g r)"), F32)],
        p.equations,
        "R",
        [AxisDecl("n", programs.apply("sub", Extent("i"), Const(1)))],
    )
    source = emit(grouped, schedule, INTERPRETER)
    assert "g = exact_quotient(X.shape[1], r)" in source
    assert 'n = checked_extent("n", i - 1)' in source


def test_wrong_operands_are_refused() -> None:
    with pytest.raises(ValueError, match=r"B is torch\.float32 of shape"):
        run(programs.matmul(), torch.ones(2, 3, 4), torch.ones(2, 5, 6))
    with pytest.raises(ValueError, match=r"A is torch\.float64"):
        run(programs.matmul(), torch.ones(2, 3, 4).double(), torch.ones(2, 4, 6))
    with pytest.raises(ValueError, match="C is"):
        run(programs.matmul(), torch.ones(2, 3, 4), torch.ones(2, 4, 6), out=torch.ones(1))


@pytest.mark.parametrize(
    "name",
    ["class", "launch", "torch", "tl", "größe", "ℝ", "x²", "maximum", "expect", "blocks", "program", "INT", "max"],
)
def test_any_name_will_do(name: str) -> None:
    """Names of programs, tensors and axes: Python's keywords, the file's own names, letters of any script."""
    p, schedule = programs.renamed(name)
    emitted = emit_file(p, schedule, INTERPRETER)
    x = normal(17)
    got = launcher(emitted.source, emitted.launcher)(x)
    close(got, torch.tanh(x.double()))


def test_names_are_unique() -> None:
    names = Names(["a"])
    assert [names.fresh(n) for n in ("a", "a", "b", "a")] == ["a_2", "a_3", "b", "a_4"]
    assert identifier("for") == "for_"
    assert identifier("α", ascii_only=True) == "u03b1"


# ---------------------------------------------------------------------------------------------------------------------
# The file

GOLDEN = {
    "matmul": programs.matmul,
    "statistics": programs.softmax_statistics,
    "argmax": lambda: programs.reduction("argmax"),
    "gather": programs.gather,
    "flattened": programs.flattened,
    "product": programs.complex_product,
    "scaled": programs.scaled,
    "centred": programs.two_kernels,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_files_read_as_expected(name: str, request: pytest.FixtureRequest) -> None:
    path = EMITTED / f"{name}.py.txt"
    source = emit(*GOLDEN[name](), TARGETS["sm_90"])
    if request.config.getoption("--bless"):
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8")
    assert max(map(len, source.splitlines())) <= WIDTH + 8


ATTENTION = """
def attention(Q[b, i, d], K[b, j, d], V[b, j, e]):
    S[b, i, j] = Q[b, i, d] * K[b, j, d]
    O[b, i, e] = softmax[j](S) * V[b, j, e]
    return O
"""


def test_a_file_runs_where_einc_is_not(tmp_path: Path) -> None:
    """In a process of its own, with nothing but torch and triton, in Triton's interpreter."""
    (tmp_path / "mm.py").write_text(_source(programs.matmul()))
    (tmp_path / "best.py").write_text(_source(programs.reduction("argmax")))
    for level in (0, 2):
        compiled = compile_program(elaborate(parse(ATTENTION, "attention")), level, INTERPRETER)
        (tmp_path / f"attention{level}.py").write_text(compiled.source)
    (tmp_path / "einc.py").write_text("raise ImportError('no einc here')")
    (tmp_path / "main.py").write_text(
        "import torch\nimport attention0, attention2\nfrom mm import matmul\nfrom best import reduction\n"
        "x, y = torch.randn(2, 20, 33), torch.randn(2, 33, 18)\n"
        "torch.testing.assert_close(matmul(x, y), x @ y, rtol=1e-4, atol=1e-4)\n"
        "assert torch.equal(reduction(x[0]), x[0].argmax(1))\n"
        "q, k, v = (torch.randn(2, n, 8) for n in (20, 30, 30))\n"
        "for module in (attention0, attention2):\n"
        "    wanted = torch.softmax(q @ k.mT, -1) @ v\n"
        "    torch.testing.assert_close(module.attention(q, k, v), wanted, rtol=1e-4, atol=1e-4)\n"
        "print('fine')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


def test_source_of_a_loaded_file_can_be_looked_at() -> None:
    p, schedule = programs.matmul()
    emitted = emit_file(p, schedule, INTERPRETER)
    module = load(emitted.source, emitted.launcher)
    assert inspect.getsource(module.matmul).startswith("def matmul(A, B, *, out=None):")
    assert "tl.dot" in inspect.getsource(module.C_kernel.fn)
    assert load(emitted.source, emitted.launcher) is module


def test_long_lines_are_broken_at_brackets() -> None:
    line = "x = tl.load(" + " + ".join(f"pointer + index_{n} * stride_{n}" for n in range(6)) + ", mask=inside)"
    broken = wrapped(line)
    assert max(map(len, broken)) <= WIDTH
    assert broken[0] == "x = tl.load("
    assert broken[-1] == ")"
    assert ast.dump(ast.parse("\n".join(broken))) == ast.dump(ast.parse(line))


def _source(scheduled: Scheduled) -> str:
    return emit(*scheduled, INTERPRETER)


def test_blocks_follow_extents_and_are_shared_between_kernels() -> None:
    source = _source(programs.two_kernels())
    assert source.count("BI = tile_size(i, 1, 16)") == 1
    p, schedule = programs.matmul(block=Block(16, tile.WHOLE), inner=Block(32, 32))
    source = emit(p, schedule, INTERPRETER)
    assert "BI = tile_size(i, 16)" in source
    assert "BK = 32" in source


def test_unused_names_of_the_language_are_not_emitted() -> None:
    source = _source(programs.complex_product())
    assert "def maximum" not in source
    assert "import math" not in source
