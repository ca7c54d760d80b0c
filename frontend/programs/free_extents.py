"""Extents of axes that no operand has: the largest that keep all unguarded affine reads in range.

    O[x] = sum[r](W[x + r] * F[r])        |x| = |w| - |r| + 1      where W has the axis w

An axis that is a bare subscript only of guarded reads ranges over the dimension it is read at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from einc import ein
from einc.base.errors import AxisError
from einc.base.polynomials import Polynomial, add, scaled, times
from einc.base.source import Span
from einc.ein import Apply, AxisValue, Const, Equation, Expr, Extent, Read, Scalar
from einc.ein.ranges import in_range_by_form, is_closed
from einc.frontend.elaboration.values import Dims

_HIGHEST = 16  # the degree, or number of terms, above which a subscript's polynomial bounds nothing

Size = Polynomial[Expr]  # over extents, scalars and other numbers of the call


@dataclass(frozen=True, slots=True)
class _Affine:
    """A subscript: a polynomial as the coefficient of each axis in it, and a constant one."""

    slopes: dict[str, Size]
    constant: Size


@dataclass(frozen=True, slots=True)
class _Use:
    """A read of a dimension at an affine subscript."""

    index: _Affine
    extent: Size
    bare: str | None


def find_extents(
    unknown: Sequence[str],
    equations: Iterable[Equation],
    dims: Mapping[str, Dims],
    hints: Mapping[str, Sequence[Expr]],
    places: Mapping[str, Span],
) -> dict[str, Expr]:
    """A formula for the extent of each unknown axis. Raises `AxisError` for one that nothing bounds."""
    found: dict[str, Expr] = {a: _least(hints[a]) for a in unknown if a in hints}
    if len(found) == len(unknown):
        return found
    uses, guarded = _uses(equations, dims)
    left = [a for a in unknown if a not in found]
    while left:
        axis = _next(left, uses)
        among = set(left) - {axis}
        bounds = [_bound(u, axis) for u in uses if axis in u.index.slopes and not among & set(u.index.slopes)]
        bounds = [b for b in bounds if b is not None]
        bounds = bounds or [_expression(u.extent) for u in guarded if u.bare == axis]
        if not bounds:
            raise _unbounded(axis, uses, places)
        found[axis] = _least([b for b in bounds if b is not None])
        left.remove(axis)
    return found


def _next(left: Sequence[str], uses: Sequence[_Use]) -> str:
    """The axis to find next: one whose reads have no other unknown axis, else one with a bare read, else the first."""
    rest = set(left)
    for axis in left:
        among = [u for u in uses if axis in u.index.slopes]
        if among and all(set(u.index.slopes) & rest == {axis} for u in among):
            return axis
    for axis in left:
        if any(u.bare == axis for u in uses):
            return axis
    return next((a for a in left if not any(a in u.index.slopes for u in uses)), left[0])


def _unbounded(axis: str, uses: Sequence[_Use], places: Mapping[str, Span]) -> AxisError:
    together = next((u for u in uses if axis in u.index.slopes), None)
    if together is None:
        fact = "no operand has it, and no unguarded affine subscript bounds it"
    else:
        others = ", ".join(f"'{a}'" for a in together.index.slopes if a != axis)
        fact = f"it is read together with {others}, and that extent is not known either"
    return AxisError(
        f"nothing gives the extent of axis '{axis}'", places.get(axis), fact=fact, hint=f"give it: axis {axis} = …"
    )


def _least(bounds: Sequence[Expr]) -> Expr:
    distinct = list(dict.fromkeys(bounds))
    least = distinct[0]
    for b in distinct[1:]:
        least = Apply("min", (least, b))
    return least


# ---------------------------------------------------------------------------------------------------------------------
# Reads


def _uses(equations: Iterable[Equation], dims: Mapping[str, Dims]) -> tuple[list[_Use], list[_Use]]:
    """The dimensions read at affine subscripts: by unguarded reads, and by guarded ones."""
    unguarded: list[_Use] = []
    guarded: list[_Use] = []
    for read in (n for e in equations for x in e.expressions() for n in ein.walk(x) if isinstance(n, Read)):
        for index, group in zip(read.index, dims[read.tensor], strict=True):
            affine = None if in_range_by_form(index, group) else _affine(index)
            if affine is not None and affine.slopes:
                bare = index.axis if isinstance(index, AxisValue) else None
                use = _Use(affine, _product(group), bare)
                (unguarded if read.guard is None else guarded).append(use)
    return unguarded, guarded


def _product(group: Iterable[str]) -> Size:
    return {tuple(Extent(a) for a in sorted(group)): 1}


def _bound(use: _Use, axis: str) -> Expr | None:
    """The largest extent of an axis that keeps the subscript in range at every position of the other axes."""
    slope = use.index.slopes[axis]
    sign = _sign(slope)
    rest = {a: s for a, s in use.index.slopes.items() if a != axis}
    if sign == 0:
        return None
    if sign > 0:
        room = add(use.extent, scaled(use.index.constant, -1), {(): -1})
        for a, s in rest.items():
            room = add(room, scaled(_largest(a, s), -1))
    else:
        slope, room = scaled(slope, -1), use.index.constant
        for a, s in rest.items():
            room = add(room, scaled(_largest(a, scaled(s, -1)), -1))
    if slope == {(): 1}:
        return _expression(add(room, {(): 1}))
    steps = Apply("floordiv", (_expression(room), _expression(slope)))
    return Apply("add", (steps, Const(1)))


def _largest(axis: str, slope: Size) -> Size:
    """The most that a term adds to a subscript."""
    last: Size = {(Extent(axis),): 1, (): -1}
    if all(_is_extent(m) for m in slope):
        return times(slope, last) if _sign(slope) > 0 else {}
    return {(Apply("max", (_expression(times(slope, last)), Const(0))),): 1}


def _is_extent(monomial: tuple[Expr, ...]) -> bool:
    return all(isinstance(x, Extent) for x in monomial)


def _sign(p: Size) -> int:
    """The common sign of the coefficients, 1 or -1, with extents and scalars taken as positive; 0 if they differ."""
    signs = {c > 0 for c in p.values()}
    return 0 if len(signs) != 1 else 1 if signs.pop() else -1


# ---------------------------------------------------------------------------------------------------------------------
# Polynomials


def _affine(e: Expr) -> _Affine | None:
    """The subscript as a sum of axes times coefficients without axes; None where it is not such a sum."""
    match e:
        case AxisValue(axis):
            return _Affine({axis: {(): 1}}, {})
        case Const(value) if not isinstance(value, float):
            return _Affine({}, {(): int(value)} if value else {})
        case Extent() | Scalar():
            return _Affine({}, {(e,): 1})
        case Apply("add" | "sub" as op, (a, b)):
            return _combined(_affine(a), _affine(b), -1 if op == "sub" else 1)
        case Apply("neg", (a,)):
            return _combined(_Affine({}, {}), _affine(a), -1)
        case Apply("mul", (a, b)):
            return _multiplied(_affine(a), _affine(b))
        case _:
            return _Affine({}, {(e,): 1}) if is_closed(e) else None


def _degree(a: _Affine) -> int:
    """The largest number of factors in a product, or the number of products if that is larger."""
    return max((max(len(p), *map(len, p)) for p in (*a.slopes.values(), a.constant) if p), default=0)


def _combined(a: _Affine | None, b: _Affine | None, sign: int) -> _Affine | None:
    if a is None or b is None:
        return None
    slopes = {x: add(a.slopes.get(x, {}), scaled(b.slopes.get(x, {}), sign)) for x in {**a.slopes, **b.slopes}}
    return _Affine({x: p for x, p in slopes.items() if p}, add(a.constant, scaled(b.constant, sign)))


def _multiplied(a: _Affine | None, b: _Affine | None) -> _Affine | None:
    if a is None or b is None or (a.slopes and b.slopes) or _degree(a) + _degree(b) > _HIGHEST:
        return None
    if b.slopes:
        a, b = b, a
    slopes = {x: times(p, b.constant) for x, p in a.slopes.items()}
    return _Affine({x: p for x, p in slopes.items() if p}, times(a.constant, b.constant))


def _expression(p: Size) -> Expr:
    """`|w| - |r| + 1`: what is added, then what is subtracted, and numbers last."""
    terms = sorted(p.items(), key=lambda t: (not t[0], t[1] < 0))
    if not terms:
        return Const(0)
    total: Expr | None = None
    for monomial, c in terms:
        size = abs(c) if total is not None else c
        term = _term(monomial, size)
        total = term if total is None else Apply("sub" if c < 0 else "add", (total, term))
    assert total is not None
    return total


def _term(monomial: tuple[Expr, ...], c: int) -> Expr:
    factors: Iterator[Expr] = iter(monomial if c == 1 and monomial else (Const(c), *monomial))
    term = next(factors)
    for f in factors:
        term = Apply("mul", (term, f))
    return term
