"""Expansions: sums of products that depend on the walked axes, with coefficients that do not.

    (x - m) ** 2   -->   1 * x ** 2  +  -2 * m * x  +  m ** 2 * 1

An **expansion** has a coefficient for each **monomial**, a product of powers. Coefficients are combined by `call`, so
that operations on 0, 1 and equal terms are folded, and what cancels disappears.
"""

from __future__ import annotations

from einc.ein import ONE, ZERO, Apply, Const, Expr
from einc.passes.algebra.folding import ZEROS, call, indicator

# A product of powers of factors that have no further structure; the empty product is 1.
Monomial = tuple[tuple[Expr, int], ...]
Expansion = dict[Monomial, Expr]

_MOST_TERMS = 64


# ---------------------------------------------------------------------------------------------------------------------
# Expansions


def written(m: Monomial) -> Expr:
    """A monomial as an expression; its indicators become masks around the rest, so that 0 times anything is 0."""
    whole: Expr | None = None
    masks = []
    for factor, power in m:
        match factor:
            case Apply(op="where", args=(p, x, y)) if x == ONE and y == ZERO:
                masks.append(p)
                continue
        for _ in range(power):
            whole = factor if whole is None else Apply("mul", (whole, factor))
    body = ONE if whole is None else whole
    for p in masks:
        body = Apply("where", (p, body, ZERO))
    return body


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for factor, power in b:
        is_mask = isinstance(factor, Apply) and factor == indicator(factor.args[0])
        powers[factor] = 1 if is_mask else powers.get(factor, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: repr(item[0])))


def added(a: Expansion | None, b: Expansion | None) -> Expansion | None:
    if a is None or b is None:
        return None
    whole = dict(a)
    for m, c in b.items():
        whole[m] = call("add", whole.get(m, ZERO), c)
    return whole


def within(p: Expr, a: Expansion | None) -> Expansion | None:
    """The expansion where a predicate holds, and nothing elsewhere."""
    return None if a is None else {m: call("where", p, c, ZERO) for m, c in a.items() if c not in ZEROS}


def scaled(a: Expansion | None, c: Expr) -> Expansion | None:
    if a is None:
        return None
    return {m: call("neg", x) if c == Const(-1) else call("mul", c, x) for m, x in a.items()}


def multiplied(a: Expansion | None, b: Expansion | None) -> Expansion | None:
    if a is None or b is None or len(a) * len(b) > _MOST_TERMS:
        return None
    whole: Expansion = {}
    for m, c in a.items():
        for n, d in b.items():
            mn = _times(m, n)
            whole[mn] = call("add", whole.get(mn, ZERO), call("mul", c, d))
    return whole
