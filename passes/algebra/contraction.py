"""A sum of products seen as contractions of two sides: which axes are rows, columns, batch and inner.

    sum[r...] ± f₁·f₂·…   -->   outer · Σ[inner] left[batch, rows, inner] · right[batch, inner, columns]

The factors of a product are dealt to two sides. An output axis on both sides is a batch axis, on the left a row, on
the right a column; a factor without reduced axes is outer and multiplies the finished sum. There must be a row, a
column, and an inner axis on both sides; otherwise the product is no contraction and is reduced position by position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product as choices
from math import prod

from einc.base.types import BF16, F32, F64, INT, DType, compute, join, settle
from einc.ein import Apply, Cast, Const, Equation, Expr, Read, axes_of
from einc.ein.inference import dtype_of
from einc.passes.algebra.signs import is_finite

_MOST_FACTORS = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """The roles of an equation's axes in a contraction, each in the equation's order."""

    batch: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    inner: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """One product: ± outer · left · right."""

    negative: bool
    outer: tuple[Expr, ...]
    left: tuple[Expr, ...]
    right: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Contraction:
    """The terms of one body, all of one shape and with the same outer factors."""

    shape: Shape
    terms: tuple[Term, ...]


def contraction(eq: Equation, body: Expr, size: Callable[[str], int], shape: Shape | None = None) -> Contraction | None:
    """The body of a sum as contractions of one shape (the given one, if any), or None."""
    terms = []
    for negative, term in _terms(body, False):
        factors = _factors(term)
        if factors is None:
            return None
        domain = eq.domain
        if domain is not None:
            factors = _restricted(factors, domain)
            if factors is None:
                return None
        dealt = _deal(eq, negative, factors, size, shape)
        if dealt is None:
            return None
        shape, found = dealt
        terms.append(found)
    if shape is None or len({t.outer for t in terms}) > 1:
        return None
    return Contraction(shape, tuple(terms))


def operand_type(term: Term, given: Collection[str], dtypes: Mapping[str, DType]) -> DType:
    """The common type of a dot's operands, `given` being the tensors that are operands of the program.

    A side that is read as it lies in memory, or cast, has a type of its own; a computed side takes its partner's,
    if that is a float. Two computed sides meet in f32 (f64 if either is).
    """
    left, right = (_own_type(side, given, dtypes) for side in (term.left, term.right))
    if left is not None and right is not None:
        return join(left, right)
    own = left or right
    types = [compute(settle(dtype_of(f, dtypes))) for f in (*term.left, *term.right)]
    if not any(t.is_float for t in types):
        return reduce(join, types)
    if F64 in types:
        return F64
    if own is None or not own.is_float:
        return F32
    return BF16 if own.bits == 8 else own


def _own_type(side: tuple[Expr, ...], given: Collection[str], dtypes: Mapping[str, DType]) -> DType | None:
    if len(side) > 1:
        return None
    match side[0]:
        case Read(tensor=name):
            return dtypes[name] if name in given or dtypes[name] != F32 else None
        case Apply(op="re" | "im", args=(Read(tensor=name),)):
            return dtypes[name].part
        case Cast(dtype=dtype):
            return None if dtype == INT else dtype
        case e:
            t = settle(dtype_of(e, dtypes))
            return t if t.is_int or t.is_bool else None


def _terms(e: Expr, negative: bool) -> Iterator[tuple[bool, Expr]]:
    match e:
        case Apply(op="add", args=(x, y)):
            yield from _terms(x, negative)
            yield from _terms(y, negative)
        case Apply(op="sub", args=(x, y)):
            yield from _terms(x, negative)
            yield from _terms(y, not negative)
        case Apply(op="neg", args=(x,)):
            yield from _terms(x, not negative)
        case _:
            yield negative, e


def _factors(e: Expr) -> list[Expr] | None:
    """The factors of a product; a divisor or a condition goes to factors that have its axes. None if no factor has."""
    match e:
        case Apply(op="mul", args=(x, y)):
            left, right = _factors(x), _factors(y)
            return None if left is None or right is None else left + right
        case Apply(op="div", args=(x, y)):
            above = _factors(x)
            return above and _attach(above, axes_of(y), lambda f: Apply("div", (f, y)))
        case Apply(op="where", args=(p, x, Const(value=0))):
            inside = _factors(x)
            return inside and _restricted(inside, p)
        case _:
            return [e]


def _restricted(factors: list[Expr], domain: Expr) -> list[Expr] | None:
    """The factors, 0 outside the domain: every one that may overflow there, or else any one."""
    axes = set(axes_of(domain))
    wild = [axes <= set(axes_of(f)) and not isinstance(f, Read) and not is_finite(f) for f in factors]
    if any(wild):
        return [_masked(domain, f) if w else f for f, w in zip(factors, wild, strict=True)]
    return _attach(factors, axes_of(domain), lambda f: _masked(domain, f))


def _masked(p: Expr, f: Expr) -> Expr:
    return Apply("where", (p, f, Const(0)))


def _attach(factors: list[Expr], axes: tuple[str, ...], wrap: Callable[[Expr], Expr]) -> list[Expr] | None:
    hosts = [n for n, f in enumerate(factors) if set(axes) <= set(axes_of(f))]
    if not hosts and len(factors) > 1:
        return None
    host = min(hosts, key=lambda n: len(axes_of(factors[n]))) if hosts else 0
    return [wrap(f) if n == host else f for n, f in enumerate(factors)]


def _deal(
    eq: Equation, negative: bool, factors: list[Expr], size: Callable[[str], int], wanted: Shape | None
) -> tuple[Shape, Term] | None:
    over = set(eq.over)
    outer = tuple(f for f in factors if not over & set(axes_of(f)))
    inside = [f for f in factors if over & set(axes_of(f))]
    if not 2 <= len(inside) <= _MOST_FACTORS:
        return None
    best: tuple[tuple[int, int], Shape, Term] | None = None
    for shape, left, right in _dealings(eq.axes, eq.over, tuple(inside)):
        if wanted is not None and shape != wanted:
            continue
        rows, columns = (prod(size(a) for a in axes) for axes in (shape.rows, shape.columns))
        rank = (min(rows, columns), -_volume(left, size) - _volume(right, size))
        if best is None or rank > best[0]:
            best = rank, shape, Term(negative, outer, left, right)
    return None if best is None else best[1:]


@lru_cache(maxsize=4096)
def _dealings(
    axes: tuple[str, ...], over: tuple[str, ...], factors: tuple[Expr, ...]
) -> tuple[tuple[Shape, tuple[Expr, ...], tuple[Expr, ...]], ...]:
    """Every way to deal factors to two sides that makes a contraction, whatever the extents."""
    found = []
    for sides in choices((False, True), repeat=len(factors)):
        left = tuple(f for f, right in zip(factors, sides, strict=True) if not right)
        right = tuple(f for f, right in zip(factors, sides, strict=True) if right)
        shape = _shape(axes, over, left, right)
        if shape is not None:
            found.append((shape, left, right))
    return tuple(found)


def _shape(
    axes: tuple[str, ...], over: tuple[str, ...], left: tuple[Expr, ...], right: tuple[Expr, ...]
) -> Shape | None:
    on_left, on_right = ({a for f in side for a in axes_of(f)} for side in (left, right))
    rows = tuple(a for a in axes if a in on_left and a not in on_right)
    columns = tuple(a for a in axes if a in on_right and a not in on_left)
    batch = tuple(a for a in axes if a not in rows and a not in columns)
    if not rows or not columns or not any(a in on_left and a in on_right for a in over):
        return None
    if axes.index(rows[-1]) > axes.index(columns[-1]):
        return None  # the mirror image puts the last output axis, usually the contiguous one, on the columns
    return Shape(batch, rows, columns, over)


def _volume(side: tuple[Expr, ...], size: Callable[[str], int]) -> int:
    return prod(size(a) for a in {a for f in side for a in axes_of(f)})
