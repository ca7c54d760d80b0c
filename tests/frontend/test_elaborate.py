"""Programs into cascades: implicit sums, axes and extents, guards, types, functions; and back through the printer."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from einc import ein
from einc.base.errors import AxisError, Error
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.types import BF16, BOOL, BY_NAME, C64, F16, F32, F64, I8, I32, I64, DType
from einc.binding import bind
from einc.ein.printer import print_program
from einc.evaluate import evaluate
from einc.frontend import elaborate, parse
from einc.pipeline import forms
from tests.support.places import EXAMPLES
from tests.support.random_programs import programs

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
SHOWN = sorted(EXAMPLES.glob("*.ein"))


def elaborated(text: str, **dtypes: str) -> ein.Program:
    """The program of a text, operands of the types named."""
    parsed = parse(Source("<test>", dedent(text)))
    facts = {name: Fact((), BY_NAME[dtype]) for name, dtype in dtypes.items()}
    program = elaborate(parsed, facts or None)
    forms.verify(program)
    return program


def lines(text: str, **dtypes: str) -> list[str]:
    """The printed program without its signature and return, which reads back as the same program."""
    program = elaborated(text, **dtypes)
    printed = print_program(program)
    assert elaborated(printed) == program
    return [line.strip() for line in printed.splitlines()[1:-1]]


def run(text: str, operands: Mapping[str, Array], **scalars: float) -> tuple[Array, ...]:
    parsed = parse(Source("<test>", dedent(text)))
    kinds = {"f": F64, "i": I64, "b": BOOL}
    facts = {n: Fact(x.shape, kinds[x.dtype.kind]) for n, x in operands.items()}
    return evaluate(elaborate(parsed, facts), operands, scalars)


def dtype(text: str, **dtypes: str) -> DType:
    """The type of the first result."""
    program = elaborated(text, **dtypes)
    return program.dtypes()[program.results[0]]


# ---------------------------------------------------------------------------------------------------------------------
# Sums


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C[i, j] = A[i, k] * B[k, j]", ["C[i, j] = sum[k](A[i, k] * B[k, j])"]),
        ("C[] = A[i, j] * B[j]", ["C[] = sum[i, j](A[i, j] * B[j])"]),
        ("C[i] = -A[i, k] / |k|", ["C[i] = sum[k](-A[i, k] / |k|)"]),
        ("C[i] = A[i, k] * (B[i] + 1)", ["C[i] = sum[k](A[i, k] * (B[i] + 1))"]),
        ("C[i] = A[i] * (B[k] + D[i, k])", ["C[i] = sum[k](A[i] * (B[k] + D[i, k]))"]),
        ("C[i] = k * A[i, k]", ["C[i] = sum[k](k * A[i, k])"]),
        (
            "C[i] = A[i, k] * B[k] + D[i] - E[i, q]",
            ["C_sum[i] = sum[k](A[i, k] * B[k])", "C_sum2[i] = sum[q](E[i, q])", "C[i] = C_sum[i] + D[i] - C_sum2[i]"],
        ),
        ("C[i]: f64 = A[i, k]", ["C[i]: f64 = sum[k](A[i, k])"]),
        ("C[i] = bf16(A[i, k])", ["C[i]: bf16 = sum[k](A[i, k])"]),
        ("C[i] = f64(A[i, k] + B[i])", ["C_sum[i] = sum[k](A[i, k])", "C[i] = f64(C_sum[i] + B[i])"]),
        ("C = A[i, k] * B[k]", ["C[i, k] = A[i, k] * B[k]"]),
        ("C[i] = max[k](A[i, k])", ["C[i] = max[k](A[i, k])"]),
        ("C[i] = 2 * max[k : k < i](A[i, k])", ["C_max[i] = max[k : k < i](A[i, k])", "C[i] = 2 * C_max[i]"]),
        (
            "C[i] = softmax[j](A[i, j]) * B[j]",
            [
                "C_max[i] = max[j](A[i, j])",
                "C_exp[i, j] = where(A[i, j] == -inf, 0, exp(A[i, j] - C_max[i]))",
                "C_sum[i] = sum[j](C_exp[i, j])",
                "C[i] = sum[j](where(C_sum[i] == 0, 0, C_exp[i, j] / C_sum[i]) * B[j])",
            ],
        ),
        ("C[i] = exp(A[i, k] * B[k]) * D[k]", ["C[i] = sum[k](exp(A[i, k] * B[k]) * D[k])"]),
        ("C[i, j] = relu(A[i, k]) * B[k, j]", ["C[i, j] = sum[k](max(0, A[i, k]) * B[k, j])"]),
        (
            "C[i, j] = where(m[i, k] > 0, A[i, k], 0) * B[k, j]",
            ["C[i, j] = sum[k](where(m[i, k] > 0, A[i, k], 0) * B[k, j])"],
        ),
        ("C[i] = A[i, k] / B[k]", ["C[i] = sum[k](A[i, k] / B[k])"]),
        ("C[i] = 2 * f32(-exp(A[i, k])) * (B[k] + D[k])", ["C[i] = sum[k](2 * f32(-exp(A[i, k])) * (B[k] + D[k]))"]),
        ("C[i] = max[j](A[i, j, k]) * B[k]", ["C_max[i, k] = max[j](A[i, j, k])", "C[i] = sum[k](C_max[i, k] * B[k])"]),
        ("C[n] = exp(A[n, k]) * k", ["C[n] = sum[k](exp(A[n, k]) * k)"]),
        (
            "Y[n, o, t] = softmax[r](K[o, c, r]) * X[n, c, t - r]",
            [
                "axis t = |X_2|",
                "Y_max[o, c] = max[r](K[o, c, r])",
                "Y_exp[o, c, r] = where(K[o, c, r] == -inf, 0, exp(K[o, c, r] - Y_max[o, c]))",
                "Y_sum[o, c] = sum[r](Y_exp[o, c, r])",
                "Y[n, o, t] = sum[c, r](where(Y_sum[o, c] == 0, 0, Y_exp[o, c, r] / Y_sum[o, c]) * X[n, c, t - r])",
            ],
        ),
        ("I[i] = argmax[j, k](A[i, j, k])", ["I[i] = argmax[j, k](A[i, j, k])"]),
        ("I[i] = argmax[j](A[i, j], |j| - 1 - j)", ["I[i] = argmax[j](A[i, j], |j| - 1 - j)"]),
        ("V[i], I[i] = argmax[j](A[i, j])", ["V[i], I[i] = argmax[j](A[i, j], j)"]),
        ("C[i, j] = sum[j](A[i, j])", ["C_sum[i] = sum[j](A[i, j])", "C[i, j] = C_sum[i]"]),
        ("N[i] = sum[j : j <= i](1)\nT[i, j] = A[i, j]", ["N[i] = sum[j : j <= i](1)", "T[i, j] = A[i, j]"]),
        ("N[i] = sum[j : true](A[i])\nT[j] = B[j]", ["N[i] = sum[j : true](A[i])", "T[j] = B[j]"]),
    ],
)
def test_sums(text: str, expected: list[str]) -> None:
    assert lines(text) == expected


@pytest.mark.parametrize(
    ("right", "inside"),
    [
        ("exp(A[i, k] * B[k])", "exp"),
        ("exp(A[i, k]) * sqrt(B[k])", "exp"),
        ("exp(A[i, k]) * (B[k] + D[i])", "terms"),
        ("(exp(A[i, k]) + D[i]) * B[k]", "exp"),
        ("D[i] * (exp(A[i, k]) + B[k])", "exp"),
        ("where(A[i, k] > 0, B[k], 0)", "where"),
        ("A[i, k] ** 2", "power"),
        ("A[i] / B[i, k]", "denominator"),
        ("2 * (A[i, k] + B[i])", "terms"),
        ("max[j](A[i, j, k])", "max"),
        ("silu(A[i, k]) * B[i]", "silu"),
        ("softmax[j](A[i, j, k]) * B[j]", "softmax"),
        ("A[i, k] // 2", "//"),
    ],
)
def test_sums_that_are_not_implicit(right: str, inside: str) -> None:
    with pytest.raises(AxisError) as caught:
        elaborated(f"C[i] = {right}")
    assert "'k'" in caught.value.message
    assert inside in caught.value.message
    assert "sum[k](" in caught.value.hint


# ---------------------------------------------------------------------------------------------------------------------
# Axes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P = where(j <= i, A[b, i, j], 0)", "P[b, i, j] = where(j <= i, A[b, i, j], 0)"),
        ("P = i * A[b] + B[i]", "P[b, i] = i * A[b] + B[i]"),
        ("P = A[b] + i\nT[i] = B[i]", "P[b, i] = A[b] + i"),
        ("P = A[page[b, j // 16], j % 16]\naxis j = 64", "P[b, j] = A[page[b, j // 16], j % 16]"),
        ("P[b, (g r), 1] = A[b, g, r]", "P[b, (g r), 1] = A[b, g, r]"),
        ("T[(g r)] = A[(g r)] * B[g]\nP = T + 1", "P[(g r)] = T[(g r)] + 1"),
        ("P[g, r] = A[(g r)] * B[g]", "P[g, r] = A[(g r)] * B[g]"),
        ("P[] = 2 * A[]", "P[] = 2 * A[]"),
    ],
)
def test_axes_of_definitions(text: str, expected: str) -> None:
    assert expected in lines(text)


def test_both_spellings_of_a_composite_subscript() -> None:
    group, affine = (
        elaborated(f"def f(A[(g r)], B[g]):\n    P[g, r] = A[{index}] * B[g]\n    return P")
        for index in ("(g r)", "g * |r| + r")
    )
    assert group == affine


@pytest.mark.parametrize(
    ("text", "extent"),
    [
        ("O[x] = W[x + r] * F[r]", "x = |W_0| - |r| + 1"),
        ("O[x] = W[x + 3 * r] * F[r]", "x = |W_0| - 3 * |r| + 3"),
        ("O[x] = W[x - r] * F[r]", "x = |W_0|"),
        ("O[x] = W[2 * x + r] * F[r]", "x = (|W_0| - |r|) // 2 + 1"),
        ("O[x] = W[x + r - 1 : true] * F[r]", "x = |W_0| - |r| + 2"),
        ("O[x] = W[|W_0| - 1 - x]", "x = |W_0|"),
        ("O[x] = A[x, i] * B[i, x + 1]", ""),
        ("O[x] = A[x + 1] + B[x + 2]", "x = min(|A_0| - 1, |B_0| - 2)"),
        ("O[x] = sum[t](where(t <= x, A[t], 0)) * B[x]", ""),
        ("C[i] = A[i]\nO[i] = sum[t](where(t <= i, A[t], 0))", "t = |i|"),
        ("C[i, j] = A[i, j]\nO[i, x] = C[i, x + 1] + C[i, x]", "x = min(|j| - 1, |j|)"),
        ("O[(p q)] = A[p] * B[p, q + 1]", "q = |B_1| - 1"),
        ("O[h] = A[h // 2]\naxis h = 2 * |A_0|", "h = 2 * |A_0|"),
    ],
)
def test_extents_from_subscripts(text: str, extent: str) -> None:
    found = lines(text)
    axes = [line.removeprefix("axis ") for line in found if line.startswith("axis")]
    assert axes == ([extent] if extent else [])


def test_a_scalar_in_a_subscript_bounds_from_both_sides() -> None:
    text = """
        def conv(W[w], F[r], dilation: int):
            O[x] = W[x + dilation * r] * F[r]
            return O
    """
    assert "axis x = |w| - max(|r| * dilation - dilation, 0)" in lines(text)
    program = elaborated(text)
    assert bind(program, {"W": (10,), "F": (3,)}, {"dilation": 2}).extents["x"] == 6


def test_axes_in_the_order_of_signature_statements_and_use() -> None:
    program = elaborated("""
        def f(A[i, w], n: int):
            axis z = n
            axis i = 4
            O[x, z] = sum[t](A[t, x + 1]) + A[z, x]
            return O
    """)
    assert [a.name for a in program.axes] == ["i", "w", "z", "x", "t"]


# ---------------------------------------------------------------------------------------------------------------------
# Guards


def guards(text: str) -> dict[str, str]:
    """The guard of each read that has one, by the read's tensor, as the printer writes it on its own."""
    from einc.ein.printer import print_expr

    program = elaborated(text)
    reads = [r for e in program.equations for x in e.expressions() for r in ein.reads(x)]
    return {r.tensor: print_expr(r.guard) for r in reads if r.guard is not None}


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ("where(i > 0, A[i - 1], B[i + 1])", {"A": "i > 0", "B": "not i > 0"}),
        ("where(i > 0, A[i], B[i])", {}),
        ("where(i > 0 and A[i - 1] > 0, 1, 0)", {"A": "i > 0"}),
        ("where(i > 0 or A[i - 1] > 0, 1, 0)", {"A": "not i > 0"}),
        ("where(0 < i <= A[i - 1], 1, 0)", {"A": "0 < i"}),
        ("where(i > 0, where(i < 3, A[i + 1], 0), 0)", {"A": "i > 0 and i < 3"}),
        ("A[i - 1 : i >= 1]", {"A": "i >= 1"}),
        ("where(i > 0, A[i - 1 : true], 0)", {}),
        ("where(i > 0, A[i : i < 3], 0)", {"A": "i < 3"}),
        ("sum[k : k > i](A[k - 1] * B[k])", {"A": "k > i", "B": "k > i"}),
        ("where(i > 2, A[C[i + 1]], 0)", {"A": "i > 2", "C": "i > 2"}),
        ("where(i > 0, sum[t](B[i - 1] * A[t]), 0)", {"B": "i > 0", "A": "i > 0"}),
        ("where(i > 0, cumsum[i](A[i]), 0)", {"A": "t <= i"}),
    ],
)
def test_guards(right: str, expected: dict[str, str]) -> None:
    assert guards(f"def f(A[i], B[i], C[i]: i32):\n    axis k = |i|\n    O[i] = {right}\n    return O") == expected


