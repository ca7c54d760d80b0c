"""A text, parsed: which form it has, and the operands and scalars that a call gives.

The language has three forms: einsum strings, expressions, programs. A program may have its kernels below it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from einc.base.errors import SyntaxError
from einc.base.source import Source
from einc.frontend.programs.outline import Outline
from einc.frontend.strings.expressions import Expression
from einc.frontend.strings.terms import Subscripts

if TYPE_CHECKING:
    from einc.frontend.tiles.kernels import Kernels

Form: TypeAlias = Literal["einsum", "expression", "program", "kernels"]

_COMMENT = re.compile(r"#[^\n]*")
_PROGRAM = re.compile(r"[=\[\]:+*/|]|^[ \t]*(def|fn|axis|return)\s", re.MULTILINE)
_KERNELS = re.compile(r"^(kernel[ \t]+\w+|kernels([ \t]+after[ \t]+\S+)?)[ \t]*(#.*)?$", re.MULTILINE)
_CALL = re.compile(r"[^\W\d]\w+\(")


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
    kernels: Kernels | None = None


def parse(source: Source) -> Text:
    """The parsed text. Raises `SyntaxError` for what is not in the language, `NameError` for names that clash."""
    match form_of(source.text):
        case "einsum":
            return _einsum(source)
        case "expression":
            return _expression(source)
        case "program":
            return _program(source)
        case "kernels":
            return _kernels(source)


def form_of(text: str) -> Form:
    """An expression has quotes, an einsum string has none of the marks of a program, and the rest are programs.

    Kernels stand below a program and begin with a line of their own.
    """
    if "kernel" in text and _KERNELS.search(text) and _PROGRAM.search(text):
        return "kernels"
    bare = _COMMENT.sub("", text)
    if '"' in bare or "'" in bare:
        return "expression"
    if not bare.strip() or _PROGRAM.search(bare):
        return "program"
    return "program" if _CALL.search(bare) and "->" not in bare else "einsum"


def _einsum(source: Source) -> Text:
    from einc.frontend.strings.layout import operand_name
    from einc.frontend.strings.termparser import parse_terms

    text = _COMMENT.sub(lambda found: " " * len(found.group()), source.text)
    subscripts = parse_terms(text, source.whole())
    names = tuple(operand_name(k) for k in range(len(subscripts.inputs)))
    return Text(source, "einsum", names, (), subscripts)


def _expression(source: Source) -> Text:
    from einc.frontend.strings.expressions import read_expression

    expression = read_expression(source)
    return Text(source, "expression", expression.operands, expression.scalars, expression)


def _program(source: Source) -> Text:
    from einc.frontend.programs.outline import outline
    from einc.frontend.syntax.grammar import parse_program

    found = outline(parse_program(source))
    operands, scalars = (tuple(p.name for p in some) for some in (found.operands, found.scalars))
    return Text(source, "program", operands, scalars, found)


def _kernels(source: Source) -> Text:
    from einc.frontend.tiles.kernels import read_kernels

    found = _KERNELS.search(source.text)
    assert found is not None
    above = Source(source.name, source.text[: found.start()])
    if not _COMMENT.sub("", above.text).strip():
        raise SyntaxError(
            "there is no program above the kernels",
            source.span(found.start(), found.end()),
            fact="it says what they compute, and what a call of them takes",
            hint="put it there: einc dump writes both",
        )
    kernels = read_kernels(source, found.start())
    return replace(_program(above), source=source, form="kernels", kernels=kernels)
