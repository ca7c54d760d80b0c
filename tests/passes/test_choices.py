"""Choices in place of the heuristics': a kernel has them, is as right with them, and says them as one asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import einc
from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.ein import Program
from einc.evaluate import evaluate
from einc.tile.asked import Choice, choice, written
from tests.support.compiled import run
from tests.support.places import EXAMPLES

ATTENTION = """
def f(Q[i, d], K[j, d], V[j, e]):
    O[i, e] = softmax[j](where(j <= i, sum[d](Q * K), -inf)) * V[j, e]
    return O
"""
MATMUL = "def f(A[i, k], B[k, j]):\n    C[i, j] = A[i, k] * B[k, j]\n    return C\n"
ROWS = "def f(X[i, j]):\n    M[i] = max[j](X[i, j])\n    S[i] = sum[j](exp(X[i, j] - M[i]))\n    return M, S\n"
TWO = "def f(X[i, j]):\n    M[j] = sum[i](X[i, j])\n    S[i] = sum[j](X[i, j] * M[j])\n    return S\n"
LONG = {"i": 4096, "j": 4096, "k": 4096, "d": 64, "e": 64}


def program_of(text: str) -> Program:
    return elaborate(parse(text, "<test>"))


def asked(choices: Mapping[str, Any]) -> tuple[Choice, ...]:
    return tuple(choice(name, value) for name, value in choices.items())


def compiled(text: str, choices: Mapping[str, Any], level: int = 2, target: str = "sm_90", **sizes: int) -> Compiled:
    return compile_program(program_of(text), level, TARGETS[target], LONG | sizes, choices=asked(choices))


def has(c: Compiled, kernel: str) -> dict[str, int | str]:
    """The choices of one kernel."""
    assert c.state.schedule is not None
    return next(written(k) for k in c.state.schedule.kernels if k.name == kernel)


@pytest.mark.parametrize(
    ("text", "kernel", "choices"),
    [
        (MATMUL, "C", {"BI": 32, "BJ": "16..64", "BK": 128}),
        (MATMUL, "C", {"warps": 2, "stages": 5}),
        (MATMUL, "C", {"section": 4}),
        (MATMUL, "C", {"C.BI": 256}),
        (ATTENTION, "O", {"BI": 32, "BJ": 128, "O.warps": 8, "O.parts": 1}),
        (ATTENTION, "O_parts", {"BJ": 16, "O_parts.warps": 2, "parts": 7}),
        (ROWS, "S", {"BI": 8, "BJ": 128, "parts": 1}),
    ],
)
def test_a_kernel_has_what_is_chosen(text: str, kernel: str, choices: dict[str, Any]) -> None:
    found = has(compiled(text, choices), kernel)
    for name, value in choices.items():
        assert str(found.get(name.rpartition(".")[2], 1)) == str(value), name


def test_the_other_choices_suit_those_that_are_made() -> None:
    """Large tiles leave shared memory for fewer stages, and a narrow one takes more rows."""
    assert has(compiled(MATMUL, {}), "C")["stages"] == 3
    assert has(compiled(MATMUL, {"BI": 256, "BJ": 256, "BK": 64}), "C")["stages"] == 2
    narrow = has(compiled(ROWS, {"BJ": 64, "parts": 1}), "S")
    assert (narrow["BJ"], narrow["BI"]) == ("64", "1..64")


def test_columns_beside_an_axis_held_whole() -> None:
    text = "def f(X[i, j]):\n    L[j] = entropy[i](X)\n    return L\n"
    own = has(compiled(text, {}, i=400, j=50000), "L")
    assert has(compiled(text, {"BJ": 64}, i=400, j=50000), "L")["BJ"] == "64"
    assert own["BJ"] != "64"


def test_parts_of_a_walk() -> None:
    c = compiled(ATTENTION, {"parts": 3}, i=16)
    assert has(c, "O_parts")["parts"] == has(c, "O")["parts"] == 3
    alone = compiled(TWO, {"S.parts": 2})
    assert alone.state.schedule is not None
    assert [k.choices.parts for k in alone.state.schedule.kernels if k.plan == "S"] == [2, 2]
    assert "parts" not in has(compiled(TWO, {"S.parts": 2, "M.parts": 1}), "M")


def test_a_choice_of_one_kernel_goes_before_one_of_all() -> None:
    c = compiled(TWO, {"warps": 8, "S.warps": 2, "M.warps": 1})
    assert c.state.schedule is not None
    assert {k.plan: k.choices.warps for k in c.state.schedule.kernels} == {"M": 1, "S": 2}


@pytest.mark.turns(3)
@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.ein")), ids=lambda p: p.stem)
def test_what_is_said_chooses_it(path: Any) -> None:
    """All choices of all kernels, asked for by name: the same file."""
    program = elaborate(parse(path.read_text(encoding="utf-8"), "<test>"))
    sizes = {a.name: 2048 for a in program.axes if a.extent is None}
    plain = compile_program(program, 2, TARGETS["sm_90"], sizes)
    assert plain.state.schedule is not None
    said = {f"{k.name}.{name}": value for k in plain.state.schedule.kernels for name, value in written(k).items()}
    assert compile_program(program, 2, TARGETS["sm_90"], sizes, choices=asked(said)).source == plain.source


# ---------------------------------------------------------------------------------------------------------------------
# Meaning

SIZES = {"i": 37, "j": 70, "k": 50, "d": 20, "e": 9}
_SIZE = st.sampled_from([1, 2, 16, 32, 64, 128])


@st.composite
def any_choices(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes along some axes, and counts."""
    found: dict[str, Any] = {}
    for axis in draw(st.lists(st.sampled_from("IJKDE"), unique=True)):
        least, most = sorted((draw(_SIZE), draw(_SIZE)))
        found[f"B{axis}"] = f"{least}..{most}"
    found |= draw(st.fixed_dictionaries({}, optional={"parts": st.integers(1, 5), "section": st.integers(1, 3)}))
    return found