def test_a_guard_does_not_capture_a_reduced_axis() -> None:
    """Outside, `i` is the position in the output; inside, the one reduced over."""
    assert guards("def f(A[i]):\n    O[i] = where(i > 0, sum[i : i < 2](A[i + 1]), 0)\n    return O") == {"A": "i < 2"}


# ---------------------------------------------------------------------------------------------------------------------
# Types


@pytest.mark.parametrize(
    ("right", "given", "expected"),
    [
        ("A[i] * 2", {"A": "bf16"}, BF16),
        ("A[i] * 2", {"A": "f64"}, F64),
        ("A[i] + 1", {"A": "i8"}, I8),
        ("A[i] / 2", {"A": "i32"}, F32),
        ("A[i] // 2", {"A": "i32"}, I32),
        ("A[i] > 0", {"A": "f32"}, BOOL),
        ("i", {}, I64),
        ("0.5 * i", {}, F32),
        ("A[i] * B[i]", {"A": "f16", "B": "bf16"}, F32),
        ("A[i] * B[i]", {"A": "i64", "B": "f32"}, F32),
        ("sum[k](A[i, k])", {"A": "bf16"}, BF16),
        ("sum[k](A[i, k])", {"A": "i8"}, I32),
        ("sum[k](A[i, k])", {"A": "bool"}, I64),
        ("max[k](A[i, k])", {"A": "i8"}, I8),
        ("max[k](A[i, k])", {"A": "bf16"}, BF16),
        ("argmin[k](A[i, k])", {"A": "bf16"}, I64),
        ("any[k](A[i, k])", {"A": "bool"}, BOOL),
        ("A[i, k] * B[k]", {"A": "bf16", "B": "bf16"}, BF16),
        ("A[i, k] * B[k] / sqrt(|k|)", {"A": "f16", "B": "f16"}, F16),
        ("-A[i, k] * 2 * B[k]", {"A": "bf16", "B": "f32"}, F32),
        ("f32(A[i, k]) * B[k]", {"A": "bf16", "B": "bf16"}, F32),
        ("exp(A[i]) * B[k] * A[k]", {"A": "bf16", "B": "bf16"}, BF16),
        ("A[i, k] * 2", {"A": "bf16"}, BF16),
        ("A[i, k] * B[k] + A[i, k]", {"A": "bf16", "B": "bf16"}, BF16),
        ("softmax[k](A[i, k]) * B[k]", {"A": "f32", "B": "bf16"}, BF16),
        ("bf16(A[i, k])", {"A": "f32"}, BF16),
        ("f16(A[i])", {"A": "f32"}, F16),
        ("A[i] * 2", {"A": "c64"}, C64),
        ("re(A[i])", {"A": "c64"}, F32),
        ("rand(7, i)", {}, F32),
    ],
)
def test_types(right: str, given: dict[str, str], expected: DType) -> None:
    text = f"O[i] = {right}"
    assert dtype(text if "A[" in right else f"axis i = 4\n{text}", **given) == expected


