"""The rules of sums and types in LANGUAGE.md hold for the programs that stand there."""

from __future__ import annotations

import re

import pytest

from einc import driver
from einc.base.facts import Fact
from einc.base.types import BY_NAME
from einc.ein.printer import print_program
from tests.frontend.test_language import TEXT


def rows(mark: str) -> list[tuple[str, ...]]:
    """The cells of the table under a mark, without its head."""
    _, _, after = TEXT.partition(f"<!-- {mark} -->\n")
    lines = re.match(r"(?:\|.*\n)*", after)
    assert lines is not None
    return [tuple(c.strip() for c in line.strip("|").split(" | ")) for line in lines[0].splitlines()[2:]]


@pytest.mark.parametrize(("written", "meaning"), rows("sums"))
def test_sums(written: str, meaning: str) -> None:
    texts = [print_program(driver.elaborate(driver.parse(t.strip("`"), "<test>"))) for t in (written, meaning)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("text", "operands", "result"), rows("types"))
def test_types(text: str, operands: str, result: str) -> None:
    facts = {}
    for name, dtype in re.findall(r"(\w+) (\w+)", operands):
        rank = 2 if f"{name}[i, j]" in text else 1
        facts[name] = Fact((4,) * rank, BY_NAME[dtype])
    program = driver.elaborate(driver.parse(text.strip("`"), "<test>"), facts)
    assert program.dtypes()[program.results[0]] == BY_NAME[result]
