"""What random programs of every kind are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


@dataclass
class Draws:
    """Draws of a hypothesis strategy."""

    draw: Callable[[st.SearchStrategy[Any]], Any]

    def pick(self, options: Sequence[T]) -> T:
        chosen: T = self.draw(st.sampled_from(list(options)))
        return chosen

    def chance(self, n: int) -> bool:
        """True once in n times, and what a failing example shrinks to is False."""
        return bool(self.draw(st.integers(0, n - 1)) == n - 1)
