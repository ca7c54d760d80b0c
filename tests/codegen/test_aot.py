"""Kernels compiled ahead of time for machines that are not here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DataObject, data, sampled_from

from einc.base.errors import RoomError, TargetError
from einc.base.facts import Fact
from einc.base.ops import FUNCTIONS
from einc.base.targets import INTERPRETER, TARGETS, Target, target
from einc.base.types import (
    BF16,
    BOOL,
    F8E4M3,
    F8E5M2,
    F16,
    F32,
    F64,
    I8,
    I32,
    I64,
    PRECISIONS,
    U8,
    U16,
    DType,
    accumulator,
)
from einc.cli.emission import compiled_ahead
from einc.codegen import TRITON
from einc.codegen.emit.signature import extents_of
from einc.codegen.run import aot
from einc.codegen.run.aot import FORMATS, CompiledKernel, artifact, compile_ahead
from einc.codegen.triton.contracted import least_inner
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.ein import Program
from einc.tile import WHOLE, Block
from tests.support import tileprograms as programs
from tests.support.compiled import in_parts
from tests.support.places import EXAMPLES
from tests.support.random_cascades import Cascade, cascades
from tests.support.random_programs import Case, cases
from tests.support.sass import disassembled, unwritten
from tests.support.tileprograms import Scheduled

GPUS = ["sm_80", "sm_90", "sm_100", "gfx942", "gfx950"]
UNARY = (*FUNCTIONS, "neg", "abs", "floor", "round")
CHAINS = (
    "def f(Q[i, d], K[j, d], V[j, e]):\n    O[i, e] = sum[j](softmax[j](sum[d](Q * K)) * V[j, e])\n    return O\n",
    "def f(X[i, d], W[d, j], U[j, e]):\n    O[i, e] = sum[j](relu(sum[d](X * W)) * U)\n    return O\n",
)
ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))
UNITS = {"cuda": ("mma.sync", "wgmma", "tcgen05"), "hip": ("mfma",)}


def compiled(scheduled: Scheduled, name: str, **sizes: int) -> tuple[CompiledKernel, ...]:
    machine = target(name)
    return compile_ahead(TRITON.emit(*scheduled, machine), machine, sizes)


@pytest.mark.aot
@pytest.mark.parametrize("name", GPUS)
def test_every_stage_is_there_with_what_it_needs(name: str) -> None:
    (kernel,) = compiled(programs.matmul(BF16, block=Block(16, 64)), name)
    assert tuple(kernel.stages) == FORMATS[TARGETS[name].vendor]
    assert 0 < kernel.registers <= 512
    assert kernel.spills == 0
    assert 0 < kernel.shared <= TARGETS[name].shared
    assert kernel.warps == 4
    assert _uses_matrix_units(kernel, TARGETS[name])
    assert isinstance(artifact(kernel, FORMATS[TARGETS[name].vendor][-1]), bytes)
    assert "tt.dot" in str(artifact(kernel, "ttir"))


PROGRAMS: dict[str, Callable[[], Scheduled]] = {
    "statistics": programs.softmax_statistics,
    "argmax": lambda: programs.reduction("argmax"),
    "sum of f64": lambda: programs.reduction("sum", F64),
    "any": lambda: programs.reduction("any", BOOL),
    "max of u8": lambda: programs.reduction("max", U8),
    "product of i64": lambda: programs.reduction("prod", I64),
    "gather": programs.gather,
    "flattened": programs.flattened,
    "transposed": programs.transposed,
    "complex": programs.complex_product,
    "rand": lambda: programs.random(6),
    "scalars": programs.scaled,
    "two kernels": programs.two_kernels,
    "names": lambda: programs.renamed("größe"),
}


@pytest.mark.aot
@pytest.mark.parametrize("name", ["sm_90", "gfx942"])
@pytest.mark.parametrize("what", PROGRAMS)
def test_every_kind_of_kernel_compiles(what: str, name: str) -> None:
    for kernel in compiled(PROGRAMS[what](), name):
        assert kernel.spills == 0


@pytest.mark.aot
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", ["sm_90", "gfx942"])
def test_every_function_compiles(dtype: DType, name: str) -> None:
    for op in UNARY:
        compiled(programs.elementwise(op, dtype), name)
    for op in ("max", "pow", "div", "atan2"):
        compiled(programs.elementwise(op, dtype, 2), name)


@pytest.mark.aot
@pytest.mark.parametrize("name", ["sm_90", "gfx942"])
def test_integer_division_and_powers_compile(name: str) -> None:
    for op in ("floordiv", "mod", "pow"):
        for dtype in (I32, U8):
            compiled(programs.elementwise(op, dtype, 2), name)


@pytest.mark.aot
@pytest.mark.parametrize("name", GPUS)
def test_the_table_of_contractions_is_true(name: str) -> None:
    machine = TARGETS[name]
    for dtype in (F16, BF16, F32, F64, I8, F8E4M3, F8E5M2):
        least = least_inner(dtype)
        small = programs.matmul(dtype, accumulator(dtype), Block(16, 16), Block(least, least))
        if TRITON.multiplies(machine, dtype):
            compiled(small, name)
        elif (name, dtype) != ("sm_80", F8E5M2):  # a tile as small as this compiles
            with pytest.raises(TargetError):
                compiled(small, name)
    for dtype in (U8, U16, I32, BOOL):
        assert not TRITON.multiplies(machine, dtype)


@pytest.mark.aot
def test_floats_of_eight_bits_are_multiplied_as_f16_where_no_unit_takes_them() -> None:
    """In tiles of any size, at the scales of rows and columns."""
    text = "C[i, j]: bf16 = s[i] * t[j] * A[i, k] * B[j, k]"
    facts = {"s": Fact((8,), F32), "t": Fact((8,), F32)} | dict.fromkeys("AB", Fact((8, 8), F8E5M2))
    done = compile_program(elaborate(parse(text), facts), 2, TARGETS["sm_80"], dict.fromkeys("ijk", 4096))
    (kernel,) = compile_ahead(done.emitted, done.target, done.sizes)
    assert "m16n8k16.row.col.f32.f16.f16.f32" in str(kernel.stages["ptx"])
    assert kernel.spills == 0


@pytest.mark.aot
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("precision", "unit"), [("tf32", "tf32.tf32"), ("tf32x3", "tf32.tf32"), ("bf16x3", "bf16.bf16")]
)
def test_less_precise_products_of_f32_go_through_matrix_units(name: str, precision: str, unit: str) -> None:
    program = replace(elaborate(parse("C[i, j] = A[i, k] * B[k, j]")), precision=PRECISIONS[precision])
    done = compile_program(program, 2, TARGETS[name], dict.fromkeys("ijk", 4096))
    (kernel,) = compile_ahead(done.emitted, done.target, done.sizes)
    ptx = str(kernel.stages["ptx"])
    assert unit in ptx
    assert ("wgmma" in ptx) == (name == "sm_90")
    assert kernel.spills == 0


@pytest.mark.aot
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ein")), ids=lambda p: p.stem)
def test_examples_compile(path: Path) -> None:
    """Every example, with operands in bf16, one kernel an equation."""
    text = parse(path.read_text(encoding="utf-8"), path.name)
    operands = elaborate(text).operands
    facts = {p.name: Fact((2,) * len(p.dims), BF16 if p.dtype == F32 else p.dtype) for p in operands}
    for name in ("sm_90", "gfx942"):
        compiled_program = compile_program(elaborate(text, facts), 0, TARGETS[name])
        kernels = compile_ahead(compiled_program.emitted, TARGETS[name], {})
        assert all(k.registers and k.shared <= TARGETS[name].shared for k in kernels)


def ahead(text: str, dtype: DType, splits: int | None = None, **sizes: int) -> tuple[CompiledKernel, ...]:
    """The kernels of a program at level 2 for operands of a type and sizes, compiled for sm_90."""
    return compile_ahead(program_ahead(text, dtype, "sm_90", splits, **sizes).emitted, TARGETS["sm_90"], sizes)


def program_ahead(text: str, dtype: DType, name: str, splits: int | None = None, **sizes: int) -> Compiled:
    """A program at level 2 for a target, for operands of these sizes, and of a type where the text says none."""
    operands = elaborate(parse(text)).operands
    facts = {p.name: Fact((2,) * len(p.dims), p.dtype if p.declared else dtype) for p in operands}
    return compile_program(elaborate(parse(text), facts), 2, TARGETS[name], sizes, choices=in_parts(splits))


@pytest.mark.aot
def test_the_elements_of_a_tile_keep_their_order() -> None:
    """Triton may reshape a tile whose last axis is added up in a loop; of three axes, that would mix the others up."""
    text = "def f(x[i, j], w[j, e]):\n    y[i, e] = rmsnorm[j](x) * w[j, e]\n    return y\n"
    merged = ahead(text, BF16, splits=2, i=1024, j=4096, e=1024)[-1]
    stacked = ahead("def f(x[i, k, j]):\n    y[i, k] = sum[j](x)\n    return y\n", F32, i=64, j=1 << 20, k=64)[-1]
    for kernel in (merged, stacked):
        assert not re.search(r"tt.reshape .* allow_reorder.*tensor<\d+x\d+x\d+x\d+x", str(artifact(kernel, "ttgir")))


@pytest.mark.aot
def test_every_warp_of_a_chain_of_dots_has_rows_of_its_own() -> None:
    text = (EXAMPLES / "products" / "lora.ein").read_text(encoding="utf-8")
    for rows in (37, 4096):
        (kernel,) = ahead(text, BF16, n=rows, d=40, k=24, r=6)
        assert kernel.warps == 4  # for blocks of 64 rows
        assert "warpsPerCTA = [4, 1], instrShape = [16, 16, 16]" in str(artifact(kernel, "ttgir"))


@pytest.mark.aot
@pytest.mark.parametrize("text", CHAINS, ids=["attention", "layers"])
def test_nothing_is_addressed_by_a_register_that_nothing_wrote(text: str) -> None:
    """CUDA 12.8's assembler did so for the second of two dots, where its tile had narrower rows than the first's."""
    for sizes in ({"d": 64, "e": 32, "j": 53}, {"d": 40, "e": 21, "j": 1000}, {"d": 128, "e": 16, "j": 63}):
        for kernel in ahead(text, F16, i=sizes["j"], **sizes):
            assert unwritten(disassembled(artifact(kernel, "cubin"))) == []


@pytest.mark.aot
def test_wide_states_have_as_few_rows_as_registers_hold() -> None:
    text = (EXAMPLES / "attention" / "mla.ein").read_text(encoding="utf-8")
    for kernel in ahead(text, BF16, b=2, h=128, i=1, c=512, r=64, j=65536):
        assert kernel.spills == 0


def test_what_no_dot_multiplies_does_not_size_its_tiles() -> None:
    """Bounds in integers of four bytes beside dots of two: tiles have the rows of Hopper's dots."""
    text = (EXAMPLES / "attention" / "varlen.ein").read_text(encoding="utf-8")
    sizes = dict.fromkeys("ij", 4096) | dict.fromkeys("de", 128)
    program = elaborate(parse(text))
    facts = {p.name: Fact((2,) * len(p.dims), BF16 if p.dtype == F32 else p.dtype) for p in program.operands}
    done = compile_program(elaborate(parse(text), facts), 2, TARGETS["sm_90"], sizes)
    assert "BI = tile_size(i, 16, 64)" in done.emitted.source


