"""An outlined program into `ein`: parameters typed by facts, definitions elaborated in order, axes given extents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einc import ein
from einc.base import errors
from einc.base.errors import DTypeError
from einc.base.facts import Fact
from einc.base.source import Span
from einc.base.types import BOOL, F32, FLOAT, INT, DType
from einc.binding import plan
from einc.frontend.elaboration.cascade import Cascade
from einc.frontend.elaboration.definitions import define
from einc.frontend.elaboration.library import library
from einc.frontend.elaboration.scopes import Scope
from einc.frontend.elaboration.translate import Translator
from einc.frontend.elaboration.values import Dims, Value, flatten
from einc.frontend.programs import free_extents
from einc.frontend.programs.outline import Outline
from einc.frontend.syntax.nodes import AxisStatement, Definition, Group, Name, Node, OperandDecl, ScalarDecl, Target

_KINDS = {"int": INT, "float": FLOAT, "bool": BOOL}
_ANONYMOUS = "program"


def elaborate_program(o: Outline, facts: Mapping[str, Fact] | None) -> ein.Program:
    """The cascade that a program means for operands of these types: without facts, f32 or what their place implies."""
    cascade = Cascade(taken={p.name for p in o.params} | {t.name for d in o.definitions for t in d.targets} | {*o.axes})
    axes = {a: (a,) for a in o.axes}
    params, scalars = _params(o, cascade, axes, facts or {})
    tensors = {p.name: cascade.declare(p.name, p.dims, p.dtype) for p in params if isinstance(p, ein.Operand)}
    scope = Scope(axes, scalars, tensors)
    t = Translator(cascade, scope, library(o.tree.functions))
    extents = {s.name: _extent(t, s) for s in o.extents}
    names = _results(o)
    for d in (*o.definitions, *_unnamed(o, names)):
        prefix = d.targets[0].name
        cascade.taken.update(t.name for t in d.targets)
        inner = t.within(Scope(axes, scalars, tensors, prefix=prefix))
        define(inner, d, returned=any(t.name in names for t in d.targets))
    return close(o.tree.name or _ANONYMOUS, params, cascade, extents, names, places=o.axes, span=o.tree.span)


def _params(
    o: Outline, cascade: Cascade, axes: Mapping[str, tuple[str, ...]], facts: Mapping[str, Fact]
) -> tuple[tuple[ein.Operand | ein.Param, ...], dict[str, DType]]:
    params: list[ein.Operand | ein.Param] = []
    scalars: dict[str, DType] = {}
    for p in o.params:
        if isinstance(p, OperandDecl):
            params.append(_operand(p, facts.get(p.name), o.types.get(p.name, F32)))
        else:
            params.append(_scalar(p, Translator(cascade, Scope(axes, dict(scalars), {}), {})))
            scalars[p.name] = _KINDS[p.kind]
            cascade.number(p.name, _KINDS[p.kind])
    return tuple(params), scalars


def _operand(p: OperandDecl, fact: Fact | None, usual: DType) -> ein.Operand:
    if fact is not None and p.dtype is not None and fact.dtype != p.dtype:
        raise DTypeError(
            f"operand '{p.name}' is {p.dtype}, but {fact.dtype} was given",
            p.span,
            fact=f"the signature says {p.name}: {p.dtype}",
            hint="convert the operand, or leave the type out to take any",
        )
    dtype = p.dtype or (usual if fact is None else fact.dtype)
    return ein.Operand(p.name, _dims(p.dims), dtype, p.span, declared=p.dtype is not None)


def _dims(dims: Sequence[Group | Name]) -> Dims:
    return tuple(tuple(n.name for n in d.axes) if isinstance(d, Group) else (d.name,) for d in dims)


def _scalar(p: ScalarDecl, t: Translator) -> ein.Param:
    kind = _KINDS[p.kind]
    if p.default is None:
        return ein.Param(p.name, kind, None, p.span)
    value = _formula(t, p.default, f"the default of '{p.name}'")
    if value.dtype.kind != kind.kind and not (kind == FLOAT and value.dtype.is_int):
        raise DTypeError(
            f"the default of '{p.name}' is not of type {p.kind}",
            p.default.span,
            fact=f"{p.default.span.text} has type {value.dtype}",
            hint=f"declare {p.name}: {'float' if value.dtype.is_float else 'bool' if value.dtype.is_bool else 'int'}",
        )
    return ein.Param(p.name, kind, value.expr, p.span)


def _extent(t: Translator, s: AxisStatement) -> ein.Expr:
    value = _formula(t, s.extent, f"the extent of axis '{s.name}'")
    if not value.dtype.is_int:
        raise DTypeError(
            f"the extent of axis '{s.name}' is an integer, not {value.dtype}",
            s.extent.span,
            hint="divide extents with '/' (exact) or '//' (rounded down)",
        )
    return value.expr


def _formula(t: Translator, node: Node, what: str) -> Value:
    """A value that is known at the call: of extents, scalars and constants."""
    value = t.value(node)
    if value.axes or ein.reads(value.expr):
        raise errors.AxisError(
            f"{what} depends on positions or data",
            node.span,
            fact="it is computed once, from extents and scalars",
            hint="write |d| for the extent of an axis",
        )
    return value


def _results(o: Outline) -> tuple[str, ...]:
    """The names of the results; an expression gets one."""
    defined = {t.name for d in o.definitions for t in d.targets}
    taken = {*defined, *(p.name for p in o.params), *o.axes}
    names = []
    for node in o.returns:
        name = node.name if isinstance(node, Name) and node.name in defined else ""
        count = 1
        while not name or (name not in defined and name in taken):
            name = "out" if count == 1 else f"out{count}"
            count += 1
            if name in taken:
                name = ""
        taken.add(name)
        names.append(name)
    return tuple(names)


def _unnamed(o: Outline, names: Sequence[str]) -> list[Definition]:
    """Definitions of the results that are expressions."""
    defined = {t.name for d in o.definitions for t in d.targets}
    return [
        Definition((Target(name, None, None, node.span),), node, node.span)
        for name, node in zip(names, o.returns, strict=True)
        if name not in defined
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def close(
    name: str,
    params: tuple[ein.Operand | ein.Param, ...],
    cascade: Cascade,
    extents: Mapping[str, ein.Expr],
    results: tuple[str, ...],
    *,
    places: Mapping[str, Span],
    span: Span,
) -> ein.Program:
    """The program of a finished cascade; its axes are those of the operands, those given an extent, then the rest."""
    given = dict.fromkeys(a for p in params if isinstance(p, ein.Operand) for a in flatten(p.dims))
    used = [a for a in _used(cascade.equations) if a not in given and a not in extents]
    places = {**cascade.places, **places}
    found = free_extents.find_extents(used, cascade.equations, cascade.dims, cascade.hints, places) if used else {}
    formulas = {**extents, **found}
    order = dict.fromkeys((*given, *extents, *used))
    axes = tuple(ein.AxisDecl(a, formulas.get(a), places.get(a)) for a in order)
    program = ein.Program(name, params, axes, tuple(cascade.equations), results, span)
    plan(program)
    return program


def _used(equations: Sequence[ein.Equation]) -> list[str]:
    found: dict[str, None] = {}
    for e in equations:
        found |= dict.fromkeys((*e.axes, *e.over))
        for x in e.expressions():
            found |= dict.fromkeys(n.axis for n in ein.walk(x) if isinstance(n, ein.AxisValue | ein.Extent))
    return list(found)
