"""`einc.einsum`: the calls of numpy.einsum and torch.einsum, and einops' strings, through the compiler.

    arguments  -->  string, operands, facts  -->  program, checked  -->  a view, or a compiled kernel  -->  result

NumPy arrays, numbers and nested lists give NumPy results; one torch tensor among the operands gives a torch result;
arrays of other libraries give theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from einc import ein
from einc.base.errors import ShapeError
from einc.base.facts import Fact
from einc.base.types import BY_NAME, F32, DType
from einc.binding import Bindings
from einc.einsums.operands import facts_of, on_one_device, read_operands, read_sizes
from einc.einsums.options import check_cast, check_casting, check_optimize, check_order, read_dtype
from einc.einsums.subscripts import Call, read_call
from einc.einsums.views import as_view, is_view
from einc.frontend.strings.einsum import Reading, bind_einsum, elaborate_einsum
from einc.frontend.strings.layout import operand_name
from einc.runtime.callee import DECODERS, Callee, described
from einc.runtime.derivative import call as differentiable
from einc.runtime.derivative import needed
from einc.runtime.interop import any_foreign, exchanged
from einc.runtime.prepared import NOTHING, Options, Prepared, prepared
from einc.runtime.results import check_out, write
from einc.runtime.tensors import as_numpy, compiling, dtype_of, is_torch, may_overlap, watched
from einc.tile.asked import named_precision
from einc.tile.asked import precision as asked_precision

Array = Any  # a torch tensor or a NumPy array

_USUAL = ("K", "safe", "exact")  # order, casting and precision
_FEW = 8  # operands; the contractions of more are not fused, since comparing the ways would take too long
_MOST_STRINGS = 1024  # whose calls are kept
_MOST = 1 << 60  # elements of a result; more cannot be addressed


def einsum(
    *operands: Any,
    out: Array | None = None,
    optimize: object = False,
    dtype: object = None,
    order: str = "K",
    casting: str = "safe",
    precision: str = "exact",
    **sizes: int,
) -> Array:
    """The sum of products that an einsum string means.

        einsum("ij,jk->ik", A, B)                 as in NumPy and PyTorch; einsum("ij,jk->ik", [A, B]) too
        einsum("b (g r) q, b g -> b (g r)", A, B)    names and composite axes, as in einops; the string may be last
        einsum("b (g r) d -> b g r d", A, g=4)    extents by keyword, where the operands leave them open
        einsum(A, [0, 1], B, [1, 2], [0, 2])      lists of integers, an Ellipsis among them

    The element type is NumPy's promotion of the operands', or `dtype`. One operand with nothing summed gives a view.
    `out` receives the result and is returned; `casting` limits the casts to `dtype` and to `out`; `order` chooses the
    memory layout of a NumPy result; `optimize` is checked as in NumPy, and has no effect. `precision` is what
    contractions of float32 multiply in, as for `einc.compile`.
    Raises `einc.Error`, which is a ValueError, and for wrong types and argument counts a TypeError as well.
    """
    if compiling():
        return _node(read_call(operands), dtype, sizes, out, precision)
    usual = dtype is None and optimize is False and (order, casting, precision) == _USUAL and not sizes
    if usual and operands and operands[0].__class__ is str:
        known = _callees[len(operands) > 1 and operands[1].__class__ is np.ndarray].get(operands[0])
        if known is not None and known.calls is not None:
            found = known.calls(operands[1:], sizes, out)
            if found is not None:
                return found
    if any_foreign(operands):
        options = {"optimize": optimize, "dtype": dtype, "order": order, "casting": casting, "precision": precision}
        return exchanged(_called, operands, sizes, out, **options)
    precise = asked_precision(precision)
    order, casting = check_order(order), check_casting(casting)
    call = read_call(operands)
    if any(map(is_torch, call.operands)) and watched(call.operands):
        return _node(call, dtype, sizes, out, precision)
    check_optimize(optimize, len(call.operands))
    arrays = read_operands(call)
    wanted = read_dtype(dtype)
    reading = Reading(call.named, sum_dots=any(map(is_torch, arrays)), dtype=wanted)
    plan = _plan(call.text, facts_of(arrays), read_sizes(sizes), reading, precise)
    if wanted is not None or casting in ("no", "equiv"):
        for operand in plan.program.operands:
            check_cast(f"operand {operand.name}", operand.dtype, plan.dtype, casting)
    alike = usual and call.text is operands[0] and len(set(map(is_torch, call.operands))) == 1
    known = _known(call.text, reading, len(arrays)) if alike else None
    if out is not None:
        return _into(out, plan, arrays, casting, known)
    if plan.view:
        return _viewed(plan, arrays, known)
    if needed([a for a in arrays if is_torch(a)]):
        found = known or callee(call.text, read_sizes(sizes), reading, len(arrays), precise)
        tensors = [a if is_torch(a) else t for a, t in zip(arrays, on_one_device(arrays), strict=True)]
        return differentiable(found, tensors, {})[0]
    return _finished(_run(plan, arrays, known), order, arrays)


def _called(operands: Sequence[Any], sizes: Mapping[str, Any], out: Array | None, **options: Any) -> Array:
    return einsum(*operands, out=out, **options, **sizes)


# ---------------------------------------------------------------------------------------------------------------------
# The program of a call, and its run


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The work that calls with operands of the same shapes and types share; compared by identity."""

    program: ein.Program
    bindings: Bindings
    shape: tuple[int, ...]
    dtype: DType
    view: bool
    precision: DType = F32

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.program.operands)

    @property
    def options(self) -> Options:
        return Options(level=2 if len(self.program.operands) <= _FEW else 0, precision=self.precision)