@pytest.mark.aot
def test_distances_beside_a_dot_stay_in_registers() -> None:
    """A tile of three axes is computed at once: rows and positions are as many as registers hold."""
    text = """def f(x[i, d], y[j, d], v[j, e]):
    D[i, j] = sum[d]((x[i, d] - y[j, d]) ** 2)
    O[i, e] = softmax[j](-D[i, j]) * v[j, e]
    return O
"""
    sizes = {"i": 4096, "j": 4096, "d": 64, "e": 64}
    program = elaborate(parse(text), {name: Fact((2, 2), BF16) for name in "xyv"})
    done = compile_program(program, 2, TARGETS["sm_90"], sizes)
    assert {k.spills for k in compile_ahead(done.emitted, TARGETS["sm_90"], sizes)} == {0}


@pytest.mark.aot
def test_tiles_follow_the_sizes_given() -> None:
    scheduled = programs.matmul(F16, block=Block(16, WHOLE))
    assert "tensor<32x16xf32" in str(artifact(compiled(scheduled, "sm_90", i=20, j=3)[0], "ttir"))
    assert "tensor<128x128xf32" in str(artifact(compiled(scheduled, "sm_90")[0], "ttir"))


@pytest.mark.aot
def test_contiguous_dimensions_are_read_in_wide_words() -> None:
    (kernel,) = compiled(programs.elementwise_rows(F32), "sm_90")
    assert re.search(r"ld\.global\.v[24]", str(artifact(kernel, "ptx")))


