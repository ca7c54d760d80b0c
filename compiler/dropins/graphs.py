"""Attention under torch.compile and torch.export, which import this when they trace a call.

`scaled_dot_product_attention` is a node of their graphs. The functions of `flex_attention` are traced by einc itself,
which they cannot look into: there the graph breaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch._dynamo

from einc.dropins import flex
from einc.dropins.programs import compiled
from einc.runtime import operator  # defines the operator

__all__ = ["called", "flex_attention", "operator"]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch leaves it untyped
def description(text: str, name: str) -> str:
    """The description of a program; a constant for a tracer."""
    return compiled(text, name).description


def called(
    text: str,
    name: str,
    operands: Sequence[Any],
    floats: Mapping[str, float],
    integers: Mapping[str, int] | None = None,
) -> Any:
    """The result of a program, or the tuple of several, through the operator; scalars by name."""
    found = operator.operated(description(text, name), operands, integers, floats)
    return found[0] if len(found) == 1 else tuple(found)


flex_attention: Any = torch._dynamo.disable(  # type: ignore[no-untyped-call]  # torch's own
    flex.traced_attention, reason="einc.flex_attention traces the functions that it is given by itself"
)
