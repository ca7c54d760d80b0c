"""Definitions into equations: `T[i] = e` with its implicit sums, in a program or among the lines of a function."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from einc.base.errors import AxisError, CallError, DTypeError
from einc.base.source import Span
from einc.base.types import DType
from einc.ein.inference import returned_dtype
from einc.frontend.elaboration import functions, sums
from einc.frontend.elaboration.cascade import Known, default_dtype
from einc.frontend.elaboration.elaborator import Elaborator
from einc.frontend.elaboration.scopes import Argument
from einc.frontend.elaboration.values import Dims, Reduction, Result, Value, flatten
from einc.frontend.syntax.nodes import Call, Definition, Group, Target


def define(t: Elaborator, d: Definition, *, returned: bool = False) -> None:
    """Append the equations of a program's definition; a contraction that is `returned` has its operands' type."""
    if len(d.targets) > 1:
        _define_several(t, d, returned=returned)
        return
    (target,) = d.targets
    dims = None if target.index is None else written_dims(t, target)
    result = t.result(d.value) if dims is None else sums.total(t, d.value, flatten(dims))
    _give(t, target, result.shape if dims is None else dims, result, d.span, returned=returned)


def _give(t: Elaborator, target: Target, dims: Dims, result: Result, span: Span, *, returned: bool = False) -> None:
    result = apart(t, result, dims)
    dtype = target.dtype or (_returned(t, result) if returned else None) or default_dtype(result)
    _check_stored(target, dtype, result, span)
    t.scope.tensors[target.name] = t.cascade.give(target.name, dims, result, dtype, span)


def apart(t: Elaborator, result: Result, dims: Dims) -> Result:
    """The result; bound to a tensor of its own if it reduces over an axis that stands on the left too."""
    if isinstance(result, Reduction) and set(result.over) & set(flatten(dims)):
        return t.bound(result)
    return result


def _returned(t: Elaborator, result: Result) -> DType | None:
    """The type of a contraction that the program returns."""
    if isinstance(result, Value) or result.dtype is not None:
        return None
    bodies = [b.expr for b in result.bodies]
    return returned_dtype(result.monoid, bodies, t.cascade.dtypes, t.cascade.operands)


def written_dims(t: Elaborator, target: Target) -> Dims:
    """The dimensions on the left, each axis once."""
    dims: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for dim in target.index or ():
        names = dim.axes if isinstance(dim, Group) else (dim,)
        axes = tuple(t.scope.single(n.name, n.span) for n in names)
        for name, axis in zip(names, axes, strict=True):
            if axis in seen:
                raise AxisError(
                    f"axis '{name.name}' is on the left twice",
                    t.scope.at(name.span),
                    fact="each position of a tensor is defined once",
                    hint="use two axes and compare them: where(i == j, x, 0)",
                )
            seen.add(axis)
        dims.append(axes)
    return tuple(dims)


def _check_stored(target: Target, dtype: DType, result: Result, span: Span) -> None:
    """A store loses no imaginary part, and truth values come from truth values."""
    given = result.dtype if isinstance(result, Value) else default_dtype(replace(result, dtype=None))
    if given.is_complex and not dtype.is_complex:
        raise DTypeError(
            f"'{target.name}: {dtype}' would lose the imaginary part",
            span,
            fact=f"the value has type {given}",
            hint="take the real part: re(x)",
        )
    if dtype.is_bool and not given.is_bool:
        raise DTypeError(
            f"'{target.name}: bool' is given no truth value",
            span,
            fact=f"the value has type {given}",
            hint="compare it: x != 0",
        )


def _define_several(t: Elaborator, d: Definition, *, returned: bool) -> None:
    """`V[i], I[i] = …`: argmax and argmin give the value and the position, functions what they return."""
    results = _several(t, d)
    if len(results) != len(d.targets):
        raise CallError(
            f"{len(d.targets)} names on the left, but {_count(len(results))} on the right",
            d.span,
            hint="give every result a name",
        )
    dims = [None if target.index is None else written_dims(t, target) for target in d.targets]
    first = results[0]
    if isinstance(first, Reduction) and len(first.monoid.results) > 1:
        _define_components(t, d, dims, first)
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


def _define_components(t: Elaborator, d: Definition, dims: list[Dims | None], r: Reduction) -> None:
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
    dtypes = [
        target.dtype or default_dtype(replace(r, monoid=replace(r.monoid, results=(k,))))
        for k, target in enumerate(d.targets)
    ]
    t.cascade.give_all([target.name for target in d.targets], shape, r, dtypes, d.span)
    for target, dtype in zip(d.targets, dtypes, strict=True):
        t.scope.tensors[target.name] = Known(target.name, shape, dtype)


def _count(n: int) -> str:
    return f"{n} result{'s' * (n != 1)}"


# ---------------------------------------------------------------------------------------------------------------------
# In functions


@dataclass(frozen=True, slots=True)
class _AllBut:
    """Every axis except these."""

    axes: frozenset[str]

    def __contains__(self, axis: object) -> bool:
        return axis not in self.axes


def local(t: Elaborator, d: Definition) -> None:
    """A definition in a function. Axes that the function does not see are carried along, in front of those it lists."""
    if len(d.targets) > 1:
        raise CallError("a definition in a function has one name", t.scope.at(d.span), hint="define them one by one")
    (target,) = d.targets
    if target.index is None:
        result = t.result(d.value)
        if isinstance(result, Value) and target.dtype is None and functions.is_plain(result.expr):
            t.scope.arguments[target.name] = Argument(replace(result, obstacles={}))
            return
        known = _give_local(t, target, result.shape, result, d.span)
        t.scope.tensors[target.name] = replace(known, whole=True)
        return
    listed = written_dims(t, target)
    visible = frozenset(flatten(t.scope.axes.values())) - set(flatten(listed))
    kept: Container[str] = _AllBut(visible)
    result = sums.total(t, d.value, kept)
    hidden = tuple(dim for dim in result.shape if dim and not set(dim) & set(flatten(listed)))
    known = _give_local(t, target, (*hidden, *listed), result, d.span)
    t.scope.tensors[target.name] = replace(known, hidden=len(hidden))


def _give_local(t: Elaborator, target: Target, dims: Dims, result: Result, span: Span) -> Known:
    dtype = target.dtype or default_dtype(result)
    _check_stored(target, dtype, result, t.scope.at(span))
    dims = tuple(dim for dim in dims if dim)
    result = apart(t, result, dims)
    name = t.cascade.fresh(t.named(target.name))
    return t.cascade.give(name, dims, result, dtype, t.scope.at(span))
