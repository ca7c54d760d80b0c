"""What a call must satisfy, each check with the error that quotes the declaration and the shapes received."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from einc.base.errors import CallError, DTypeError, ShapeError, nearest
from einc.base.words import count
from einc.ein import AxisDecl, Expr, Operand, Param, Program
from einc.ein.arithmetic import ScalarValue, values_of
from einc.ein.printer import print_dims, print_expr
from einc.ein.ranges import extent_of

Shape = tuple[int, ...]
Scalars = Mapping[str, ScalarValue]


def check_ranks(program: Program, shapes: Mapping[str, Shape]) -> None:
    """Exactly the declared operands are given, each with its number of dimensions."""
    known = {p.name: p for p in program.operands}
    for name in shapes:
        if name not in known:
            fact = f"operands: {', '.join(known)}" if known else "the program takes no operands"
            hint = nearest(name, known) or "leave it out"
            raise CallError(f"there is no operand '{name}'", program.span, fact=fact, hint=hint)
    for p in known.values():
        if p.name not in shapes:
            raise CallError(
                f"operand '{p.name}' is missing",
                p.span,
                fact=f"given: {', '.join(shapes) or 'none'}",
                hint=f"pass {_signature(p)}",
            )
        got = tuple(shapes[p.name])
        if len(got) != len(p.dims):
            raise ShapeError(
                f"{p.name} has {count(len(p.dims), 'dimension')}, but the operand given has {len(got)}",
                p.span,
                fact=f"{_signature(p)} received {got}",
                hint="name every dimension of the operand" if len(got) > len(p.dims) else "reshape the operand",
            )


def _signature(p: Operand) -> str:
    return p.name + print_dims(p.dims)


def checked_scalars(program: Program, scalars: Scalars) -> dict[str, ScalarValue]:
    """The caller's scalars, each as the kind of its parameter; those with a default may be missing."""
    params = {p.name: p for p in program.scalars}
    for name in scalars:
        if name not in params:
            fact = f"scalars: {', '.join(params)}" if params else "the program takes no scalars"
            hint = nearest(name, params) or "leave it out"
            raise CallError(f"there is no scalar '{name}'", program.span, fact=fact, hint=hint)
    for p in params.values():
        if p.name not in scalars and p.default is None:
            fact = f"{p.name}: {p.dtype} has no default"
            raise CallError(f"scalar '{p.name}' is missing", p.span, fact=fact, hint=f"pass {p.name}=…")
    return {name: checked_scalar(params[name], value) for name, value in scalars.items()}


_SAMPLE = {"b": "True", "i": "1", "f": "1.0"}


def checked_scalar(p: Param, value: object) -> ScalarValue:
    """The value as the parameter's kind: ints from integers of 64 bits, floats from real numbers, bools from bools."""
    truth = type(value).__name__ in ("bool", "bool_")
    number: ScalarValue | None = None
    try:
        if p.dtype.is_bool and truth:
            number = bool(value)
        elif p.dtype.is_int and not truth:
            number = operator.index(value)  # type: ignore[arg-type]  # raises TypeError unless it is an integer
        elif p.dtype.is_float and not truth and not isinstance(value, str | bytes):
            number = float(value)  # type: ignore[arg-type]  # raises TypeError unless it is a number
    except (TypeError, ValueError, OverflowError):
        pass
    if number is None:
        raise DTypeError(
            f"scalar '{p.name}' takes {'an' if p.dtype.is_int else 'a'} {p.dtype}",
            p.span,
            fact=f"it received {value!r}",
            hint=f"pass {p.name}={_SAMPLE[p.dtype.kind]}, for example",
        )
    if p.dtype.is_int and not -(1 << 63) <= number < 1 << 63:
        raise DTypeError(f"scalar '{p.name}' does not fit 64 bits", p.span, fact=f"it is {number}", hint="pass less")
    return number