def test_a_contraction_that_is_not_returned_is_stored_in_f32() -> None:
    program = elaborated("S[i, j] = A[i, k] * B[k, j]\nO[i] = max[j](S)", A="bf16", B="bf16")
    assert program.dtypes()["S"] == F32


def test_types_that_the_signature_gives() -> None:
    program = elaborated("def f(A[i]: bf16, B[i], n: int, s: float, t: bool):\n    O = A * B\n    return O")
    assert [p.dtype.name for p in program.params] == ["bf16", "f32", "int", "float", "bool"]


def test_division_of_extents_is_exact() -> None:
    program = elaborated("def f(A[h, g], n: int):\n    O = A * (|h| / |g|) * (|h| / n) * (n / 2)\n    return O")
    ops = [n.op for n in ein.walk(program.equations[0].body) if isinstance(n, ein.Apply)]
    assert ops.count("exactdiv") == 2
    assert ops.count("div") == 1


# ---------------------------------------------------------------------------------------------------------------------
# Functions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fn f(x) = x * x\nO = f(A[i])", ["O[i] = A[i] * A[i]"]),
        ("fn f(x) = x * x\nO = f(A[i] + 1)", ["O_x[i] = A[i] + 1", "O[i] = O_x[i] * O_x[i]"]),
        ("fn f(x) = exp(x)\nO = f(A[i] + 1)", ["O[i] = exp(A[i] + 1)"]),
        ("fn f(x, s = 2) = x * s\nO = f(A[i]) + f(A[i], 3)", ["O[i] = A[i] * 2 + A[i] * 3"]),
        (
            "O = cumsum[j](A[t, j])",
            ["axis t2 = |j|", "O[t, j] = sum[t2](where(t2 <= j, A[t, t2], 0))"],
        ),
        (
            "fn shift[j](x[j], n) = where(j >= n, x[j - n], 0)\nO = shift[j](A[i, j], 2)",
            ["O[i, j] = where(j >= 2, A[i, j - 2], 0)"],
        ),
        ("fn swap[i, j](x[i, j]) = x[j, i]\nO[p, q] = swap[p, q](A[p, q])\naxis p = |q|", None),
        ("fn total[*r](x) = sum[r](x)\nO[i] = total[j, k](A[i, j, k])", ["O[i] = sum[j, k](A[i, j, k])"]),
        (
            "fn scaled[*r](x) = x / |r|\nO = scaled[i, j](A[i, j])",
            ["O[i, j] = A[i, j] / (|i| * |j|)"],
        ),
        (
            "fn f[j](x):\n    s[] = x * x\n    return x / s\nO = f[j](A[b, j])",
            ["O_s[b] = sum[j](A[b, j] * A[b, j])", "O[b, j] = A[b, j] / O_s[b]"],
        ),
        (
            "fn f[j](x):\n    y[j] = x * 2\n    return y[j] - y[0]\nO = f[j](A[j, b])",
            ["O_y[b, j] = A[j, b] * 2", "O[j, b] = O_y[b, j] - O_y[b, 0]"],
        ),
        (
            "fn both[*r](x):\n    return max[r](x), min[r](x)\nV[i], W[i] = both[j](A[i, j])",
            ["V[i] = max[j](A[i, j])", "W[i] = min[j](A[i, j])"],
        ),
        ("fn mean[*r](x) = sum[r](x)\nO[i] = mean[j](A[i, j])", ["O[i] = sum[j](A[i, j])"]),
    ],
)
def test_functions(text: str, expected: list[str] | None) -> None:
    found = lines(text)
    assert expected is None or found == expected


