"""A call's arguments as operands and scalars, by position or by name; results written where the caller wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from einc import ein
from einc.base.errors import CallError, DTypeError, ShapeError, nearest
from einc.base.facts import Fact
from einc.ein.ranges import extent_of
from einc.runtime.tensors import as_array, as_numpy, as_torch, dtype_of, fact, is_torch, may_overlap, overlaps_itself

if TYPE_CHECKING:
    import torch

Array = Any  # a torch tensor or a NumPy array
Tensors = tuple["torch.Tensor", ...]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The operands in order, as torch tensors or NumPy arrays with their facts, and the scalars that were given."""

    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    facts: tuple[Fact, ...]
    scalars: dict[str, Any]


def arrange(
    operands: Sequence[str],
    scalars: Sequence[str],
    signature: str,
    given: Sequence[object],
    named: Mapping[str, object],
    shaped: bool = False,
) -> Arguments:
    """The arguments of a program with these operands and scalars; scalars follow the operands by position.

    Raises `CallError` for too many, a missing, an unknown or a repeated one; `signature` is what the message quotes.
    `shaped` takes operands that have a shape and no memory.
    """
    known = (*operands, *scalars)
    if len(given) > len(known):
        what = f"{len(operands)} operand{'s' * (len(operands) != 1)}" + (f" and {len(scalars)} scalars" * bool(scalars))
        raise CallError(
            f"{len(given)} arguments are given, but the program takes {what}", fact=signature, hint="leave out the rest"
        )
    values = dict(zip(known, given, strict=False))
    for name, value in named.items():
        if name not in known:
            hint = nearest(name, known) or "leave it out"
            raise CallError(f"the program has no operand or scalar '{name}'", fact=signature, hint=hint)
        if name in values:
            raise CallError(
                f"'{name}' is given twice, by position and by name", fact=signature, hint="leave out one of them"
            )
        values[name] = value
    missing = [name for name in operands if name not in values]
    if missing:
        count = f"{len(operands)} operand{'s' * (len(operands) != 1)}"
        raise CallError(
            f"operand '{missing[0]}' is missing: the program takes {count}, given {len(operands) - len(missing)}",
            fact=signature,
            hint=f"pass {', '.join(missing)}",
        )
    arrays = tuple(as_array(values[name], name, shaped=shaped) for name in operands)
    facts = tuple(fact(a, name) for name, a in zip(operands, arrays, strict=True))
    return Arguments(tuple(operands), arrays, facts, {name: _plain(values[name]) for name in scalars if name in values})


def _plain(value: object) -> object:
    """A scalar of NumPy or torch, or an array of one element without dimensions, as Python's own number."""
    if isinstance(value, np.ndarray | np.generic) or is_torch(value):
        array: Any = value
        return array.item() if array.ndim == 0 else value
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Results


def unpacked(results: Tensors, torch: bool) -> Any:
    """One result, or the tuple of several; of NumPy's kind unless operands were torch's, without dims a number."""
    found: tuple[Any, ...] = results if torch else tuple(as_numpy(t)[()] for t in results)
    return found[0] if len(found) == 1 else found


def write(
    out: Any,
    program: ein.Program,
    extents: Mapping[str, int],
    operands: Sequence[torch.Tensor] | None,
    run: Callable[[Tensors | None], Tensors],
) -> Any:
    """Run with the results written to `out`, which is returned: a tensor, or a sequence of as many as there are.

    `run` takes tensors to write to, or None. Results go straight to memory that torch can address and that shares
    nothing with an operand or another result; else, or where `operands` is None, they are computed aside, then copied.
    """
    count = len(program.results)
    wanted = tuple(out) if isinstance(out, tuple | list) else (out,)
    if len(wanted) != count:
        raise CallError(
            f"out holds {len(wanted)} tensor{'s' * (len(wanted) != 1)}, but the program gives {count}",
            fact=f"results: {', '.join(program.results)}",
            hint=f"pass a tuple of {count}" if count > 1 else "pass one tensor",
        )
    for name, array in zip(program.results, wanted, strict=True):
        _check_out(name, array, program, extents)
    views = [as_torch(a) if is_torch(a) or a.size else None for a in wanted]
    if operands is not None and _direct(wanted, views, operands):
        run(tuple(v for v in views if v is not None))
        return out
    for array, result in zip(wanted, run(None), strict=True):
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


def _check_out(name: str, array: Array, program: ein.Program, extents: Mapping[str, int]) -> None:
    if not (is_torch(array) or isinstance(array, np.ndarray)):
        raise CallError(
            f"out for '{name}' is not a tensor",
            fact=f"it is a {type(array).__name__}",
            hint="pass a torch tensor or a NumPy array",
        )
    shape = tuple(extent_of(d, extents) for d in program.shapes()[name])
    if tuple(array.shape) != shape:
        fact = f"it has shape {tuple(array.shape)}, the result {shape}"
        raise ShapeError(f"out does not have the shape of '{name}'", fact=fact, hint=f"pass a tensor of shape {shape}")
    dtype, own = program.dtypes()[name], dtype_of(array, "out")
    if own != dtype:
        fact = f"it has elements of type {own}, the result {dtype}"
        raise DTypeError(f"out does not have the type of '{name}'", fact=fact, hint=f"pass a tensor of type {dtype}")
    unfit = "its positions share memory" if overlaps_itself(array) else ""
    if is_torch(array):
        unfit = "it requires a gradient" if array.requires_grad and array.is_leaf else unfit
    else:
        unfit = unfit if array.flags.writeable else "it is read-only"
    if unfit:
        raise CallError(f"out for '{name}' cannot be written to", fact=unfit, hint="pass memory of its own")
