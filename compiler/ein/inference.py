"""The types of expressions, and the default types of equations, for elaborator, printer, verifier and passes alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import assert_never

from einc.base.ops import OPS, Rule, result_type
from einc.base.types import BOOL, F32, F64, FLOAT, I64, INT, U64, DType, accumulator, compute, join, ranged, settle
from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Monoid, Program, Read, Scalar, rebuild, walk

_WEAK = {"bool": BOOL, "int": INT, "float": FLOAT}
_CARRIES = (Rule.JOIN, Rule.ARITHMETIC, Rule.SELECT, Rule.INTEGER)  # their type comes from the arguments


def dtype_of(e: Expr, dtypes: Mapping[str, DType]) -> DType:
    """The type of an expression, weak types included, given those of tensors and scalars by name.

    A read has the type that its tensor is stored in; arithmetic on it is done in `types.compute` of that type. Raises
    `DTypeError`, without a place, where an operation does not take its arguments.
    """
    match e:
        case Const(kind=kind):
            return _WEAK[kind]
        case AxisValue() | Extent():
            return INT
        case Scalar(name) | Read(tensor=name):
            return dtypes[name]
        case Cast(dtype=dtype):
            return dtype
        case Apply(op, args):
            return result_type(op, tuple(dtype_of(a, dtypes) for a in args))
        case _:
            assert_never(e)


def is_position(t: DType) -> bool:
    """Is it a type of positions: weak, or of 64 bits, so that arithmetic on them does not wrap?"""
    return t in (INT, I64)


def position(e: Expr, dtypes: Mapping[str, DType]) -> Expr:
    """An integer as a subscript: its operands become 64 bits wide before the arithmetic.

    t * 3 + 1   -->   i64(t) * 3 + 1      t: u8
    """
    match e:
        case Apply("where", (condition, a, b)):
            return Apply("where", (condition, position(a, dtypes), position(b, dtypes)), e.span)
        case Apply(op) if OPS[op].rule in _CARRIES:
            return rebuild(e, lambda x: position(x, dtypes))
        case Const() | AxisValue() | Extent() | Scalar():
            return e
        case _:
            return e if is_position(dtype_of(e, dtypes)) else Cast(I64, e)


def exact(e: Expr, dtypes: Mapping[str, DType]) -> Expr:
    """An equal integer of 64 bits: parts that are computed in a narrow type, and may wrap in it, stay together.

        t * 3 + j // 2   -->   i64(t * 3 + j // 2)      t: u8
        s + t * 3        -->   s + i64(t * 3)           s: i64

    u64 stays as it is: there is no wider type.
    """
    t = dtype_of(e, dtypes)
    if not t.is_int or is_position(t):
        carries = isinstance(e, Apply) and OPS[e.op].rule in _CARRIES
        return rebuild(e, lambda x: exact(x, dtypes)) if carries else e
    return e if t == U64 else Cast(I64, e)


def reduced_type(monoid: Monoid, component: int, body: DType) -> DType:
    """The type that component k of a reduction accumulates in, and has by default, for a body of this type."""
    body = settle(body)
    if monoid.truths:
        return BOOL
    if monoid.accumulates:
        return accumulator(body)
    return I64 if is_place(monoid, component, body) else compute(body)


def is_place(monoid: Monoid, component: int, body: DType) -> bool:
    """Is component k the position of the chosen value? Its type must hold every position."""
    return monoid.chooses and component > 0 and body.is_int


def default_dtypes(monoid: Monoid | None, bodies: Sequence[Expr], dtypes: Mapping[str, DType]) -> tuple[DType, ...]:
    """The types of an equation's outputs where none are written, one for each output.

    Floats are stored in f32, or f64 where an input is; integers in their own type, weak ones in i64; sums and products
    as they accumulate (integers at least i32, booleans i64); `any` and `all` bool; positions i64; a cast as it says.
    """
    given = [dtype_of(b, dtypes) for b in bodies]
    if monoid is None:
        return tuple(t if isinstance(b, Cast) else compute(settle(t)) for b, t in zip(bodies, given, strict=True))
    return tuple(reduced_type(monoid, k, given[min(k, len(given) - 1)]) for k in monoid.results)


def default_dtype(equation: Equation, dtypes: Mapping[str, DType]) -> DType:
    """The default type of the first output."""
    return default_dtypes(equation.monoid, equation.bodies, dtypes)[0]


# ---------------------------------------------------------------------------------------------------------------------
# Literals


def in_range(program: Program) -> Program:
    """The program with every literal of floats in the range of the type that it takes: infinite or 0 beyond it.

    x * 1e39   -->   x * inf      x: f32
    """
    beyond = {
        n
        for eq in program.equations
        for e in eq.expressions()
        for n in walk(e)
        if isinstance(n, Const) and isinstance(n.value, float) and ranged(n.value, F32) != n.value
    }
    if not beyond:
        return program
    dtypes = program.dtypes()

    def bounded(eq: Equation) -> Equation:
        real = F64 if any(t.dtype.part == F64 for t in eq.outputs) else F32
        return eq.map(lambda e: _in_range(e, real, dtypes) if beyond.intersection(walk(e)) else e)

    return replace(program, equations=tuple(map(bounded, program.equations)))


def _in_range(e: Expr, real: DType, dtypes: Mapping[str, DType]) -> Expr:
    """An expression with its literals in range, where weak floats take the type `real`."""
    match e:
        case Const(value=float() as value):
            return Const(ranged(value, real))
        case Cast(dtype=dtype):
            real = _real(dtype, F32)
            return rebuild(e, lambda x: _in_range(x, real, dtypes))
        case Apply(op="where", args=(condition, *chosen)):
            real = _real(_joined(chosen, dtypes), real)
            return rebuild(e, lambda x: _in_range(x, F32 if x is condition else real, dtypes))
        case Apply(op=op, args=args):
            weak = real if OPS[op].rule is Rule.FLOATING else F32
            real = _real(_joined(args, dtypes), real, weak)
            return rebuild(e, lambda x: _in_range(x, real, dtypes))
        case _:
            return rebuild(e, lambda x: _in_range(x, F32, dtypes))


def _joined(args: Sequence[Expr], dtypes: Mapping[str, DType]) -> DType:
    return reduce(join, (dtype_of(a, dtypes) for a in args))


def _real(t: DType, weak: DType, other: DType = F32) -> DType:
    """The type of arithmetic that literals take beside values of a type; of values that are no floats, `other`."""
    return weak if t == FLOAT else compute(t.part) if t.part.is_float else other
