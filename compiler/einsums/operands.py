"""The operands of an einsum call as arrays, its extents by keyword, and the tensors that a kernel reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

from einc.base.errors import CallError
from einc.base.facts import Fact
from einc.base.types import DType, numpy_result
from einc.einsums.subscripts import Call
from einc.frontend.strings.layout import operand_name
from einc.runtime.tensors import as_array, as_torch, device_of, dtype_of, fact, is_torch, torch_dtype

if TYPE_CHECKING:
    import torch

Array = Any  # a torch tensor or a NumPy array


def read_operands(call: Call, shaped: bool = False) -> list[Array]:
    """The operands as arrays; next to torch tensors a Python number has no type of its own, as in PyTorch.

    `shaped` allows tensors that have a shape and no memory.
    """
    names = [operand_name(k) for k in range(len(call.operands))]
    arrays = [as_array(value, name, shaped=shaped) for name, value in zip(names, call.operands, strict=True)]
    weak = [isinstance(v, bool | int | float | complex) for v in call.operands]
    tensors: list[Array] = [a for a in arrays if is_torch(a)]
    if not tensors or not any(weak):
        return arrays
    strong = numpy_result(dtype_of(a, n) for n, a, w in zip(names, arrays, weak, strict=True) if not w)
    return [_met(a, strong, tensors[0].device) if w else a for a, w in zip(arrays, weak, strict=True)]


def _met(number: Array, strong: DType, device: torch.device) -> Array:
    """A number in the type that PyTorch gives it next to tensors of this type, or in its own if it does not fit."""
    import torch

    value = number.item()
    try:
        dtype = torch.result_type(torch.empty(0, dtype=torch_dtype(strong)), value)
        return torch.tensor(value, dtype=dtype, device=device)
    except (OverflowError, RuntimeError):
        return number


def facts_of(arrays: Sequence[Array]) -> tuple[Fact, ...]:
    return tuple(fact(a, operand_name(k)) for k, a in enumerate(arrays))


def read_sizes(sizes: Mapping[str, object]) -> tuple[tuple[str, int], ...]:
    """Extents by axis name, in a fixed order; raises `CallError` for a keyword that is not an integer of 64 bits."""
    return tuple((name, _size(name, value)) for name, value in sorted(sizes.items()))


def _size(name: str, value: object) -> int:
    try:
        n = index(value)  # type: ignore[arg-type]  # raises TypeError unless it is an integer
    except TypeError:
        raise CallError(
            f"'{name}' is neither an option of einsum nor an extent",
            fact=f"{name} is a {type(value).__name__}",
            hint="options are out, optimize, dtype, order and casting; extents of axes are integers",
        ) from None
    if not -(1 << 63) <= n < 1 << 63:
        raise CallError(f"the extent {name} does not fit 64 bits", hint="pass a smaller one")
    return n


def on_one_device(arrays: Sequence[Array]) -> list[torch.Tensor]:
    """The operands as torch tensors on one device, that of the torch tensors among them."""
    tensors = [as_torch(a) for a in arrays]
    home = next((a.device for a in arrays if is_torch(a)), None)
    if home is not None:
        tensors = [t if is_torch(a) else t.to(home) for a, t in zip(arrays, tensors, strict=True)]
    device_of(tensors, [operand_name(k) for k in range(len(tensors))])
    return tensors
