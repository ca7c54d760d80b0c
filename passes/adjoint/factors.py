"""Names for the factors of sums of products, so that each gets its gradient at once.

    Y[n, e] = sum[h](silu(G[n, h]) * U[n, h] * W[h, e])  -->  Y_nh[n, h] = silu(G) * U;  Y[n, e] = sum[h](Y_nh * W)

The gradient of what has a name is one contraction, dY_nh = sum[e](dY * W), from which those of G and U follow position
by position; without one, each read would get a contraction of its own.
"""

from __future__ import annotations

from dataclasses import replace

from einc.base.types import DType, compute, settle
from einc.ein import AxisValue, Equation, Expr, Program, Read, Tensor, axes_of
from einc.ein.inference import dtype_of
from einc.ein.rewriting import names, unused
from einc.passes.algebra.products import Product, multiplied, taken_apart


def named_factors(program: Program) -> Program:
    """The program with a name for every factor of a sum that is more than a read, by the axes that it varies over."""
    taken, dtypes = names(program), program.dtypes()
    found: list[Equation] = []
    for e in program.equations:
        if e.monoid is not None and e.monoid.adds and len(e.bodies) == 1:
            found += _named(e, taken, dtypes)
        else:
            found.append(e)
    return replace(program, equations=tuple(found))


def _named(e: Equation, taken: set[str], dtypes: dict[str, DType]) -> list[Equation]:
    """A sum, after the equations of its factors."""
    product = taken_apart(e.body, "mul", lambda _: False, lambda _: True)
    groups: dict[frozenset[str], Product] = {}
    for f in product.factors:
        groups.setdefault(frozenset(axes_of(f)), Product()).factors.append(f)
    if sum(map(bool, groups)) < 2:
        return [e]
    outside: list[Expr] = []
    for d in product.divisors:
        home = next((g for axes, g in groups.items() if axes and axes.issuperset(axes_of(d))), None)
        (outside if home is None else home.divisors).append(d)
    found: list[Equation] = []
    factors: list[Expr] = []
    for axes, group in groups.items():
        body = group.around(multiplied(group.factors))
        t = settle(dtype_of(body, dtypes))
        bare = not group.divisors and all(isinstance(f, Read) for f in group.factors)
        if not axes or bare or not (t.is_float or t.is_complex):
            factors += group.factors if not group.divisors else [body]
            continue
        order = [a for a in (*e.axes, *e.over) if a in axes]
        name = unused(f"{e.name}_{''.join(order)}", taken)
        taken.add(name)
        dtypes[name] = compute(t)
        found.append(Equation((Tensor(name, compute(t)),), tuple((a,) for a in order), (body,)))
        factors.append(Read(name, tuple(map(AxisValue, order))))
    whole = Product("mul", product.negative, product.masks, factors, outside)
    return [*found, replace(e, bodies=(whole.around(multiplied(factors)),))]
