"""Names for the factors of sums of products, so that each gets its gradient at once.

    Y[n, e] = sum[h](silu(G[n, h]) * U[n, h] * W[h, e])  -->  Y_nh[n, h] = silu(G) * U;  Y[n, e] = sum[h](Y_nh * W)

The gradient of what has a name is one contraction, dY_nh = sum[e](dY * W), from which those of G and U follow position
by position; without one, each read would get a contraction of its own.
"""

from __future__ import annotations

from dataclasses import replace

from einc.base.types import DType, compute, settle
from einc.ein import ONE, AxisValue, Equation, Expr, Program, Read, Tensor, axes_of
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
    """A sum, after the equations of its factors, and before that of what multiplies the whole."""
    product = taken_apart(e.body, "mul", lambda _: False, lambda _: True)
    whole, groups = _grouped(product, e.over)
    if len(groups) < 2 and not whole.factors:
        product = taken_apart(e.body, "mul", lambda _: True, lambda _: True)  # one factor, where a mask holds
        whole, groups = _grouped(product, e.over)
        if frozenset((*e.axes, *e.over)) in groups or not groups:
            return [e]
    found: list[Equation] = []
    factors: list[Expr] = [f for f in product.factors if not axes_of(f) and f != ONE]
    for axes, group in groups.items():
        body = group.around(multiplied(group.factors))
        t = settle(dtype_of(body, dtypes))
        if isinstance(body, Read) or not (t.is_float or t.is_complex):
            factors.append(body)
            continue
        order = [a for a in (*e.axes, *e.over) if a in axes]
        made = _equation(f"{e.name}_{''.join(order)}", compute(t), tuple((a,) for a in order), body, taken, dtypes)
        found.append(made)
        factors.append(Read(made.name, tuple(map(AxisValue, order))))
    inside = Product("mul", product.negative, product.masks).around(multiplied(factors))
    if not whole.factors:
        return [*found, replace(e, bodies=(whole.around(inside),))]
    own = tuple((a,) for a in e.axes)
    total = _equation(f"{e.name}_terms", compute(e.outputs[0].dtype), own, inside, taken, dtypes)
    last = whole.around(multiplied([*whole.factors, Read(total.name, tuple(map(AxisValue, e.axes)))]))
    sums = replace(e, outputs=total.outputs, dims=own, bodies=(inside,))
    return [*found, sums, replace(e, bodies=(last,), monoid=None, over=(), domain=None)]


def _grouped(product: Product, over: tuple[str, ...]) -> tuple[Product, dict[frozenset[str], Product]]:
    """What of a product does not vary along a sum, and the factors that do by their axes: those that vary over a part
    of another's axes are joined to it, since a contraction has two sides."""
    whole = Product()
    groups: dict[frozenset[str], Product] = {}
    for f in product.factors:
        axes = frozenset(axes_of(f))
        if axes and axes.isdisjoint(over):
            whole.factors.append(f)
        elif axes:
            groups.setdefault(axes, Product()).factors.append(f)
    for d in product.divisors:
        axes = frozenset(axes_of(d))
        if axes.isdisjoint(over):
            whole.divisors.append(d)
            continue
        home = next((g for other, g in groups.items() if axes <= other), None)
        (groups.setdefault(axes, Product()) if home is None else home).divisors.append(d)
    for axes in sorted(groups, key=len):
        large = next((g for other, g in groups.items() if axes < other), None)
        if large is not None:
            small = groups.pop(axes)
            large.factors += small.factors
            large.divisors += small.divisors
    return whole, groups


def _equation(
    wanted: str,
    dtype: DType,
    dims: tuple[tuple[str, ...], ...],
    body: Expr,
    taken: set[str],
    dtypes: dict[str, DType],
) -> Equation:
    name = unused(wanted, taken)
    taken.add(name)
    dtypes[name] = dtype
    return Equation((Tensor(name, dtype),), dims, (body,))
