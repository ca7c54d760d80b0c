"""Results of operands that require gradients: computed as usual, with an error when a gradient is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from einc.base.errors import Error

if TYPE_CHECKING:
    import torch


@cache
def _function() -> Any:
    import torch

    class Underived(torch.autograd.Function):
        """Connects results with operands, so that a backward pass raises an error instead of missing a gradient."""

        @staticmethod
        def forward(_: Any, count: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(t.view_as(t) for t in tensors[:count])

        @staticmethod
        def backward(*_: Any) -> Any:
            refuse()

    return Underived


def refuse(*_: Any) -> NoReturn:
    """Stands for the gradient of a program: raises `Error`."""
    raise Error(
        "this program has no derived gradient yet",
        fact="an operand requires a gradient, and backward reached the result",
        hint="call under torch.no_grad(), or detach the operands",
    )


def connect(results: tuple[torch.Tensor, ...], operands: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The results, marked as differentiable if an operand is and gradients are on."""
    import torch

    needing = [t for t in operands if t.requires_grad]
    if not needing or not torch.is_grad_enabled():
        return results
    inexact = tuple(t for t in results if t.is_floating_point() or t.is_complex())
    if not inexact:
        return results
    connected = iter(_function().apply(len(inexact), *inexact, *needing))
    return tuple(next(connected) if t.is_floating_point() or t.is_complex() else t for t in results)