def checked_quotient(
    p: Operand, dimension: int, axis: str, known: tuple[str, ...], shape: Shape, extents: Mapping[str, int]
) -> int:
    """The extent of one axis of a composite dimension, given those of the others."""
    extent, divisor = shape[dimension], extent_of(known, extents)
    if divisor and extent % divisor == 0:
        return extent // divisor
    group = f"({' '.join(p.dims[dimension])})"
    others = " * ".join(f"|{a}|" for a in known)
    fact = f"{_signature(p)} received {shape}, and {others} = {divisor}"
    if divisor:
        message = f"dimension {dimension} of {p.name} has extent {extent}, which is not a multiple of {divisor}"
        hint = f"pass {p.name} with a multiple of {divisor} there, as {group} needs"
    else:
        message = f"the extent of axis '{axis}' is not determined: the rest of {group} is empty"
        hint = f"give it: axis {axis} = …"
    raise ShapeError(message, p.span, fact=fact, hint=hint)


def checked_extent(
    axis: AxisDecl, formula: Expr, value: ScalarValue, extents: Mapping[str, int], scalars: Scalars
) -> int:
    """The extent that a formula gives: an integer, or 0 for an empty axis.

    Less than 0 is an error and not an empty axis: else a filter that is longer than its input would pass unnoticed.
    """
    place = axis.span or getattr(formula, "span", None)
    text = f"|{axis.name}| = {print_expr(formula)}"
    if isinstance(value, bool | float):
        raise DTypeError(
            f"the extent of axis '{axis.name}' is not an integer",
            place,
            fact=f"{text} = {value}",
            hint="divide extents with '/' (exact) or '//' (rounded down)",
        )
    if value < 0:
        raise ShapeError(
            f"axis '{axis.name}' would have extent {value}",
            place,
            fact=text + values_of(formula, extents, scalars),
            hint="pass operands for which it is 0 or more",
        )
    return value


def check_dimensions(
    program: Program, shapes: Mapping[str, Shape], extents: Mapping[str, int], first: Mapping[str, tuple[str, int]]
) -> None:
    """Every dimension has the extent of its axes; `first` gives the operand and dimension that decided each."""
    for p in program.operands:
        for k, group in enumerate(p.dims):
            if shapes[p.name][k] != extent_of(group, extents):
                raise _mismatch(program, p, k, shapes, extents, first)


def _mismatch(
    program: Program,
    p: Operand,
    k: int,
    shapes: Mapping[str, Shape],
    extents: Mapping[str, int],
    first: Mapping[str, tuple[str, int]],
) -> ShapeError:
    got, group, wanted = shapes[p.name][k], p.dims[k], extent_of(p.dims[k], extents)
    fact = f"{_signature(p)} received {tuple(shapes[p.name])}"
    hint = f"pass {p.name} with extent {wanted} there"
    if len(group) != 1:
        parts = "".join(f", |{a}| = {extents[a]}" for a in group)
        declared = f"({' '.join(group)}) has {wanted}" if group else "is declared as 1"
        message = f"dimension {k} of {p.name} has extent {got}, but {declared}"
        return ShapeError(message, p.span, fact=fact + parts, hint=hint)
    (axis,) = group
    if axis not in first:
        given = next(a.extent for a in program.axes if a.name == axis)
        formula = "" if given is None else f", and |{axis}| = {print_expr(given)}"
        message = f"axis '{axis}' has extent {wanted}, but {got} in {p.name} (dimension {k})"
        return ShapeError(message, p.span, fact=fact + formula, hint=hint)
    name, at = first[axis]
    other = next(o for o in program.operands if o.name == name)
    if other is not p:
        fact = f"{_signature(other)} received {tuple(shapes[name])}, {fact}"
    message = f"axis '{axis}' has extent {wanted} in {name} (dimension {at}) but {got} in {p.name} (dimension {k})"
    return ShapeError(message, p.span, fact=fact, hint="pass equal extents, or give the axes different names")
