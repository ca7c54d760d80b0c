"""From text to stages: what is recorded, what is shared, and what decisions may depend on."""

from __future__ import annotations

import pytest

import einc
from einc.base.facts import Fact
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import F16, F32
from einc.codegen import TRITON
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.passes import pipeline
from einc.pipeline import Context, Pass, State
from einc.pipeline.forms import IllegalIR
from einc.stages import ELABORATED, passes, run_passes
from einc.tile.blocks import size_class

TEXT = 'softmax("bihd,bjhd->bhij") * "bjhd->bihd"'


def compiled(level: int = 2, **extents: int) -> Compiled:
    return compile_program(elaborate(parse(TEXT)), level, INTERPRETER, extents)


def test_stages_are_the_passes() -> None:
    for level in (0, 1, 2):
        assert [s.name for s in compiled(level).stages] == [ELABORATED, *(p.name for p in passes(level))]
    assert passes(2) == pipeline(TRITON)


def test_unchanged_stages_say_so() -> None:
    found = compiled()
    for before, after in zip(found.stages, found.stages[1:], strict=False):
        assert after.changed == (after.state != before.state)
        assert (after.text == "(unchanged)\n") == (not after.changed)
    assert found.stages[0].text == found.stage(ELABORATED).full
    with pytest.raises(einc.NameError, match="did you mean 'lower'"):
        found.stage("lover")


def test_the_source_is_the_last_stage_emitted() -> None:
    found = compiled()
    assert found.state.schedule is not None
    assert all(f"def {k.name}" in found.source for k in found.state.schedule.kernels)


@pytest.mark.parametrize(("extent", "expected"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 4), (1000, 1024), (1025, 2048)])
def test_size_classes(extent: int, expected: int) -> None:
    assert size_class(extent) == expected


def test_sizes_of_a_class_share_a_compilation() -> None:
    assert compiled(i=1000, j=900) is compiled(i=1024, j=600)
    assert compiled(i=1000, j=900) is not compiled(i=1025, j=900)
    assert compiled(0) is not compiled(1)
    assert compile_program(elaborate(parse(TEXT)), 2, TARGETS["sm_90"]) is not compiled()


def test_programs_are_elaborated_by_rank_and_type_alone() -> None:
    text = parse("def f(A[i, k], B[k, j]):\n    C[i, j] = A[i, k] * B[k, j]\n    return C\n")
    facts = {"A": Fact((3, 4), F16), "B": Fact((4, 5), F16)}
    others = {"A": Fact((1, 9), F16), "B": Fact((9, 2), F16)}
    assert elaborate(text, facts) is elaborate(text, others)
    assert elaborate(text, facts) != elaborate(text)
    assert {p.dtype for p in elaborate(text, facts).operands} == {F16}
    assert {p.dtype for p in elaborate(text).operands} == {F32}


def test_strings_broadcast_extents_of_one() -> None:
    text = parse("ij,ij->ij")
    wide, one = (elaborate(text, {"A": Fact((4, n), F32), "B": Fact((4, 6), F32)}) for n in (6, 1))
    assert wide != one


def test_diagnostics_name_the_kind_of_text() -> None:
    for text, name in (("ij,jk->", "einsum"), ('softmax("ij")', "expression"), ("C[i] = A[i, k]", "program")):
        assert parse(text).source.name == f"<{name}>"
    assert parse("ij,jk->", "scores.ein").source.name == "scores.ein"


def test_verification_names_the_pass_that_broke_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_a_result(state: State, _: Context) -> State:
        from dataclasses import replace

        return State(replace(state.program, results=("nothing",)))

    bad = Pass("lose", "T --> nothing", "to see it caught", lose_a_result)
    monkeypatch.setattr("einc.stages.pipeline", lambda backend: (bad, *pipeline(backend)))
    program = elaborate(parse(TEXT))
    with pytest.raises(IllegalIR, match="after 'lose'"):
        run_passes(program, Context(TRITON))
