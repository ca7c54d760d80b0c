"""The types of expressions and the default types of equations: one rule for elaborator, printer, verifier, passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Monoid, Read, Scalar
from einc.ops import result_type
from einc.types import BOOL, FLOAT, I64, INT, DType, accumulator, compute, settle

_WEAK = {"bool": BOOL, "int": INT, "float": FLOAT}


def dtype_of(e: Expr, dtypes: Mapping[str, DType]) -> DType:
    """The type of an expression, weak types included, given those of tensors and scalars by name.

    A read has its tensor's type as stored; arithmetic on it is done in `types.compute` of that. Raises `DTypeError`
    without a place where an operation does not take its arguments.
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


def reduced_type(monoid: Monoid, component: int, body: DType) -> DType:
    """The type that component k of a reduction accumulates in, and gives by default, for a body of this type."""
    body = settle(body)
    match monoid.name:
        case "sum" | "prod":
            return accumulator(body)
        case "any" | "all":
            return BOOL
        case "argmax" | "argmin":
            return I64 if component else compute(body)
        case _:
            return compute(body)


def default_dtypes(monoid: Monoid | None, bodies: Sequence[Expr], dtypes: Mapping[str, DType]) -> tuple[DType, ...]:
    """The types that the outputs of an equation have where none is written, one for each.

    Floats are stored in f32, or f64 where an input is; integers in their own type, weak ones in i64; sums and products
    as they accumulate (integers at least i32, booleans i64); `any` and `all` bool; positions i64.
    """
    given = [dtype_of(b, dtypes) for b in bodies]
    if monoid is None:
        return tuple(compute(settle(t)) for t in given)
    return tuple(reduced_type(monoid, k, given[min(k, len(given) - 1)]) for k in monoid.results)


def default_dtype(equation: Equation, dtypes: Mapping[str, DType]) -> DType:
    """The default type of the first output."""
    return default_dtypes(equation.monoid, equation.bodies, dtypes)[0]
