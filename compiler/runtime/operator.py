"""Programs as one operator of torch, `einc::call`: a node of graphs that torch traces, transforms and stores.

    program(Q, K, V, scale=0.1)  -->  einc::call(description, [Q, K, V], "scale", [], [0.1]) -> Tensor[]

It computes on memory, gives shapes and types for fake tensors, and one more axis of the equations for a batch of
`vmap`. Importing this module defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor, is_gradtrackingtensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from einc import ein
from einc.base.facts import Fact
from einc.binding import FromDefault, FromDimension, FromFormula, plan
from einc.ein.arithmetic import evaluate_formula
from einc.ein.origins import multiplied
from einc.ein.ranges import extent_of
from einc.runtime.arguments import arrange, number
from einc.runtime.callee import Callee, callee, described, over_batch, with_batch
from einc.runtime.derivative import Derivative, derivative, differentiated, refuse_tangents
from einc.runtime.execution import place
from einc.runtime.tensors import device_of, dtype_of, fact, torch_dtype

_LIBRARY: Any = torch.library.Library("einc", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("call(str description, Tensor[] operands, str names, SymInt[] integers, float[] floats) -> Tensor[]")
_CALL: Any = torch.ops.einc.call.default


def node(found: Callee, operands: Sequence[Any], named: Mapping[str, Any], out: Any = None) -> Any:
    """The result, or the tuple of several, through the operator; arguments as of a call."""
    known = (*found.operands, *found.scalars)
    values = {**dict(zip(known, operands, strict=False)), **named}
    clash = len(values) < len(operands) + len(named) or any(n not in known for n in named)
    if clash or any(n not in values for n in found.operands):
        _complain(found.operands, tuple(found.scalars), found.signature, len(operands), tuple(named))
    tensors = [values[name] for name in found.operands]
    given = {name: values[name] for name in found.scalars if name in values}
    given = {name: number(x, name) if isinstance(x, Tensor) else x for name, x in given.items()}
    integers = {name: x for name, x in given.items() if not found.scalars[name].is_float}
    floats = {name: x for name, x in given.items() if found.scalars[name].is_float}
    if torch.compiler.is_compiling():
        results = operated(found.description, tensors, integers, floats)
    else:
        results = _through(found, tensors, {**integers, **floats})
    if out is None:
        return results[0] if len(results) == 1 else tuple(results)
    for into, result in zip(out if isinstance(out, tuple | list) else (out,), results, strict=True):
        into.copy_(result)
    return out


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _complain(
    operands: tuple[str, ...], scalars: tuple[str, ...], signature: str, given: int, named: tuple[str, ...]
) -> None:
    """Raise the error of a call with so many arguments by position, and these by name; a tracer passes it on."""
    arrange(operands, scalars, signature, [np.zeros(())] * given, dict.fromkeys(named, np.zeros(())))


def operated(
    description: str,
    operands: Sequence[Tensor],
    integers: Mapping[str, int] | None = None,
    floats: Mapping[str, float] | None = None,
) -> list[Tensor]:
    """The results in order, through the operator; scalars by name, truth values among the integers."""
    integers, floats = integers or {}, floats or {}
    names = " ".join([*integers, *floats])
    found = torch.ops.einc.call(description, list(operands), names, [*integers.values()], [*floats.values()])
    return cast("list[Tensor]", found)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch leaves it untyped
def described_einsum(
    text: str, sizes: tuple[tuple[str, int], ...], named: bool, dtype: str | None, count: int, precision: str
) -> str:
    """The description of an einsum of torch tensors; a constant for a tracer."""
    return described("einsum", [text, sorted(sizes), named, True, dtype, count, precision])


def _computed(
    description: str, operands: list[Tensor], names: str, integers: list[int], floats: list[float]
) -> list[Tensor]:
    """The results for operands in memory."""
    found = callee(description)
    return list(found.computed(operands, _scalars(found, names, integers, floats)))


def _scalars(found: Callee, names: str, integers: list[int], floats: list[float]) -> dict[str, Any]:
    """The scalars of a call by name, truth values among them."""
    values = dict(zip(names.split(), (*integers, *floats), strict=True))
    return {name: bool(x) if found.scalars[name].is_bool else x for name, x in values.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Shapes and types alone


def _shaped(
    description: str, operands: list[Tensor], names: str, integers: list[int], floats: list[float]
) -> list[Tensor]:
    """Results without memory, whose extents may be symbols."""
    found = callee(description)
    program = found.meaning(_facts(found, operands))
    extents = extents_for(program, operands, _scalars(found, names, integers, floats))
    dims, dtypes = program.shapes(), program.dtypes()
    return [
        operands[0].new_empty([extent_of(d, extents) for d in dims[name]], dtype=torch_dtype(dtypes[name]))
        for name in program.results
    ]


def _facts(found: Callee, operands: Sequence[Tensor]) -> tuple[Fact, ...]:
    """Facts that mean the same as those of the operands: of an extent, only whether it is 1 counts."""
    return tuple(
        Fact(tuple(1 if statically_known_true(n == 1) else 2 for n in t.shape), dtype_of(t, name))
        for t, name in zip(operands, found.operands, strict=True)
    )


def extents_for(program: ein.Program, operands: Sequence[Tensor], scalars: Mapping[str, Any]) -> dict[str, Any]:
    """The extent of every axis, a number or a symbol; what has to hold between them is checked when memory is there."""
    extents: dict[str, Any] = {}
    known = dict(scalars)
    formulas = [a.extent for a in program.axes if a.extent is not None]
    decide = {n.name for e in formulas for n in ein.walk(e) if isinstance(n, ein.Scalar)}
    shapes = {p.name: t.shape for p, t in zip(program.operands, operands, strict=True)}
    for step in plan(program):
        match step:
            case FromDimension(axis, operand, dimension, others):
                n = shapes[operand][dimension]
                extents[axis] = n // extent_of(others, extents) if others else n
            case FromFormula(axis, formula):
                extents[axis] = evaluate_formula(formula, extents, known)
            case FromDefault(name, formula):
                if name not in known and name in decide:
                    known[name] = evaluate_formula(formula, extents, known)
    return extents


# ---------------------------------------------------------------------------------------------------------------------
# Batches


def _over_batch(
    _info: Any,
    in_dims: tuple[Any, ...],
    description: str,
    operands: list[Tensor],
    names: str,
    integers: list[int],
    floats: list[float],
) -> tuple[list[Tensor], list[int | None]]:
    """The results over a batch: the equations with one more axis, where an operand has one."""
    places = in_dims[1]
    moved = [t if d is None else t.movedim(d, 0) for t, d in zip(operands, places, strict=True)]
    having = [d is not None for d in places]
    one = callee(description)
    program, batches = with_batch(one, having, _facts(one, moved))
    results = torch.ops.einc.call(over_batch(description, having), moved, names, integers, floats)
    return results, [0 if name in batches else None for name in program.results]


# ---------------------------------------------------------------------------------------------------------------------
# Autocast


def _autocast(kind: str) -> Callable[..., list[Tensor]]:
    """What runs under autocast for a kind of device: the sides of products are cast, as those of einsum are."""

    def lowered(
        description: str, operands: list[Tensor], names: str, integers: list[int], floats: list[float]
    ) -> list[Tensor]:
        found = callee(description)
        sides = multiplied(found.meaning(_facts(found, operands)))
        dtype = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            cast_to = [
                t.to(dtype) if n in sides and t.dtype in _LOWERED else t
                for n, t in zip(found.operands, operands, strict=True)
            ]
            results = torch.ops.einc.call(description, cast_to, names, integers, floats)
        return cast("list[Tensor]", results)

    return lowered


_LOWERED = (torch.float32, torch.float16, torch.bfloat16)

# ---------------------------------------------------------------------------------------------------------------------
# Gradients


def _differentiated(
    keys: Any, description: str, operands: list[Tensor], names: str, integers: list[int], floats: list[float]
) -> list[Tensor]:
    """The results with gradients where they are asked for: through the operator on the two halves of the derivative."""
    refuse_tangents(operands)
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in operands):
        with torch._C._AutoDispatchBelowAutograd():
            after = keys & torch._C._after_autograd_keyset
            return cast("list[Tensor]", _CALL.redispatch(after, description, operands, names, integers, floats))
    found = callee(description)
    scalars = _scalars(found, names, integers, floats)
    made = _derivative(found, operands, scalars, [t.requires_grad for t in operands])
    return list(differentiated(made, operands, scalars, _through))


def _through(found: Callee, tensors: Sequence[Tensor], scalars: Mapping[str, Any]) -> list[Tensor]:
    """The results, through a function of Python's where `torch.func` differentiates, else through the operator."""
    refuse_tangents(tensors)
    needing = [_transformed(t) for t in tensors]
    if any(needing):
        return list(differentiated(_derivative(found, tensors, scalars, needing), tensors, scalars, _through))
    return cast("list[Tensor]", torch.ops.einc.call(found.description, list(tensors), *_split(found, scalars)))


