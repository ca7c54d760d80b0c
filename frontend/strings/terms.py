"""An einsum string as terms, each a row of dims, in the reading that is meant: by letters or by names.

The parser reads words, as einops writes them (`batch (g r) 1 ...`). In a string of letters, every word is then split
into its letters, as NumPy reads them. `choose` decides which of the two is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from einc.base.source import Span


@dataclass(frozen=True, slots=True)
class Axis:
    """A label or a named axis."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Dots:
    """`...`: the axes of an operand that its other dims do not name."""

    span: Span


@dataclass(frozen=True, slots=True)
class Group:
    """One dimension of several axes, outermost first: `(g r)`; `()` and `1` have none, and extent 1."""

    parts: tuple[Axis | Dots, ...]
    span: Span


Dim = Axis | Dots | Group


@dataclass(frozen=True, slots=True)
class Term:
    """The dims of one operand, or of the output."""

    dims: tuple[Dim, ...]
    span: Span

    def axes(self) -> tuple[Axis, ...]:
        """Every axis in order, those of groups included, with repetitions."""
        parts = (p for d in self.dims for p in (d.parts if isinstance(d, Group) else (d,)))
        return tuple(p for p in parts if isinstance(p, Axis))

    def dots(self) -> Dots | None:
        """The `...` among the dims; there is at most one."""
        return next((d for d in self.dims if isinstance(d, Dots)), None)


@dataclass(frozen=True, slots=True)
class Subscripts:
    """An einsum string: one term for each operand, and one for the output, which is None without an arrow."""

    inputs: tuple[Term, ...]
    output: Term | None
    span: Span

    @property
    def terms(self) -> tuple[Term, ...]:
        return self.inputs if self.output is None else (*self.inputs, self.output)


def as_letters(subscripts: Subscripts) -> Subscripts | None:
    """The same string with every letter a label; None where it holds anything but letters and ellipses."""
    words = [d for term in subscripts.terms for d in term.dims]
    if not all(isinstance(d, Dots) or (isinstance(d, Axis) and d.name.isalpha()) for d in words):
        return None

    def split(term: Term) -> Term:
        return Term(tuple(label for dim in term.dims for label in _letters(dim)), term.span)

    output = None if subscripts.output is None else split(subscripts.output)
    return Subscripts(tuple(split(t) for t in subscripts.inputs), output, subscripts.span)


def choose(subscripts: Subscripts, ranks: Sequence[int] | None = None, *, named: bool = False) -> Subscripts:
    """The reading that is meant, letters or names, for operands of these ranks.

    Letters, if there are only letters and they fit the ranks. Names, if white space inside a term sets off a word of
    several letters, as in `"batch time, time"`; without ranks only this decides. `named` prefers names that fit.
    """
    letters = as_letters(subscripts)
    if letters is None or (named and ranks is not None and _fits(subscripts, ranks)):
        return subscripts
    if ranks is not None and _fits(letters, ranks):
        return letters
    return subscripts if any(map(_spaced, subscripts.terms)) else letters


def clip(name: str) -> str:
    """The name as messages quote it: a very long one is cut."""
    return name if len(name) <= 40 else f"{name[:40]}…"


def _letters(dim: Dim) -> Iterator[Dim]:
    if isinstance(dim, Axis):
        source, start = dim.span.source, dim.span.start
        for k, letter in enumerate(dim.name):
            yield Axis(letter, source.span(start + k, start + k + 1))
    else:
        yield dim


def _fits(subscripts: Subscripts, ranks: Sequence[int]) -> bool:
    if len(subscripts.inputs) != len(ranks):
        return False
    for term, rank in zip(subscripts.inputs, ranks, strict=True):
        labels = sum(not isinstance(d, Dots) for d in term.dims)
        if labels > rank or (labels < rank and term.dots() is None):
            return False
    return True


def _spaced(term: Term) -> bool:
    """Does white space inside the term stand beside a word of several letters?"""
    return any(
        a.span.end < b.span.start and any(isinstance(d, Axis) and len(d.name) > 1 for d in (a, b))
        for a, b in pairwise(term.dims)
    )
