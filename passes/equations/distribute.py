"""Split a sum of terms that are normalised differently into one sum for each.

    sum[k]((x / d + y) * v)   -->   sum[k](x / d * v) + sum[k](y * v)      d a reduction over k

Only then can d leave its sum (`hoist`), and both sums come from one walk over k: the difference of two softmaxes times
values becomes two sums that share their walk. A term that does not depend on k stays where it is, as in
(x - mean) * v, which taken apart would be the difference of large numbers.

Over several axes a term may lack one that the sum of terms had, so that its factors are contracted by themselves:

    sum[j, k]((x[j] / d + y[k]) * v[j] * w[k])   -->   W = sum[k](w);  sum[j](x[j] / d * v[j] * W) + ...
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import reduce

from einc.base.types import DType, join
from einc.ein import Apply, Equation, Expr, Program, Read, Tensor, axes_of, tensors_of
from einc.ein.guards import composite
from einc.ein.inference import dtype_of, reduced_type
from einc.ein.rewriting import names, unused
from einc.passes.algebra.products import is_zero, taken_apart
from einc.passes.algebra.scope import accumulated
from einc.passes.equations.order_contractions import contracted
from einc.pipeline import Context

_MOST_TERMS = 4


def distribute(program: Program, context: Context) -> Program:
    """The program with such sums taken apart."""
    taken, done = names(program), dict[str, Equation]()
    dtypes, shapes = program.dtypes(), program.shapes()
    for e in program.equations:
        *own, whole = _parts(e, dtypes, done, taken)
        for term in own:
            taken.add(term.name)
            dtypes[term.name], shapes[term.name] = term.outputs[0].dtype, term.dims
        contractions = (part for term in own for part in contracted(term, context, dtypes, shapes, taken))
        done |= {part.name: part for part in (*contractions, whole)}
    return replace(program, equations=tuple(done.values()))


def _parts(e: Equation, dtypes: dict[str, DType], done: dict[str, Equation], taken: set[str]) -> list[Equation]:
    """The sums of the terms, then the equation that adds them up, or the equation itself where it is not split."""
    if e.monoid is None or e.monoid.op != "add" or e.outputs[0].dtype.is_complex:
        return [e]
    found = terms(e.body, e.over)
    if not 1 < len(found) <= _MOST_TERMS:
        return [e]
    if len({_normalisers(t, e, done) for t in found}) < 2:  # what all have leaves the sum as it is
        return [e]
    own: list[Equation] = []
    for term in found:
        dtype = accumulated(e.monoid, term, e.outputs[0].dtype, dtypes)
        dtype = join(dtype, reduced_type(e.monoid, 0, dtype_of(term, dtypes)))
        name = unused(f"{e.name}_term", taken | {t.name for t in own})
        own.append(replace(e, outputs=(Tensor(name, dtype),), bodies=(term,)))
    index = tuple(composite(dim) for dim in e.dims)
    reads: list[Expr] = [Read(t.name, index) for t in own]
    total = reduce(lambda a, b: Apply("add", (a, b)), reads)
    return [*own, replace(e, bodies=(total,), monoid=None, over=(), domain=None)]


def terms(e: Expr, over: Collection[str]) -> list[Expr]:
    """The terms of an expression, with products and quotients multiplied out; each depends on the axes."""
    match e:
        case Apply("add" | "sub" as op, (x, y)) if all(set(over) & set(axes_of(side)) for side in (x, y)):
            right = terms(y, over)
            return terms(x, over) + (right if op == "add" else [Apply("neg", (t,)) for t in right])
        case Apply("neg", (x,)):
            return [Apply("neg", (t,)) for t in terms(x, over)]
        case Apply("mul", (x, y)):
            return [Apply("mul", (s, t)) for s in terms(x, over) for t in terms(y, over)]
        case Apply("div", (x, d)):
            return [Apply("div", (t, d)) for t in terms(x, over)]
        case Apply("where", (p, x, zero)) if is_zero(zero):
            return [Apply("where", (p, t, zero)) for t in terms(x, over)]
        case _:
            return [e]


def _normalisers(term: Expr, e: Equation, done: dict[str, Equation]) -> frozenset[tuple[bool, Expr]]:
    """The factors, and the divisors, that could leave the sum and depend on a reduction over the same axes."""

    def stays(x: Expr) -> bool:
        return set(e.over).isdisjoint(axes_of(x))

    def reduces(x: Expr) -> bool:
        return any(_reduced(name, set(e.over), done) for name in tensors_of(x))

    product = taken_apart(term, "mul", stays, stays)
    outer = [*((True, d) for d in product.divisors), *((False, f) for f in product.factors if stays(f))]
    return frozenset((divides, x) for divides, x in outer if reduces(x))


def _reduced(name: str, over: set[str], done: dict[str, Equation]) -> bool:
    """Does the tensor depend, directly or not, on a reduction over one of these axes?"""
    seen, stack = set[str](), [name]
    while stack:
        source = done.get(stack.pop())
        if source is None or source.name in seen:
            continue
        if over & set(source.over):
            return True
        seen.add(source.name)
        stack += [n for x in source.expressions() for n in tensors_of(x)]
    return False
