"""A sum of products as contractions of two sides: which axes are rows, columns, batch and inner.

    sum[r...] ± f₁·f₂·…   -->   outer · Σ[inner] left[batch, rows, inner] · right[batch, inner, columns]

The factors of a product are dealt to two sides. An output axis on both sides is a batch axis, on the left a row, on
the right a column; a factor without reduced axes is outer and multiplies the finished sum. There must be a row, a
column, and an inner axis on both sides; otherwise the product is not a contraction and is reduced by position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import prod

from einc.base.types import BOOL, I8, DType, accumulator, join, settle
from einc.ein import Apply, Cast, Const, Equation, Expr, Read, axes_of
from einc.ein.dealing import MOST_FACTORS, Dealing, Shape, dealings, terms_of
from einc.ein.inference import dtype_of
from einc.passes.algebra.identities import widens
from einc.passes.algebra.signs import is_finite


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
    if eq.added:
        return None
    axes = dict.fromkeys((*axes_of(body), *(() if eq.domain is None else axes_of(eq.domain))))
    return _contraction(eq, body, tuple((a, size(a)) for a in axes), shape)


@lru_cache(maxsize=4096)
def _contraction(
    eq: Equation, body: Expr, extents: tuple[tuple[str, int], ...], shape: Shape | None
) -> Contraction | None:
    """The same by the extents of the axes: a search for kernels asks for it again and again."""
    size = dict(extents).__getitem__
    terms = []
    for negative, term in terms_of(body):
        factors = _factors(term)
        if factors is None:
            return None
        domain = eq.domain
        if domain is not None:
            factors = _restricted(factors, domain)
            if factors is None:
                return None
        dealt = _deal(eq, negative != _is_negated(term), factors, size, shape)
        if dealt is None:
            return None
        shape, found = dealt
        terms.append(found)
    if shape is None or len({t.outer for t in terms}) > 1:
        return None
    return Contraction(shape, tuple(terms))


def operand_type(term: Term, product: DType | None, dtypes: Mapping[str, DType]) -> DType:
    """The common type of a dot's operands: the type that the contraction multiplies in, if that is a float type.

    Integers are as wide as the tensors they are read from, since widening before the product does not change it.
    """
    if product is not None:
        return product
    return reduce(join, (_whole(side, dtypes) for side in (term.left, term.right)))


def _whole(side: tuple[Expr, ...], dtypes: Mapping[str, DType]) -> DType:
    """An integer type that holds every value of a side; a computed value may be any of the type it is summed in."""
    types = [_least(f, dtypes) for f in side]
    return types[0] if len(side) == 1 else accumulator(reduce(join, types))


def _least(e: Expr, dtypes: Mapping[str, DType]) -> DType:
    match e:
        case Read(tensor=name):
            return I8 if dtypes[name].is_bool else dtypes[name]
        case Cast(dtype=dtype, arg=arg):
            below = _least(arg, dtypes)
            return below if widens(below, dtype) else dtype
        case Apply(op="where", args=(_, x, Const(value=0))):
            return _least(x, dtypes)
        case _:
            t = dtype_of(e, dtypes)
            return I8 if t == BOOL else accumulator(settle(t))


def _factors(e: Expr) -> list[Expr] | None:
    """The factors of a product, without signs; a divisor or a condition is attached to a factor that has its axes.

    None if no factor has them.
    """
    match e:
        case Apply(op="mul", args=(x, y)):
            left, right = _factors(x), _factors(y)
            return None if left is None or right is None else left + right
        case Apply(op="neg", args=(x,)):
            return _factors(x)
        case Apply(op="div", args=(x, y)):
            above = _factors(x)
            return above and _attach(above, axes_of(y), lambda f: Apply("div", (f, y)))
        case Apply(op="where", args=(p, x, Const(value=0))):
            inside = _factors(x)
            return inside and _restricted(_with_masked(inside, p), p)
        case _:
            return [e]


def _with_masked(factors: list[Expr], p: Expr) -> list[Expr]:
    """The factors of a masked product, those of fewer axes than the mask along with one that has them all.

    Whatever they are where nothing counts, the mask keeps it from being multiplied by 0.
    """
    own = set(axes_of(p))
    hosts = [n for n, f in enumerate(factors) if own <= set(axes_of(f))]
    fewer = [f for f in factors if set(axes_of(f)) and set(axes_of(f)) < own]
    if not hosts or not fewer:
        return factors
    host = min(hosts, key=lambda n: len(axes_of(factors[n])))
    whole = reduce(lambda x, y: Apply("mul", (x, y)), [*fewer, factors[host]])
    return [whole if n == host else f for n, f in enumerate(factors) if f not in fewer]


def _is_negated(e: Expr) -> bool:
    """Do the factors of a product have an odd number of minus signs?"""
    match e:
        case Apply(op="mul", args=(x, y)):
            return _is_negated(x) != _is_negated(y)
        case Apply(op="neg", args=(x,)):
            return not _is_negated(x)
        case Apply(op="div", args=(x, _)) | Apply(op="where", args=(_, x, Const(value=0))):
            return _is_negated(x)
        case _:
            return False


def _restricted(factors: list[Expr], domain: Expr) -> list[Expr] | None:
    """The factors, set to 0 outside the domain: each that may overflow there, or else any one of them."""
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
    if not 2 <= len(inside) <= MOST_FACTORS:
        return None
    found = [d for d in dealings(eq.axes, eq.over, tuple(inside)) if wanted is None or d[0] == wanted]
    if not found:
        return None

    def rank(dealt: Dealing) -> tuple[int, int]:
        shape, left, right = dealt
        rows, columns = (prod(size(a) for a in axes) for axes in (shape.rows, shape.columns))
        return min(rows, columns), -_volume(left, size) - _volume(right, size)

    shape, left, right = found[0] if len(found) == 1 else max(found, key=rank)
    return shape, Term(negative, outer, left, right)


def _volume(side: tuple[Expr, ...], size: Callable[[str], int]) -> int:
    return prod(size(a) for a in {a for f in side for a in axes_of(f)})
