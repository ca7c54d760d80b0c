"""Split a sum over a product of three or more into sums over products of two.

    sum[j, k](A[i, j] * B[j, k] * C[k, l])   -->   T[i, k] = sum[j](A * B);  sum[k](T * C)

The order is opt_einsum's, for the extents hinted at. Factors with all their axes on another factor are elementwise with
it; factors without reduced axes stay with the last sum, as do the axes of a domain or of a mask of the whole product.
A split is made where it at least halves the positions visited, so that it pays for its intermediate. An axis that only
one factor has is summed in that factor first: with three factors always, with two where it pays. `any` of `and` is
split alike. Values are taken to be finite: an empty sum times infinity is not 0.

A chain of three n*n matrices takes n**4 steps at once and 2 * n**3 in two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod

from einc.base.types import DType
from einc.ein import FALSE, ZERO, Apply, Equation, Expr, Extent, Program, Read, Tensor, axes_of, reads
from einc.ein.guards import composite, conjoin
from einc.ein.rewriting import merge_equal, names, unused
from einc.passes.algebra.exposure import Dims, sheltered
from einc.passes.algebra.products import Product, is_zero, multiplied, taken_apart
from einc.passes.algebra.scope import accumulated
from einc.pipeline import Context

_WORTHWHILE = 2  # times fewer multiplications


def order_contractions(program: Program, context: Context) -> Program:
    """The program with every product of several factors contracted in the cheapest order found."""
    dtypes, shapes, taken = program.dtypes(), program.shapes(), names(program)
    equations: list[Equation] = []
    for e in program.equations:
        equations += contracted(e, context, dtypes, shapes, taken)
    return merge_equal(replace(program, equations=tuple(equations)))


def contracted(
    e: Equation, context: Context, dtypes: dict[str, DType], shapes: dict[str, Dims], taken: set[str]
) -> list[Equation]:
    """An equation after those that contract its factors in the cheapest order found; alone where nothing pays.

    What is known of tensors, and the names that are taken, grow with every intermediate.
    """
    if e.monoid is None or e.added or e.monoid.product is None or e.monoid.unit not in (ZERO, FALSE):
        return [e]
    return _Split(e, context, dtypes, shapes, taken).equations()


@dataclass(frozen=True, slots=True)
class Group:
    """Factors that are multiplied position by position, with their places in the product, and their axes."""

    factors: tuple[tuple[int, Expr], ...]
    axes: frozenset[str]

    def __add__(self, other: Group) -> Group:
        return Group(tuple(sorted((*self.factors, *other.factors), key=lambda f: f[0])), self.axes | other.axes)


class _Split:
    """One equation on its way to several; `dtypes`, `shapes` and `taken` grow with every intermediate."""

    def __init__(
        self, e: Equation, context: Context, dtypes: dict[str, DType], shapes: dict[str, Dims], taken: set[str]
    ) -> None:
        assert e.monoid is not None
        assert e.monoid.product is not None
        self.whole, self.context = e, context
        self.dtypes, self.shapes, self.taken = dtypes, shapes, taken
        self.monoid, self.op = e.monoid, e.monoid.product
        self.over = list(e.over)
        self.made: list[Equation] = []
        body = e.body
        masks: list[Expr] = []  # those of the whole product
        while isinstance(body, Apply) and body.op == "where" and is_zero(body.args[2]):
            masks.append(body.args[0])
            body = body.args[1]
        self.product = taken_apart(body, self.op, self.stays, lambda _: True)
        self.product.masks[:0] = masks
        self.attach_divisors()
        self.outer = [f for f in self.product.factors if self.stays(f)]
        moving = enumerate(f for f in self.product.factors if not self.stays(f))
        self.groups = [Group(((k, f),), frozenset(axes_of(f))) for k, f in moving]
        conditions = [*masks, *(() if e.domain is None else (e.domain,))]
        self.kept = {*e.axes, *(axis for p in conditions for axis in axes_of(p))}

    def stays(self, e: Expr) -> bool:
        """Is the value the same all along the reduced axes?"""
        return set(self.whole.over).isdisjoint(axes_of(e))

    def attach_divisors(self) -> None:
        """Put each divisor that depends on reduced axes under a factor with its axes, or make it a factor itself."""
        factors, moving = self.product.factors, [d for d in self.product.divisors if not self.stays(d)]
        self.product.divisors = [d for d in self.product.divisors if self.stays(d)]
        for d in moving:
            hosts = (k for k, f in enumerate(factors) if set(axes_of(f)) >= set(axes_of(d)))
            k = next(hosts, None)
            if k is None:
                factors.append(Apply("div", (multiplied(()), d)))
            else:
                factors[k] = Apply("div", (factors[k], d))

    def equations(self) -> list[Equation]:
        """The intermediates, then the equation that is left; the equation as it was where nothing pays."""
        if len(self.groups) > 1:
            self.sum_private_axes()
            self.groups = absorbed(self.groups, self.volume)
            if len(self.groups) > 2:
                self.contract()
        if not self.made:
            return [self.whole]
        moving = [f for _, f in sum(self.groups[1:], self.groups[0]).factors]
        body = self.product.around(multiplied((*self.outer, *moving), self.op))
        body = self.sheltered(body, {*self.whole.axes, *self.over})
        return [*self.made, self.last(body)]

    def last(self, body: Expr) -> Equation:
        """The equation that is left; pointwise where everything has been summed."""
        if self.over:
            return replace(self.whole, bodies=(body,), over=tuple(self.over))
        if self.whole.domain is not None:
            body = Product(self.op, masks=[self.whole.domain]).around(body)
        return replace(self.whole, bodies=(body,), monoid=None, over=(), domain=None)

    def sheltered(self, body: Expr, axes: Collection[str]) -> Expr:
        """The body of an equation over some of the axes, without reads out of range where the other axes are empty."""
        others = [a for a in (*self.whole.axes, *self.whole.over) if a not in axes]
        some = (Apply("gt", (Extent(axis), ZERO)) for axis in others)
        return sheltered(body, reduce(conjoin, some, None), self.shapes)

    def volume(self, axes: Iterable[str]) -> int:
        return prod(max(self.context.size(axis), 1) for axis in axes)

    def summed(self, group: Group, others: Iterable[Group]) -> list[str]:
        """The reduced axes of a group that no other group needs."""
        needed = self.kept.union(*(g.axes for g in others))
        return [axis for axis in self.over if axis in group.axes and axis not in needed]

    def sum_private_axes(self) -> None:
        """Sum the axes that only one group has."""
        private = [self.summed(g, self.without(g)) for g in self.groups]
        left = [g.axes - set(p) for g, p in zip(self.groups, private, strict=True)]
        first = sum(self.volume(g.axes) for g, p in zip(self.groups, private, strict=True) if p)
        cost = first + self.volume(frozenset().union(*left))
        if len(self.groups) > 2 or _WORTHWHILE * cost <= self.at_once():
            self.groups = [self.reduced(g, p) if p else g for g, p in zip(self.groups, private, strict=True)]

    def without(self, *groups: Group) -> list[Group]:
        return [g for g in self.groups if all(g is not other for other in groups)]

    def at_once(self) -> int:
        """The positions of the groups' product taken in one step."""
        return self.volume(frozenset().union(*(g.axes for g in self.groups)))

    def contract(self) -> None:
        """If it pays, contract pair by pair in the order found, and leave the last pair to the equation."""
        path = cheapest_path([g.axes for g in self.groups], self.kept, self.volume)
        if _WORTHWHILE * self.cost(path) > self.at_once():
            return
        for pair in path[:-1]:
            chosen = [self.groups[k] for k in pair]
            self.groups = self.without(*chosen)
            together = sum(chosen[1:], chosen[0])
            private = self.summed(together, self.groups)
            self.groups.append(self.reduced(together, private) if private else together)

    def cost(self, path: Sequence[tuple[int, ...]]) -> int:
        """The positions that all steps of a path visit."""
        axes, total = [g.axes for g in self.groups], 0
        for pair in path:
            union = frozenset().union(*(axes[k] for k in pair))
            axes = [a for k, a in enumerate(axes) if k not in pair]
            needed = self.kept.union(*axes)
            axes.append(frozenset(a for a in union if a in needed or a not in self.over))
            total += self.volume(union)
        return total

    def reduced(self, group: Group, over: Sequence[str]) -> Group:
        """The sum of a group over some of its axes as an intermediate, which is a group again."""
        factors = [f for _, f in group.factors]
        body = self.sheltered(multiplied(factors, self.op), group.axes)
        axes = tuple(a for a in axes_of(multiplied(factors, self.op)) if a not in over)
        name = unused(f"{self.whole.name}_{'_'.join(_title(f) for f in factors)}", self.taken)
        dims = tuple((axis,) for axis in axes)
        stored = accumulated(self.monoid, body, self.whole.outputs[0].dtype, self.dtypes)
        whole, outputs = self.whole, (Tensor(name, stored),)
        made = Equation(outputs, dims, (body,), self.monoid, tuple(over), span=whole.span, product=whole.product)
        self.made.append(made)
        self.taken.add(name)
        self.dtypes[name], self.shapes[name] = stored, dims
        self.over = [a for a in self.over if a not in over]
        read = Read(name, tuple(composite(dim) for dim in dims))
        return Group(((group.factors[0][0], read),), frozenset(axes))


