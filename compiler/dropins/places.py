"""The user's line that an operation was written in, found on the stack."""

from __future__ import annotations

import linecache
import sys
from itertools import islice
from types import CodeType, FrameType

from einc.base.source import Source, Span

_OURS = ("einc", "torch")  # packages whose frames stand between the user's line and what it calls


def user_place() -> Span | None:
    """The expression in the innermost frame that is neither this package's nor torch's, if its source can be read."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OURS:
        frame = frame.f_back
    return None if frame is None else _span(frame.f_code, frame.f_lasti, frame.f_lineno)


def defined_at(function: object) -> Span | None:
    """The first line of a function's definition, if its source can be read."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    lines = linecache.getlines(code.co_filename)
    line = code.co_firstlineno
    if line > len(lines):
        return None
    return _between(lines, code.co_filename, (line, 0), (line, len(lines[line - 1].rstrip().encode())))


def _span(code: CodeType, instruction: int, line: int) -> Span | None:
    lines = linecache.getlines(code.co_filename)
    if line > len(lines):
        return None
    positions = next(islice(code.co_positions(), instruction // 2, None), (None,) * 4)
    first, last, start, end = positions
    if first is None or last is None or start is None or end is None:
        first, last, start, end = line, line, 0, len(lines[line - 1].rstrip().encode())
    return _between(lines, code.co_filename, (first, start), (last, end))


def _between(lines: list[str], name: str, first: tuple[int, int], last: tuple[int, int]) -> Span:
    """Lines count from 1, columns in bytes from 0."""

    def offset(line: int, column: int) -> int:
        before = sum(map(len, lines[: line - 1]))
        return before + len(lines[line - 1].encode()[:column].decode(errors="ignore"))

    start = offset(*first)
    if start == offset(first[0], 0):  # a whole line: from its first letter
        start += len(lines[first[0] - 1]) - len(lines[first[0] - 1].lstrip())
    return Source(name, "".join(lines)).span(start, offset(*last))
