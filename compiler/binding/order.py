"""The order in which the extents of axes and the defaults of scalars are found: decided once, for all calls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from einc.base.errors import AxisError
from einc.ein import AxisDecl, Expr, Extent, Operand, Param, Program, Scalar, walk
from einc.ein.printer import print_dims, print_expr


@dataclass(frozen=True, slots=True)
class FromDimension:
    """|axis| is `operand.shape[dimension]`, divided exactly by the extents of the axes `known`."""

    axis: str
    operand: str
    dimension: int
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FromFormula:
    """|axis| is a formula over extents and scalars found before it; it must not be negative."""

    axis: str
    formula: Expr


@dataclass(frozen=True, slots=True)
class FromDefault:
    """The scalar `name`, if the caller gave none, is a formula over extents and scalars found before it."""

    name: str
    formula: Expr


Step = FromDimension | FromFormula | FromDefault


def plan(program: Program) -> tuple[Step, ...]:
    """The order in which every extent and every default is found, the same for all calls.

    Dimensions of one axis come first; then, as soon as all that they need is known, composite dimensions with one
    unknown axis, formulas of axes, and defaults of scalars. Raises `AxisError` at an axis that nothing determines.
    """
    return _plan(program.params, program.axes)


@lru_cache(maxsize=1024)
def _plan(params: tuple[Operand | Param, ...], axes: tuple[AxisDecl, ...]) -> tuple[Step, ...]:
    """The same for a signature, which most passes leave as it is."""
    program = Program("", params, axes, (), ())
    known = {p.name for p in program.scalars if p.default is None}
    steps: list[Step] = []
    candidates = _candidates(program)
    while True:
        step = next((s for s in candidates if _target(s) not in known and _needs(s) <= known), None)
        if step is None:
            break
        steps.append(step)
        known.add(_target(step))
    for a in program.axes:
        if _extent(a.name) not in known:
            raise _undetermined(a, program, known)
    for p in program.scalars:
        if p.name not in known and p.default is not None:
            raise _unknown(f"the default of '{p.name}'", p.default, known, p)
    return tuple(steps)


def _extent(axis: str) -> str:
    return f"|{axis}|"


def _candidates(program: Program) -> list[Step]:
    """Every way to find an extent or a default, the preferred ones first."""
    declared = {a.name for a in program.axes if a.extent is not None}
    single: list[Step] = []
    composite: list[Step] = []
    for p in program.operands:
        for k, group in enumerate(p.dims):
            for axis in dict.fromkeys(group):
                if axis not in declared and group.count(axis) == 1:
                    others = tuple(a for a in group if a != axis)
                    (composite if others else single).append(FromDimension(axis, p.name, k, others))
    formulas: list[Step] = [FromFormula(a.name, a.extent) for a in program.axes if a.extent is not None]
    defaults: list[Step] = [FromDefault(p.name, p.default) for p in program.scalars if p.default is not None]
    return single + composite + formulas + defaults


def _target(step: Step) -> str:
    return step.name if isinstance(step, FromDefault) else _extent(step.axis)


def _needs(step: Step) -> set[str]:
    if isinstance(step, FromDimension):
        return {_extent(a) for a in step.known}
    return _free(step.formula)


def _free(formula: Expr) -> set[str]:
    """The extents, as `|d|`, and the scalars that a formula needs."""
    extents = {_extent(n.axis) for n in walk(formula) if isinstance(n, Extent)}
    return extents | {n.name for n in walk(formula) if isinstance(n, Scalar)}


def _undetermined(axis: AxisDecl, program: Program, known: set[str]) -> AxisError:
    if axis.extent is not None:
        return _unknown(f"the extent of axis '{axis.name}'", axis.extent, known, axis)
    hint = f"give it: axis {axis.name} = …"
    for p in program.operands:
        for k, group in enumerate(p.dims):
            if axis.name in group:
                fact = f"it is known only as a part of dimension {k} of {p.name}{print_dims(p.dims)}"
                message = f"the extent of axis '{axis.name}' is not determined"
                return AxisError(message, axis.span or p.span, fact=fact, hint=hint)
    message = f"nothing gives the extent of axis '{axis.name}'"
    return AxisError(message, axis.span, fact="no operand has a dimension of it", hint=hint)


def _unknown(what: str, formula: Expr, known: set[str], place: AxisDecl | Param) -> AxisError:
    missing = sorted(_free(formula) - known)
    return AxisError(
        f"{what} cannot be found: it needs {missing[0]}, and that is not known before it",
        getattr(formula, "span", None) or place.span,
        fact=f"it is {print_expr(formula)}",
        hint="compute it from extents of operands and from scalars that the caller gives",
    )
