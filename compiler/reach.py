"""What the extents of a call decide about an equation: its divisions by extents, and which reads leave a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from einc.arithmetic import ScalarValue, evaluate_formula, values_of
from einc.ein import Apply, Cast, Const, Equation, Expr, Extent, Read, Scalar, walk
from einc.errors import ShapeError
from einc.printer import print_expr
from einc.ranges import Interval, extent_of, in_range_by_form, interval, is_closed, is_simple
from einc.source import Span

Extents = Mapping[str, int]
Scalars = Mapping[str, ScalarValue]


def check_equation(
    e: Equation, dims: Mapping[str, tuple[tuple[str, ...], ...]], extents: Extents, scalars: Scalars
) -> None:
    """Divisions by extents are exact and not by zero, and simple unguarded reads are in range.

    The equation has at least one position: of an empty one nothing is evaluated.
    """
    for expression in e.expressions():
        for n in _certain(expression):
            match n:
                case Apply("exactdiv"):
                    evaluate_formula(n, extents, scalars)
                case Apply("floordiv" | "mod", (_, divisor)) if is_closed(divisor):
                    _check_divisor(n, divisor, e, extents, scalars)
        for n in walk(expression):
            if isinstance(n, Read) and n.guard is None:
                _check_read(n, dims[n.tensor], e, extents, scalars)


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


def _check_divisor(division: Apply, divisor: Expr, e: Equation, extents: Extents, scalars: Scalars) -> None:
    value = evaluate_formula(divisor, extents, scalars)
    if isinstance(value, float) or value != 0:
        return
    known = "" if isinstance(divisor, Extent | Scalar) else values_of(divisor, extents, scalars)
    raise ShapeError(
        f"'{'//' if division.op == 'floordiv' else '%'}' divides by zero",
        division.span or e.span,
        fact=f"{print_expr(divisor)} = 0{known}",
        hint="make the divisor at least 1",
    )


def _check_read(read: Read, dims: tuple[tuple[str, ...], ...], e: Equation, extents: Extents, scalars: Scalars) -> None:
    for k, (index, group) in enumerate(zip(read.index, dims, strict=True)):
        if in_range_by_form(index, group) or not is_simple(index):
            continue
        reach = interval(index, extents, scalars)
        if reach is not None and (reach[0] < 0 or reach[1] >= extent_of(group, extents)):
            known = values_of(index, extents, scalars)
            raise _out_of_range(read, k, group, reach, extent_of(group, extents), known, read.span or e.span)


def _out_of_range(
    read: Read, k: int, group: tuple[str, ...], reach: Interval, limit: int, known: str, place: Span | None
) -> ShapeError:
    index, text = read.index[k], print_expr(read.index[k])
    what = f"{print_expr(read)} is out of range: dimension {k} of {read.tensor} has extent {limit}"
    if is_closed(index):
        there = f"positions are 0 to {limit - 1}" if limit else "there are no positions"
        fact = there if isinstance(index, Const) else f"{there}, and {text} = {reach[0]}{known}"
        return ShapeError(f"{what}, the index is {reach[0]}", place, fact=fact, hint=f"pass a longer {read.tensor}")
    below = reach[0] < 0
    size = " * ".join(f"|{axis}|" for axis in group) or "1"
    return ShapeError(
        f"{what}, the index reaches {reach[0] if below else reach[1]}",
        place,
        fact=f"{text} runs from {reach[0]} to {reach[1]}{known}",
        hint=f"guard it: where({'0 <= ' + text if below else f'{text} < {size}'}, …, 0)",
    )
