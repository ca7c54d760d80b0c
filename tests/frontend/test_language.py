"""LANGUAGE.md: its programs compile, its tables of functions are what the compiler has, its rules hold."""

from __future__ import annotations

import re

import pytest

import einc
from einc.base.ops import OPS
from einc.base.types import BY_NAME
from einc.ein.monoids import MONOIDS
from einc.explain.vocabulary import markdown, vocabulary
from einc.frontend.elaboration.library import prelude
from tests.support.places import ROOT

PAGE = ROOT / "LANGUAGE.md"
TEXT = PAGE.read_text(encoding="utf-8")
KINDS = ("operation", "cast", "reduction", "prelude")


def table(kind: str) -> str:
    return markdown(w for w in vocabulary() if w.kind == kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_lists_the_functions_that_there_are(kind: str, request: pytest.FixtureRequest) -> None:
    mark = f"<!-- functions: {kind} -->\n"
    before, _, after = PAGE.read_text(encoding="utf-8").partition(mark)
    listed = re.match(r"(?:\|.*\n)*", after)
    assert listed is not None
    if request.config.getoption("--bless"):
        PAGE.write_text(before + mark + table(kind) + after[listed.end() :], encoding="utf-8")
    else:
        assert listed[0] == table(kind)


def test_every_function_is_listed_once_and_in_a_sentence() -> None:
    names = [(w.kind == "reduction", w.name) for w in vocabulary()]
    assert len(set(names)) == len(names)
    called = {n for n, op in OPS.items() if not op.infix}
    assert {w.name for w in vocabulary()} == {*called, *BY_NAME, *MONOIDS, *prelude()}
    assert all(w.says and not w.says.endswith(".") and w.form.startswith(w.name) for w in vocabulary())


@pytest.mark.parametrize("text", re.findall(r"```einc\n(.*?)```", TEXT, flags=re.DOTALL))
def test_programs_compile(text: str) -> None:
    assert einc.compile(text, name="LANGUAGE.md").source()
