"""The type that a contraction multiplies in and the type of a result: one rule, the same at every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einc
from einc import driver
from einc.base.facts import Fact
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import BY_NAME
from einc.binding import bind
from einc.ein import Program
from einc.ein.origins import contractions, fixed
from einc.ein.printer import print_program
from einc.evaluate import evaluate
from einc.runtime.tensors import torch_dtype
from einc.tile.typing import multiplied
from tests.support.backends import close
from tests.support.compiled import run_in_torch

LEVELS = (0, 1, 2)
ATTENTION = "S[i, j] = Q[i, d] * K[j, d]\nO[i, e] = softmax[j](S) * V[j, e]"
ROTARY = "S[i, j] = (Q[i, d] * c[i, d]) * (K[j, d] * g[j, d])"
BF16 = {"Q": "bf16", "K": "bf16", "V": "bf16"}


def elaborated(text: str, types: dict[str, str]) -> Program:
    """The program of a text whose operands have these types, f32 where none is given."""
    source = driver.parse(text)
    plain = driver.elaborate(source)
    given = {p.name: Fact((8,) * len(p.dims), BY_NAME[types.get(p.name, p.dtype.name)]) for p in plain.operands}
    return driver.elaborate(source, given)


RULE: list[tuple[str, dict[str, str], str]] = [  # text, types of operands, the type of the last contraction
    # two operands as they are
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "bf16", "B": "bf16"}, "bf16"),
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "bf16"}, "f32"),
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "bf16", "B": "f16"}, "f32"),
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "f64", "B": "f16"}, "f64"),
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "f8e4m3", "B": "f8e4m3"}, "f8e4m3"),
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "f8e4m3", "B": "f8e5m2"}, "f16"),
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "f8e4m3", "B": "bf16"}, "bf16"),
    ("C[i, j] = A[i, k] * B[k, j]", {"A": "i8", "B": "bf16"}, "bf16"),
    ("C[i, j] = 2 * -A[i, k] * s[i] * B[k, j]", {"A": "bf16", "B": "bf16"}, "bf16"),
    ("T = A[i, k]\nC[i, j] = T * B[k, j]", {"A": "bf16", "B": "bf16"}, "bf16"),
    # a computed side beside one
    (ATTENTION, BF16, "bf16"),
    (ATTENTION, {"Q": "bf16", "K": "bf16"}, "f32"),
    (ATTENTION, {"V": "f16"}, "f16"),
    ("C[i, j] = relu(A[i, k]) * B[k, j]", {"A": "f64", "B": "bf16"}, "bf16"),
    ("C[i, j] = relu(A[i, k]) * B[k, j]", {"B": "f8e5m2"}, "bf16"),
    ("C[i, j] = where(m[i, k] > 0, A[i, k], 0) * B[k, j]", {"A": "bf16", "B": "bf16", "m": "i32"}, "bf16"),
    # two computed sides
    (ROTARY, {"Q": "bf16", "K": "bf16"}, "bf16"),
    (ROTARY, {"Q": "bf16", "K": "f16"}, "f32"),
    (ROTARY, {"Q": "f8e4m3", "K": "f8e4m3", "c": "f8e4m3", "g": "f8e4m3"}, "bf16"),
    (ROTARY, {"Q": "f64", "K": "f64"}, "f32"),
    (ROTARY, {"Q": "f64", "K": "f64", "c": "f64", "g": "f64"}, "f64"),
    ("S[i, j] = Q[i, d] * K[j, d]\nO[i, e] = softmax[j](S) * (V[j, e] * s[e])", {"Q": "bf16", "V": "i8"}, "bf16"),
    ("S[i, j] = Q[i, d] * K[j, d]\nO[i, e] = softmax[j](S) * s[j] * V[j, e]", {"Q": "bf16", "V": "i8"}, "bf16"),
    ("C[i, j] = (A[i, k] * 2) * (B[k, j] * 2)", {"A": "i8", "B": "f32"}, "f32"),
    ("M[i] = max[k](A[i, k])\nC[i, j] = sum[k](exp(A[i, k] - M[i]) * exp(B[k, j]))", {"A": "bf16"}, "bf16"),
    # a cast that the text writes
    (ATTENTION.replace("softmax[j](S)", "f32(softmax[j](S))"), BF16, "f32"),
    ("C[i, j] = f32(A[i, k]) * B[k, j]", {"A": "bf16", "B": "bf16"}, "f32"),
    ("C[i, j] = bf16(A[i, k]) * bf16(B[k, j])", {}, "bf16"),
    ("C[i, j] = sum[k](bf16(exp(A[i, k])) * relu(B[k, j]))", {}, "bf16"),
    ("T[i, k]: f32 = relu(A[i, k])\nC[i, j] = T * B[k, j]", {"A": "bf16", "B": "bf16"}, "f32"),
    ("T[i, k] = f32(sum[l](A[i, l, k]))\nC[i, j] = T * B[k, j]", {"A": "bf16", "B": "bf16"}, "f32"),
    ("S[i, j] = (f32(Q[i, d]) * c[d]) * (f32(K[j, d]) * c[d])", {"Q": "bf16", "K": "bf16"}, "f32"),
    # no rows, no columns: a contraction all the same
    ("O[e] = softmax[j](s[j]) * V[j, e]", BF16, "bf16"),
    # several operands
    ("Y[i, l] = A[i, j] * B[j, k] * C[k, l]", {"A": "bf16", "B": "bf16", "C": "bf16"}, "bf16"),
    ("Y[i, l] = A[i, j] * B[j, k] * C[k, l]", {"A": "bf16", "B": "bf16"}, "f32"),
]  # fmt: skip
rule = pytest.mark.parametrize(("text", "types", "expected"), RULE)


@rule
def test_a_contraction_multiplies_in_one_type(text: str, types: dict[str, str], expected: str) -> None:
    program = elaborated(text, types)
    *_, (name, found) = contractions(program)
    assert found.dtype.name == expected
    assert program.dtypes()[program.results[-1]].name == expected
    assert next(e for e in fixed(program).equations if e.name == name).product == found.dtype


@rule
def test_it_is_the_same_at_every_level(text: str, types: dict[str, str], expected: str) -> None:
    """Whatever has become of casts, factors and sides on the way; without rows there is no dot."""
    program = elaborated(text, types)
    sizes = {a.name: 64 for a in program.axes}
    for level in LEVELS:
        schedule = driver.compile_program(program, level, TARGETS["sm_90"], sizes).state.schedule
        assert schedule is not None
        found = [t.name for k in schedule.kernels for _, t in multiplied(k)]
        assert found[-1:] == ([] if "O[e]" in text else [expected]), level


UNITS = {"bf16": 2.0**-8, "f16": 2.0**-11, "f8e4m3": 2.0**-4, "f32": 2.0**-24, "f64": 2.0**-53}


@rule
def test_it_is_as_exact_as_that(text: str, types: dict[str, str], expected: str) -> None:
    program = elaborated(text, types)
    extents = {a.name: 16 + n for n, a in enumerate(program.axes)}
    shapes = {p.name: tuple(extents[a] for (a,) in p.dims) for p in program.operands}
    draw = np.random.default_rng(0)
    given = {
        p.name: torch.from_numpy(draw.normal(size=shapes[p.name])).to(torch_dtype(p.dtype)) for p in program.operands
    }
    wanted = torch.from_numpy(evaluate(program, {name: _exact(x) for name, x in given.items()})[-1])
    unit = max(UNITS[found.dtype.name] for _, found in contractions(program))
    for level in LEVELS:
        compiled = driver.compile_program(program, level, INTERPRETER, extents)
        found = run_in_torch(compiled, given, bind(program, shapes))[-1]
        assert found.dtype == torch_dtype(BY_NAME[expected])
        scale = wanted.abs().max()
        close(found.double() / scale, wanted / scale, 8 * unit)


def _exact(x: torch.Tensor) -> np.ndarray[Any, Any]:
    return (x.double() if x.is_floating_point() else x).numpy()


RESULTS = [  # text, types of operands, the type of the result
    ("T = softmax[j](A[i, j])", {"A": "bf16"}, "bf16"),
    ("T = max[j](A[i, j])", {"A": "f16"}, "f16"),
    ("T = mean[j](A[i, j])", {"A": "bf16"}, "bf16"),
    ("T = sum[j](A[i, j])", {"A": "i8"}, "i32"),
    ("T = mean[j](A[i, j])", {"A": "i8"}, "f32"),
    ("T = argmax[j](A[i, j])", {"A": "bf16"}, "i64"),
    ("T = A[i] * 2.5 + i", {"A": "bf16"}, "bf16"),
    ("T = A[i] + B[i]", {"A": "bf16", "B": "f32"}, "f32"),
    ("T = A[i] + B[i]", {"A": "bf16", "B": "f16"}, "f32"),
    ("T = A[i] * B[i]", {"A": "bf16", "B": "i32"}, "bf16"),
    ("T = exp(B[i]) * A[i]", {"A": "bf16", "B": "i32"}, "f32"),
    ("T = f32(A[i])", {"A": "bf16"}, "f32"),
    ("T[i]: f32 = logsumexp[j](A[i, j])", {"A": "bf16"}, "f32"),
    ("T[i] = f32(sum[j](A[i, j]))", {"A": "bf16"}, "f32"),
    ("M: f32 = max[j](A[i, j])\nT[i, j] = A[i, j] - M", {"A": "bf16"}, "f32"),
    ("M = max[j](A[i, j])\nT[i, j] = A[i, j] - M", {"A": "bf16"}, "bf16"),
    ("M: i64 = A[i]\nT[i] = M[i] * M[i]", {"A": "i8"}, "i64"),
    ("M: i8 = A[i]\nT[i] = M[i] * 3", {"A": "i32"}, "i8"),
    ("M: i8 = A[i]\nT[i] = M[i] * A[i]", {"A": "bf16"}, "bf16"),
    ("M: i8 = A[i]\nT[i] = M[i] + 1", {"A": "bool"}, "i8"),
    ("M: c128 = A[i]\nT[i] = M[i] * M[i]", {"A": "c64"}, "c128"),
    ("M: c64 = A[i]\nT[i] = re(M[i])", {"A": "c128"}, "f32"),
    ("M[i]: c64 = 2\nT[i] = M[i] * A[i]", {"A": "bf16"}, "c64"),
    ("M[i]: c64 = i\nT[i] = A[i] * where(i == 0, M[i], 1)", {"A": "i8"}, "c64"),
    ('softmax("ij")', {"A": "bf16"}, "bf16"),
    ('max("ij") + "i"', {"A": "bf16", "B": "bf16"}, "bf16"),
]


@pytest.mark.parametrize(("text", "types", "expected"), RESULTS)
def test_a_result_has_the_type_of_its_value(text: str, types: dict[str, str], expected: str) -> None:
    program = elaborated(text, types)
    assert program.dtypes()[program.results[0]].name == expected
    assert driver.elaborate(driver.parse(print_program(program))).dtypes() == program.dtypes()


def test_what_lies_between_is_wider() -> None:
    program = elaborated("M = max[j](A[i, j])\nT[i] = sum[j](exp(A[i, j] - M[i]))", {"A": "bf16"})
    assert [t.dtype.name for e in program.equations for t in e.outputs] == ["f32", "bf16"]


def test_several_results_of_one_reduction() -> None:
    program = elaborated("def f(A[i, j]):\n    V[i], I[i] = argmax[j](A)\n    return V, I", {"A": "bf16"})
    assert [program.dtypes()[name].name for name in program.results] == ["bf16", "i64"]


def test_explanations_name_the_types() -> None:
    given = [torch.zeros(8, 8, dtype=torch.bfloat16) for _ in "QKV"]
    text = einc.compile(ATTENTION).explain(*given)
    assert "S: bf16, of the operands Q, K" in text
    assert "O: bf16, of the operand V; the other side is converted to it" in text


INTEGERS = ["A[i, k] * B[k, j]", "i32(A[i, k]) * i32(B[k, j])", "i32(A[i, k]) * B[k, j]", "-i32(A[i, k]) * B[k, j]"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", INTEGERS)
def test_integers_of_eight_bits_are_multiplied_as_such(text: str, level: int) -> None:
    program = elaborated(f"C[i, j] = {text}", {"A": "i8", "B": "i8"})
    schedule = driver.compile_program(program, level, TARGETS["sm_90"], dict.fromkeys("ijk", 64)).state.schedule
    assert schedule is not None
    assert [t.name for k in schedule.kernels for _, t in multiplied(k)] == ["i8"] * len(schedule.kernels)
    a = torch.full((17, 2100), -128, dtype=torch.int8)
    b = torch.randint(-128, 128, (2100, 5), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    found = einc.compile(f"C[i, j] = {text}", level=level)(a, b)
    sign = -1 if text.startswith("-") else 1
    assert torch.equal(found, (sign * (a.long() @ b.long())).int())


def test_integers_that_are_summed_wider_or_computed_are_exact() -> None:
    a = torch.full((17, 300), 127, dtype=torch.int8)
    b = torch.full((300, 5), -128, dtype=torch.int8)
    exact = a.long() @ b.long()
    for level in LEVELS:
        assert torch.equal(einc.compile("C[i, j]: i64 = A[i, k] * B[k, j]", level=level)(a, b), exact)
        assert torch.equal(einc.compile("C[i, j] = i64(A[i, k]) * i64(B[k, j])", level=level)(a, b), exact)
        squared = einc.compile("C[i, j] = (A[i, k] * A[i, k]) * B[k, j]", level=level)(a, b)
        assert torch.equal(squared, (a.long() ** 2 @ b.long()).int())
