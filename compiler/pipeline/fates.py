"""What becomes of the tensors that gradients read, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal["result", "beside", "smaller", "written", "dearer", "pointwise", "cheaper", "larger"]


@dataclass(frozen=True, slots=True)
class Fate:
    """A tensor that gradients read is saved, or computed again from what is saved.

    It is saved as a `result`, which is there anyway; `beside` one, from the same equation; as `smaller` than a tensor
    that is written to memory; as `written` itself, between kernels; as `dearer` to compute again than to write and
    read, and as large as a tensor that is written. It is computed again as `pointwise`; as `cheaper` to compute than to
    write and read; as `larger`, over axes that no tensor has that is written.

    `than` is the tensor that it was compared with, if it was with one.
    """

    tensor: str
    saved: bool
    reason: Reason
    than: str = ""
