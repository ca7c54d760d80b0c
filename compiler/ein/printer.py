"""Programs as text of the language itself, which parser and elaborator read back to an equal program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import assert_never

from einc.base.ops import ATOM, OPS, SIGN, Op, sides
from einc.base.types import DType, settle
from einc.ein import (
    TRUE,
    Apply,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Operand,
    Param,
    Program,
    Read,
    Scalar,
    axes_of,
)
from einc.ein.guards import argument_guard, composite, implied_guard
from einc.ein.inference import default_dtypes
from einc.ein.origins import Origin, learn, parameters, value_origins

Shapes = Mapping[str, tuple[tuple[str, ...], ...]]


def print_program(program: Program) -> str:
    """The program as a `def`, one equation a line."""
    shapes, dtypes = program.shapes(), program.dtypes()
    params = ", ".join(_param(p, shapes) for p in program.params)
    lines = [f"def {program.name}({params}):"]
    lines += [f"    axis {a.name} = {print_expr(a.extent)}" for a in program.axes if a.extent is not None]
    known = parameters(program)
    for e in program.equations:
        line = print_equation(e, _default_types(e, program, dtypes, known) == _types(e), shapes)
        lines.append(f"    {line}" + (f"  # added at {', '.join(e.added)}" if e.added else ""))
        learn(e, known, dtypes, program.results)
    lines.append(f"    return {', '.join(program.results)}")
    return "\n".join(lines) + "\n"


def _default_types(
    e: Equation, program: Program, dtypes: Mapping[str, DType], known: Mapping[str, Origin]
) -> tuple[DType, ...]:
    """The types of the outputs if none are written: for a definition that is returned, those of its values."""
    if all(t.name not in program.results for t in e.outputs):
        return default_dtypes(e.monoid, e.bodies, dtypes)
    return tuple(settle(o.type) for o in value_origins(e.monoid, e.over, e.axes, e.bodies, known))


def _types(e: Equation) -> tuple[object, ...]:
    return tuple(t.dtype for t in e.outputs)


def _param(p: Operand | Param, shapes: Shapes) -> str:
    if isinstance(p, Operand):
        return f"{p.name}{print_dims(p.dims)}: {p.dtype}"
    default = "" if p.default is None else f" = {print_expr(p.default, shapes)}"
    return f"{p.name}: {p.dtype}{default}"


def print_dims(dims: Sequence[Sequence[str]]) -> str:
    """`[b, (g r), 1]`."""
    groups = (d[0] if len(d) == 1 else f"({' '.join(d)})" if d else "1" for d in dims)
    return f"[{', '.join(groups)}]"


def print_signature(program: Program) -> str:
    """The parameters and results of a program, on one line."""
    shapes = program.shapes()
    params = []
    for p in program.params:
        if isinstance(p, Operand):
            params.append(f"{p.name}{print_dims(p.dims)}")
        else:
            params.append(f"{p.name}: {p.dtype}" + ("" if p.default is None else f" = {print_expr(p.default)}"))
    results = ", ".join(f"{name}{print_dims(shapes[name])}" for name in program.results)
    return f"{program.name}({', '.join(params)}) -> {results}"


def print_equation(e: Equation, default_types: bool = False, shapes: Shapes | None = None) -> str:
    """One equation: `S[b, i]: f64 = sum[j : j <= i](A[b, i, j])`; types are left out where they are the default."""
    left = ", ".join(f"{t.name}{print_dims(e.dims)}" + ("" if default_types else f": {t.dtype}") for t in e.outputs)
    if e.monoid is None:
        return f"{left} = {print_expr(e.body, shapes)}"
    bodies = ", ".join(print_expr(b, shapes, e.domain) for b in _written(e))
    domain = " : true" if _repeats(e) else "" if e.domain is None else f" : {print_expr(e.domain, shapes)}"
    within = "" if e.within is None else f" within {print_expr(e.within, shapes)}"
    return f"{left} = {e.monoid.name}[{', '.join(e.over)}{domain}{within}]({bodies})"


def _repeats(e: Equation) -> bool:
    """Is it over an axis that its body lacks? The text must say so, since that is more often a mistake than meant."""
    there = {axis for b in _written(e) for axis in axes_of(b)}
    return e.domain is None and bool(there) and not there.issuperset(e.over)


def position(over: Sequence[str]) -> Expr:
    """The row-major position over reduced axes: what argmax gives by default."""
    return composite(over)


def _written(e: Equation) -> tuple[Expr, ...]:
    """The bodies that the text shows: the index of a chosen value only if it is not the row-major position."""
    alone = e.monoid is not None and e.monoid.chooses and len(e.outputs) == 1
    if alone and e.bodies[1:] == (position(e.over),):
        return e.bodies[:1]
    return e.bodies


def print_expr(e: Expr, shapes: Shapes | None = None, guard: Expr | None = None) -> str:
    """An expression with the fewest parentheses; guards of reads are shown where they differ from the context `guard`.

    `shapes` gives the dimensions of tensors, to know which reads need no guard.
    """
    return _Writer(shapes).text(e, guard)[0]


class _Writer:
    """Expressions as text, with how tightly it binds; two stack frames a level, so that deep ones can be shown."""

    def __init__(self, shapes: Shapes | None) -> None:
        self.shapes = shapes

    def text(self, e: Expr, guard: Expr | None) -> tuple[str, int]:
        match e:
            case Const(value):
                return _literal(value)
            case AxisValue(name) | Scalar(name):
                return name, ATOM
            case Extent(axis):
                return f"|{axis}|", ATOM
            case Cast(dtype, arg):
                return f"{dtype}({self.text(arg, guard)[0]})", ATOM
            case Read():
                return self.read(e, guard), ATOM
            case Apply(op, args):
                return self.apply(OPS[op], args, guard)
            case _:
                assert_never(e)

    def apply(self, op: Op, args: tuple[Expr, ...], guard: Expr | None) -> tuple[str, int]:
        parts: list[tuple[str, int]] = []
        for k, a in enumerate(args):
            parts.append(self.text(a, argument_guard(op.name, args[:k], guard)))
        if not op.infix:
            return f"{op.name}({', '.join(text for text, _ in parts)})", ATOM
        if op.arity == 1:
            space = " " if op.infix.isalpha() else ""
            if op.name == "neg" and isinstance(args[0], Const):  # `-2` is a literal
                return f"-({parts[0][0]})", op.binding
            return f"{op.infix}{space}{bracketed(*parts[0], op.binding)}", op.binding
        left, right = sides(op)
        return f"{bracketed(*parts[0], left)} {op.infix} {bracketed(*parts[1], right)}", op.binding

    def read(self, e: Read, context: Expr | None) -> str:
        dims = None if self.shapes is None else self.shapes.get(e.tensor)
        implied = context if dims is None else implied_guard(e.index, dims, context)
        inner, written = context, ""
        if e.guard != implied:
            inner, written = e.guard, f" : {self.text(TRUE if e.guard is None else e.guard, context)[0]}"
        index = []
        for i in e.index:
            group = _group(i)
            index.append(f"({' '.join(group)})" if len(group) > 1 else self.text(i, inner)[0])
        return f"{e.tensor}[{', '.join(index)}{written}]"


def bracketed(text: str, binding: int, least: int) -> str:
    """The text, in parentheses if it binds less tightly than `least`."""
    return f"({text})" if binding < least else text


def _literal(value: bool | int | float) -> tuple[str, int]:
    if isinstance(value, bool):
        return str(value).lower(), ATOM
    if isinstance(value, float) and math.isnan(value):
        return "(inf - inf)", ATOM
    return repr(value), SIGN if math.copysign(1, value) < 0 else ATOM


def _group(e: Expr) -> tuple[str, ...]:
    """The axes of a composite index, outermost first, or none."""
    axes: list[str] = []
    while True:
        match e:
            case AxisValue(axis):
                return (axis, *reversed(axes))
            case Apply("add", (Apply("mul", (outer, Extent(n))), AxisValue(axis))) if n == axis:
                axes.append(axis)
                e = outer
            case _:
                return ()
