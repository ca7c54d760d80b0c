"""What the user did wrong: the place, the fact that decided, and one thing to try."""

from __future__ import annotations

from collections.abc import Iterable

from einc.base.source import Span


class Error(ValueError):
    """A wrong program, call or request.

    Attributes: `message`, one sentence; `span`, the place in the source, if there is one; `fact`, what decided;
    `hint`, one thing to try. `str()` shows all of them, the place as a source line with carets.
    """

    def __init__(self, message: str, span: Span | None = None, *, fact: str = "", hint: str = "") -> None:
        self.message, self.span, self.fact, self.hint = message, span, fact, hint
        super().__init__(message)

    def __str__(self) -> str:
        lines = []
        if self.span is None:
            lines.append(self.message)
        else:
            lines.append(f"{self.span.source.name}:{self.span.line}:{self.span.column}: {self.message}")
            lines += ["  " + line for line in self.span.excerpt().splitlines()]
        if self.fact:
            lines.append(f"  {self.fact}")
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)


class SyntaxError(Error):  # noqa: A001 - einc.SyntaxError is the name users look for
    """The text is not in the language."""


class NameError(Error):  # noqa: A001
    """A tensor, function, axis or scalar that does not exist, or exists twice."""


class AxisError(Error):
    """An axis that is missing, unbound, out of place, or reduced where it may not be."""


class ShapeError(Error):
    """Operands whose ranks or extents do not fit the program or each other."""


class DTypeError(Error, TypeError):
    """An operand or expression of a type that the operation does not take."""


class CallError(Error, TypeError):
    """Too few or too many operands, an unknown keyword, an unusable `out=`."""


class TargetError(Error):
    """A target that is not known, or that cannot run the kernel (shared memory, dtype)."""


class RoomError(TargetError):
    """A kernel that needs more of a multiprocessor's resources than it has; smaller tiles may need less."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for a known name that this one misspells, shortens or lengthens; else an empty text."""
    names = list(known)
    shared = (k for k in names if min(len(k), len(name)) > 2 and (k.startswith(name) or name.startswith(k)))
    return misspelt(name, names) or next((f"did you mean '{k}'?" for k in shared), "")


def misspelt(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for a known name that is a typing slip away; else an empty text.

    One edit in three letters is a slip, or two in six or more; in a shorter name, a letter struck twice.
    """
    most = min(len(name) // 3, 2)
    distances = {k: _edits(name.lower(), k.lower(), most) for k in known}
    close = min(distances, key=distances.__getitem__, default=None)
    if close is not None and distances[close] <= most:
        return f"did you mean '{close}'?"
    struck = (k for k in distances if len(set(name)) == 1 and set(name) == set(k))
    return next((f"did you mean '{k}'?" for k in struck), "")


def _edits(a: str, b: str, most: int) -> int:
    """The least number of letters changed, added, left out or swapped with the next; anything above `most` is more."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(row[j - 1] + 1, last[j] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


class IllegalIR(AssertionError):
    """A pass or the elaborator made a program without the form that it promises; the message prints the node.

    This is the compiler's own bug, and so not an `Error`.
    """
