"""The left side of a definition: the axes it names, and whether the value fits what is declared."""

from __future__ import annotations

from dataclasses import replace

from einc.base.errors import AxisError, DTypeError
from einc.base.source import Span
from einc.base.types import DType
from einc.frontend.elaboration.cascade import default_dtype
from einc.frontend.elaboration.elaborator import Elaborator
from einc.frontend.elaboration.values import Dims, Reduction, Result, Value, flatten
from einc.frontend.syntax.nodes import Group, Target


def apart(t: Elaborator, result: Result, dims: Dims) -> Result:
    """The result, bound to a tensor of its own if it reduces over an axis that is on the left too."""
    if isinstance(result, Reduction) and set(result.over) & set(flatten(dims)):
        return t.bound(result)
    return result


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


def check_stored(target: Target, dtype: DType, result: Result, span: Span) -> None:
    """A store must not lose an imaginary part, and only a truth value is stored as one."""
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
            f"'{target.name}: bool' is given a value that is not a truth value",
            span,
            fact=f"the value has type {given}",
            hint="compare it: x != 0",
        )
