"""The obligations of an equation that the extents of a call decide: its divisions, and its reads being in range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from einc.base.errors import ShapeError
from einc.base.intervals import Interval
from einc.base.source import Span
from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Read, Scalar, walk
from einc.ein.arithmetic import ScalarValue, evaluate_formula, values_of
from einc.ein.printer import print_expr
from einc.ein.ranges import extent_of, in_range_by_form, interval, is_closed, is_simple

Extents = Mapping[str, int]
Scalars = Mapping[str, ScalarValue]


Dims = Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True, slots=True)
class Exact:
    """A division of extents leaves no remainder."""

    division: Apply


@dataclass(frozen=True, slots=True)
class Divides:
    """A divisor of `//` or `%` is not 0."""

    division: Apply
    divisor: Expr
    place: Span | None


@dataclass(frozen=True, slots=True)
class Some:
    """There is a position to choose from: the axes of an argmax are not empty."""

    monoid: str
    over: tuple[str, ...]
    place: Span | None


@dataclass(frozen=True, slots=True)
class Within:
    """An index of an unguarded read stays within the dimension of these axes."""

    read: Read
    dimension: int
    group: tuple[str, ...]
    place: Span | None


Obligation = Exact | Divides | Some | Within


def obligations(e: Equation, dims: Dims) -> tuple[Obligation, ...]:
    """The obligations of an equation that has any positions, in the order of the text."""
    found: list[Obligation] = []
    for expression in e.expressions():
        for n in _certain(expression):
            match n:
                case Apply("exactdiv"):
                    found.append(Exact(n))
                case Apply("floordiv" | "mod", (_, divisor)) if is_closed(divisor) and not _is_number(divisor):
                    found.append(Divides(n, divisor, n.span or e.span))
        for n in walk(expression):
            if isinstance(n, Read) and n.guard is None:
                for k, (index, group) in enumerate(zip(n.index, dims[n.tensor], strict=True)):
                    if is_simple(index) and not in_range_by_form(index, group):
                        found.append(Within(n, k, group, n.span or e.span))
    return tuple(found)


def _is_number(e: Expr) -> bool:
    """Is it a literal other than 0?"""
    return isinstance(e, Const) and e.value != 0


def depends_on(what: Obligation) -> tuple[Expr, ...]:
    """The expressions that decide whether it is satisfied, beside extents of axes."""
    match what:
        case Exact(division) | Divides(division):
            return (division,)
        case Within(read, k):
            return (read.index[k],)
        case Some():
            return ()
        case _:
            assert_never(what)


def demand(what: Obligation, extents: Extents, scalars: Scalars) -> None:
    """Raises `ShapeError` where the extents do not satisfy it."""
    match what:
        case Exact(division):
            evaluate_formula(division, extents, scalars)
        case Some(monoid, over, place):
            _check_some(monoid, over, place, extents)
        case Divides():
            _check_divisor(what, extents, scalars)
        case Within(read, k, group):
            reach = interval(read.index[k], extents, scalars)
            if reach is not None and (reach[0] < 0 or reach[1] >= extent_of(group, extents)):
                known = values_of(read.index[k], extents, scalars)
                raise _out_of_range(what, reach, extent_of(group, extents), known)


def choices(e: Equation) -> tuple[Obligation, ...]:
    """The obligations even of an equation without positions: there is something to choose from.

    With a condition there may be nothing.
    """
    if e.monoid is None or not e.monoid.chooses or e.domain is not None:
        return ()
    return (Some(e.monoid.name, e.over, e.span),)


def _check_some(monoid: str, over: tuple[str, ...], place: Span | None, extents: Extents) -> None:
    empty = next((axis for axis in over if extents[axis] == 0), None)
    if empty is not None:
        raise ShapeError(
            f"'{monoid}' has nothing to choose from",
            place,
            fact=f"axis '{empty}' has extent 0",
            hint=f"pass operands for which |{empty}| is at least 1",
        )


def _certain(e: Expr) -> Iterator[Expr]:
    """The nodes that no `where`, `and`, `or` or guard keeps from being evaluated."""
    stack = [e]
    while stack:
        n = stack.pop()
        yield n
        match n:
            case Apply("where" | "and" | "or", (condition, *_)):
                stack.append(condition)
            case Apply(args=args):
                stack.extend(reversed(args))
            case Cast(arg=arg):
                stack.append(arg)
            case Read(index=index, guard=guard):
                stack.extend(reversed(index) if guard is None else (guard,))
            case Const() | AxisValue() | Extent() | Scalar():
                pass
            case _:
                assert_never(n)


def _check_divisor(what: Divides, extents: Extents, scalars: Scalars) -> None:
    value = evaluate_formula(what.divisor, extents, scalars)
    if isinstance(value, float) or value != 0:
        return
    known = "" if isinstance(what.divisor, Extent | Scalar) else values_of(what.divisor, extents, scalars)
    raise ShapeError(
        f"'{'//' if what.division.op == 'floordiv' else '%'}' divides by zero",
        what.place,
        fact=f"{print_expr(what.divisor)} = 0{known}",
        hint="make the divisor at least 1",
    )


def _out_of_range(found: Within, reach: Interval, limit: int, known: str) -> ShapeError:
    read, k, place = found.read, found.dimension, found.place
    index, text = read.index[k], print_expr(read.index[k])
    size = " * ".join(f"|{axis}|" for axis in found.group) or "1"
    what = f"{print_expr(read)} is out of range: dimension {k} of {read.tensor} has extent {limit}"
    if is_closed(index):
        there = f"positions are 0 to {limit - 1}" if limit else "there are no positions"
        known = "" if isinstance(index, Scalar) else known
        fact = there if isinstance(index, Const) else f"{there}, and {text} = {reach[0]}{known}"
        grows = reach[0] >= 0 or any(isinstance(n, Extent) for n in walk(index))
        hint = f"pass a longer {read.tensor}" if grows else f"count from 0: the last is {size} - 1"
        return ShapeError(f"{what}, the index is {reach[0]}", place, fact=fact, hint=hint)
    below = reach[0] < 0
    return ShapeError(
        f"{what}, the index reaches {reach[0] if below else reach[1]}",
        place,
        fact=f"{text} runs from {reach[0]} to {reach[1]}{known}",
        hint=f"guard it: where({'0 <= ' + text if below else f'{text} < {size}'}, …, 0)",
    )
