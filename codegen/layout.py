"""Lines of emitted code: indented, and broken at brackets where they are too long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

WIDTH = 112
_INDENT = "    "
_OPEN, _CLOSE = "([{", ")]}"


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """The lines shifted right; empty ones stay empty."""
    return [_INDENT * depth + line if line else line for line in lines]


def wrapped(line: str) -> list[str]:
    """The statement on as few lines as it takes; broken at its outermost brackets, one argument a line."""
    if len(line) <= WIDTH or line.lstrip().startswith(("#", '"""')):
        return [line]
    text = line.lstrip()
    shift = line[: len(line) - len(text)]
    name, equals, value = text.partition(" = ")
    if equals and name.replace(", ", "").isidentifier() and not _is_one_bracket(value):
        text = f"{name} = ({value})"
    return [shift + part for part in _broken(text, WIDTH - len(shift))]


def _is_one_bracket(text: str) -> bool:
    """Is the text a call, a tuple or a list: closed by a bracket that nothing but a name comes before?"""
    first = next(_outermost(text), None)
    return first is not None and first[1] == len(text) - 1 and " " not in text[: first[0]]


def _broken(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    place = _widest_bracket(text)
    if place is None:
        return [text]
    start, end = place
    inside, comma = _split(text[start + 1 : end])
    if text[:start].strip() == "" and len(inside) == 1:
        comma = ""  # brackets that group, not a tuple
    arguments = [part for argument in inside for part in _broken(argument + comma, width - len(_INDENT))]
    return [text[: start + 1], *(_INDENT + a for a in arguments), text[end:]]


def _widest_bracket(text: str) -> tuple[int, int] | None:
    """The outermost pair of brackets that holds most of the text."""
    pairs = [(start, end) for start, end in _outermost(text) if end - start > 2]
    return max(pairs, key=lambda pair: pair[1] - pair[0], default=None)


def _outermost(text: str) -> Iterator[tuple[int, int]]:
    depth, start, quote = 0, 0, ""
    for n, c in enumerate(text):
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


def _split(inside: str) -> tuple[list[str], str]:
    """The parts between commas that no bracket holds, and the comma that ends each; or the operands of a long sum."""
    cuts = _places(inside, (", ",))
    if cuts:
        return _cut(inside, cuts, skip=True), ","
    for operators in ((" | ",), (" & ",), (" + ", " - "), (" * ", " // ", " % ")):
        cuts = _places(inside, operators)
        if cuts:
            return _cut(inside, cuts, skip=False), ""
    return [inside], ""


def _places(text: str, operators: tuple[str, ...]) -> list[tuple[int, int]]:
    pairs = list(_outermost(text))
    return [
        (n, len(op))
        for op in operators
        for n in range(len(text) - len(op))
        if text.startswith(op, n) and not any(start < n < end for start, end in pairs)
    ]


def _cut(text: str, cuts: list[tuple[int, int]], skip: bool) -> list[str]:
    parts, start = [], 0
    for n, length in sorted(cuts):
        parts.append(text[start:n])
        start = n + length if skip else n + 1
    return [*parts, text[start:]]
