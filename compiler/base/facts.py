"""What is known of an operand before a call gives it."""

from __future__ import annotations

from dataclasses import dataclass

from einc.base.types import DType


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of an operand: its shape and element type."""

    shape: tuple[int, ...]
    dtype: DType