@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("text", [ATTENTION, MATMUL, ROWS, TWO], ids=["attention", "matmul", "rows", "two"])
@given(choices=any_choices(), hint=st.sampled_from([64, 4096]), level=st.sampled_from([0, 1, 2]))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_choice_changes_what_is_meant(
    text: str, backend: str, choices: dict[str, Any], hint: int, level: int
) -> None:
    program = program_of(text)
    c = compiled(text, choices, level, "interpret", i=hint, j=hint)
    rng = np.random.default_rng(0)
    given = {p.name: rng.standard_normal([SIZES[a] for (a,) in p.dims]).astype("f4") for p in program.operands}
    for found, wanted in zip(run(c, backend, given), evaluate(program, given, {}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Calls


def test_a_call_and_its_explanation() -> None:
    chosen = einc.compile(MATMUL, choices={"BI": 32, "warps": 2})
    a, b = np.ones((40, 30), "f4"), np.ones((30, 20), "f4")
    np.testing.assert_allclose(chosen(a, b), a @ b)
    assert "BI = 32" in chosen.source(a, b)
    assert "num_warps=2" in chosen.source(a, b)
    assert "chosen: BI=32 BJ=16..256 BK=16..256 warps=2 stages=3" in str(chosen.explain(a, b))


def test_choices_tell_calls_apart() -> None:
    a, b = np.ones((40, 30), "f4"), np.ones((30, 20), "f4")
    sources = {einc.compile(MATMUL, choices={"BI": n}).source(a, b) for n in (16, 32, 64)}
    assert len(sources) == 3


def test_kernels_of_a_text_have_theirs() -> None:
    dump = einc.compile(MATMUL).dump("segment-loops")
    with pytest.raises(einc.CallError, match="BI=64 is not possible"):
        einc.compile(dump, choices={"BI": 64})(np.ones((4, 3), "f4"), np.ones((3, 2), "f4"))


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"BI": 100}, "a tile has no 100 positions"),
        ({"BI": "64..16"}, "a tile has no 64..16 positions"),
        ({"BI": 0}, "a tile has no 0 positions"),
        ({"BI": -16}, "is not a choice"),
        ({"BI": "16.."}, "is not a choice"),
        ({"BI": True}, "is not a choice"),
        ({"BI": None}, "is not a choice"),
        ({"": 16}, "is not a choice"),
        ({"K": "tma"}, "is not a choice"),
        ({"warps": 3}, "warps cannot be 3"),
        ({"stages": 0}, "stages cannot be 0"),
        ({"parts": "many"}, "parts cannot be many"),
        ({"section": True}, "section cannot be True"),
        ({"BZ": 64}, "there is no BZ to choose"),
        ({"BL": 64}, "did you mean|one of these"),
        ({"R.BI": 64}, "there is no kernel 'R'"),
        ({"BI": 8}, "a contraction takes 16 positions or more"),
        ({"BD": 32}, "holds all of it"),
        ({"O.section": 8}, "O.section=8 is not possible"),
        ({"x" * 400: 16}, "there is no x{39}…"),
    ],
)
def test_wrong_choices(choices: dict[str, Any], says: str) -> None:
    x = np.ones((20, 16), "f4")
    with pytest.raises(einc.CallError, match=says):
        einc.compile(ATTENTION, choices=choices).compiled(x, x, x)


def test_what_is_chosen_for_all_is_for_those_that_can() -> None:
    """Nothing is walked, so nothing is in parts; a grid of one axis has no sections."""
    found = has(compiled("def f(X[i]):\n    S[i] = 2 * X[i]\n    return S\n", {"parts": 4, "section": 4}), "S")
    assert not {"parts", "section"} & found.keys()


def test_types_count() -> None:
    """Of narrow types a tile has other sizes, and keeps those that are chosen."""
    program = parse(MATMUL, "<test>")
    facts = {name: Fact((2, 2), BF16) for name in "AB"}
    c = compile_program(elaborate(program, facts), 2, TARGETS["sm_90"], LONG, choices=asked({"BJ": 128}))
    assert has(c, "C")["BJ"] == "128"
