"""Lines of emitted code: indented, and broken at brackets where they are too long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

WIDTH = 112
_INDENT = "    "
_OPEN, _CLOSE = "([{", ")]}"
_MARKS = re.compile(r"""[\[\](){}"']""")


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """The lines shifted right; empty ones stay empty."""
    return [_INDENT * depth + line if line else line for line in lines]


def wrapped(line: str) -> list[str]:
    """The statement on as few lines as possible; broken at its outermost brackets, one argument a line."""
    if len(line) <= WIDTH or line.lstrip().startswith(("#", '"""')):
        return [line]
    text = line.lstrip()
    shift = line[: len(line) - len(text)]
    name, equals, value = text.partition(" = ")
    if equals and name.replace(", ", "").isidentifier() and not _is_one_bracket(value):
        text = f"{name} = ({value})"
    return [shift + part for part in _broken(text, WIDTH - len(shift))]


def _is_one_bracket(text: str) -> bool:
    """Is the text a call, a tuple or a list: one pair of brackets, with nothing but a name before it?"""
    first = next(iter(_outermost(text)), None)
    return first is not None and first[1] == len(text) - 1 and " " not in text[: first[0]]


def _broken(text: str, width: int, inside: bool = False) -> list[str]:
    """The text on lines of that width; `inside` brackets it may also break before operators."""
    if len(text) <= width:
        return [text]
    body, comma = (text[:-1], ",") if text.endswith(",") else (text, "")
    if inside and not _is_one_bracket(body):
        operands = _operands(body)
        if len(operands) > 1:
            parts = [part for x in operands for part in _broken(x, width, inside=True)]
            return [*parts[:-1], parts[-1] + comma]
    place = _widest_bracket(text)
    if place is None:
        return [text]
    start, end = place
    arguments = _cut(text[start + 1 : end], _places(text[start + 1 : end], (", ",)), skip=2)
    grouping = len(arguments) == 1 and not (start and (text[start - 1].isalnum() or text[start - 1] == "_"))
    ends = "" if grouping else ","
    lines = [part for a in arguments for part in _broken(a + ends, width - len(_INDENT), inside=True)]
    return [text[: start + 1], *(_INDENT + line for line in lines), text[end:]]


def _widest_bracket(text: str) -> tuple[int, int] | None:
    """The outermost pair of brackets that holds the most text."""
    pairs = [(start, end) for start, end in _outermost(text) if end - start > 2]
    return max(pairs, key=lambda pair: pair[1] - pair[0], default=None)


@lru_cache(maxsize=1024)
def _outermost(text: str) -> tuple[tuple[int, int], ...]:
    """Where the outermost pairs of brackets begin and end."""
    return tuple(_pairs(text))


def _pairs(text: str) -> Iterator[tuple[int, int]]:
    depth, start, quote = 0, 0, ""
    for mark in _MARKS.finditer(text):
        n, c = mark.start(), mark.group()
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in _OPEN:
            start = n if depth == 0 else start
            depth += 1
        elif c in _CLOSE:
            depth -= 1
            if depth == 0:
                yield start, n


def _operands(text: str) -> list[str]:
    """The operands of the loosest operators outside brackets, each but the first with its operator."""
    for operators in ((" | ",), (" & ",), (" + ", " - "), (" * ", " // ", " % ", " / ")):
        cuts = _places(text, operators)
        if cuts:
            return _cut(text, cuts, skip=1)
    return [text]


def _places(text: str, separators: tuple[str, ...]) -> list[int]:
    """Where separators occur outside brackets."""
    found = [n for s in separators for n in _found(text, s)]
    pairs = _outermost(text) if found else ()
    return sorted(n for n in found if not any(start < n < end for start, end in pairs))


def _found(text: str, part: str) -> Iterator[int]:
    """Where a part of a text begins, except at its end."""
    n = text.find(part)
    while 0 <= n < len(text) - len(part):
        yield n
        n = text.find(part, n + 1)


def _cut(text: str, places: list[int], skip: int) -> list[str]:
    starts = [0, *(n + skip for n in places)]
    return [text[a:b] for a, b in zip(starts, [*places, len(text)], strict=True)]
