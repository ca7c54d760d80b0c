"""What the passes on equations share: rewriting from the leaves up, what a store does to a value, names, dead code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from einc.base.types import DType, accumulator, compute, join
from einc.ein import (
    FALSE,
    ONE,
    TRUE,
    ZERO,
    Apply,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Monoid,
    Program,
    Read,
    Tensor,
    children,
    reads,
    rebuild,
)
from einc.ein.guards import argument_guard, composite, conjoin, in_range_by_form
from einc.ein.inference import dtype_of, reduced_type
from einc.ein.ranges import is_simple

Dims = tuple[tuple[str, ...], ...]

# What reductions over nothing give, of floats and truth values.
IDENTITIES: dict[str, Const] = {
    "sum": ZERO,
    "prod": ONE,
    "max": Const(-math.inf),
    "min": Const(math.inf),
    "any": FALSE,
    "all": TRUE,
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The types and dimensions of the tensors there are, which decide what laws hold; they grow with new tensors."""

    dtypes: dict[str, DType]
    shapes: dict[str, Dims]

    def type(self, e: Expr) -> DType:
        return dtype_of(e, self.dtypes)

    def exact(self, e: Expr) -> bool:
        """Is it an integer or a truth value?"""
        return self.type(e).kind in "iub"


Rule = Callable[[Scope, Apply], Expr | None]  # a law at a node, or None where it does not apply


def bottom_up(e: Expr, f: Callable[[Expr], Expr], into_reads: bool = True) -> Expr:
    """f at every node, its children rewritten first; without recursion, and once where a node is shared.

    Without `into_reads`, f is given each read as it is, its subscripts and guard untouched.
    """
    done: dict[int, Expr] = {}
    stack = [(e, False)]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        below = children(node) if into_reads or not isinstance(node, Read) else ()
        if below and not ready:
            stack.append((node, True))
            stack.extend((child, False) for child in below)
        else:
            done[id(node)] = f(rebuild(node, lambda child: done[id(child)]) if below else node)
    return done[id(e)]


def depth(e: Expr) -> int:
    """The number of nodes on the longest way down."""
    deepest: dict[int, int] = {}
    stack = [(e, False)]
    while stack:
        node, ready = stack.pop()
        below = children(node)
        if ready or not below:
            deepest[id(node)] = 1 + max((deepest[id(child)] for child in below), default=0)
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in below)
    return deepest[id(e)]


def is_stored_as(e: Expr, stored: DType, dtypes: Mapping[str, DType]) -> bool:
    """Is the value, as it stands, what a store in that type and a load of it give?

    Arithmetic on narrow floats is wider than their type, so only what was read or cast has their precision.
    """
    return dtype_of(e, dtypes) == stored and (isinstance(e, Read | Cast) or compute(stored) == stored)


def accumulated(monoid: Monoid, body: Expr, whole: DType, dtypes: Mapping[str, DType]) -> DType:
    """The type of an intermediate reduction of `body` on the way to one of type `whole`, real where the body is."""
    own = reduced_type(monoid, 0, dtype_of(body, dtypes))
    if monoid.name not in ("sum", "prod"):
        return own
    return join(own, accumulator(whole if own.is_complex else whole.part))


def inside(e: Expr, group: tuple[str, ...]) -> tuple[Expr, Expr]:
    """The conditions that an index is within a dimension of these axes."""
    extents: list[Expr] = [Extent(axis) for axis in group] or [ONE]
    return Apply("le", (ZERO, e)), Apply("lt", (e, reduce(lambda a, b: Apply("mul", (a, b)), extents)))


def within(index: Sequence[Expr], dims: Dims) -> Expr | None:
    """The condition that simple subscripts are in range; None where that is certain by their form."""
    unsure = [(at, dim) for at, dim in zip(index, dims, strict=True) if not in_range_by_form(at, dim) and is_simple(at)]
    return reduce(conjoin, [t for at, dim in unsure for t in inside(at, dim)], None)


def is_exposed(e: Read, shapes: Mapping[str, Dims]) -> bool:
    """Does the read rely on a check at the call, which is made only where the equation it stands in has positions?"""
    pairs = zip(e.index, shapes[e.tensor], strict=True)
    return e.guard is None and any(is_simple(at) and not in_range_by_form(at, dim) for at, dim in pairs)


def sheltered(e: Expr, context: Expr | None, shapes: Mapping[str, Dims]) -> Expr:
    """The expression with exposed reads under the guard that their place implies, in a context that has a guard."""
    match e:
        case Apply(op, args):
            new: list[Expr] = []
            for k, arg in enumerate(args):
                new.append(sheltered(arg, argument_guard(op, args[:k], context), shapes))
            return e if all(a is b for a, b in zip(new, args, strict=True)) else replace(e, args=tuple(new))
        case Cast(arg=arg):
            below = sheltered(arg, context, shapes)
            return e if below is arg else replace(e, arg=below)
        case Read(index=index, guard=guard):
            inner = context if guard is None else guard
            at = tuple(sheltered(i, inner, shapes) for i in index)
            under = context if is_exposed(e, shapes) else guard
            return replace(e, index=at, guard=under)
        case _:
            return e


def renamed(e: Equation, names: Mapping[str, str]) -> Equation:
    """The equation with tensors read under other names."""

    def rename(n: Expr) -> Expr:
        return replace(n, tensor=names[n.tensor]) if isinstance(n, Read) and n.tensor in names else n

    return e.map(lambda x: bottom_up(x, rename)) if names else e


def drop_dead(program: Program) -> Program:
    """The equations that a result depends on: a definition that nothing reads and nobody returns is dropped."""
    live = set(program.results)
    kept: list[Equation] = []
    for e in reversed(program.equations):
        if any(t.name in live for t in e.outputs):
            live.update(r.tensor for x in e.expressions() for r in reads(x))
            kept.append(e)
    return replace(program, equations=tuple(reversed(kept)))


def merge_equal(program: Program) -> Program:
    """One equation for all that differ only in the names they give."""
    first: dict[Equation, int] = {}
    kept: list[Equation] = []
    names: dict[str, str] = {}
    for e in program.equations:
        e = renamed(e, names)
        anonymous = replace(e, outputs=tuple(Tensor("", t.dtype) for t in e.outputs))
        at = first.setdefault(anonymous, len(kept))
        if at == len(kept):
            kept.append(e)
        elif e.name not in program.results:
            names |= {t.name: s.name for t, s in zip(e.outputs, kept[at].outputs, strict=True)}
        elif kept[at].name not in program.results:
            names |= {s.name: t.name for t, s in zip(e.outputs, kept[at].outputs, strict=True)}
            kept[at] = replace(kept[at], outputs=e.outputs)
        else:
            kept.append(e if e.monoid is None else _copy(e, kept[at]))
    return replace(program, equations=tuple(renamed(e, names) for e in kept))


def _copy(e: Equation, original: Equation) -> Equation:
    """The outputs of the equation, read from an equal one."""
    own = tuple(composite(group) for group in e.dims)
    reads = tuple(Read(t.name, own) for t in original.outputs)
    return replace(e, bodies=reads, monoid=None, over=(), domain=None)


def unused(wanted: str, taken: Iterable[str]) -> str:
    """The name, with a number after it if it is taken."""
    there = set(taken)
    name, n = wanted, 1
    while name in there:
        n += 1
        name = f"{wanted}_{n}"
    return name


def names(program: Program) -> set[str]:
    """Every name that a tensor, an axis or a scalar of the program has."""
    return {*program.dtypes(), *(a.name for a in program.axes)}
