"""The text of kernels as lines of tokens, each with the lines indented below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from einc.base.source import Source, Span
from einc.frontend.syntax import mistakes

_TOKEN = re.compile(
    r"(?P<skip>[ \t\f]+|#.*)"
    r"|(?P<number>(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<mark>\.\.|\*\*|//|<=|>=|==|!=|\+=|[<>=+\-*/%()\[\],:|?.])"
)
_BREAK = re.compile(r"\r\n?|\n")


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is `name`, `number`, `mark`, or `end` after the last token of a line."""

    kind: str
    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not empty: its tokens, up to its `end`, or what it says after `--`.

    `below` are the lines after it that are indented further.
    """

    tokens: tuple[Token, ...]
    span: Span
    title: str | None = None
    below: list[Line] = field(default_factory=list, compare=False)

    def starts(self, *words: str) -> bool:
        """Does it begin with these words?"""
        return tuple(t.text for t in self.tokens[: len(words)]) == words


def read_lines(source: Source, start: int) -> list[Line]:
    """The outermost lines from a place in the source on. Raises `SyntaxError`."""
    outer: list[Line] = []
    levels = [(0, outer)]  # the indentations that are open, and where their lines go
    for line in _lines(source, start):
        indent = line.span.column - 1
        left = levels[-1][0] > indent
        while levels and levels[-1][0] > indent:
            levels.pop()
        if levels[-1][0] < indent:
            if left or not levels[-1][1]:
                raise mistakes.odd_indentation(line.span)
            levels.append((indent, levels[-1][1][-1].below))
        levels[-1][1].append(line)
    return outer


def _lines(source: Source, start: int) -> Iterator[Line]:
    """The lines that are not empty."""
    text = source.text
    while start < len(text):
        found = _BREAK.search(text, start)
        end = found.start() if found else len(text)
        first = end - len(text[start:end].lstrip())
        if text.startswith("--", first, end):
            yield Line((), source.span(first, end), text[first + 2 : end].removeprefix(" "))
        elif tokens := tuple(_tokens(source, first, end)):
            last = tokens[-1].span.end
            ended = Token("end", "", source.span(last, last))
            yield Line((*tokens, ended), tokens[0].span.to(tokens[-1].span))
        start = found.end() if found else end


def _tokens(source: Source, at: int, end: int) -> Iterator[Token]:
    while at < end:
        found = _TOKEN.match(source.text, at, end)
        if found is None:
            raise mistakes.character(source, at)
        kind, at = found.lastgroup, found.end()
        if kind != "skip":
            yield Token(kind or "mark", found.group(), Span(source, found.start(), at))
