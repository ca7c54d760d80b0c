"""Characters into tokens: the words and marks of the grammar, with lines and indentation as in Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lark import Token
from lark.common import LexerConf
from lark.lexer import Lexer, PatternStr

from einc.base.errors import SyntaxError
from einc.base.source import Source, Span
from einc.frontend.syntax import mistakes

DEEPEST = 256  # brackets within brackets

_MARK = "\ufeff"  # the byte order mark that some editors begin a file with
_OPENING, _CLOSING = {"(": ")", "[": "]"}, {")": "(", "]": "["}
_LAST = frozenset(("NAME", "NUMBER", "TRUE", "FALSE", "INF", "RPAR", "RSQB"))  # tokens that can end an operand


class Word(Token):
    """A token that knows its place in the source."""

    __slots__ = ("span",)
    span: Span


@dataclass(slots=True)
class Input:
    """A source on its way through the lexer; without `layout`, line ends mean nothing. `open` are the open brackets."""

    source: Source
    layout: bool = True
    open: list[Span] = field(default_factory=list)


def _word(kind: str, span: Span) -> Word:
    token = Word(kind, span.text, span.start, end_pos=span.end)
    token.span = span
    return token


class TokenLexer(Lexer):
    """The lexer of the terminals that the grammar lists."""

    def __init__(self, conf: LexerConf) -> None:
        plain = {t.pattern.value: t.name for t in conf.terminals if isinstance(t.pattern, PatternStr)}
        self.keywords = {text: name for text, name in plain.items() if text.isalpha()}
        self.marks = {text: name for text, name in plain.items() if not text.isalpha()}
        patterns = [f"(?P<{t.name}>{t.pattern.value})" for t in conf.terminals if not isinstance(t.pattern, PatternStr)]
        marks = "|".join(re.escape(m) for m in sorted(self.marks, key=len, reverse=True))
        self.scan = re.compile(
            "|".join([r"(?P<skip>[ \t\f\ufeff]+|\#[^\r\n]*)", r"(?P<line>\r\n?|\n)", *patterns, marks])
        )

    def lex(self, data: Input) -> Iterator[Token]:  # type: ignore[override]  # lark hands on what its parser is given
        """The tokens of an input, with `_NEWLINE`, `_INDENT` and `_DEDENT` where its layout counts."""
        source, text = data.source, data.source.text
        levels: list[str] = []
        at = line = 0  # where we are, and where this line began
        fresh = True  # no token of this line yet
        end = 0  # of the last token
        last, ended = "", False  # its kind, and whether it ends an operand
        while at < len(text):
            found = self.scan.match(text, at)
            if found is None:
                raise mistakes.character(source, at)
            at = found.end()
            kind = found.lastgroup
            if kind == "skip":
                continue
            if kind == "line":
                line = at
                if data.layout and not data.open and not fresh:
                    fresh = True
                    yield _word("_NEWLINE", source.span(end, end))
                continue
            span = Span(source, found.start(), at)
            if fresh and data.layout:
                yield from self._indentation(text[line : span.start].lstrip(_MARK), levels, span)
            fresh, end = False, at
            word = found.group()
            if kind is None:
                kind = self.marks[word]
                _track(word, span, data.open)
            elif kind == "NAME" and (word != "within" or (ended and data.open and data.open[-1].text == "[")):
                kind = self.keywords.get(word, kind)
            ended = kind in _LAST or (kind == "BAR" and last == "NAME")
            last = kind
            yield _word(kind, span)
        if data.open:
            raise mistakes.unclosed(data.open[-1])
        if data.layout:
            if not fresh:
                yield _word("_NEWLINE", source.span(end, end))
            for _ in levels[1:]:
                yield _word("_DEDENT", source.span(end, end))

    def _indentation(self, indent: str, levels: list[str], span: Span) -> Iterator[Word]:
        """What the indentation of a line opens or closes; the first line of a text sets the outermost level."""
        if not levels:
            levels.append(indent)
        if indent == levels[-1]:
            return
        if len(indent) > len(levels[-1]):
            if not indent.startswith(levels[-1]):
                raise mistakes.mixed_indentation(span)
            levels.append(indent)
            yield _word("_INDENT", Span(span.source, span.start, span.start))
            return
        while len(levels) > 1 and len(indent) < len(levels[-1]):
            levels.pop()
            yield _word("_DEDENT", Span(span.source, span.start, span.start))
        if indent != levels[-1]:
            raise mistakes.mixed_indentation(span) if len(indent) == len(levels[-1]) else mistakes.odd_indentation(span)


def _track(mark: str, span: Span, open_brackets: list[Span]) -> None:
    """Keep the stack of open brackets; raises `SyntaxError` where one does not match or they nest too deeply."""
    if mark in _OPENING:
        open_brackets.append(span)
        if len(open_brackets) > DEEPEST:
            raise SyntaxError(
                "brackets are nested too deeply",
                span,
                fact=f"{DEEPEST + 1} brackets are open here; at most {DEEPEST} may be",
                hint="give the inner parts a definition of their own",
            )
    elif mark in _CLOSING:
        if not open_brackets or open_brackets[-1].text != _CLOSING[mark]:
            raise mistakes.mismatched(span, open_brackets[-1] if open_brackets else None)
        open_brackets.pop()
