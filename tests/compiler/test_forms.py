"""The verifier: every way to break a program is named, with the node that breaks it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from einc.base.types import BOOL, C64, F32, I32, INT
from einc.ein import Apply, AxisDecl, Const, Equation, Param, Program, Read, Scalar, Tensor
from einc.ein.monoids import MONOIDS
from einc.pipeline import Pass, State, on_program
from einc.pipeline.forms import FORMS, IllegalIR, admit, check, verify
from tests.support.nodes import add, call, mul, operand, pointwise, program, read, reduce

A = operand("A i k")
B = operand("B k j")
DOT = reduce("C i j", "sum", "k", mul(read("A", "i k"), read("B", "k j")))
GOOD = program(A, B, DOT)


def test_a_good_program_has_every_form() -> None:
    verify(GOOD, "inlined", "binary-contractions")
    assert all(form.meaning for form in FORMS.values())


def pointwise_of(body: object, dtype: object = F32) -> Program:
    return program(A, pointwise("T i k", body, dtype))  # type: ignore[arg-type]  # wrong on purpose, in some


BROKEN: list[tuple[str, Program]] = [
    ("parameter 'A' is there twice", program(A, A, DOT)),
    ("axis 'i' is there twice", replace(GOOD, axes=(*GOOD.axes, AxisDecl("i")))),
    ("axis 'k' of A is not declared", replace(GOOD, axes=GOOD.axes[:1])),
    ("'C' is defined twice", program(A, B, DOT, DOT)),
    ("'A' is defined twice", program(A, B, replace(DOT, outputs=(Tensor("A", F32),)))),
    ("no equation gives the result 'Z'", replace(GOOD, results=("Z",))),
    ("no equation gives the result 'A'", replace(GOOD, results=("A",))),
    ("without results", replace(GOOD, results=())),
    ("tensor 'D' is not defined before its use", pointwise_of(read("D", "i"))),
    ("tensor 'T' is not defined before its use", pointwise_of(read("T", "i k"))),
    ("A[i] has 1 subscripts for 2 dimensions", pointwise_of(read("A", "i"))),
    ("axis 'j' is neither an output axis nor reduced", pointwise_of(call("exp", "j"))),
    ("axis 'z' is not declared", pointwise_of(Apply("exp", (call("neg", "|z|"),)))),
    ("scalar 's' is not defined", pointwise_of(Scalar("s"))),
    ("there is no operation 'softmax'", pointwise_of(Apply("softmax", (Const(1),)))),
    ("'exp' with 2 arguments", pointwise_of(call("exp", 1, 2))),
    ("a subscript of type f32", pointwise_of(read("A", read("A", "i k"), "k"))),
    ("a subscript of type float", pointwise_of(read("A", 0.5, "k"))),
    ("a guard of type int", pointwise_of(read("A", "i k", guard=Const(1)))),
    ("takes a truth value", pointwise_of(call("where", 1, 2, 3))),
    ("exact division of what is no extent", pointwise_of(call("exactdiv", "i", 2))),
    ("stored in the weak type int", pointwise_of(1, INT)),
    ("'T: f32' is given a value of type c64", program(operand("A i k", C64), pointwise("T i k", read("A", "i k")))),
    ("'T: bool' is given a value of type f32", pointwise_of(read("A", "i k"), BOOL)),
    ("does not fit 64 bits", pointwise_of(1 << 70)),
    ("axis 'i' is there twice", program(A, reduce("T i", "sum", "i k", read("A", "i k")))),
    ("axis 'i' is there twice", program(A, pointwise("T i i", 1.0))),
    ("'sum' has axes, 1 bodies", program(A, reduce("T i", "sum", "", read("A", "i 0")))),
    ("'argmax' has axes, 2 bodies", program(A, reduce("T i", "argmax", "k", read("A", "i k")))),
    ("a pointwise equation has no reduced axes", program(A, B, replace(DOT, monoid=None))),
    ("the domain of type int", program(A, reduce("T i", "sum", "k", read("A", "i k"), domain=add("k", 1)))),
    ("combines truth values, not f32", program(A, reduce("T i", "any", "k", read("A", "i k")))),
    ("depends on positions or data", program(A, AxisDecl("x", add("i", 1)), pointwise("T x", 1.0))),
    ("is an axis, or no int", program(A, Param("i", INT), pointwise("T i", 1.0))),
    ("is an axis, or no int", program(A, Param("s", I32), pointwise("T i", 1.0))),
    ("'t' is not defined before", program(Param("s", INT, Scalar("t")), Param("t", INT), A, pointwise("T i", 1.0))),
    ("nothing gives the extent of axis 'x'", program(A, AxisDecl("x"), pointwise("T x", 1.0))),
]


@pytest.mark.parametrize(("message", "broken"), BROKEN, ids=[m for m, _ in BROKEN])
def test_broken_programs(message: str, broken: Program) -> None:
    with pytest.raises(IllegalIR, match=re.escape(message)):
        check(NOTHING, State(GOOD), State(broken))


NOTHING = Pass("nothing", "p --> p", "a test", on_program(lambda p, _: p))


def test_the_pass_and_the_node_are_named() -> None:
    broken = program(A, pointwise("T i k", read("A", "i")))
    with pytest.raises(IllegalIR, match=r"after 'nothing': not well-formed: A\[i\] .* in T\[i, k\]: f32 = A\[i\]"):
        check(NOTHING, State(GOOD), State(broken))
    with pytest.raises(IllegalIR, match="before 'nothing'"):
        admit(NOTHING, State(broken))


def test_inlined() -> None:
    again = pointwise("U i k", read("A", "i k"))
    p = program(A, again, pointwise("T i k", call("exp", read("U", "i k"))))
    with pytest.raises(IllegalIR, match=r"renames: U\[i, k\]"):
        verify(p, "inlined")
    verify(replace(p, results=("U", "T")), "inlined")


def test_binary_contractions() -> None:
    three = mul(read("A", "i k"), read("B", "k j"), read("D", "k l"))
    p = program(A, B, operand("D k l"), reduce("T i l", "sum", "k j", three))
    verify(program(A, B, reduce("T i j", "sum", "k", mul(read("A", "i k"), read("A", "i k"), read("B", "k j")))))
    with pytest.raises(IllegalIR, match="several"):
        verify(p, "binary-contractions")


def test_a_lowered_state_has_kernels() -> None:
    with pytest.raises(IllegalIR, match="no kernels"):
        FORMS["lowered"].check(State(GOOD))


def test_several_results_of_one_reduction() -> None:
    both = replace(MONOIDS["argmax"], results=(0, 1))
    e = Equation((Tensor("V", F32), Tensor("X", I32)), (("i",),), (read("A", "i k"), call("neg", "k")), both, ("k",))
    verify(program(A, e))
    assert Read("A", ()) == Read("A", ())
