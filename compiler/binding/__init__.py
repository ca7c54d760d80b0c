"""What a call decides: the extent of every axis and the value of every scalar, from the shapes of its operands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from einc.binding.checks import (
    check_dimensions,
    check_ranks,
    checked_extent,
    checked_quotient,
    checked_scalar,
    checked_scalars,
)
from einc.binding.obligations import Obligation, choices, demand, obligations
from einc.binding.order import FromDefault, FromDimension, FromFormula, Step, plan
from einc.ein import Expr, Program
from einc.ein.arithmetic import ScalarValue, evaluate_formula

__all__ = [
    "Bindings", "Fact", "FromDefault", "FromDimension", "FromFormula", "Step", "bind", "completed", "plan", "value_of",
    "with_scalars",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bindings:
    """The extent of every axis and the value of every scalar parameter at one call."""

    extents: dict[str, int]
    scalars: dict[str, ScalarValue]


def completed(program: Program, bindings: Bindings) -> Bindings:
    """The bindings with the extents of axes that passes have added, computed from those of the call."""
    if all(a.name in bindings.extents for a in program.axes):
        return bindings
    extents = dict(bindings.extents)
    for a in program.axes:
        if a.name not in extents and a.extent is not None:
            extents[a.name] = int(evaluate_formula(a.extent, extents, bindings.scalars))
    return Bindings(extents, bindings.scalars)


def value_of(e: Expr, bindings: Bindings) -> ScalarValue:
    """The value of an expression over extents, scalars and constants."""
    return evaluate_formula(e, bindings.extents, bindings.scalars)


def bind(
    program: Program,
    shapes: Mapping[str, tuple[int, ...]],
    scalars: Mapping[str, ScalarValue] | None = None,
) -> Bindings:
    """The extents and scalars of a call with operands of these shapes, after every check that needs only shapes.

    Raises `CallError` for an operand or scalar that is missing or
    unknown, `DTypeError` for a scalar of another kind, `ShapeError` for ranks and extents that do not fit, divisions
    that are not exact or by zero, negative extents, and simple unguarded reads out of range.
    """
    check_ranks(program, shapes)
    call = _prepared(program)
    found = Bindings({}, checked_scalars(program, scalars or {}))
    for step in call.steps:
        _take(step, program, shapes, found)
    first = {s.axis: (s.operand, s.dimension) for s in call.steps if isinstance(s, FromDimension)}
    check_dimensions(program, shapes, found.extents, first)
    for axes, owed in call.obligations:
        if all(found.extents[axis] > 0 for axis in axes):  # otherwise no expression of the equation is ever evaluated
            for what in owed:
                demand(what, found.extents, found.scalars)
    return Bindings(found.extents, {p.name: found.scalars[p.name] for p in program.scalars})


def with_scalars(program: Program, bindings: Bindings, scalars: Mapping[str, ScalarValue]) -> Bindings:
    """The extents of one call with the scalars of another; scalars that decide extents are the same in both."""
    found = Bindings(bindings.extents, checked_scalars(program, scalars))
    for step in _prepared(program).steps:
        if isinstance(step, FromDefault):
            _take(step, program, {}, found)
    return Bindings(found.extents, {p.name: found.scalars[p.name] for p in program.scalars})


@dataclass(frozen=True, slots=True)
class _Call:
    """What all calls of a program share: the plan, and the obligations of each equation whose axes are not empty."""

    program: Program
    steps: tuple[Step, ...]
    obligations: tuple[tuple[tuple[str, ...], tuple[Obligation, ...]], ...]


_CALLS: dict[int, _Call] = {}  # by identity, as equal programs may have different places; each entry holds its program
_REMEMBERED = 256


def _prepared(program: Program) -> _Call:
    found = _CALLS.get(id(program))
    if found is None:
        dims = program.shapes()
        owed = tuple(
            o for e in program.equations for o in (((), choices(e)), ((*e.axes, *e.over), obligations(e, dims)))
        )
        found = _Call(program, plan(program), tuple((axes, o) for axes, o in owed if o))
        if len(_CALLS) >= _REMEMBERED:
            _CALLS.clear()
        _CALLS[id(program)] = found
    return found


def _take(step: Step, program: Program, shapes: Mapping[str, tuple[int, ...]], found: Bindings) -> None:
    match step:
        case FromDimension(axis, operand, dimension, known):
            extent = shapes[operand][dimension]
            if known:
                p = next(p for p in program.operands if p.name == operand)
                extent = checked_quotient(p, dimension, axis, known, shapes[operand], found.extents)
            found.extents[axis] = extent
        case FromFormula(axis, formula):
            declared = next(a for a in program.axes if a.name == axis)
            value = evaluate_formula(formula, found.extents, found.scalars)
            found.extents[axis] = checked_extent(declared, formula, value, found.extents, found.scalars)
        case FromDefault(name, formula):
            if name not in found.scalars:
                param = next(p for p in program.scalars if p.name == name)
                found.scalars[name] = checked_scalar(param, value_of(formula, found))
