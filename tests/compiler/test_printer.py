"""The printer: as few parentheses as the bindings allow, types and guards only where they are not implied."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings

from einc.base.source import Source
from einc.base.types import BF16, F32, F64, FLOAT, I32, I64, INT
from einc.ein import AxisDecl, Cast, Const, Expr, Param, Program, Scalar
from einc.ein.guards import composite
from einc.ein.printer import print_expr, print_program
from einc.frontend import elaborate, parse
from tests.support.nodes import add, call, mul, operand, pointwise, program, read, reduce, where
from tests.support.random_programs import programs

i_le_j = call("le", "i", "j")


@pytest.mark.parametrize(
    ("e", "text"),
    [
        (add(mul("i", 2), 1), "i * 2 + 1"),
        (mul(add("i", 2), 3), "(i + 2) * 3"),
        (call("sub", "i", add("j", 1)), "i - (j + 1)"),
        (call("sub", call("sub", "i", "j"), 1), "i - j - 1"),
        (call("div", "i", call("div", "j", "k")), "i / (j / k)"),
        (call("exactdiv", "|h|", mul("|g|", 2)), "|h| / (|g| * 2)"),
        (mul("i", call("floordiv", "j", 2)), "i * (j // 2)"),
        (call("mod", mul("i", "j"), 2), "i * j % 2"),
        (call("pow", call("pow", "i", 2), 3), "(i ** 2) ** 3"),
        (call("pow", "i", call("pow", "j", 3)), "i ** j ** 3"),
        (call("pow", "i", call("neg", "j")), "i ** -j"),
        (call("neg", call("pow", "i", 2)), "-i ** 2"),
        (call("pow", call("neg", "i"), 2), "(-i) ** 2"),
        (call("pow", Const(-2), 2), "(-2) ** 2"),
        (call("neg", add("i", 1)), "-(i + 1)"),
        (mul(call("neg", "i"), "j"), "-i * j"),
        (call("neg", mul("i", "j")), "-(i * j)"),
        (call("and", call("or", i_le_j, i_le_j), i_le_j), "(i <= j or i <= j) and i <= j"),
        (call("or", i_le_j, call("and", i_le_j, i_le_j)), "i <= j or i <= j and i <= j"),
        (call("and", i_le_j, call("and", i_le_j, i_le_j)), "i <= j and (i <= j and i <= j)"),
        (call("not", i_le_j), "not i <= j"),
        (call("not", call("and", i_le_j, i_le_j)), "not (i <= j and i <= j)"),
        (call("eq", i_le_j, Const(True)), "(i <= j) == true"),
        (call("eq", call("not", i_le_j), Const(False)), "(not i <= j) == false"),
        (call("max", add("i", 1), Scalar("w")), "max(i + 1, w)"),
        (where(i_le_j, 0.5, -math.inf), "where(i <= j, 0.5, -inf)"),
        (Cast(BF16, call("exp", "i")), "bf16(exp(i))"),
        (call("rand", "$seed", "i", "j"), "rand(seed, i, j)"),
        (add(1e-7, 1e300), "1e-07 + 1e+300"),
        (add(0.1, 1.0), "0.1 + 1.0"),
        (call("sub", "i", Const(-1)), "i - -1"),
        (read("A", "i", composite("gr"), 0), "A[i, (g r), 0]"),
        (read("A"), "A[]"),
        (read("A", add(mul(composite("abc"), "|d|"), "d")), "A[(a b c d)]"),
        (read("A", add(mul("g", "|r|"), "s")), "A[g * |r| + s]"),
        (read("A", read("P", add("i", 1), guard=i_le_j), guard=i_le_j), "A[P[i + 1] : i <= j]"),
        (read("A", read("P", add("i", 1)), guard=i_le_j), "A[P[i + 1 : true] : i <= j]"),
    ],
)
def test_expressions(e: Expr, text: str) -> None:
    assert print_expr(e) == text


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-300, 123456789.0, 5e-324, 1.7976931348623157e308])
def test_floats_read_back_exactly(value: float) -> None:
    assert float(print_expr(Const(value))) == value


SHAPES = {"A": (("i",), ("j",)), "B": (("i",),)}
BACK = call("sub", "i", 1)
AHEAD = call("ge", "i", 1)


@pytest.mark.parametrize(
    ("e", "text"),
    [
        # `where`, `and` and `or` imply a guard, except where a read is in range by form
        (where(AHEAD, read("B", BACK, guard=AHEAD), 0), "where(i >= 1, B[i - 1], 0)"),
        (where(AHEAD, read("B", "i"), 0), "where(i >= 1, B[i], 0)"),
        (where(AHEAD, 0, read("B", BACK, guard=call("not", AHEAD))), "where(i >= 1, 0, B[i - 1])"),
        (call("and", AHEAD, read("B", BACK, guard=AHEAD)), "i >= 1 and B[i - 1]"),
        (call("or", AHEAD, read("B", BACK, guard=call("not", AHEAD))), "i >= 1 or B[i - 1]"),
        (
            where(AHEAD, where(i_le_j, read("B", BACK, guard=call("and", AHEAD, i_le_j)), 0), 0),
            "where(i >= 1, where(i <= j, B[i - 1], 0), 0)",
        ),
        # what is not implied is written
        (where(AHEAD, read("B", BACK), 0), "where(i >= 1, B[i - 1 : true], 0)"),
        (where(AHEAD, read("B", "i", guard=AHEAD), 0), "where(i >= 1, B[i : i >= 1], 0)"),
        (where(AHEAD, 0, read("B", BACK, guard=AHEAD)), "where(i >= 1, 0, B[i - 1 : i >= 1])"),
        (read("B", "i", guard=i_le_j), "B[i : i <= j]"),
        # a guard covers the reads in its subscripts
        (
            where(AHEAD, read("A", read("B", BACK, guard=AHEAD), "j", guard=AHEAD), 0),
            "where(i >= 1, A[B[i - 1], j], 0)",
        ),
        (read("A", read("B", BACK, guard=AHEAD), "j", guard=AHEAD), "A[B[i - 1], j : i >= 1]"),
    ],
)
def test_guards(e: Expr, text: str) -> None:
    assert print_expr(e, SHAPES) == text


def test_a_program() -> None:
    causal = call("le", "j", "i")
    s = reduce("S b (g r) i j", "sum", "d", mul("$scale", read("Q", "b", composite("gr"), "i d"), read("K", "b g j d")))
    top = reduce("M b g r i", "max", "j", read("S", "b", composite("gr"), "i j"), domain=causal)
    place = reduce("X i", "argmax", "b j", read("S", "b", 0, "i j"), composite("bj"), dtype=I64)
    own = reduce("Y i", "argmin", "b j", read("S", "b", 0, "i j"), "j", dtype=I32)
    wide = pointwise("O x", mul(2.0, read("M", 0, 0, 0, "x")), F64)
    p = program(
        operand("Q b (g r) i d", BF16),
        operand("K b g j d", F32),
        operand("U 1"),
        Param("window", INT),
        Param("scale", FLOAT, call("rsqrt", "|d|")),
        AxisDecl("x", call("floordiv", "|i|", 2)),
        s, top, place, own, wide,
        results="O M",
    )  # fmt: skip
    assert print_program(p) == (
        "def p(Q[b, (g r), i, d]: bf16, K[b, g, j, d]: f32, U[1]: f32, window: int, scale: float = rsqrt(|d|)):\n"
        "    axis x = |i| // 2\n"
        "    S[b, (g r), i, j] = sum[d](scale * Q[b, (g r), i, d] * K[b, g, j, d])\n"
        "    M[b, g, r, i] = max[j : j <= i](S[b, (g r), i, j])\n"
        "    X[i] = argmax[b, j](S[b, 0, i, j])\n"
        "    Y[i]: i32 = argmin[b, j](S[b, 0, i, j], j)\n"
        "    O[x]: f64 = 2.0 * M[0, 0, 0, x]\n"
        "    return O, M\n"
    )


def test_a_domain_implies_the_guard_of_its_body() -> None:
    inside = call("ge", "k", 1)
    before = call("sub", "k", 1)
    p = program(
        operand("A k"),
        reduce("S", "sum", "k", read("A", before, guard=inside), domain=inside),
        reduce("T", "sum", "k", read("A", before), domain=inside),
        results="S T",
    )
    lines = print_program(p).splitlines()
    assert lines[1] == "    S[] = sum[k : k >= 1](A[k - 1])"
    assert lines[2] == "    T[] = sum[k : k >= 1](A[k - 1 : true])"


def test_deep_expressions_are_printed() -> None:
    e: Expr = Const(1)
    for _ in range(250):
        e = call("exp", e)
    assert print_expr(e).count("exp(") == 250


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_read_back_equal(p: Program) -> None:
    read = elaborate(parse(Source("random", print_program(p))))  # where a type is written, what reads it says so
    assert elaborate(parse(Source("random", print_program(read)))) == read
