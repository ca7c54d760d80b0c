"""Derivatives of scalar operations, read from their rows in the table of operations.

    tanh: 1 - f * f      pow: where(y == 0, 0, y * x ** (y - 1)) and where(x == 0, 0, f * log(x))

A row is text over the arguments x and y and the value f. Where it is a choice, the parts that are not 0 are given with
their conditions, so that a contribution is made only where there is one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache

from einc.base.ops import OPS
from einc.ein import Apply, Const, Expr, Scalar, rebuild
from einc.ein.guards import conjoin

_BINARY: dict[type[ast.AST], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}
_COMPARED: dict[type[ast.AST], str] = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq"}
_ARGUMENTS = ("x", "y")


def slopes(e: Apply, argument: int) -> Iterator[tuple[Expr | None, Expr]]:
    """The derivative of an operation by one of its arguments: pairs of a condition, None where it always holds, and
    the derivative there; nothing where it is 0."""
    rows = OPS[e.op].slopes
    if argument >= len(rows):
        return
    values = {**dict(zip(_ARGUMENTS, e.args, strict=False)), "f": e}
    for condition, slope in _parts(_read(rows[argument]), None):
        yield None if condition is None else _filled(condition, values), _filled(slope, values)


def _parts(e: Expr, given: Expr | None) -> Iterator[tuple[Expr | None, Expr]]:
    """The alternatives of a choice that are not 0, each with all that must hold for it."""
    match e:
        case Apply("where", (p, x, y)):
            yield from _parts(x, conjoin(given, p))
            otherwise = given if _implies_other(y, p) else conjoin(given, Apply("not", (p,)))
            yield from _parts(y, otherwise)
        case Const(value=0):
            return
        case _:
            yield given, e


def _implies_other(e: Expr, p: Expr) -> bool:
    """Is it 0 where p holds, since a choice by what excludes p: x < y, if p is x > y?"""
    match e, p:
        case Apply("where", (Apply(op="lt" | "gt" | "eq" as q, args=a), _, Const(value=0))), Apply(
            op="lt" | "gt" | "eq" as r, args=b
        ):
            return a == b and q != r
        case _:
            return False


def _filled(e: Expr, values: Mapping[str, Expr]) -> Expr:
    if isinstance(e, Scalar):
        return values[e.name]
    return rebuild(e, lambda below: _filled(below, values))


@lru_cache(maxsize=256)
def _read(text: str) -> Expr:
    return _translated(ast.parse(text, mode="eval").body)


def _translated(node: ast.expr) -> Expr:
    """The part of Python's own grammar that rows are written in."""
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return Const(value)
        case ast.Name(id=name):
            return Scalar(name)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Const(-value)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return Apply("neg", (_translated(x),))
        case ast.BinOp(left=x, op=op, right=y):
            return Apply(_BINARY[type(op)], (_translated(x), _translated(y)))
        case ast.Compare(left=x, ops=[op], comparators=[y]):
            return Apply(_COMPARED[type(op)], (_translated(x), _translated(y)))
        case ast.Call(func=ast.Name(id=name), args=args):
            return Apply(name, tuple(map(_translated, args)))
        case _:
            raise ValueError(f"not a derivative: {ast.unparse(node)}")
