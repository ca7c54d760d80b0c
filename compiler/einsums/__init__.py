"""`einc.einsum`: what numpy.einsum and torch.einsum take, and einops' strings, through the compiler.

    arguments  -->  string, operands, facts  -->  program, checked  -->  a view, or a compiled kernel  -->  result

NumPy arrays, numbers and nested lists give NumPy results; one torch tensor among the operands gives a torch result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from einc import ein
from einc.base.errors import CallError, ShapeError
from einc.base.facts import Fact
from einc.base.types import DType
from einc.binding import Bindings
from einc.einsums.operands import facts_of, on_one_device, read_operands, read_sizes
from einc.einsums.options import check_cast, check_casting, check_optimize, check_order, read_dtype
from einc.einsums.subscripts import read_call
from einc.einsums.views import as_view, is_view
from einc.frontend.strings.einsum import Reading, bind_einsum
from einc.runtime.arguments import write
from einc.runtime.autograd import connect
from einc.runtime.tensors import as_numpy, dtype_of, is_torch, may_overlap, overlaps_itself

if TYPE_CHECKING:
    import torch

    from einc.runtime.execution import Place

Array = Any  # a torch tensor or a NumPy array

_FEW = 8  # operands: the contractions of more stay kernels of their own, as weighing what to fuse takes too long
_MOST = 1 << 60  # elements of a result, or more: no address reaches them


def einsum(
    *operands: Any,
    out: Array | None = None,
    optimize: object = False,
    dtype: object = None,
    order: str = "K",
    casting: str = "safe",
    **sizes: int,
) -> Array:
    """The sum of products that an einsum string says.

        einsum("ij,jk->ik", A, B)                 as in NumPy and PyTorch; einsum("ij,jk->ik", [A, B]) too
        einsum("b (g r) q, b g -> b (g r)", A, B)    names and composite axes, as in einops; the string may be last
        einsum("b (g r) d -> b g r d", A, g=4)    extents by keyword, where the operands leave them open
        einsum(A, [0, 1], B, [1, 2], [0, 2])      lists of integers, an Ellipsis among them

    The element type is NumPy's promotion of the operands', or `dtype`. One operand with nothing summed gives a view.
    `out` receives the result and is returned; `casting` limits the casts to `dtype` and to `out`; `order` chooses the
    memory layout of a NumPy result; `optimize` is checked as NumPy does, and changes nothing.
    Raises `einc.Error`, which is a ValueError, and for wrong types and argument counts a TypeError as well.
    """
    order, casting = check_order(order), check_casting(casting)
    call = read_call(operands)
    check_optimize(optimize, len(call.operands))
    arrays = read_operands(call)
    wanted = read_dtype(dtype)
    reading = Reading(call.named, sum_dots=any(map(is_torch, arrays)), dtype=wanted)
    plan = _plan(call.text, facts_of(arrays), read_sizes(sizes), reading)
    if wanted is not None or casting in ("no", "equiv"):
        for operand in plan.program.operands:
            check_cast(f"operand {operand.name}", operand.dtype, plan.dtype, casting)
    if out is not None:
        return _into(out, plan, arrays, casting)
    if plan.view:
        return _finished(as_view(plan.program, plan.extents, arrays[0]), "K", arrays)
    return _finished(_run(plan, arrays), order, arrays)


# ---------------------------------------------------------------------------------------------------------------------
# The program of a call, and its run


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What calls with operands of the same shapes and types come to; compared by identity."""

    program: ein.Program
    extents: Mapping[str, int]
    shape: tuple[int, ...]
    dtype: DType
    view: bool


@lru_cache(maxsize=4096)
def _plan(text: str, facts: tuple[Fact, ...], sizes: tuple[tuple[str, int], ...], reading: Reading) -> Plan:
    """Errors are raised anew by each call; what is right is found once."""
    program, extents = bind_einsum(text, facts, dict(sizes), reading)
    (equation,) = program.equations
    shape = tuple(prod(extents[axis] for axis in dim) for dim in equation.dims)
    if prod(shape) >= _MOST:
        fact = f"its shape is {shape}"
        raise ShapeError("the result would be too large", program.span, fact=fact, hint="pass smaller extents")
    return Plan(program, extents, shape, equation.outputs[0].dtype, is_view(program))