def test_names_of_what_is_generated_are_new() -> None:
    found = lines("P_max[i] = B[i]\nP = softmax[j](A[i, j]) + P_max\nQ = softmax[j](A[i, j])")
    names = [line.split("[")[0] for line in found]
    assert names == ["P_max", "P_max2", "P_exp", "P_sum", "P", "Q_max", "Q_exp", "Q_sum", "Q"]
    assert len(set(names)) == len(names)


def test_definitions_in_any_order() -> None:
    assert lines("O[i] = S[i] + 1\nS[i] = T[i] * 2\nT[i] = A[i]") == [
        "T[i] = A[i]",
        "S[i] = T[i] * 2",
        "O[i] = S[i] + 1",
    ]


def test_results() -> None:
    assert elaborated("S[i] = A[i]\nT[i] = S[i]\nU[i] = S[i]").results == ("T", "U")
    program = elaborated("def f(A[i], out[i]):\n    S = A * 2\n    return S, A + S, out")
    assert program.results == ("S", "out2", "out3")
    assert [e.name for e in program.equations] == ["S", "out2", "out3"]


def test_operands_of_statements() -> None:
    program = elaborated("O[i] = A[i + 1] * A[i] * B[idx[i], (p q), 0]\naxis i = 4\naxis p = 2")
    assert [(p.name, p.dims, p.dtype) for p in program.operands] == [
        ("A", (("i",),), F32),
        ("B", (("B_0",), ("p", "q"), ("B_2",)), F32),
        ("idx", (("i",),), I64),
    ]


