"""Attention under torch.compile and torch.export, which import this when they trace a call.

`scaled_dot_product_attention` is a node of their graphs. The functions of `flex_attention` are traced by einc itself,
which they cannot look into: there the graph breaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch._dynamo

from einc.dropins import flex
from einc.dropins.programs import compiled
from einc.runtime import operator  # defines the operator

__all__ = ["called", "flex_attention", "operator"]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch leaves it untyped
def description(text: str, name: str) -> str:
    """The description of a program; a constant for a tracer."""
    return compiled(text, name)._callee.description


def called(text: str, name: str, operands: Sequence[Any], floats: dict[str, float]) -> Any:
    """The result of a program through the operator; `floats` are its scalars."""
    return torch.ops.einc.call(
        description(text, name), list(operands), " ".join(floats), [], [float(x) for x in floats.values()]
    )[0]


flex_attention: Any = torch._dynamo.disable(  # type: ignore[no-untyped-call]  # torch's own
    flex.traced_attention, reason="einc.flex_attention traces the functions that it is given by itself"
)
