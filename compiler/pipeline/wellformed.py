"""What makes a program: every name defined once and before its use, every rank and type as its place needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from einc.base.errors import DTypeError, IllegalIR
from einc.base.ops import OPS
from einc.base.types import ALL, BOOL, FLOAT, INT, DType
from einc.binding import plan
from einc.ein import (
    Apply,
    AxisValue,
    Const,
    Equation,
    Expr,
    Extent,
    Operand,
    Program,
    Read,
    Scalar,
    Tensor,
    walk,
)
from einc.ein.inference import dtype_of, is_position
from einc.ein.printer import print_equation, print_expr
from einc.ein.ranges import is_closed

_STRONG = frozenset(ALL)


def check(program: Program) -> None:
    """Raises `IllegalIR` at the first node that does not fit."""
    scope = _signature(program)
    for e in program.equations:
        _equation(e, scope)
        for t in e.outputs:
            _tensor(t, e, scope)
    if not program.results:
        raise IllegalIR("a program without results")
    given = {t.name for e in program.equations for t in e.outputs}
    for name in program.results:
        if name not in given:
            raise IllegalIR(f"no equation gives the result '{name}'")
    plan(program)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is defined so far: the dimensions of tensors, the types of tensors and scalars, axes and scalars."""

    dims: dict[str, tuple[tuple[str, ...], ...]]
    dtypes: dict[str, DType]
    axes: frozenset[str]
    scalars: set[str]


def _signature(program: Program) -> _Scope:
    axes = [a.name for a in program.axes]
    _unique("axis", axes)
    _unique("parameter", [p.name for p in program.params])
    scope = _Scope({}, {}, frozenset(axes), set())
    for p in program.params:
        if isinstance(p, Operand):
            _declared(p.name, [a for dim in p.dims for a in dim], scope)
            if p.dtype not in _STRONG:
                raise IllegalIR(f"operand '{p.name}' has type {p.dtype}")
            scope.dims[p.name] = p.dims
        else:
            if p.dtype not in (INT, FLOAT, BOOL) or p.name in axes:
                raise IllegalIR(f"scalar '{p.name}: {p.dtype}' is an axis, or no int, float or bool")
            if p.default is not None:
                _formula(p.name, p.default, scope)
            scope.scalars.add(p.name)
        scope.dtypes[p.name] = p.dtype
    for a in program.axes:
        if a.extent is not None:
            _formula(a.name, a.extent, scope)
    return scope


def _unique(what: str, names: Sequence[str]) -> None:
    for k, name in enumerate(names):
        if name in names[:k]:
            raise IllegalIR(f"{what} '{name}' is there twice")


def _declared(what: str, axes: Sequence[str], scope: _Scope) -> None:
    for axis in axes:
        if axis not in scope.axes:
            raise IllegalIR(f"axis '{axis}' of {what} is not declared")


def _formula(name: str, formula: Expr, scope: _Scope) -> None:
    if not is_closed(formula):
        raise IllegalIR(f"the formula of '{name}' depends on positions or data: {print_expr(formula)}")
    _expression(formula, frozenset(), scope)


def _tensor(t: Tensor, e: Equation, scope: _Scope) -> None:
    if t.name in scope.dtypes:
        raise IllegalIR(f"'{t.name}' is defined twice: {print_equation(e)}")
    if t.dtype not in _STRONG:
        raise IllegalIR(f"'{t.name}' is stored in the weak type {t.dtype}: {print_equation(e)}")
    scope.dims[t.name], scope.dtypes[t.name] = e.dims, t.dtype


def _equation(e: Equation, scope: _Scope) -> None:
    try:
        _check_equation(e, scope)
    except DTypeError as error:
        raise IllegalIR(f"{error.message}, in {_shown(e)}") from None
    except IllegalIR as bug:
        raise IllegalIR(f"{bug}, in {_shown(e)}") from None


def _shown(e: Equation) -> str:
    """The equation as text, or as its nodes where it holds an operation that has no text."""
    return print_equation(e) if all(n.op in OPS for x in e.expressions() for n in _applied(x)) else repr(e)


