"""The evaluator against NumPy, at the edges of the language: extents 0, infinities, wrapping integers, guards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from einc.base.ops import FUNCTIONS
from einc.base.types import BOOL, C64, F16, F32, FLOAT, I8, I32, I64, INT, U8, DType
from einc.ein import FALSE, TRUE, AxisDecl, Cast, Const, Equation, Extent, Monoid, Param, Scalar, Tensor
from einc.ein.guards import composite
from einc.evaluate import evaluate
from tests.support.nodes import Term, add, call, mul, operand, pointwise, program, read, reduce, where

Array = NDArray[Any]
inf, nan = math.inf, math.nan
RANDOM = np.random.default_rng(0)


def one(p: Any, *operands: Any, **scalars: Any) -> Array:
    """The only result for operands by position."""
    (found,) = evaluate(p, dict(zip((o.name for o in p.operands), operands, strict=True)), scalars)
    return found


def elementwise(op: str, *arrays: Array, dtypes: tuple[DType, ...], out: DType) -> Array:
    """The operation on vectors."""
    names = "ABC"[: len(arrays)]
    operands = [operand(f"{n} i", t) for n, t in zip(names, dtypes, strict=True)]
    return one(program(*operands, pointwise("T i", call(op, *(read(n, "i") for n in names)), out)), *arrays)


def same(x: Array, y: object) -> None:
    np.testing.assert_array_equal(x, np.asarray(y))


MATMUL = program(
    operand("A b i k"), operand("B b k j"), reduce("C b i j", "sum", "k", mul(read("A", "b i k"), read("B", "b k j")))
)


@pytest.mark.parametrize("n", [1, 7, 130])
def test_matmul(n: int) -> None:
    a, b = RANDOM.normal(size=(2, 2, n, n))
    np.testing.assert_allclose(one(MATMUL, a, b), a @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_zero_extents(shape: tuple[int, int, int, int]) -> None:
    b, i, k, j = shape
    same(one(MATMUL, np.ones((b, i, k)), np.ones((b, k, j))), np.full((b, i, j), float(k)))


def test_floats_are_not_rounded() -> None:
    p = program(operand("A i", F16), pointwise("T i", Cast(F16, add(read("A", "i"), 1e-9)), F16))
    same(one(p, np.ones(2, np.float16)), [1 + 1e-9, 1 + 1e-9])


def attention(domain: bool) -> Any:
    """Causal attention, by a mask of -inf, or by domains."""
    s = reduce("S h i j", "sum", "d", mul("$s", read("Q", "h i d"), read("K", "h j d")))
    causal = call("le", "j", "i")
    x = pointwise("X h i j", read("S", "h i j") if domain else where(causal, read("S", "h i j"), -inf))
    inside = causal if domain else None
    m = reduce("M h i", "max", "j", read("X", "h i j"), domain=inside)
    e = pointwise("E h i j", call("exp", call("sub", read("X", "h i j"), read("M", "h i"))))
    z = reduce("L h i", "sum", "j", read("E", "h i j"), domain=inside)
    weight = call("div", read("E", "h i j"), read("L", "h i"))
    o = reduce("O h i e", "sum", "j", mul(weight, read("V", "h j e")), domain=inside)
    scale = Param("s", FLOAT, call("rsqrt", "|d|"))
    parts = (operand("Q h i d"), operand("K h j d"), operand("V h j e"), scale, s, x, m, e, z, o)
    return program(*parts, results="O M")


@pytest.mark.parametrize("domain", [False, True])
@pytest.mark.parametrize("n", [5, 150])
def test_attention(n: int, domain: bool) -> None:
    q, k, v = RANDOM.normal(size=(3, 6, n, 8))
    scores = np.where(np.tri(n, dtype=bool), q @ k.swapaxes(1, 2) / math.sqrt(8), -inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out, top = evaluate(attention(domain), {"Q": q, "K": k, "V": v})
    np.testing.assert_allclose(top, scores.max(-1), rtol=1e-12)
    np.testing.assert_allclose(out, weights / weights.sum(-1, keepdims=True) @ v, rtol=1e-9, atol=1e-12)


# -- products of several factors, large and small


@pytest.mark.parametrize("n", [3, 40])
def test_three_factors_and_a_quotient(n: int) -> None:
    a, b, c = RANDOM.uniform(1, 2, size=(3, n, n))
    product = mul(read("A", "i k"), read("B", "k l"), read("C", "l j"))
    e = reduce("T i j", "sum", "k l", call("neg", call("div", product, read("D", "i j"))))
    p = program(operand("A i k"), operand("B k l"), operand("C l j"), operand("D i j"), e)
    np.testing.assert_allclose(one(p, a, b, c, a), -(a @ b @ c) / a, rtol=1e-10)


@pytest.mark.parametrize("n", [4, 110])
def test_infinities_in_products_are_as_ieee_has_them(n: int) -> None:
    a, b = RANDOM.uniform(1, 2, size=(2, n, n))
    a[0, 0], b[1, 1] = inf, 0.0
    body = mul(read("A", "i k"), read("B", "k j"), 2.0)
    inside = call("le", "k", "i")
    p = program(operand("A i k"), operand("B k j"), reduce("C i j", "sum", "k", body, domain=inside))
    with np.errstate(invalid="ignore"):
        expected = np.tril(np.where(np.tri(n, dtype=bool), a, 0)) @ b * 2
    np.testing.assert_allclose(one(p, a, b), expected, rtol=1e-10)


@pytest.mark.parametrize("n", [2, 300])
def test_axes_that_the_body_does_not_depend_on_count(n: int) -> None:
    a = RANDOM.normal(size=(n, n))
    body = mul(read("A", "i k"), read("A", "k i"))
    p = program(operand("A i k"), AxisDecl("t", Const(7)), reduce("T i", "sum", "k t", body))
    np.testing.assert_allclose(one(p, a), 7 * (a * a.T).sum(1), rtol=1e-9, atol=1e-9)
    p = program(operand("A i k"), AxisDecl("t", Const(3)), reduce("T i", "prod", "k t", read("A", "i k")))
    np.testing.assert_allclose(one(p, a), a.prod(1) ** 3, rtol=1e-9, atol=1e-300)


def test_large_reductions_are_done_in_parts() -> None:
    a = RANDOM.normal(size=(40, 600))
    body = call("abs", call("sub", read("A", "i d"), read("A", "j d")))
    p = program(operand("A i d"), AxisDecl("j", Extent("i")), reduce("T i j", "max", "d", body))
    same(one(p, a), np.abs(a[:, None] - a[None]).max(-1))
    big = RANDOM.integers(-5, 5, (3, 1 << 22)).astype(float)
    p = program(operand("A i d"), reduce("T i", "argmax", "d", read("A", "i d"), "d", dtype=I64))
    same(one(p, big), big.argmax(1))


# -- reductions


@pytest.mark.parametrize(
    ("monoid", "dtype", "expected"),
    [("sum", F32, 0.0), ("prod", F32, 1.0), ("max", F32, -inf), ("min", F32, inf), ("sum", I32, 0),
     ("max", I32, -(2**31)), ("min", I8, 127), ("max", U8, 0), ("any", BOOL, False), ("all", BOOL, True)],
)  # fmt: skip
def test_empty_reductions_give_the_identity(monoid: str, dtype: DType, expected: object) -> None:
    p = program(operand("A i k", dtype), reduce("T i", monoid, "k", read("A", "i k"), dtype=dtype))
    found = one(p, np.zeros((2, 0)))
    same(found, [expected] * 2)
    assert found.dtype.kind == {"f": "f", "i": "i", "u": "u", "b": "b"}[dtype.kind]


def test_argmax_where_no_position_counts_is_the_greatest_index() -> None:
    p = program(operand("A i k"), reduce("T i", "argmax", "k", read("A", "i k"), "k", dtype=I64, domain=FALSE))
    same(one(p, np.zeros((1, 3))), [2**63 - 1])


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_argmax_takes_the_first_and_nan_wins(name: str) -> None:
    a = np.array([[1, 3, 3, 0], [nan, 5, nan, 9], [-inf, -inf, -inf, -inf], [2, 2, nan, 2.0]])
    p = program(operand("A i k"), reduce("T i", name, "k", read("A", "i k"), "k", dtype=I64))
    same(one(p, a), getattr(np, name)(a, axis=1))


def test_argmax_over_two_axes_is_the_row_major_position() -> None:
    a = RANDOM.integers(0, 4, (3, 5, 6))
    body = read("A", "b i j")
    p = program(operand("A b i j", I32), reduce("T b", "argmax", "i j", body, composite("ij"), dtype=I64))
    same(one(p, a), a.reshape(3, -1).argmax(1))


def test_max_keeps_nan() -> None:
    p = program(operand("A k"), reduce("T", "max", "k", read("A", "k")))
    assert math.isnan(one(p, [1.0, nan, 2.0]))


def test_domain() -> None:
    a = RANDOM.normal(size=(4, 4))
    cases: tuple[tuple[str, float, Any], ...] = (("sum", 0.0, np.sum), ("max", -inf, np.max), ("prod", 1.0, np.prod))
    for monoid, unit, f in cases:
        p = program(
            operand("A i k"), reduce("T i", monoid, "k", read("A", "i k"), domain=call("lt", "k", "i"))
        )  # fmt: skip
        np.testing.assert_allclose(one(p, a), f(np.where(np.tri(4, k=-1, dtype=bool), a, unit), axis=1))


def test_any_and_all() -> None:
    a = RANDOM.integers(0, 2, (5, 3)).astype(bool)
    for monoid in ("any", "all"):
        p = program(operand("A i k", BOOL), reduce("T i", monoid, "k", read("A", "i k"), dtype=BOOL))
        same(one(p, a), getattr(a, monoid)(1))


def test_counting_truth_values() -> None:
    a = RANDOM.integers(0, 2, (5, 300)).astype(bool)
    p = program(operand("A i k", BOOL), reduce("T i", "sum", "k", read("A", "i k"), dtype=I64))
    same(one(p, a), a.sum(1))


RECURRENCE = Monoid(  # h = a h + b as an associative pair
    "recurrence",
    (1, 0),
    (mul(Scalar("a0"), Scalar("b0")), add(mul(Scalar("a1"), Scalar("b0")), Scalar("b1"))),
    results=(0, 1),
    commutative=False,
)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_a_monoid_of_ones_own_is_folded_in_order(n: int) -> None:
    a, b = RANDOM.normal(size=(2, 3, n))
    e = Equation(
        (Tensor("P", F32), Tensor("H", F32)), (("i",),), (read("A", "i t"), read("B", "i t")), RECURRENCE, ("t",)
    )  # fmt: skip
    p = program(operand("A i t"), operand("B i t"), e)
    product, state = evaluate(p, {"A": a, "B": b})
    h = np.zeros(3)
    for t in range(n):
        h = a[:, t] * h + b[:, t]
    np.testing.assert_allclose(product, a.prod(1))
    np.testing.assert_allclose(state, h)


# -- integers


def test_integers_wrap_in_their_type() -> None:
    x = np.array([100, -128], np.int8)
    same(elementwise("add", x, x, dtypes=(I8, I8), out=I8), np.array([-56, 0], np.int8))
    big = np.array([2**31 - 1], np.int32)
    same(elementwise("mul", big, big, dtypes=(I32, I32), out=I32), [1])


def test_a_sum_of_products_of_narrow_integers_is_wide() -> None:
    x = np.full((2, 300), 100, np.int8)
    body = mul(read("A", "i k"), read("A", "i k"))
    p = program(operand("A i k", I8), reduce("T i", "sum", "k", body, dtype=I32))
    same(one(p, x), [3_000_000] * 2)
    p = program(operand("A i k", I8), reduce("T i", "sum", "k", body, dtype=I8))
    same(one(p, x), np.full(2, 3_000_000).astype(np.int8))


def test_division_and_remainder_floor() -> None:
    a, b = np.array([7, -7, 7, -7, 5]), np.array([2, 2, -2, -2, 0])
    same(elementwise("floordiv", a, b, dtypes=(I64, I64), out=I64), [3, -4, -4, 3, 0])
    same(elementwise("mod", a, b, dtypes=(I64, I64), out=I64), [1, 1, -1, -1, 0])
    same(elementwise("div", a[:2], b[:2], dtypes=(I32, I32), out=F32), [3.5, -3.5])


def test_powers() -> None:
    base, exponent = np.array([2, -1, -1, 3, 0]), np.array([10, -3, -2, -1, 0])
    same(elementwise("pow", base, exponent, dtypes=(I64, I64), out=I64), [1024, -1, 1, 0, 1])
    same(elementwise("pow", np.array([2.0, 0.25]), np.array([-1.0, 0.5]), dtypes=(F32, F32), out=F32), [0.5, 0.5])


def test_comparisons_of_integers_are_exact() -> None:
    p = program(operand("A i", I8), pointwise("T i", call("lt", read("A", "i"), 300), BOOL))
    same(one(p, np.array([127, -128], np.int8)), [True, True])


def test_casts() -> None:
    a = np.array([2.9, -2.9, 300.5])
    for t, expected in ((I32, [2, -2, 300]), (U8, [2, 254, 44]), (BOOL, [True] * 3)):
        p = program(operand("A i"), pointwise("T i", Cast(t, read("A", "i")), t))
        same(one(p, a), expected)


# -- scalar functions


@pytest.mark.parametrize("op", [*FUNCTIONS, "abs", "neg"])
def test_functions(op: str) -> None:
    x = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    np.testing.assert_allclose(elementwise(op, x.numpy(), dtypes=(F32,), out=F32), getattr(torch, op)(x), rtol=1e-15)


def test_rounding_is_to_even() -> None:
    x = np.array([0.5, 1.5, -0.5, 2.4])
    same(elementwise("round", x, dtypes=(F32,), out=F32), [0, 2, -0.0, 2])
    same(elementwise("floor", x, dtypes=(F32,), out=F32), [0, 1, -1, 2])
    same(elementwise("ceil", x, dtypes=(F32,), out=F32), [1, 2, -0.0, 3])


def test_ieee_where_it_hurts() -> None:
    zero, x = np.zeros(3), np.array([1.0, -1.0, 0.0])
    same(elementwise("div", x, zero, dtypes=(F32, F32), out=F32), [inf, -inf, nan])
    same(elementwise("log", np.array([0.0, -1.0]), dtypes=(F32,), out=F32), [-inf, nan])
    same(elementwise("max", np.array([nan, 1.0]), np.array([0.0, nan]), dtypes=(F32, F32), out=F32), [nan, nan])


def test_complex() -> None:
    a = RANDOM.normal(size=(2, 3)) + 1j * RANDOM.normal(size=(2, 3))
    p = program(
        operand("A i k", C64), operand("B j k", C64),
        reduce("C i j", "sum", "k", mul(read("A", "i k"), read("B", "j k")), dtype=C64),
        pointwise("R i j", call("add", call("re", read("C", "i j")), call("im", read("C", "i j")))),
        results="C R",
    )  # fmt: skip
    c, r = evaluate(p, {"A": a, "B": a})
    np.testing.assert_allclose(c, a @ a.T)
    np.testing.assert_allclose(r, c.real + c.imag)


# -- reads


def test_composite_dimensions() -> None:
    q = RANDOM.normal(size=(2, 6, 4))
    body = mul(read("Q", "b", composite("gr"), "i"), read("K", "g"))
    p = program(operand("Q b (g r) i"), operand("K g"), pointwise("T (r b) i g", body))
    expected = q.reshape(2, 3, 2, 4) * np.array([1, 10, 100.0])[:, None, None]
    same(one(p, q, [1, 10, 100]), expected.transpose(2, 0, 3, 1).reshape(4, 4, 3))


def test_a_diagonal() -> None:
    a = RANDOM.normal(size=(4, 4))
    p = program(operand("A i i"), pointwise("T i", read("A", "i i")))
    same(one(p, a), np.diag(a))


def test_convolution() -> None:
    x, w = RANDOM.normal(size=9), RANDOM.normal(size=3)
    body = mul(read("X", add("o", "r")), read("W", "r"))
    extent = add(call("sub", "|n|", "|r|"), 1)
    p = program(operand("X n"), operand("W r"), AxisDecl("o", extent), reduce("T o", "sum", "r", body))
    np.testing.assert_allclose(one(p, x, w), np.correlate(x, w))


def test_a_guarded_read_out_of_range_is_zero() -> None:
    ahead = call("sub", "i", 2)
    p = program(operand("X i"), pointwise("T i", read("X", ahead, guard=call("ge", ahead, 0))))
    same(one(p, [1, 2, 3, 4]), [0, 0, 1, 2])
    p = program(operand("X i"), pointwise("T i", read("X", ahead, guard=TRUE)))
    same(one(p, [1, 2, 3, 4]), [0, 0, 1, 2])
    p = program(operand("X i"), pointwise("T i", read("X", "i", guard=FALSE)))
    same(one(p, [nan, 2]), [0, 0])


def test_a_gather_out_of_range_is_zero_and_never_wraps() -> None:
    p = program(operand("X n e"), operand("P j", I32), pointwise("T j e", read("X", read("P", "j"), "e")))
    x = np.arange(6.0).reshape(3, 2)
    same(one(p, x, [2, -1, 3, 0]), [[4, 5], [0, 0], [0, 0], [0, 1]])
    same(one(p, x[:0], [2, 0]), np.zeros((2, 2)))


def test_division_in_subscripts() -> None:
    p = program(
        operand("X n"), AxisDecl("j", mul(2, "|n|")),
        pointwise("T j", add(read("X", call("floordiv", "j", 2)), read("X", call("mod", "j", "|n|")))),
    )  # fmt: skip
    x = RANDOM.normal(size=5)
    same(one(p, x), np.repeat(x, 2) + np.tile(x, 2))


# -- scalars and random numbers


def test_scalars_of_each_kind() -> None:
    body: Term = where(Scalar("flag"), mul(read("X", "i"), Scalar("a")), Scalar("n"))
    p = program(
        operand("X i"), Param("a", FLOAT, Const(0.5)), Param("n", INT), Param("flag", BOOL), pointwise("T i", body)
    )
    same(one(p, [2, 4], n=3, flag=True), [1, 2])
    same(one(p, [2, 4], n=3, flag=False, a=np.float32(2)), [3, 3])


TRITON = {  # tl.rand(seed, i) of Triton 3.7.1, then Philox at the counter (i, i - 1, 3, 1000 i)
    0: ([0.7980929017066956, 0.055517591536045074, 0.03889884054660797, 0.4252644181251526],
        [0.044808484613895416, 0.7103685736656189, 0.3747432827949524, 0.49588543176651]),
    -3: ([0.2528609335422516, 0.5133756995201111, 0.5032017827033997, 0.10845547914505005],
         [0.4444368779659271, 0.6693488955497742, 0.6213811635971069, 0.25499504804611206]),
    2**40 + 5: ([0.7371795177459717, 0.5477975010871887, 0.023886200040578842, 0.6415477395057678],
                [0.33675453066825867, 0.8827446103096008, 0.14816588163375854, 0.6930675506591797]),
}  # fmt: skip


@pytest.mark.parametrize("seed", TRITON)
def test_random_numbers_are_tritons(seed: int) -> None:
    four = ("i", call("sub", "i", 1), 3, mul("i", 1000))
    for index, expected in zip((("i",), four), TRITON[seed], strict=True):
        p = program(Param("seed", INT), AxisDecl("i", Const(4)), pointwise("T i", call("rand", "$seed", *index)))
        same(one(p, seed=seed), expected)


def test_more_than_four_indices_are_folded() -> None:
    several = call("rand", 7, "i", 5, 6, 7, 8)
    folded = call("rand", 7, add(mul("i", 0x9E3779B1), 5), 6, 7, 8)
    p = program(AxisDecl("i", Const(9)), pointwise("T i", call("eq", several, folded), BOOL))
    assert one(p).all()
