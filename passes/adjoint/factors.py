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
    """A sum, after the equations of its factors, and before that of what multiplies the whole."""
    product = taken_apart(e.body, "mul", lambda _: False, lambda _: True)
    whole = Product("mul", product.negative, product.masks)  # what does not vary along the sum
    groups: dict[frozenset[str], Product] = {}
    for f in product.factors:
        axes = frozenset(axes_of(f))
        outside = axes and axes.isdisjoint(e.over)
        (whole if outside else groups.setdefault(axes, Product())).factors.append(f)
    for d in product.divisors:
        home = next((g for axes, g in groups.items() if axes and axes.issuperset(axes_of(d))), None)
        outside = set(axes_of(d)).isdisjoint(e.over)
        (whole if outside or home is None else home).divisors.append(d)
    absorbed = _absorbed(groups)
    if sum(map(bool, absorbed)) < 2 and not whole.factors:
        return [e]
    found: list[Equation] = []
    factors: list[Expr] = []
    for axes, group in absorbed.items():
        body = group.around(multiplied(group.factors))
        t = settle(dtype_of(body, dtypes))
        bare = not group.divisors and all(isinstance(f, Read) for f in group.factors) and len(group.factors) == 1
        if not axes or bare or not (t.is_float or t.is_complex):
            factors += group.factors if not group.divisors else [body]
            continue
        order = [a for a in (*e.axes, *e.over) if a in axes]
        made = _named_equation(
            f"{e.name}_{''.join(order)}", compute(t), tuple((a,) for a in order), body, taken, dtypes
        )
        found.append(made)
        factors.append(Read(made.name, tuple(map(AxisValue, order))))
    if not whole.factors and not whole.divisors:
        return [*found, replace(e, bodies=(whole.around(multiplied(factors)),))]
    t = compute(e.outputs[0].dtype)
    inner = Tensor(unused(f"{e.name}_terms", taken), t)
    taken.add(inner.name)
    dtypes[inner.name] = t
    own = tuple((a,) for a in e.axes)
    total = replace(e, outputs=(inner,), dims=own, bodies=(multiplied(factors),))
    read = Read(inner.name, tuple(map(AxisValue, e.axes)))
    last = whole.around(multiplied([*whole.factors, read]))
    return [*found, total, replace(e, bodies=(last,), monoid=None, over=(), domain=None)]


def _absorbed(groups: dict[frozenset[str], Product]) -> dict[frozenset[str], Product]:
    """The groups, those that vary over a part of another's axes joined to that: a contraction has two sides."""
    found = dict(groups)
    for axes in sorted(groups, key=len):
        home = next((other for other in found if axes and axes < other), None)
        if home is not None:
            small, large = found.pop(axes), found[home]
            found[home] = Product(
                "mul", False, [], [*large.factors, *small.factors], [*large.divisors, *small.divisors]
            )
    return found


def _named_equation(
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