@lru_cache(maxsize=4096)
def _plan(
    text: str, facts: tuple[Fact, ...], sizes: tuple[tuple[str, int], ...], reading: Reading, precise: DType
) -> Plan:
    """The plan of a call, made once; a call that is wrong raises its error every time."""
    program, extents = bind_einsum(text, facts, dict(sizes), reading)
    (equation,) = program.equations
    shape = tuple(prod(extents[axis] for axis in dim) for dim in equation.dims)
    if prod(shape) >= _MOST:
        fact = f"its shape is {shape}"
        raise ShapeError("the result would be too large", program.span, fact=fact, hint="pass smaller extents")
    return Plan(program, Bindings(extents, {}), shape, equation.outputs[0].dtype, is_view(program), precise)


def callee(text: str, sizes: tuple[tuple[str, int], ...], reading: Reading, count: int, precise: DType = F32) -> Callee:
    """The einsum of a string for some number of operands."""
    dtype = None if reading.dtype is None else reading.dtype.name

    def meaning(facts: tuple[Fact, ...]) -> ein.Program:
        return elaborate_einsum(text, facts, dict(sizes), reading)

    return Callee(
        described("einsum", [text, sizes, reading.named, reading.sum_dots, dtype, count, named_precision(precise)]),
        [operand_name(k) for k in range(count)],
        {},
        NOTHING,
        Options(level=2 if count <= _FEW else 0, precision=precise),
        meaning,
        text,
    )


def _decoded(rest: list[Any]) -> Callee:
    text, sizes, named, sum_dots, dtype, count, precise = rest
    reading = Reading(named, sum_dots, None if dtype is None else BY_NAME[dtype])
    return callee(text, tuple((name, n) for name, n in sizes), reading, count, asked_precision(precise))


DECODERS["einsum"] = _decoded

_callees: tuple[dict[str, Callee], dict[str, Callee]] = {}, {}
"""The einsums that keep their calls, by strings: calls without options, of torch tensors alone or of NumPy arrays."""


def _known(text: str, reading: Reading, count: int) -> Callee:
    """The einsum of a string, which keeps its calls."""
    kept = _callees[not reading.sum_dots]
    if len(kept) >= _MOST_STRINGS:
        kept.clear()
    found = kept.get(text)
    if found is None or len(found.operands) != count:
        found = kept[text] = callee(text, (), reading, count)
    return found


