"""Expressions over einsum strings: their cascades, and their values against NumPy in double precision."""

from typing import Any, TypeAlias

import numpy as np
import pytest

from einc import ein
from einc.base.errors import AxisError, Error, NameError
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.types import BF16, BOOL, BY_NAME, F32, F64, I8, I32, I64, DType
from einc.ein.printer import print_program
from einc.evaluate import evaluate
from einc.frontend import elaborate, parse
from einc.pipeline import forms

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
KINDS = {"f": F64, "i": I64, "b": BOOL}


def elaborated(text: str) -> ein.Program:
    """The program of an expression over f32 operands."""
    program = elaborate(parse(Source("<test>", text)))
    forms.verify(program)
    return program


def lines(text: str) -> list[str]:
    """The printed program without its signature and return, which reads back as the same program."""
    printed = print_program(elaborated(text))
    assert elaborate(parse(Source("<printed>", printed))) == elaborated(text)
    return [line.strip() for line in printed.splitlines()[1:-1]]


def run(text: str, *operands: Array, **scalars: float) -> Array:
    """The value of an expression."""
    parsed = parse(Source("<test>", text))
    facts = {n: Fact(x.shape, KINDS[x.dtype.kind]) for n, x in zip(parsed.operands, operands, strict=True)}
    program = elaborate(parsed, facts)
    forms.verify(program)
    (result,) = evaluate(program, dict(zip(parsed.operands, operands, strict=True)), scalars)
    return result


def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    value: Array = e / e.sum(axis, keepdims=True)
    return value


