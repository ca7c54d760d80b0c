"""Definitions into equations: `T[i] = e` with its implicit sums, in a program or among the lines of a function."""

from __future__ import annotations

from dataclasses import replace

from einc.base.errors import AxisError, CallError
from einc.base.source import Span
from einc.base.words import count
from einc.frontend.elaboration import functions, sums
from einc.frontend.elaboration.cascade import default_dtype
from einc.frontend.elaboration.elaborator import Elaborator
from einc.frontend.elaboration.targets import apart, check_stored, written_dims
from einc.frontend.elaboration.values import Dims, Reduction, Result, flatten
from einc.frontend.syntax.nodes import Call, Definition, Target


def define(t: Elaborator, d: Definition, *, returned: bool = False) -> None:
    """Append the equations of a program's definition; a `returned` result has the type of its value."""
    if len(d.targets) > 1:
        _define_several(t, d, returned=returned)
        return
    (target,) = d.targets
    dims = None if target.index is None else written_dims(t, target)
    result = t.result(d.value) if dims is None else sums.total(t, d.value, flatten(dims))
    _give(t, target, result.shape if dims is None else dims, result, d.span, returned=returned)


def _give(t: Elaborator, target: Target, dims: Dims, result: Result, span: Span, *, returned: bool = False) -> None:
    result = apart(t, result, dims)
    dtype = target.dtype or (t.cascade.value_type(result, dims) if returned else default_dtype(result))
    check_stored(target, dtype, result, span)
    written = target.dtype is not None
    t.scope.tensors[target.name] = t.cascade.give(target.name, dims, result, dtype, span, written=written)


def _define_several(t: Elaborator, d: Definition, *, returned: bool) -> None:
    """`V[i], I[i] = …`: argmax and argmin give the value and the position, functions what they return."""
    results = _several(t, d)
    if len(results) != len(d.targets):
        raise CallError(
            f"{len(d.targets)} names on the left, but {count(len(results), 'result')} on the right",
            d.span,
            hint="give every result a name",
        )
    dims = [None if target.index is None else written_dims(t, target) for target in d.targets]
    first = results[0]
    if isinstance(first, Reduction) and len(first.monoid.results) > 1:
        _define_components(t, d, dims, first, returned=returned)
        return
    for target, own, result in zip(d.targets, dims, results, strict=True):
        result = result if own is None else sums.summed(t, result, flatten(own))
        _give(t, target, result.shape if own is None else own, result, d.span, returned=returned)


def _several(t: Elaborator, d: Definition) -> tuple[Result, ...]:
    value = d.value
    if isinstance(value, Call) and value.function in t.library:
        return functions.expand(t, value, None)
    result = t.result(value)
    if isinstance(result, Reduction) and result.monoid.components > 1:
        every = tuple(range(result.monoid.components))
        return (replace(result, monoid=replace(result.monoid, results=every)),) * len(every)
    return (result,)


def _define_components(t: Elaborator, d: Definition, dims: list[Dims | None], r: Reduction, *, returned: bool) -> None:
    """The components of one reduction as the outputs of one equation."""
    shape = r.shape if dims[0] is None else dims[0]
    if any((r.shape if own is None else own) != shape for own in dims):
        raise AxisError(
            "the results of one reduction have the same axes in the same order",
            d.span,
            hint="write the same brackets after each name",
        )
    both = [a for a in r.over if a in flatten(shape)]
    if both:
        raise AxisError(
            f"'{r.monoid.name}' is over axis '{both[0]}', which is on the left too",
            d.span,
            hint=f"leave '{both[0]}' out on the left",
        )
    missing = [a for a in r.axes if a not in flatten(shape)]
    if missing:
        raise AxisError(
            f"axis '{missing[0]}' is not on the left, and inside {r.monoid.name}[…](…) it is not summed implicitly",
            d.span,
            hint=f"put '{missing[0]}' on the left",
        )
    parts = [replace(r, monoid=replace(r.monoid, results=(k,))) for k in range(len(d.targets))]
    usual = [t.cascade.value_type(part, shape) if returned else default_dtype(part) for part in parts]
    dtypes = [target.dtype or own for target, own in zip(d.targets, usual, strict=True)]
    names, written = [target.name for target in d.targets], [target.dtype is not None for target in d.targets]
    for known in t.cascade.give_all(names, shape, r, dtypes, d.span, written=written):
        t.scope.tensors[known.name] = known


# ---------------------------------------------------------------------------------------------------------------------
# In functions
