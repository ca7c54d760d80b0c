"""Polynomials with integer coefficients, over atoms of any kind."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

T = TypeVar("T")
Polynomial: TypeAlias = dict[tuple[T, ...], int]  # a coefficient, other than 0, for each product of atoms


def add(*parts: Polynomial[T]) -> Polynomial[T]:
    """The sum of all parts."""
    total: Polynomial[T] = {}
    for part in parts:
        for atoms, n in part.items():
            total[atoms] = total.get(atoms, 0) + n
    return {atoms: n for atoms, n in total.items() if n}


def scaled(p: Polynomial[T], factor: int) -> Polynomial[T]:
    """The polynomial times a number other than 0."""
    return {atoms: n * factor for atoms, n in p.items()}


def times(p: Polynomial[T], q: Polynomial[T]) -> Polynomial[T]:
    """The product of two, the atoms of each term in the order of their text."""
    return add(*({tuple(sorted((*a, *b), key=repr)): n * m} for a, n in p.items() for b, m in q.items()))