def same(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


DRAW = np.random.default_rng(0)
B, I, J, H, D = 2, 5, 7, 3, 4  # noqa: E741 - extents of the axes b, i, j, h, d
Q, K, V = (DRAW.normal(size=(B, n, H, D)) for n in (I, J, J))
MASK = DRAW.normal(size=(B, H, I, J))
S = np.einsum("bihd,bjhd->bhij", Q, K)
A, W, X = DRAW.normal(size=(3, 4)), DRAW.normal(size=(4, 5)), DRAW.normal(size=5)


def attend(scores: Array) -> Array:
    value: Array = np.einsum("bhij,bjhd->bihd", softmax(scores), V)
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Attention


def test_the_attention_expression_in_equations() -> None:
    assert lines('softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"') == [
        "AB[b, h, i, j] = sum[d](A[b, i, h, d] * B[b, j, h, d])",
        "out_x[b, h, i, j] = AB[b, h, i, j] / sqrt(|d|)",
        "out_max[b, h, i] = max[j](out_x[b, h, i, j])",
        "out_exp[b, h, i, j] = where(out_x[b, h, i, j] == -inf, 0, exp(out_x[b, h, i, j] - out_max[b, h, i]))",
        "out_sum[b, h, i] = sum[j](out_exp[b, h, i, j])",
        "out[b, i, h, d] = sum[j](where(out_sum[b, h, i] == 0, 0, out_exp[b, h, i, j] / out_sum[b, h, i])"
        " * C[b, j, h, d])",
    ]


def test_attention_three_ways() -> None:
    same(run('softmax("bihd,bjhd->bhij") * "bjhd->bihd"', Q, K, V), attend(S))
    same(run('softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"', Q, K, V), attend(S / 2))
    program = """
        S[b, h, i, j] = Q[b, i, h, d] * K[b, j, h, d]
        P = softmax[j](S)
        O[b, i, h, d] = P * V[b, j, h, d]
    """
    same(run(program, Q, K, V), attend(S))


def test_masked_attention() -> None:
    added = run('softmax("bihd,bjhd->bhij" / sqrt(|d|) + "bhij") * "bjhd->bihd"', Q, K, MASK, V)
    same(added, attend(S / 2 + MASK))
    causal = run('softmax(where(j <= i, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"', Q, K, V)
    same(causal, attend(np.where(np.arange(J) <= np.arange(I)[:, None], S / 2, -np.inf)))
    read = run('softmax(where("ij", "bihd,bjhd->bhij", -inf)) * "bjhd->bihd"', MASK[0, 0] > -1, Q, K, V)
    same(read, attend(np.where(MASK[0, 0] > -1, S, -np.inf)))


@pytest.mark.parametrize(
    "text",
    [
        'softmax[j]("bihd,bjhd->bhij") * "bjhd->bihd"',
        "softmax('bihd,bjhd->bhij') * 'bjhd->bihd'",
        'softmax("b i h d, b j h d -> b h i j") * "b j h d -> b i h d"',
        'softmax("batch i h d, batch j h d -> batch h i j") * "batch j h d -> batch i h d"',
        'softmax(\n    "bihd,bjhd->bhij"  # scores\n) * "bjhd->bihd"',
        'softmax("b...hd,bjhd->bh...j") * "bjhd->b...hd"',
    ],
)
def test_attention_in_other_spellings(text: str) -> None:
    same(run(text, Q, K, V), attend(S))


def test_the_value_may_stand_first() -> None:
    same(run('"bjhd->bihd" * softmax("bihd,bjhd->bhij")', V, Q, K), attend(S))


def test_leading_axes_of_an_ellipsis() -> None:
    heads = [x.swapaxes(1, 2) for x in (Q, K, V)]
    same(run('softmax("...id,...jd->...ij") * "...jd->...id"', *heads), attend(S).swapaxes(1, 2))
    same(run('softmax("...id,...jd->...ij") * "...jd->...id"', *[x[0, 0] for x in heads]), attend(S)[0, :, 0])


def test_grouped_heads_by_a_composite_axis() -> None:
    q = DRAW.normal(size=(B, 2 * H, I, D))
    k = DRAW.normal(size=(B, H, J, D))
    scores = np.einsum("bgrqd,bgkd->bgrqk", q.reshape(B, H, 2, I, D), k).reshape(B, 2 * H, I, J)
    same(run('softmax("b (g r) q d, b g k d -> b (g r) q k")', q, k), softmax(scores))


# ---------------------------------------------------------------------------------------------------------------------
# Products and sums


@pytest.mark.parametrize(
    ("text", "operands", "expected"),
    [
        ('"ij,jk->ik"', (A, W), A @ W),
        ('"ij,jk"', (A, W), A @ W),
        ('"ij"', (A,), A),
        ('"ij->ji"', (A,), A.T),
        ('"ii"', (W[:4, :4],), np.diagonal(W[:4, :4])),
        ('"ii->"', (W[:4, :4],), np.trace(W[:4, :4])),
        ('"ij->"', (A,), A.sum()),
        ('"i,j->ij"', (X, X), np.outer(X, X)),
        ('"ij,jk->ik" * "k->i"', (A, W, X), A @ W @ X),
        ('"k->i" * "ij,jk->ik"', (X, A, W), A @ W @ X),
        ('"ij->j" * "jk->k"', (A, W), A.sum(0) @ W),
        ('"ij,jk->ik" * "ik"', (A, W, A @ W), (A @ W) ** 2),
        ('("ij,jk->ik" + "k") * "k->ki"', (A, W, X, X), ((A @ W + X) * X).T),
        ('"ij" * "j"', (A, A[0]), A * A[0]),
        ('"j" * "ij"', (A[0], A), (A * A[0]).T),
        ('"ij" + "j" - "i" / 2', (A, A[0], A[:, 0]), A + A[0] - A[:, :1] / 2),
        ('exp("ij,jk->ik") * "ik" ** 2 - 2', (A, W, A @ W), np.exp(A @ W) * (A @ W) ** 2 - 2),
        ('"ij,jk->ik" * "kl,l->k"', (A, W, W.T, A[0]), (A @ W) * (W.T @ A[0])),
        ('2 * "ij->i"', (A,), 2 * A.sum(1)),
        ('-"ij->i"', (A,), -A.sum(1)),
        ('sum[j]("ij")', (A,), A.sum(1)),
        ('sum[i, j]("ij")', (A,), A.sum()),
        ('max("ij")', (A,), A.max(1)),
        ('max("ij", 0)', (A,), np.maximum(A, 0)),
        ('argmax[i]("ij")', (A,), A.argmax(0)),
        ('sum("ij,jk->ik")', (A, W), (A @ W).sum(1)),
        ('"ij" * (j + 1)', (A,), A * (np.arange(4) + 1)),
        ('where(i == j, "ij", 0)', (A,), np.where(np.eye(3, 4), A, 0)),
        ('"ij" / |j|', (A,), A / 4),
        ('softmax[i]("ij,jk")', (A, W), softmax(A @ W, 0)),
        ('softmax[i, j]("ij")', (A,), softmax(A.reshape(-1)).reshape(A.shape)),
        ('layernorm("ij") * "j" + "j"', (A, A[0], A[1]), None),
        ('silu("ij,jk->ik") * "il,lk->ik"', (A, W, A, W), (A @ W) ** 2 / (1 + np.exp(-(A @ W)))),
        ('cumsum("ij" + 1)', (A,), np.cumsum(A + 1, 1)),
        ('(max[j]("ij") - "i" > 0) and any[j]("ij" > 1)', (A, A[:, 0], A), None),
    ],
)
def test_values(text: str, operands: tuple[Array, ...], expected: Array | float | None) -> None:
    found = run(text, *operands)
    if expected is not None:
        same(found, np.asarray(expected))


def test_scalars_are_parameters() -> None:
    same(run('"ij" * alpha + beta', A, alpha=2.0, beta=0.5), A * 2 + 0.5)
    program = elaborated('"ij" * alpha')
    assert [(p.name, p.dtype.name) for p in program.scalars] == [("alpha", "float")]


# ---------------------------------------------------------------------------------------------------------------------
# Extents of 1


def test_extents_of_1_are_stretched() -> None:
    k, v = K[:, :, :1], V[:, :, :1]
    scores = np.einsum("bihd,bjhd->bhij", Q, np.broadcast_to(k, K.shape))
    expected = np.einsum("bhij,bjhd->bihd", softmax(scores), np.broadcast_to(v, V.shape))
    same(run('softmax("bihd,bjhd->bhij") * "bjhd->bihd"', Q, k, v), expected)
    same(run('"ij" + "ij"', A[:1], A), A[:1] + A)
    same(run('"ij" * "j"', A, A[0, :1]), A * A[0, :1])


def test_a_sum_over_an_extent_of_1_takes_it_once() -> None:
    """Queries and keys of one channel beside values of four: `d` is summed over where it is, and stretched nowhere."""
    q, k = Q[..., :1], K[..., :1]
    scores = np.einsum("bihd,bjhd->bhij", q, k)
    same(run('softmax("bihd,bjhd->bhij") * "bjhd->bihd"', q, k, V), attend(scores))


def test_operands_of_extent_1_have_an_empty_group() -> None:
    parsed = parse(Source("<test>", '"ij" + "ij"'))
    program = elaborate(parsed, {"A": Fact((1, 4), F32), "B": Fact((3, 4), F32)})
    assert program.operands[0].dims == ((), ("j",))
    assert program.equations[0].dims == (("i",), ("j",))


# ---------------------------------------------------------------------------------------------------------------------
# Types


@pytest.mark.parametrize(
    ("text", "dtypes", "expected"),
    [
        ('"ij,jk->ik"', ("bf16", "bf16"), BF16),
        ('"ij->ji"', ("i8",), I8),
        ('"ij,jk->ik"', ("i8", "i32"), I32),
        ('"ij,jk->ik"', ("bool", "bool"), BOOL),
        ('softmax("ij,kj->ik") * "kj->ij"', ("bf16",) * 3, BF16),
        ('softmax("ij,kj->ik")', ("bf16", "bf16"), BF16),
        ('bf16("ij,jk->ik" + "ik")', ("bf16",) * 3, BF16),
        ('"ij" > 0', ("f32",), BOOL),
        ('argmax("ij")', ("f32",), I64),
        ('"ij" * 2', ("f64",), F64),
    ],
)
def test_types(text: str, dtypes: tuple[str, ...], expected: DType) -> None:
    parsed = parse(Source("<test>", text))
    facts = {n: Fact((2, 2), BY_NAME[d]) for n, d in zip(parsed.operands, dtypes, strict=True)}
    program = elaborate(parsed, facts)
    assert program.dtypes()["out"] == expected


def test_a_string_of_truth_values_is_any_of_and() -> None:
    a, b = A > 0, W > 0
    np.testing.assert_array_equal(run('"ij,jk->ik"', a, b), np.einsum("ij,jk->ik", a, b))


# ---------------------------------------------------------------------------------------------------------------------
# Errors, beyond those in tests/golden/errors


def test_a_letter_that_is_no_axis_is_a_number() -> None:
    assert elaborated('where(j < n, "ij", 0)').scalars[0].name == "n"
    with pytest.raises(NameError, match="'jj'"):
        elaborated('where(jj < 2, "ij", 0)')


def test_both_sides_may_not_lack_axes() -> None:
    with pytest.raises(AxisError, match="'k' is in the output"):
        elaborated('"i->k" * "k->i"')


@pytest.mark.parametrize("text", ['"ij', "'", '"ij" *', '"" ""', 'f("ij")', '("ij"', '"i" = 2', '"i" j', '"i->i->i"'])
def test_wrong_expressions_end_in_errors(text: str) -> None:
    with pytest.raises(Error):
        elaborated(text)
