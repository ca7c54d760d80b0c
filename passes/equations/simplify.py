"""Make expressions smaller by laws of arithmetic and logic, and compute equal things once.

    e                                 -->   the smaller expression of `algebra/identities`
    T[i] = m[r](f);  U[i] = m[r](f)   -->   T[i] = m[r](f), and U is read as T
    T[i] = m[r : p](identity of m)    -->   T[i] = identity
    p and q(T[e : p])                 -->   p and q(T[e : e is in range])
    sum[k](f32(A) * B)                -->   sum[k](A * B)                where it multiplies in A's own type

Applied to a fixpoint: every law removes nodes. Two equal equations that are both results stay two, the second a copy of
the first. A guard that the place of a read implies only keeps the read in range; without its other conditions the read
depends on fewer axes.

What a person writes for clarity, the elaborator for generality and `inline` for uniformity would be paid for at run
time, at every position.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from einc.base.types import DType
from einc.ein import (
    FALSE,
    TRUE,
    Apply,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Program,
    Read,
    Scalar,
    axes_of,
)
from einc.ein.guards import argument_guard
from einc.ein.rewriting import drop_dead, merge_equal
from einc.passes.algebra.domain import holds
from einc.passes.algebra.exposure import within
from einc.passes.algebra.identities import simplify_expression, widens
from einc.passes.algebra.ordering import Order
from einc.passes.algebra.scope import Scope, is_unit
from einc.pipeline import Context


def simplify(program: Program, _: Context) -> Program:
    """The program with every law applied as often as it can be; the same results."""
    while True:
        scope = Scope(program.dtypes(), program.shapes())
        order = Order(program, scope)
        smaller = replace(program, equations=tuple(_equation(e, scope, order) for e in program.equations))
        smaller = drop_dead(merge_equal(smaller))
        if smaller == program:
            return program
        program = smaller


def _equation(e: Equation, scope: Scope, order: Order) -> Equation:
    e = order.of(e.map(lambda x: simplify_expression(x, scope)))
    bodies = tuple(_narrowed(b, e.domain, scope) for b in e.bodies)
    e = replace(e, bodies=bodies, domain=None if e.domain is None else _narrowed(e.domain, None, scope))
    if e.domain == TRUE:
        e = replace(e, domain=None)
    if e.product is not None and e.monoid is not None and e.monoid.adds:
        e = replace(e, bodies=tuple(_multiplied(b, e.product.held, scope) for b in e.bodies))
    unit = None if e.monoid is None else e.monoid.unit
    if e.monoid is None or unit is None or len(e.bodies) > 1:
        return e
    if e.domain == FALSE and not isinstance(e.monoid.identity[0], str):  # a string identity depends on the type
        e = replace(e, bodies=(unit,))
    body = e.body
    while isinstance(body, Cast):
        body = body.arg
    return replace(e, bodies=(body,), monoid=None, over=(), domain=None) if is_unit(body, unit.value) else e


def _multiplied(e: Expr, product: DType, scope: Scope) -> Expr:
    """The factors of a contraction without casts that the type it multiplies in undoes."""
    match e:
        case Apply("mul", args):
            new = tuple(_multiplied(a, product, scope) for a in args)
            return e if new == args else replace(e, args=new)
        case Cast(dtype, Read() as read) if scope.dtypes[read.tensor] == product and widens(product, dtype):
            return read
        case _:
            return e


def _narrowed(e: Expr, context: Expr | None, scope: Scope) -> Expr:
    """The expression where `context` holds, without guards that it implies and that add axes to a read."""
    match e:
        case Apply(op, args):
            under = [argument_guard(op, args[:k], context) for k in range(len(args))]
            new = tuple(_narrowed(a, c, scope) for a, c in zip(args, under, strict=True))
            return e if new == args else replace(e, args=new)
        case Cast(arg=arg):
            return replace(e, arg=_narrowed(arg, context, scope))
        case Read(tensor, index, guard) if guard is not None and context is not None:
            own = {a for at in index for a in axes_of(at)}
            if own.issuperset(axes_of(guard)) or not set(holds(guard)) <= set(holds(context)):
                return e
            return replace(e, guard=within(index, scope.shapes[tensor]))
        case Read() | Const() | AxisValue() | Extent() | Scalar():
            return e
        case _:
            assert_never(e)