def _transformed(t: Any) -> bool:
    """Is a tensor one that `torch.func` differentiates by, at any level?"""
    while is_functorch_wrapped_tensor(t):
        if is_gradtrackingtensor(t) and t.requires_grad:
            return True
        t = get_unwrapped(t)
    return False


def _derivative(
    found: Callee, operands: Sequence[Tensor], scalars: Mapping[str, Any], needing: Sequence[bool]
) -> Derivative:
    """The derivative for these operands, by what is known of their extents."""
    if all(isinstance(n, int) for t in operands for n in t.shape):
        facts = tuple(fact(t, name) for t, name in zip(operands, found.operands, strict=True))
        device = device_of(operands, found.operands)
        return derivative(found, facts, scalars, needing, None if device.type == "meta" else place(device))
    return derivative(found, _facts(found, operands), scalars, needing, None)


def _split(found: Callee, scalars: Mapping[str, Any]) -> tuple[str, list[Any], list[Any]]:
    """Scalars as arguments of the operator: names, integers, floats."""
    integers = {n: x for n, x in scalars.items() if not found.scalars[n].is_float}
    floats = {n: x for n, x in scalars.items() if found.scalars[n].is_float}
    return " ".join([*integers, *floats]), [*integers.values()], [*floats.values()]


# ---------------------------------------------------------------------------------------------------------------------

_LIBRARY.impl("call", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("call", _autocast("cuda"), "AutocastCUDA")
_LIBRARY.impl("call", _computed, "CompositeExplicitAutograd")
torch.library.register_fake("einc::call", _shaped, lib=_LIBRARY)
torch.library.register_vmap("einc::call", _over_batch, lib=_LIBRARY)
_LIBRARY.impl("call", _differentiated, "Autograd", with_keyset=True)