def _applied(e: Expr) -> Iterator[Apply]:
    return (n for n in walk(e) if isinstance(n, Apply))


def _check_equation(e: Equation, scope: _Scope) -> None:
    _unique("axis", (*e.axes, *e.over))
    _declared(e.name, (*e.axes, *e.over), scope)
    if e.monoid is None:
        if e.over or e.domain is not None or len(e.bodies) != len(e.outputs):
            raise IllegalIR("a pointwise equation has no reduced axes, no domain and a body for each output")
    elif not e.over or len(e.bodies) != e.monoid.components or len(e.outputs) != len(e.monoid.results):
        raise IllegalIR(f"'{e.monoid.name}' has axes, {e.monoid.components} bodies, {len(e.monoid.results)} outputs")
    inside = frozenset((*e.axes, *e.over))
    for body in e.bodies:
        _expression(body, inside, scope)
    if e.domain is not None:
        _expression(e.domain, inside, scope)
        _typed(e.domain, "b", "the domain", scope.dtypes)
    if e.within is not None:
        if e.monoid is None:
            raise IllegalIR("a pointwise equation looks nowhere")
        _expression(e.within, inside, scope)
        _typed(e.within, "b", "where to look", scope.dtypes)
    for t, k in zip(e.outputs, e.monoid.results if e.monoid else range(len(e.outputs)), strict=True):
        _stored(t, e.bodies[k], e, scope.dtypes)


def _stored(t: Tensor, body: Expr, e: Equation, dtypes: Mapping[str, DType]) -> None:
    """No store loses an imaginary part, and truth values come from truth values."""
    given = dtype_of(body, dtypes)
    truth = e.monoid is not None and e.monoid.truths
    if truth and not given.is_bool:
        raise IllegalIR(f"'{e.name}' combines truth values, not {given}")
    if (given.is_complex and not t.dtype.is_complex) or (t.dtype.is_bool and not given.is_bool):
        raise IllegalIR(f"'{t.name}: {t.dtype}' is given a value of type {given}")


def _expression(e: Expr, inside: frozenset[str], scope: _Scope) -> None:
    for n in walk(e):
        _names(n, inside, scope)
    dtype_of(e, scope.dtypes)
    for n in walk(e):
        if isinstance(n, Read):
            for i in n.index:
                if not is_position(t := dtype_of(i, scope.dtypes)):
                    raise IllegalIR(f"a subscript of type {t}: {print_expr(i)}")
            if n.guard is not None:
                _typed(n.guard, "b", "a guard", scope.dtypes)


def _names(n: Expr, inside: frozenset[str], scope: _Scope) -> None:
    """One node names only what is there, with as many arguments as it takes."""
    match n:
        case AxisValue(axis) if axis not in inside:
            raise IllegalIR(f"axis '{axis}' is neither an output axis nor reduced")
        case Extent(axis) if axis not in scope.axes:
            raise IllegalIR(f"axis '{axis}' is not declared")
        case Scalar(name) if name not in scope.scalars:
            raise IllegalIR(f"scalar '{name}' is not defined before its use")
        case Read(tensor, index):
            if tensor not in scope.dims:
                raise IllegalIR(f"tensor '{tensor}' is not defined before its use")
            if len(index) != len(scope.dims[tensor]):
                raise IllegalIR(f"{print_expr(n)} has {len(index)} subscripts for {len(scope.dims[tensor])} dimensions")
        case Apply(op, args):
            if op not in OPS:
                raise IllegalIR(f"there is no operation '{op}'")
            if len(args) != OPS[op].arity and not (OPS[op].arity < 0 and args):
                raise IllegalIR(f"'{op}' with {len(args)} arguments")
            if op == "exactdiv" and not is_closed(n):
                raise IllegalIR(f"an exact division of what is no extent: {print_expr(n)}")
        case Const(value) if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise IllegalIR(f"the literal {value} does not fit 64 bits")


def _typed(e: Expr, kinds: str, what: str, dtypes: Mapping[str, DType]) -> None:
    t = dtype_of(e, dtypes)
    if t.kind not in kinds:
        raise IllegalIR(f"{what} of type {t}: {print_expr(e)}")