def test_what_stands_as_a_condition_is_a_truth_value() -> None:
    program = elaborated("def f(M[i], N[i], A[i]):\n    O = where(M and not N[i], A, 0)\n    return O")
    assert [p.dtype for p in program.operands] == [BOOL, BOOL, F32]


def test_what_a_subscript_is_computed_from_is_an_integer() -> None:
    text = "at[n] = max(ids[n] - 1, 0)\nM[n] = mask[n]\nO[n, d] = where(M[n], E[at[n] * 2, d], 0)"
    assert {p.name: p.dtype for p in elaborated(text).operands} == {"ids": I64, "mask": BOOL, "E": F32}


# ---------------------------------------------------------------------------------------------------------------------
# The whole


FMHA = """
    def fmha(Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e], window: int, scale: float = rsqrt(|d|)):
        S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d]
        A[b, h, i, j] = where(j <= i and i - j < window, S, -inf)
        L[b, h, i]    = logsumexp[j](A)
        O[b, h, i, e] = softmax[j](A) * V[b, h // (|h| / |g|), j, e]
        return O, L
"""


def test_grouped_attention_means_what_it_says() -> None:
    draw = np.random.default_rng(0)
    b, h, g, i, d, e = 2, 4, 2, 5, 3, 6
    q, k, v = (draw.normal(size=s) for s in [(b, h, i, d), (b, g, i, d), (b, g, i, e)])
    o, lse = run(FMHA, {"Q": q, "K": k, "V": v}, window=3)
    scores = np.einsum("bhid,bhjd->bhij", q, np.repeat(k, 2, 1)) / np.sqrt(d)
    at, to = np.arange(i)[:, None], np.arange(i)
    scores = np.where((to <= at) & (at - to < 3), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(o, np.einsum("bhij,bhje->bhie", weights / total, np.repeat(v, 2, 1)), rtol=1e-12)
    np.testing.assert_allclose(lse, np.log(total[..., 0]) + scores.max(-1), rtol=1e-12)


def test_paged_keys() -> None:
    draw = np.random.default_rng(1)
    pages, page = draw.normal(size=(5, 4, 3)), np.array([[4, 0], [2, 1]])
    text = """
        def f(K[n, s, d], page[b, p]):
            axis j = |p| * |s|
            O[b, j, d] = K[page[b, j // |s|], j % |s|, d]
            return O
    """
    (found,) = run(text, {"K": pages, "page": page})
    np.testing.assert_array_equal(found, pages[page].reshape(2, 8, 3))


@pytest.mark.parametrize("path", SHOWN, ids=lambda p: p.stem)
def test_examples_read_back(path: Path) -> None:
    program = elaborate(parse(Source(path.name, path.read_text())))
    forms.verify(program)
    assert elaborate(parse(Source("<printed>", print_program(program)))) == program


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_read_back(program: ein.Program) -> None:
    read = elaborate(parse(Source("<printed>", print_program(program))))  # where a type is written, reads say so
    assert elaborate(parse(Source("<printed>", print_program(read)))) == read
    assert (read.params, read.axes, read.results) == (program.params, program.axes, program.results)


@pytest.mark.parametrize(
    "right",
    [
        "exp(" * 200 + "A[i]" + ")" * 200,
        "gelu(" * 200 + "A[i]" + ")" * 200,
        "softmax[i](" * 100 + "A[i]" + ")" * 100,
        " + ".join(["A[i]"] * 200),
    ],
)
def test_deep_expressions(right: str) -> None:
    program = elaborated(f"O[i] = {right}")
    assert elaborated(print_program(program)) == program


@pytest.mark.parametrize(
    "text",
    [
        "O[i] = where(" + " and ".join(f"A[i + {k}] > 0" for k in range(1, 40)) + ", 1, 0)",
        "fn g0(x) = x + 1\n"
        + "\n".join(f"fn g{k}(x) = g{k - 1}(g{k - 1}(x))" for k in range(1, 40))
        + "\nO = g39(A[i])",
        "O[i] = " + "where(A[i + 1] > 0, A[i + 2], " * 200 + "A[i]" + ")" * 200,
    ],
    ids=["guards", "functions", "nested guards"],
)
def test_small_texts_that_grow_without_end(text: str) -> None:
    with pytest.raises(Error, match=r"too large|too deeply|call each other"):
        elaborated(text)