@lru_cache(maxsize=4096)
def _runner(plan: Plan, where: Place) -> Callable[..., tuple[torch.Tensor, ...]]:
    """The compiled program as a function of torch tensors there."""
    from einc.driver import compile_program
    from einc.runtime.execution import run_in_torch, runner, target_of

    level = 2 if len(plan.program.operands) <= _FEW else 0
    compiled = compile_program(plan.program, level, target_of(where.device), plan.extents)
    if where.backend != "torch":
        return runner(compiled)
    names = [p.name for p in plan.program.operands]
    bindings = Bindings(dict(plan.extents), {})

    def run(*tensors: torch.Tensor, out: tuple[torch.Tensor, ...] | None = None) -> tuple[torch.Tensor, ...]:
        return run_in_torch(compiled, dict(zip(names, tensors, strict=True)), bindings, out)

    return run


def _run(plan: Plan, arrays: Sequence[Array], out: Array | None = None) -> Array:
    """The result of the compiled program as a torch tensor, or `out`, of the result's type, with the result in it."""
    from einc.runtime.execution import place

    tensors = on_one_device(arrays)
    run = _runner(plan, place(tensors[0].device))
    if out is not None:
        return write(out, plan.program, plan.extents, tensors, lambda into: run(*tensors, out=into))
    return connect(run(*tensors), [a for a in arrays if is_torch(a)])[0]


# ---------------------------------------------------------------------------------------------------------------------
# Results


def _finished(result: Array, order: str, arrays: Sequence[Array]) -> Array:
    """A result of the operands' kind: a torch tensor where one of them is, else NumPy's; a number if it has no dims."""
    if any(map(is_torch, arrays)):
        return result
    array: np.ndarray[Any, Any] = as_numpy(result) if is_torch(result) else result
    if array.ndim and order != "K":
        fortran = order == "F" or (order == "A" and _fortran(arrays))
        array = np.asarray(array, order="F" if fortran else "C")
    return array if array.ndim else array[()]


def _fortran(arrays: Sequence[Array]) -> bool:
    return all(a.flags.f_contiguous for a in arrays) and not all(a.flags.c_contiguous for a in arrays)


def _into(out: Array, plan: Plan, arrays: Sequence[Array], casting: str) -> Array:
    """Write the result into `out`, which may overlap the operands."""
    _check_out(out, plan, arrays)
    own = dtype_of(out, "out")
    check_cast("the result", plan.dtype, own, casting)
    if not plan.view and own == plan.dtype:
        return _run(plan, arrays, out)
    value = as_view(plan.program, plan.extents, arrays[0]) if plan.view else _run(plan, arrays)
    if is_torch(out):
        out.copy_(value.clone() if may_overlap(value, out) else value)
    else:
        np.copyto(out, as_numpy(value) if is_torch(value) else value, casting="unsafe")
    return out


def _check_out(out: Array, plan: Plan, arrays: Sequence[Array]) -> None:
    on_torch = any(map(is_torch, arrays))
    if not (is_torch(out) if on_torch else isinstance(out, np.ndarray)):
        raise CallError(
            "'out' is not an array of the operands' kind",
            fact=f"it is a {type(out).__name__}",
            hint=f"pass a {'torch tensor' if on_torch else 'NumPy array'} of shape {plan.shape}",
        )
    if tuple(out.shape) != plan.shape:
        fact = f"it has shape {tuple(out.shape)}, the result {plan.shape}"
        raise ShapeError("'out' does not have the shape of the result", fact=fact, hint="pass an 'out' of that shape")
    if on_torch:
        unfit = "it requires a gradient" * out.requires_grad or "its positions share memory" * overlaps_itself(out)
    else:
        unfit = "it is read-only" * (not out.flags.writeable)
    if unfit:
        raise CallError("'out' cannot be written to", fact=unfit, hint="pass memory of its own")
