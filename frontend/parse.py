"""A text, parsed: which of the three forms it has, and the operands and scalars that a call gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from einc.frontend.expressions import Expression
from einc.frontend.outline import Outline
from einc.frontend.terms import Subscripts
from einc.source import Source

Form: TypeAlias = Literal["einsum", "expression", "program"]

_COMMENT = re.compile(r"#[^\n]*")
_EINSUM = re.compile(r"[\w\s,.()>-]*|[^\[=]*->[^\[=]*")
_STATEMENT = re.compile(r"\s*(def|fn|axis|return)\s")


@dataclass(frozen=True, eq=False)
class Text:
    """A parsed text. `operands` are the tensors a call gives, in order; `scalars` the numbers it gives by name.

    Texts are compared by identity.
    """

    source: Source
    form: Form
    operands: tuple[str, ...]
    scalars: tuple[str, ...]
    content: Subscripts | Expression | Outline


def parse(source: Source) -> Text:
    """The parsed text. Raises `SyntaxError` for what is not in the language, `NameError` for names that clash."""
    match form_of(source.text):
        case "einsum":
            return _einsum(source)
        case "expression":
            return _expression(source)
        case "program":
            return _program(source)


def form_of(text: str) -> Form:
    """An einsum string has labels and marks only; an expression has quotes; the rest are programs."""
    bare = _COMMENT.sub("", text)
    if '"' in bare or "'" in bare:
        return "expression"
    if bare.strip() and _EINSUM.fullmatch(bare) and not _STATEMENT.match(bare):
        return "einsum"
    return "program"


def _einsum(source: Source) -> Text:
    from einc.frontend.layout import operand_name
    from einc.frontend.termparser import parse_terms

    subscripts = parse_terms(source.text, source.whole())
    names = tuple(operand_name(k) for k in range(len(subscripts.inputs)))
    return Text(source, "einsum", names, (), subscripts)


def _expression(source: Source) -> Text:
    from einc.frontend.expressions import read_expression

    expression = read_expression(source)
    return Text(source, "expression", expression.operands, expression.scalars, expression)


def _program(source: Source) -> Text:
    from einc.frontend.grammar import parse_program
    from einc.frontend.outline import outline

    found = outline(parse_program(source))
    operands, scalars = (tuple(p.name for p in some) for some in (found.operands, found.scalars))
    return Text(source, "program", operands, scalars, found)
