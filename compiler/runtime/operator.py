"""Programs as one operator of torch, `einc::call`: a node of graphs that torch traces, transforms and stores.

    program(Q, K, V, scale=0.1)  -->  einc::call(description, [Q, K, V], "scale", [], [0.1]) -> Tensor[]

It computes on memory, gives shapes and types for fake tensors, and one more axis of the equations for a batch of
`vmap`. Importing this module defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import is_gradtrackingtensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from einc import ein
from einc.base.facts import Fact
from einc.binding import FromDefault, FromDimension, FromFormula, plan
from einc.ein.arithmetic import evaluate_formula
from einc.ein.batching import batched
from einc.ein.origins import multiplied
from einc.ein.ranges import extent_of
from einc.runtime.arguments import arrange
from einc.runtime.autograd import refuse
from einc.runtime.callee import Callee, callee, described, over_batch
from einc.runtime.execution import Outputs, place
from einc.runtime.tensors import device_of, dtype_of, fact, torch_dtype

_CALL = "str description, Tensor[] operands, str names, SymInt[] integers, float[] floats"

_LIBRARY: Any = torch.library.Library("einc", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"call({_CALL}) -> Tensor[]")
_LIBRARY.define(f"gradient({_CALL}, Tensor?[] cotangents) -> Tensor[]")


def node(found: Callee, operands: Sequence[Any], named: Mapping[str, Any], out: Any = None) -> Any:
    """The result, or the tuple of several, through the operator; arguments as of a call."""
    known = (*found.operands, *found.scalars)
    values = {**dict(zip(known, operands, strict=False)), **named}
    clash = len(values) < len(operands) + len(named) or any(n not in known for n in named)
    if clash or any(n not in values for n in found.operands):
        _complain(found.operands, tuple(found.scalars), found.signature, len(operands), tuple(named))
    tensors = [values[name] for name in found.operands]
    if not torch.compiler.is_compiling() and any(map(is_gradtrackingtensor, tensors)):
        refuse()
    given = {name: values[name] for name in found.scalars if name in values}
    integers = {name: x for name, x in given.items() if not found.scalars[name].is_float}
    floats = {name: x for name, x in given.items() if found.scalars[name].is_float}
    results = operated(found.description, tensors, integers, floats)
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
def described_einsum(text: str, sizes: tuple[tuple[str, int], ...], named: bool, dtype: str | None, count: int) -> str:
    """The description of an einsum of torch tensors; a constant for a tracer."""
    return described("einsum", [text, sorted(sizes), named, True, dtype, count])


def _computed(
    description: str, operands: list[Tensor], names: str, integers: list[int], floats: list[float]
) -> list[Tensor]:
    """The results for operands in memory."""
    found = callee(description)
    named = _scalars(found, names, integers, floats)
    if found.calls is not None:
        known = found.calls(operands, named)
        if known is not None:
            return [known] if isinstance(known, Tensor) else list(known)
    return list(run(found, [t.detach().resolve_conj().resolve_neg() for t in operands], named))


def _scalars(found: Callee, names: str, integers: list[int], floats: list[float]) -> dict[str, Any]:
    """The scalars of a call by name, truth values among them."""
    values = dict(zip(names.split(), (*integers, *floats), strict=True))
    return {name: bool(x) if found.scalars[name].is_bool else x for name, x in values.items()}


def run(found: Callee, tensors: Sequence[Tensor], scalars: Mapping[str, Any]) -> Outputs:
    """The results in order, for operands in memory."""
    facts = tuple(fact(t, name) for t, name in zip(tensors, found.operands, strict=True))
    where = place(device_of(tensors, found.operands))
    return found.first(found.prepared(facts, scalars, where), tensors, scalars, tensors, scalars)


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
    alone = [t if d is None else t.select(d, 0) for t, d in zip(operands, places, strict=True)]
    program = one.meaning(_facts(one, alone))
    _, batches = batched(program, [n for n, has in zip(one.operands, having, strict=True) if has])
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


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:  # noqa: ARG001 - torch's interface
    ctx.call = inputs[0], inputs[2], inputs[3], inputs[4]
    ctx.save_for_backward(*inputs[1])


def _backward(ctx: Any, cotangents: list[Tensor | None]) -> tuple[Any, ...]:
    """The gradients of a call's arguments: those of the operands through the second operator, which graphs keep."""
    description, *scalars = ctx.call
    operands = list(ctx.saved_tensors)
    found = torch.ops.einc.gradient(description, operands, *scalars, cotangents)
    inexact = [t.is_floating_point() or t.is_complex() for t in operands]
    gradients = [g if needed else None for g, needed in zip(found, inexact, strict=True)]
    lists: Iterator[list[Any] | None] = (
        None if s else [] for s in scalars[1:]
    )  # torch takes an empty list for one of tensors
    return None, gradients, None, *lists


def _gradient(
    description: str,
    operands: list[Tensor],
    names: str,
    integers: list[int],
    floats: list[float],
    cotangents: list[Tensor | None],
) -> list[Tensor]:
    refuse(description, operands, names, integers, floats, cotangents)
    return []


def _gradient_shaped(_: str, operands: list[Tensor], *_rest: Any) -> list[Tensor]:
    return [torch.empty_like(t) for t in operands]


# ---------------------------------------------------------------------------------------------------------------------

_LIBRARY.impl("call", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("call", _autocast("cuda"), "AutocastCUDA")
_LIBRARY.impl("call", _computed, "CompositeExplicitAutograd")
torch.library.register_fake("einc::call", _shaped, lib=_LIBRARY)
torch.library.register_vmap("einc::call", _over_batch, lib=_LIBRARY)
torch.library.register_autograd("einc::call", _backward, setup_context=_save, lib=_LIBRARY)
_LIBRARY.impl("gradient", _gradient, "CompositeExplicitAutograd")
torch.library.register_fake("einc::gradient", _gradient_shaped, lib=_LIBRARY)
