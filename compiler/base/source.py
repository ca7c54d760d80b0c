"""Text that the user wrote, and places in it, which diagnostics quote."""

from __future__ import annotations

from dataclasses import dataclass

_WIDEST_QUOTE = 100  # characters of a source line that an excerpt shows around the caret


@dataclass(frozen=True, slots=True)
class Source:
    """A named text: a file's path, `<expression>`, `<einsum>`, ... and its characters."""

    name: str
    text: str

    def span(self, start: int, end: int) -> Span:
        """The half-open range of characters [start, end), clipped to the text."""
        start = min(max(start, 0), len(self.text))
        return Span(self, start, min(max(end, start), len(self.text)))

    def whole(self) -> Span:
        return self.span(0, len(self.text))


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line number, counted from 1."""
        return self.source.text.count("\n", 0, self.start) + 1

    @property
    def column(self) -> int:
        """Column in that line, counted from 1."""
        return self.start - (self.source.text.rfind("\n", 0, self.start) + 1) + 1

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))

    def excerpt(self) -> str:
        """The first line of the span with carets under it; a very long line is cut around them."""
        text = self.source.text
        first = text.rfind("\n", 0, self.start) + 1
        last = text.find("\n", self.start)
        line = text[first : last if last >= 0 else len(text)].replace("\t", " ")
        start, end = self.start - first, min(self.end - first, len(line))
        width = max(end - start, 1)
        if len(line) > _WIDEST_QUOTE:
            left = max(0, start - _WIDEST_QUOTE // 2)
            cut = line[left : left + _WIDEST_QUOTE]
            before, after = "… " if left else "", " …" if left + _WIDEST_QUOTE < len(line) else ""
            start, line = start - left + len(before), before + cut + after
            width = min(width, max(1, len(before) + len(cut) - start))
        number = str(self.line)
        return f"{number} | {line}\n{' ' * len(number)} | {' ' * start}{'^' * width}"