def _title(factor: Expr) -> str:
    """The part of an intermediate's name for a factor: the first tensor that it reads."""
    return next((r.tensor for r in reads(factor)), "axes")


def absorbed(groups: Sequence[Group], volume: Callable[[Iterable[str]], int]) -> list[Group]:
    """Each group whose axes another group has too is multiplied elementwise into the smallest such group."""
    left = sorted(groups, key=lambda g: volume(g.axes))
    for k, g in enumerate(left):
        host = next((n for n in range(k + 1, len(left)) if left[n].axes >= g.axes), None)
        if host is not None:
            left[host] = g + left[host]
            return absorbed([*left[:k], *left[k + 1 :]], volume)
    return left


def cheapest_path(
    axes: Sequence[frozenset[str]], kept: Collection[str], volume: Callable[[Iterable[str]], int]
) -> list[tuple[int, ...]]:
    """Which groups to contract in each step, by place; the result of a step is appended."""
    from opt_einsum import contract_path, get_symbol

    all_axes = sorted(frozenset().union(*axes))
    letter = {axis: get_symbol(k) for k, axis in enumerate(all_axes)}
    inputs = [sorted(group) for group in axes]
    terms = ["".join(letter[axis] for axis in group) for group in inputs]
    out = "".join(letter[axis] for axis in all_axes if axis in kept)
    shapes = [tuple(volume((axis,)) for axis in group) for group in inputs]
    path, _ = contract_path(f"{','.join(terms)}->{out}", *shapes, shapes=True, optimize="auto")
    return [tuple(step) for step in path]
