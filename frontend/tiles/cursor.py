"""A place in a line of tokens, and the errors about the token there."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NoReturn, TypeVar

from einc.base import errors
from einc.base.errors import SyntaxError, nearest
from einc.base.types import BY_NAME, FLOAT, INT, DType
from einc.frontend.syntax.assembly import MEANT
from einc.frontend.tiles.lines import Line, Token

_T = TypeVar("_T")
_TYPES = BY_NAME | {t.name: t for t in (INT, FLOAT)}


class Cursor:
    """Reads the tokens of a line, one after another."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.at = 0

    @property
    def token(self) -> Token:
        return self.line.tokens[self.at]

    def ahead(self, *texts: str) -> bool:
        """Do these tokens come next? An empty text stands for any name."""
        some = self.line.tokens[self.at : self.at + len(texts)]
        return len(some) == len(texts) and all(
            t.text == text if text else t.kind == "name" for t, text in zip(some, texts, strict=True)
        )

    def next(self) -> Token:
        token = self.token
        self.at += token.kind != "end"
        return token

    def take(self, text: str) -> bool:
        """Step over this token, if it is the next."""
        if self.token.text != text or self.token.kind == "end":
            return False
        self.at += 1
        return True

    def expect(self, text: str) -> Token:
        if self.token.text != text:
            self.wrong(f"'{text}'")
        return self.next()

    def name(self, what: str = "a name") -> Token:
        if self.token.kind != "name":
            self.wrong(what)
        return self.next()

    def integer(self, what: str = "a number") -> int:
        if self.token.kind != "number" or not self.token.text.isdigit() or len(self.token.text) > 19:
            self.wrong(what)
        return int(self.next().text)

    def dtype(self) -> DType:
        """The next token as an element type."""
        token = self.name("an element type")
        if token.text not in _TYPES:
            raise SyntaxError(
                f"'{token.text}' is not an element type",
                token.span,
                fact=f"types: {', '.join(_TYPES)}",
                hint=MEANT.get(token.text) or nearest(token.text, _TYPES) or "one of these",
            )
        return _TYPES[token.text]

    def several(self, one: Callable[[], _T]) -> tuple[_T, ...]:
        """One or more, with commas between them."""
        found = [one()]
        while self.take(","):
            found.append(one())
        return tuple(found)

    def bracketed(self, one: Callable[[], _T]) -> tuple[_T, ...]:
        """`[…, …]`, which may be empty."""
        self.expect("[")
        found = () if self.token.text == "]" else self.several(one)
        self.expect("]")
        return found

    def end(self) -> None:
        if self.token.kind != "end":
            self.wrong("the end of the line")

    def wrong(self, expected: str) -> NoReturn:
        """Raises `SyntaxError`: the next token cannot stand here."""
        if self.token.kind == "end":
            message, hint = "the line ends too early", "finish what the line begins"
        else:
            message, hint = f"'{self.token.text}' cannot stand here", "leave it out, or finish what stands before it"
        raise SyntaxError(message, self.token.span, fact=f"expected {expected}", hint=hint)


_LISTED = 40  # the most names that an error lists


def unknown(what: str, name: Token, known: Collection[str], hint: str = "one of these") -> errors.NameError:
    """The error about a name that stands for nothing."""
    fact = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}" if 0 < len(known) <= _LISTED else ""
    close = nearest(name.text, known) or hint
    return errors.NameError(f"there is no {what} '{name.text}'", name.span, fact=fact, hint=close)