def _viewed(plan: Plan, arrays: Sequence[Array], known: Callee | None) -> Array:
    """A view of the operand; calls of a `known` einsum of tensors are kept."""
    program, extents = plan.program, plan.bindings.extents
    if known is not None and is_torch(arrays[0]):
        known.keep(arrays, lambda tensors, _, __: (as_view(program, extents, tensors[0]),))
    return _finished(as_view(program, extents, arrays[0]), "K", arrays)


def _node(call: Call, dtype: object, sizes: Mapping[str, int], out: Array | None, precision: str) -> Array:
    """The result where torch looks on: through the operator."""
    from einc.runtime.operator import described_einsum, operated

    wanted = read_dtype(dtype)
    operands = read_operands(call, shaped=True)
    name = None if wanted is None else wanted.name
    text = described_einsum(call.text, tuple(sizes.items()), call.named, name, len(operands), precision)
    (result,) = operated(text, operands)
    return result if out is None else out.copy_(result)


def _prepared(plan: Plan, tensors: Sequence[Array], free: bool) -> Prepared:
    from einc.runtime.execution import place

    where, options = place(tensors[0].device), replace(plan.options, free=free)
    lying = options.layouts(tensors, where)
    there = dict(zip(plan.names, tensors, strict=True))
    meant = plan.program, plan.bindings
    return prepared(plan, (), {}, where, options, lambda: meant, layouts=lying, given=(there, {}))


def _run(plan: Plan, arrays: Sequence[Array], known: Callee | None = None, out: Array | None = None) -> Array:
    """The result of the compiled program as a torch tensor, or written to `out`, which has the result's type.

    A call of a `known` einsum is kept for further calls that differ from it in memory only.
    """
    tensors = on_one_device(arrays)
    call = _prepared(plan, tensors, free=out is None)

    def run(into: tuple[Array, ...]) -> tuple[Array, ...]:
        if known is not None and bool(into) == (out is not None):
            return known.first(call, tensors, {}, arrays, {}, out, into)
        return call.run(dict(zip(plan.names, tensors, strict=True)), out=into)

    if out is not None:
        return write(out, plan.program, plan.bindings.extents, tensors, run)
    return run(())[0]


# ---------------------------------------------------------------------------------------------------------------------
# Results


def _finished(result: Array, order: str, arrays: Sequence[Array]) -> Array:
    """The result in the operands' kind: a torch tensor if one of them is, else NumPy's; a number if it has no dims."""
    if any(map(is_torch, arrays)):
        return result
    array: np.ndarray[Any, Any] = as_numpy(result) if is_torch(result) else result
    if array.ndim and order != "K":
        fortran = order == "F" or (order == "A" and _fortran(arrays))
        array = np.asarray(array, order="F" if fortran else "C")
    return array if array.ndim else array[()]


def _fortran(arrays: Sequence[Array]) -> bool:
    return all(a.flags.f_contiguous for a in arrays) and not all(a.flags.c_contiguous for a in arrays)


def _into(out: Array, plan: Plan, arrays: Sequence[Array], casting: str, known: Callee | None) -> Array:
    """Write the result into `out`, which may overlap the operands; calls of a `known` einsum are kept."""
    check_out("'out'", out, plan.shape, torch=any(map(is_torch, arrays)))
    own = dtype_of(out, "out")
    check_cast("the result", plan.dtype, own, casting)
    if not plan.view and own == plan.dtype:
        return _run(plan, arrays, known, out)
    value = as_view(plan.program, plan.bindings.extents, arrays[0]) if plan.view else _run(plan, arrays)
    if is_torch(out):
        out.copy_(value.clone() if may_overlap(value, out) else value)
    else:
        np.copyto(out, as_numpy(value) if is_torch(value) else value, casting="unsafe")
    return out
