"""Results as the caller's kind of tensor, or written where the caller expected them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einc import ein
from einc.base.errors import CallError, DTypeError, ShapeError
from einc.base.types import DType
from einc.base.words import count
from einc.ein.ranges import extent_of
from einc.runtime.tensors import as_numpy, as_torch, dtype_of, is_torch, may_overlap, overlaps_itself

if TYPE_CHECKING:
    import torch

Array = Any  # a torch tensor or a NumPy array
Tensors = tuple["torch.Tensor", ...]


def unpacked(results: Tensors, torch: bool) -> Any:
    """One result, or a tuple of several: torch tensors if the operands were, else NumPy's, and numbers without dims."""
    found: tuple[Any, ...] = results if torch else tuple(as_numpy(t)[()] for t in results)
    return found[0] if len(found) == 1 else found


def several(out: Any) -> tuple[Any, ...]:
    """The tensors to write results to: one, or a sequence."""
    return tuple(out) if isinstance(out, tuple | list) else (out,)


def write(
    out: Any,
    program: ein.Program,
    extents: Mapping[str, int],
    operands: Sequence[torch.Tensor] | None,
    run: Callable[[Tensors], Tensors],
) -> Any:
    """Run with the results written to `out`, which is returned: a tensor, or a sequence with one for each result.

    `run` takes the tensors to write to, or none. Results are written directly to memory that torch can address and that
    is not shared with an operand or another result; otherwise, if `operands` is None, or if a result is asked for
    twice, they are computed and copied.
    """
    expected = len(program.results)
    wanted = several(out)
    if len(wanted) != expected:
        raise CallError(
            f"out holds {count(len(wanted), 'tensor')}, but the program gives {expected}",
            fact=f"results: {', '.join(program.results)}",
            hint=f"pass a tuple of {expected}" if expected > 1 else "pass one tensor",
        )
    dims, dtypes = program.shapes(), program.dtypes()
    for name, array in zip(program.results, wanted, strict=True):
        shape = tuple(extent_of(d, extents) for d in dims[name])
        check_out(f"out for '{name}'", array, shape)
        check_out_type(f"out for '{name}'", array, dtypes[name])
    views = [as_torch(a) if is_torch(a) or a.size else None for a in wanted]
    distinct = len(set(program.results)) == expected
    if distinct and operands is not None and _direct(wanted, views, operands):
        run(tuple(v for v in views if v is not None))
        return out
    for array, result in zip(wanted, run(()), strict=True):
        if is_torch(array):
            array.detach().copy_(result)
        else:
            np.copyto(array, as_numpy(result))
    return out


def _direct(wanted: Sequence[Array], views: Sequence[torch.Tensor | None], operands: Sequence[torch.Tensor]) -> bool:
    """May a kernel write to these views while it reads the operands?"""
    seen = list(operands)
    for array, view in zip(wanted, views, strict=True):
        if view is None or (not is_torch(array) and not np.may_share_memory(array, view.numpy())):
            return False
        if any(view.device != t.device or may_overlap(view, t) for t in seen):
            return False
        seen.append(view)
    return True


def check_out(what: str, array: Array, shape: tuple[int, ...], torch: bool | None = None) -> None:
    """Check that a result of this shape can be written there; `torch` says which kind of tensor it must be, if any.

    Raises `CallError` if it is not a tensor or cannot be written to, and `ShapeError` if its shape differs.
    """
    if not any((is_torch(array) and torch is not False, isinstance(array, np.ndarray) and not torch)):
        kind, sort = {
            None: ("tensor", "torch tensor or a NumPy array"),
            True: ("torch tensor", "torch tensor"),
            False: ("NumPy array", "NumPy array"),
        }[torch]
        fact = f"it is a {type(array).__module__}.{type(array).__name__}".replace("builtins.", "")
        raise CallError(f"{what} is not a {kind}", fact=fact, hint=f"pass a {sort} of shape {shape}")
    if tuple(array.shape) != shape:
        fact = f"it has shape {tuple(array.shape)}, the result {shape}"
        raise ShapeError(
            f"{what} does not have the shape of the result", fact=fact, hint=f"pass a tensor of shape {shape}"
        )
    unfit = "its positions share memory" * overlaps_itself(array)
    if is_torch(array):
        unfit = unfit or "it requires a gradient" * array.requires_grad
    else:
        unfit = unfit or "it is read-only" * (not array.flags.writeable)
    if unfit:
        raise CallError(f"{what} cannot be written to", fact=unfit, hint="pass memory of its own")


def check_out_type(what: str, array: Array, dtype: DType) -> None:
    """Raises `DTypeError` if the tensor has an element type other than the result's."""
    if (own := dtype_of(array, "out")) != dtype:
        fact = f"it has elements of type {own}, the result {dtype}"
        raise DTypeError(
            f"{what} does not have the type of the result", fact=fact, hint=f"pass a tensor of type {dtype}"
        )