CONSTANTS = {
    "not": "where(not (|d| == 3), x[i, d], 0)",
    "not of both": "where(not (|d| == 3 or |i| == 5), x[i, d], 0)",
    "and a mask": "where(not (|d| == 3) and d <= i, x[i, d], 0)",
    "a truth as a number": "f32(|d| == 3) * x[i, d]",
    "an extent as a number": "bf16(|d| // 2) * x[i, d] + f16(|i| % 7)",
    "arithmetic": "f32(-|d| + abs(|i| - 4) + max(|d|, |i|) * min(|d|, 7)) * x[i, d]",
    "a choice": "f32(where(|d| == 3, |i|, |d|)) * x[i, d]",
    "powers and divisions": "f32(|d| ** 2 + (3 - |i|) // |d| + (2 - |d|) % |i|) * x[i, d]",
}


@pytest.mark.aot
@pytest.mark.parametrize("term", CONSTANTS.values(), ids=CONSTANTS)
def test_extents_may_be_compiled_in(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton compiles in an extent of 1, and the emitter a head's width: operators then meet numbers of Python's."""
    monkeypatch.setattr(aot, "static_extents", lambda kernel: frozenset(extents_of(kernel)))
    for kernel in ahead(f"def f(x[i, d]):\n    y[i] = sum[d]({term})\n    return y\n", F32, i=64, d=32):
        assert kernel.spills == 0


def test_no_operator_but_a_comparison_or_a_sum_meets_an_extent_alone() -> None:
    """The kernel of grouped causal attention over normalised rows, whose widths are compiled in."""
    text = """def f(Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e]):
    q[b, h, i, d] = rmsnorm[d](Q)
    k[b, g, j, d] = rmsnorm[d](K)
    S[b, h, i, j] = q[b, h, i, d] * k[b, h // (|h| / |g|), j, d]
    O[b, h, i, e] = softmax[j](where(j <= i, S, -inf)) * V[b, h // (|h| / |g|), j, e]
    return O
"""
    source = program_ahead(text, BF16, "sm_90", b=2, h=8, g=2, i=512, j=512, d=64, e=64).source
    assert "== 0" in source
    assert not re.search(r"~\(?size_\w+|\(size_\w+ [^(),]*\)\.to\(", source)


@pytest.mark.aot
@pytest.mark.parametrize("narrow", ["bool", "i8"])
def test_sides_of_64_bits_may_be_made_of_narrow_values(narrow: str) -> None:
    weight = "where(m[i, k], A[i, k], 0)" if narrow == "bool" else "f64(m[i, k]) * A[i, k]"
    text = f"def f(A[i, k]: f64, B[k, j]: f64, m[i, k]: {narrow}):\n"
    text += f"    C[i, j] = sum[k]({weight} * B[k, j])\n    return C\n"
    done = program_ahead(text, F64, "sm_80", i=64, j=128, k=40)
    assert [k.name for k in compiled_ahead(done)] == ["C_kernel"]


def compiles(program: Program, level: int, machine: Target, sizes: Mapping[str, int]) -> None:
    done = compile_program(program, level, machine, sizes)
    assert all(k.shared <= machine.shared for k in compile_ahead(done.emitted, machine, sizes))


@pytest.mark.aot
@given(case=cases(most=2))
@settings(ANY, max_examples=4)
def test_random_programs_compile(case: Case) -> None:
    compiles(case.program, 2, TARGETS["sm_90"], case.sizes)


@pytest.mark.aot
@given(case=cascades(most=2), dtype=sampled_from((BF16, F32, F64)))
@settings(ANY, max_examples=4)
def test_random_cascades_compile(case: Cascade, dtype: DType) -> None:
    compiles(typed(case, dtype), 2, TARGETS["sm_90"], case.sizes)


@pytest.mark.aot
@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True], ids=["", "extents compiled in"])
@pytest.mark.parametrize("name", ["sm_90", "gfx942"])
@pytest.mark.parametrize("level", [0, 2])
@given(data=data())
@settings(ANY, max_examples=60, derandomize=False)
def test_many_random_programs_compile(known: bool, name: str, level: int, data: DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if known:
            patch.setattr(aot, "static_extents", lambda kernel: frozenset(extents_of(kernel)))
        case = data.draw(cases())
        compiles(case.program, level, TARGETS[name], case.sizes)
        cascade = data.draw(cascades())
        wider = {a: n * data.draw(sampled_from((1, 16))) for a, n in cascade.sizes.items()}
        compiles(typed(cascade, data.draw(sampled_from((BF16, F16, F32, F64)))), level, TARGETS[name], wider)


def typed(case: Cascade, dtype: DType) -> Program:
    """The program of a cascade for operands of a type where they are floats."""
    text = parse(case.text)
    operands = elaborate(text).operands
    return elaborate(text, {p.name: Fact((2,) * len(p.dims), p.dtype if p.declared else dtype) for p in operands})


# ---------------------------------------------------------------------------------------------------------------------
# Room

SEPARABLE = """def f(X[n, x, c], D[r, c], W[c, k]):
    axis y = 2 * |x| + |r| - 2
    T[n, y, c] = sum[r](where((y - r) % 2 == 0, X[n, (y - r) // 2, c], 0) * D[r, c])
    Y[n, y, k] = T[n, y, c] * W[c, k]
    return Y
"""
NORMED = "def f(x[i, j], w[j, e]):\n    y[i, e] = sum[j](layernorm[j](x) * w[j, e])\n    return y\n"
ROOMY = {
    "transposed convolution": (SEPARABLE, {"n": 8, "x": 512, "c": 256, "k": 256, "r": 4, "y": 1026}),
    "wide rows": (NORMED, {"i": 4096, "j": 1024, "e": 1024}),
}


@pytest.mark.aot
@pytest.mark.parametrize("name", ["sm_90", "gfx942"])
@pytest.mark.parametrize("what", ROOMY)
def test_tiles_leave_room_for_what_is_exchanged(what: str, name: str) -> None:
    text, sizes = ROOMY[what]
    done = program_ahead(text, BF16, name, **sizes)
    assert all(k.shared <= TARGETS[name].shared for k in compile_ahead(done.emitted, TARGETS[name], sizes))


@pytest.mark.aot
def test_kernels_that_need_too_much_are_made_smaller() -> None:
    """Tiles chosen for a machine with more shared memory than there turns out to be."""
    machine = replace(TARGETS["sm_90"], shared=49_152)
    done = program_ahead(NORMED, BF16, "sm_90", i=512, j=256, e=256)
    with pytest.raises(RoomError, match="needs more shared memory than sm_90 has"):
        compile_ahead(done.emitted, machine, done.context.sizes)
    assert all(k.shared <= machine.shared for k in compiled_ahead(done.on(machine)))


@pytest.mark.aot
def test_too_much_shared_memory_is_an_error() -> None:
    with pytest.raises(TargetError) as caught:
        compiled(programs.matmul(F16, block=Block(256, 256), inner=Block(128, 128)), "gfx942")
    assert "needs more shared memory than gfx942 has" in str(caught.value)
    assert "of 65536" in str(caught.value)


@pytest.mark.aot
def test_a_type_that_the_target_lacks_is_an_error() -> None:
    with pytest.raises(TargetError, match="does not compile for sm_80") as caught:
        compiled(programs.conversion(F32, F8E4M3), "sm_80")
    assert "fp8e4nv not supported" in str(caught.value)


def test_only_gpus_and_their_forms_are_compiled_for() -> None:
    with pytest.raises(TargetError, match="kernels are not compiled ahead for 'interpret'"):
        compile_ahead(TRITON.emit(*programs.matmul(), INTERPRETER), INTERPRETER)
    with pytest.raises(TargetError, match="there is no 'hsaco' for this target"):
        artifact(CompiledKernel("k", {"ptx": ""}, 0, 0, 0, 4), "hsaco")


def _uses_matrix_units(kernel: CompiledKernel, machine: Target) -> bool:
    assembly = str(artifact(kernel, "ptx" if machine.vendor == "cuda" else "amdgcn"))
    return any(unit in assembly for unit in UNITS[machine.vendor])


@pytest.mark.aot
def test_what_is_read_at_a_difference_is_not_taken_for_aligned() -> None:
    """Of positions that are subtracted from a multiple of 16 only one in 16 is one: elsewhere a load of four neighbours
    is of an address that has no such loads."""
    total = "sum[i](where(t >= |i| - i, X[t - (|i| - i)], 0) * Y[i])"
    text = f"def f(X[t]: f32, Y[i]: f32):\n    Z[t] = {total}\n    return Z\n"
    sizes, machine = {"t": 512, "i": 256}, TARGETS["sm_90"]
    (kernel,) = compile_ahead(compile_program(elaborate(parse(text)), 2, machine, sizes).emitted, machine, sizes)
    layouts = dict(re.findall(r"(#\w+) = #ttg.blocked<{sizePerThread = \[(.*?)\]", str(kernel.stages["ttgir"])))
    tiles = re.findall(r"tt.load .*: tensor<\d+x\d+x!tt.ptr<f32>, (#\w+)>", str(kernel.stages["ttgir"]))
    assert [layouts[x] for x in tiles] == ["1, 1"]
