"""Python names for the user's: readable, valid, unique."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Iterable


class Names:
    """The names taken in one scope of emitted code."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def fresh(self, wanted: str, ascii_only: bool = False) -> str:
        """The wanted name if it is free, else numbered."""
        stem = name = identifier(wanted, ascii_only)
        number = 1
        while name in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        return name


def identifier(text: str, ascii_only: bool = False) -> str:
    """The text as a Python name; a letter that Python (or, for kernels, an assembler) does not take becomes `u03b1`."""
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii() or not text.isidentifier():
        text = "".join(c if _fits(c, ascii_only) else f"u{ord(c):04x}" for c in text)
    if not text.isidentifier():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) else text


def _fits(c: str, ascii_only: bool) -> bool:
    return f"_{c}".isidentifier() and (c.isascii() or not ascii_only)
