"""The text of an einsum string into terms: `"b (g r) d, d -> b d"` into two inputs and an output."""

from __future__ import annotations

import re
from collections.abc import Iterator

from einc.base import errors
from einc.base.source import Span
from einc.frontend.strings.terms import Axis, Dim, Dots, Group, Subscripts, Term, clip

_TOKEN = re.compile(r"(?P<space>\s+)|(?P<dots>\.\.\.)|(?P<arrow>->)|(?P<mark>[,()])|(?P<word>\w+)")
_MISPLACED = {
    ".": ("a '.' that is not part of an ellipsis", "an ellipsis is three dots", "write them together: '...'"),
    "-": ("a '-' that is not part of an arrow", "an arrow is '->', without a space", "write '->'"),
    ">": ("a '>' that is not part of an arrow", "an arrow is '->', without a space", "write '->'"),
}


def parse_terms(text: str, span: Span) -> Subscripts:
    """The terms of an einsum string, its words unsplit; `span` covers the text in its source.

    Raises `SyntaxError` for a text that is not an einsum string in either reading.
    """
    return _Parser(text, span).subscripts()


class _Parser:
    """One left-to-right pass over the tokens of a string."""

    def __init__(self, text: str, span: Span) -> None:
        self.span = span
        self.dense = re.search(r"[\s()]", text) is None
        self.tokens = list(self._scan(text))
        self.at = 0

    def place(self, start: int, end: int) -> Span:
        return self.span.source.span(self.span.start + start, self.span.start + end)

    def _scan(self, text: str) -> Iterator[tuple[str, str, Span]]:
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._misplaced(text[at], self.place(at, at + 1))
            if found.lastgroup != "space":
                yield found.lastgroup or "", found.group(), self.place(at, found.end())
            at = found.end()
        yield "end", "", self.place(len(text), len(text))

    def _misplaced(self, character: str, place: Span) -> errors.SyntaxError:
        if character in _MISPLACED:
            message, fact, hint = _MISPLACED[character]
            return errors.SyntaxError(message, place, fact=fact, hint=hint)
        return errors.SyntaxError(
            f"'{character}' cannot be part of an einsum string",
            place,
            fact="its terms are made of letters, names, '(', ')', '1' and '...', with ',' and '->' between them",
            hint="leave it out",
        )

    def subscripts(self) -> Subscripts:
        inputs = [self.term("an operand")]
        while self.tokens[self.at][1] == ",":
            self.at += 1
            inputs.append(self.term("an operand"))
        output = None
        if self.tokens[self.at][0] == "arrow":
            self.at += 1
            output = self.term("the output")
        kind, text, place = self.tokens[self.at]
        if kind == "arrow":
            raise errors.SyntaxError(
                "a second '->'", place, fact="an einsum string has one output", hint="leave out one arrow"
            )
        if text == ",":
            raise errors.SyntaxError(
                "a ',' after the arrow", place, fact="an einsum string has one output", hint="leave out the ','"
            )
        return Subscripts(tuple(inputs), output, self.span)

    def term(self, of: str) -> Term:
        """The dims up to the next comma, arrow or end."""
        first, dims = self.at, list[Dim]()
        while self.tokens[self.at][0] in ("word", "dots") or self.tokens[self.at][1] in ("(", ")"):
            dims.append(self.group() if self.tokens[self.at][0] == "mark" else self.dim())
        dots = [p for d in dims for p in (d.parts if isinstance(d, Group) else (d,)) if isinstance(p, Dots)]
        if len(dots) > 1:
            raise errors.SyntaxError(
                f"a second '...' in {of}", dots[1].span, fact="one ellipsis stands for all the axes not named",
                hint="leave out one of them",
            )  # fmt: skip
        end = self.tokens[self.at][2].start
        start = dims[0].span.start if self.at > first else end
        return Term(tuple(dims), self.span.source.span(start, dims[-1].span.end if dims else end))

    def dim(self) -> Dim:
        kind, text, place = self.tokens[self.at]
        self.at += 1
        if kind == "dots":
            return Dots(place)
        if text == "1" and not self.dense:
            return Group((), place)
        if text == "1":
            raise errors.SyntaxError(
                "'1' is not a label", place, fact="without white space or parentheses a string holds letters",
                hint="for a dimension of extent 1, write spaces between names: 'a b -> a 1 b'",
            )  # fmt: skip
        if text.isdecimal():
            raise errors.SyntaxError(
                f"'{clip(text)}' is not an axis", place, fact="the only extent that a term may hold is 1",
                hint=f"name the axis, n for example, and give its extent: n={clip(text)}",
            )  # fmt: skip
        if not (text[0].isalpha() or text[0] == "_"):
            raise errors.SyntaxError(
                f"'{clip(text)}' is not an axis", place, fact="the name of an axis begins with a letter",
                hint=f"begin it with one: 'n{clip(text)}'",
            )  # fmt: skip
        return Axis(text, place)

    def group(self) -> Group:
        """`(a b ...)`."""
        _, text, opening = self.tokens[self.at]
        if text == ")":
            raise errors.SyntaxError(
                "')' without its '('", opening, fact="no group is open here", hint="open it, or leave out the ')'"
            )
        self.at += 1
        parts: list[Axis | Dots] = []
        while self.tokens[self.at][0] in ("word", "dots"):
            dim = self.dim()
            parts += dim.parts if isinstance(dim, Group) else (dim,)
        _, text, closing = self.tokens[self.at]
        if text == "(":
            raise errors.SyntaxError(
                "a group inside a group", closing, fact="a dimension is one row of axes, outermost first",
                hint="write the axes in one pair of parentheses",
            )  # fmt: skip
        if text != ")":
            raise errors.SyntaxError(
                "'(' without its ')'", opening, fact="a group ends in the term it begins in", hint="close it with ')'"
            )
        self.at += 1
        return Group(tuple(parts), opening.to(closing))
