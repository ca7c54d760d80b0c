"""Substitute a pointwise definition where it is read.

    T[i] = f(i);  U[j] = h(T[e(j)])   -->   U[j] = h(f(e(j)))

T is pointwise and is not a result. It is read once, or costs next to nothing: no function, no division except by a
value that is the same everywhere, and at most one read that depends on all of T's axes. A read of T that may be out of
range, or has a guard of its own, becomes `where(g, f(e), 0)`. The value keeps T's type: where f's own type differs, or
the store would round, a cast takes the place of the store. Before reads are counted, equal definitions become one, and
definitions that no result depends on are dropped.

An intermediate costs a store, a load and a kernel; a mask or a scale that is recomputed costs an instruction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import assert_never

from einc.base.ops import TRANSCENDENTAL
from einc.ein import (
    FALSE,
    ZERO,
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
    reads,
    walk,
)
from einc.ein.guards import argument_guard, conjoin, implied_guard, in_range_by_form, positions
from einc.ein.inference import dtype_of
from einc.ein.ranges import is_closed, needs_check
from einc.ein.rewriting import depth, drop_dead, merge_equal
from einc.passes.algebra.exposure import Dims, inside, moved
from einc.passes.algebra.scope import is_stored_as
from einc.pipeline import Context

_DEAR = TRANSCENDENTAL | {"rand"}
_MOST_NODES = 24  # of a body that is copied to several places
_MOST_READS = 4
_DEEPEST = 64  # levels of a body that is substituted; a longer chain of definitions is stored now and then


def inline(program: Program, _: Context) -> Program:
    """The program without the pointwise definitions that are cheaper to substitute; the same results."""
    program = drop_dead(merge_equal(program))
    sites = Counter(r.tensor for e in program.equations for x in e.expressions() for r in reads(x))
    substitution = _Substitution(program)
    kept: list[Equation] = []
    for written in program.equations:
        e = substitution.equation(written)
        once = sites[e.name] == 1 and depth(e.body) <= _DEEPEST
        if e.monoid is None and e.name not in program.results and (once or is_cheap(e)):
            substitution.definitions[e.name] = e
        else:
            kept.append(e)
    return replace(program, equations=tuple(kept))


def is_cheap(e: Equation) -> bool:
    """May the body be computed again wherever it is read?"""
    nodes = list(walk(e.body))
    at = [n for n in nodes if isinstance(n, Read)]
    large = [r for r in at if set(axes_of(r)) >= set(e.axes)]
    return not any(map(is_dear, nodes)) and len(large) <= 1 and len(at) <= _MOST_READS and len(nodes) <= _MOST_NODES


def is_dear(e: Expr) -> bool:
    """Is it an expensive operation with a different value at every position?"""
    match e:
        case Apply("div" | "floordiv" | "mod", (_, b)):
            return not is_closed(b)
        case Apply("pow", (_, n)):
            return n != Const(2) and not is_closed(e)
        case Apply(op):
            return op in _DEAR and not is_closed(e)
        case _:
            return False


class _Substitution:
    """The definitions to substitute so far, and the shapes and types of all tensors."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.shapes = program.shapes()
        self.dtypes = program.dtypes()
        self.definitions: dict[str, Equation] = {}

    def equation(self, e: Equation) -> Equation:
        domain = None if e.domain is None else self.expression(e.domain, None)
        return replace(e, bodies=tuple(self.expression(b, e.domain) for b in e.bodies), domain=domain)

    def expression(self, e: Expr, context: Expr | None) -> Expr:
        """The expression with the definitions substituted; `context` is the guard that its place implies."""
        match e:
            case Apply(op, args):
                new: list[Expr] = []
                for k, arg in enumerate(args):
                    new.append(self.expression(arg, argument_guard(op, args[:k], context)))
                return e if all(a is b for a, b in zip(new, args, strict=True)) else replace(e, args=tuple(new))
            case Cast(arg=arg):
                below = self.expression(arg, context)
                return e if below is arg else replace(e, arg=below)
            case Read(tensor, index, guard):
                at = tuple(self.expression(i, guard) for i in index)
                under = None if guard is None else self.expression(guard, None)
                moved = replace(e, index=at, guard=under)
                return self.value(moved, e, context) if tensor in self.definitions else moved
            case Const() | AxisValue() | Extent() | Scalar():
                return e
            case _:
                assert_never(e)

    def value(self, read: Read, written: Read, context: Expr | None) -> Expr:
        """The value of a read of a definition; `written` is the read before anything was substituted in it."""
        definition = self.definitions[read.tensor]
        checked = zip(read.index, definition.dims, needs_check(self.program, written), strict=True)
        checks = [
            test
            for e, group, needed in checked
            if needed and not vanishes(definition.body, group, self.shapes)
            for test in inside(e, group)
        ]
        implied = implied_guard(written.index, definition.dims, context)
        own = read.guard if written.guard != implied else None
        test = reduce(conjoin, checks, own)
        body = self.moved(definition, read, reduce(conjoin, checks, read.guard))
        if test is None:
            return body
        return Apply("where", (test, body, FALSE if dtype_of(body, self.dtypes).is_bool else ZERO))

    def moved(self, definition: Equation, read: Read, guard: Expr | None) -> Expr:
        """The body at the positions read, with its own reads under `guard` too, in the type it was stored in."""
        at = positions(definition.dims, read.index)
        body = moved(definition.body, at, guard, self.shapes)
        stored = definition.outputs[0].dtype
        return body if is_stored_as(body, stored, self.dtypes) else Cast(stored, body)


def vanishes(e: Expr, group: tuple[str, ...], shapes: Mapping[str, Dims]) -> bool:
    """Is the value 0 wherever the position in a dimension of these axes is out of range?"""
    match e:
        case Read(tensor, index):
            return any(
                own == group and in_range_by_form(at, group) for at, own in zip(index, shapes[tensor], strict=True)
            )
        case Const(value):
            return value == 0
        case Cast(arg=arg) | Apply("neg" | "abs", (arg,)):
            return vanishes(arg, group, shapes)
        case Apply("add" | "sub" | "max" | "min" | "or", (a, b)) | Apply("where", (_, a, b)):
            return vanishes(a, group, shapes) and vanishes(b, group, shapes)
        case Apply("and", (a, b)):
            return vanishes(a, group, shapes) or vanishes(b, group, shapes)
        case _:
            return False
