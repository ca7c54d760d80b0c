"""Numbers with the words for what they count, as messages write them."""

from __future__ import annotations


def count(n: int, one: str, many: str = "") -> str:
    """`1 axis`, `2 axes`; a plural that is not given takes an s."""
    return f"{n} {one if n == 1 else many or f'{one}s'}"
