"""Prefixes: equations that leave the total of a walk at every position."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from einc.base.ops import MIRRORED
from einc.ein import Apply, AxisValue, Equation, Expr, Extent, Program, axes_of
from einc.passes.algebra.domain import conjunction, holds
from einc.passes.algebra.signs import makes_no_negative
from einc.passes.streaming.running import Along, End, Running, is_along, knows_its_end, running


@dataclass(frozen=True, slots=True)
class Prefix:
    """An equation `T[..., i] = monoid[t : t <= i and domain](f)` with |t| = |i| and a domain free of i: prefixes along
    t, one for every i; with t >= i, suffixes. If f is not free of i, its total follows i (`running`)."""

    scanned: str
    walked: str
    rows: tuple[str, ...]
    reverse: bool
    domain: Expr | None
    running: Running | None = None


def prefix(eq: Equation, program: Program) -> Prefix | None:
    """The prefixes that an equation defines; None if it defines none."""
    if eq.monoid is None or len(eq.over) != 1 or eq.domain is None:
        return None
    (walked,) = eq.over
    terms = holds(eq.domain)
    for n, p in enumerate(terms):
        match _from_left(p, walked):
            case Apply("le" | "ge" as op, (AxisValue(t), AxisValue(i))) if t == walked and i in eq.axes:
                rest = conjunction([q for k, q in enumerate(terms) if k != n])
                if (rest is not None and i in axes_of(rest)) or not is_alike(program, i, t):
                    continue
                found = Prefix(i, t, tuple(a for a in eq.axes if a != i), op == "ge", rest)
                if not any(i in axes_of(b) for b in eq.bodies):
                    return found
                if (followed := _followed(eq, found, program)) is not None:
                    return replace(found, running=followed)
    return None


def _from_left(p: Expr, axis: str) -> Expr:
    """A comparison with an axis, with it on the left."""
    match p:
        case Apply(op, (x, AxisValue(a))) if a == axis and op in MIRRORED:
            return Apply(MIRRORED[op], (AxisValue(a), x))
        case _:
            return p


def _followed(eq: Equation, found: Prefix, program: Program) -> Running | None:
    """What prefixes whose body depends on their end carry, if it can follow the end."""
    end = End(found.scanned, found.walked, found.reverse)
    if eq.domain is None or not knows_its_end(eq, end):
        return None
    length = length_of(program, found.walked)
    return running(replace(eq, domain=found.domain), end, _along(program, eq.name, length, found.reverse))


@lru_cache(maxsize=256)
def _along(program: Program, name: str, length: Expr, reverse: bool) -> Along:
    """What is known of the tensors defined before one, for walks from one end along axes of this length."""
    along = Along()
    for eq in program.equations:
        if eq.name == name:
            break
        if any(t.dtype.is_complex for t in eq.outputs):
            continue
        places: list[tuple[str, int]] = []
        for k, dim in enumerate(eq.dims):
            if len(dim) == 1 and length_of(program, dim[0]) == length and _runs(eq, dim[0], reverse, along, program):
                places += [(t.name, k) for t in eq.outputs]
        extreme = None if eq.monoid is None else eq.monoid.extreme
        along = Along(
            along.places.union(places),
            along.greatest.union([eq.name] if extreme == "max" else []),
            along.orders.union([eq.name] if extreme else []),
            along.positive.union([eq.name] if makes_no_negative(eq, along.positive) else []),
        )
    return along


def _runs(eq: Equation, axis: str, reverse: bool, along: Along, program: Program) -> bool:
    """Is an equation's value along an axis decided by prefixes that are walked from this end?"""
    if eq.monoid is None:
        return is_along(eq.body, axis, along)
    found = prefix(eq, program)
    return found is not None and found.scanned == axis and found.reverse == reverse


def length_of(program: Program, axis: str) -> Expr:
    """The extent of an axis; of one that is declared as long as another, the other's."""
    declared = {a.name: a.extent for a in program.axes}
    extent: Expr = Extent(axis)
    while isinstance(extent, Extent) and (formula := declared.get(extent.axis)) is not None:
        extent = formula
    return extent


def is_alike(program: Program, a: str, b: str) -> bool:
    """Do two axes have the same extent, whatever the operands are?"""
    return length_of(program, a) == length_of(program, b)
