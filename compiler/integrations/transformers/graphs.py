"""Attention under torch.compile and torch.export, which import this when they trace a call: a node of their graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from einc.dropins.graphs import description
from einc.integrations.transformers.program import NAME


def called(text: str, operands: Sequence[torch.Tensor], numbers: Mapping[str, float]) -> Any:
    """The result of a program, or the tuple of several, through the operator; a seed is its only integer."""
    integers = {n: x for n, x in numbers.items() if n == "seed"}
    floats = {n: x for n, x in numbers.items() if n not in integers}
    found = torch.ops.einc.call(
        description(text, NAME),
        list(operands),
        " ".join([*integers, *floats]),
        [*integers.values()],
        [*floats.values()],
    )
    return found[0] if len(found) == 1 else tuple(found)
