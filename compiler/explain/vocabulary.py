"""Every function that a program may call, with its form and its result."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

from einc.base.ops import OPS
from einc.base.types import BY_NAME
from einc.ein.monoids import MONOIDS


@dataclass(frozen=True, slots=True)
class Word:
    """A function: its name, how it is written, and what it gives. `kind` says where it comes from."""

    name: str
    form: str
    says: str
    kind: str


def vocabulary() -> tuple[Word, ...]:
    """Scalar operations that are calls, casts, reductions, and functions of the prelude, each in order."""
    calls = [op for op in OPS.values() if not op.infix]
    return (
        *(Word(op.name, f"{op.name}({op.takes})", op.says, "operation") for op in calls),
        *(Word(t, f"{t}(x)", "x in this type", "cast") for t in BY_NAME),
        *(Word(m.name, f"{m.name}[j](x)", m.meaning, "reduction") for m in MONOIDS.values()),
        *_prelude(),
    )


def _prelude() -> Iterator[Word]:
    """The functions of the prelude, each with the comment above it."""
    text = files("einc.frontend.elaboration").joinpath("prelude.ein").read_text(encoding="utf-8")
    for says, form in re.findall(r"((?:^# .+\n)+)fn ([^:=]+?(?:\([^)]*\)))", text, flags=re.MULTILINE):
        name = re.match(r"\w+", form)
        assert name is not None
        comment = " ".join(line.removeprefix("# ") for line in says.splitlines())
        yield Word(name[0], form.replace("*r", "j, …"), comment[0].lower() + comment[1:].rstrip("."), "prelude")


def markdown(words: Iterable[Word]) -> str:
    """A table of functions in Markdown."""
    rows = [(f"`{w.form}`", w.says.replace("|", "\\|")) for w in words]
    return "\n".join(["| written | gives |", "|---|---|", *(f"| {form} | {says} |" for form, says in rows)]) + "\n"
