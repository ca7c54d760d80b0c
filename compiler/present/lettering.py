"""Mathematics as lines of SVG text: raised and lowered parts, wrapped at a width that is known without a browser.

Text is set in a monospaced face, whose characters are at most `ADVANCE` of its size wide, so that text that fits here
fits wherever it is shown.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

ADVANCE = 0.62  # the width of a character over the size of the type; the common faces have 0.55 to 0.61
_SMALL = 0.78  # the size of raised or lowered text
_RISE = 0.42  # how far it is raised or lowered, over the size

Span = tuple[str, int]  # characters, and how often they are raised (or, if negative, lowered)
Line = list[Span]


def spans(text: str) -> Iterator[Span]:
    """The parts of a text in the notation `^{...}`, `_{...}`."""
    levels = [0]
    start = position = 0
    while position < len(text):
        opens, closes = text[position : position + 2] in ("^{", "_{"), text[position] == "}" and len(levels) > 1
        if opens or closes:
            yield text[start:position], levels[-1]
            if opens:
                levels.append(levels[-1] + (1 if text[position] == "^" else -1))
            else:
                levels.pop()
            start = position = position + 1 + opens
        else:
            position += 1
    yield text[start:], levels[-1]


def scale(level: int) -> float:
    """The size of type at a level."""
    return 1.0 if level == 0 else _SMALL


def width(line: Sequence[Span], size: float) -> float:
    """An upper bound on the width of a line."""
    return sum(len(chars) * scale(level) for chars, level in line) * size * ADVANCE


def wrapped(text: str, room: float, size: float) -> list[Line]:
    """The text in lines no wider than the room; broken at spaces, or within a word that is too long for a line."""
    lines: list[Line] = [[]]
    for word in _words(text):
        line = lines[-1]
        if line and width([*line, *word], size) > room:
            lines.append([])
            word = _stripped(word)
        for chars, level in word:
            _put(lines, chars, level, room, size)
    return [line for line in lines if line] or [[("", 0)]]


def _words(text: str) -> Iterator[Line]:
    """The words of a text, each with the space before it; raised text is not split at its spaces."""
    word: Line = []
    for chars, level in spans(text):
        head, *tail = chars.split(" ") if level == 0 else [chars]
        if head:
            word.append((head, level))
        for part in tail:
            if word:
                yield word
            word = [(" " + part, level)]
    if word:
        yield word


def _stripped(word: Line) -> Line:
    (first, level), *rest = word
    return [(first.lstrip(), level), *rest]


def _put(lines: list[Line], chars: str, level: int, room: float, size: float) -> None:
    """Append characters to the last line, and to further ones as each is full."""
    while chars:
        free = int((room - width(lines[-1], size)) / (size * ADVANCE * scale(level)) + 1e-6)
        if free >= len(chars):
            lines[-1].append((chars, level))
            return
        if free > 0:
            lines[-1].append((chars[:free], level))
        chars = chars[max(free, 0) :]
        lines.append([])


def shortened(name: str, characters: int) -> str:
    """A name cut to at most this many characters."""
    return name if len(name) <= characters else name[: characters - 1] + "…"


def svg_text(line: Sequence[Span], x: float, y: float, size: float, style: str = "", anchor: str = "start") -> str:
    """A line of SVG text with its baseline at y."""
    parts: list[str] = []
    height = 0.0
    for chars, level in line:
        target = -_RISE * size * level
        shift = f' dy="{target - height:.1f}"' if target != height else ""
        small = f' font-size="{size * _SMALL:.1f}"' if level else ""
        parts.append(f"<tspan{shift}{small}>{html.escape(chars)}</tspan>" if shift or small else html.escape(chars))
        height = target
    kind = f' class="{style}"' if style else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{kind}{side}>{"".join(parts)}</text>'
