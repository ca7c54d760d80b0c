"""Take out of a reduction what does not depend on its axes.

    sum[k](c * x / d)              -->   c * sum[k](x) / d                  c, d free of k
    sum[k](where(p, x, 0))         -->   where(p, sum[k](x), 0)             p free of k
    max[k](x + c), max[k](c * x)   -->   max[k](x) + c, c * max[k](x)       c free of k; a scale at least 0, not closed
    max[k](where(p, x, c))         -->   where(p, max[k](x), c)             p, c free of k
    argmax[k](x / c)               -->   argmax[k](x)                       c at least 0 and free of k
    any[k](p and q)                -->   p and any[k](q)                    and likewise all[k](p or q)

Over an empty axis both sides must be the identity. Where that cannot be proved, because c may be infinite or d 0, the
right side is put under `where(|k| == 0, identity, ...)`. Under a domain no extent tells whether it is empty, so there
only what can be proved leaves. It can be for a quotient that is guarded like softmax's, `where(l == 0, 0, x / l)` with
l a sum over the same axis. Over an axis with positions the two sides differ only where the left is infinite or NaN:
because c is, because d is 0, or because a mask kept 0 from being multiplied by a value that is.

A contraction of weights that are divided by their sum has this shape; without the law, its loop divides every weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

from einc.base.types import DType, join
from einc.ein import (
    ZERO,
    Apply,
    AxisValue,
    Equation,
    Expr,
    Extent,
    Program,
    Read,
    Tensor,
    axes_of,
    reads,
    walk,
)
from einc.ein.guards import composite
from einc.ein.inference import dtype_of, reduced_type
from einc.ein.ranges import is_closed
from einc.ein.rewriting import bottom_up, drop_dead, merge_equal, names, unused
from einc.passes.algebra.exposure import is_exposed, sheltered
from einc.passes.algebra.products import Product, multiplied, taken_apart
from einc.passes.algebra.scope import Scope, accumulated, is_stored_as
from einc.passes.algebra.signs import makes_no_negative, not_negative
from einc.passes.equations.emptiness import Emptiness, unless_empty
from einc.pipeline import Context

Around = Callable[[Expr], Expr]  # what is left around the value of a reduction
Parts = tuple[Expr, Around]  # what is reduced, and what is left around it


def hoist(program: Program, _: Context) -> Program:
    """The program with every reduction stripped of what does not depend on its axes."""
    hoisting = _Hoisting(program)
    for e in program.equations:
        hoisting.equation(e)
        hoisting.learn(e)
    return drop_dead(merge_equal(replace(program, equations=tuple(hoisting.done.values()))))


class _Hoisting:
    """The equations done, by the name of their first output, and the types and names so far."""

    def __init__(self, program: Program) -> None:
        self.done: dict[str, Equation] = {}
        self.dtypes = program.dtypes()
        self.shapes = program.shapes()
        self.scope = Scope(self.dtypes, self.shapes)
        self.empty = Emptiness(program, self.done, self.scope)
        self.taken = names(program)
        self.positive: set[str] = set()  # tensors whose elements are not negative

    def equation(self, e: Equation) -> None:
        """Add the equation as it is, or as a reduction and what is left around it."""
        parts = self.parts(opened := self.opened(e))
        if parts is None:
            self.done[e.name] = e
            return
        e = opened
        assert e.monoid is not None
        core, around, holds = parts
        name = unused(f"{e.name}_{e.monoid.name}", self.taken)
        dims = tuple((axis,) for axis in e.axes)
        reduced = replace(e, outputs=(Tensor(name, self.stored(e, core)),), dims=dims, bodies=(core, *e.bodies[1:]))
        value = Read(name, tuple(AxisValue(axis) for axis in e.axes))
        self.taken.add(name)
        self.dtypes[name], self.shapes[name] = reduced.outputs[0].dtype, dims
        self.done[name] = reduced
        body = around(value) if holds else unless_empty(e, around(value))
        if not self.empty.is_never(e):
            body = self.sheltered(body, e)
        self.done[e.name] = replace(e, bodies=(body,), monoid=None, over=(), domain=None)

    def opened(self, e: Equation) -> Equation:
        """The reduction with those tensors written out that are divided or masked by something free of its axes."""

        def opened(n: Expr) -> Expr:
            source = self.done.get(n.tensor) if isinstance(n, Read) else None
            if not isinstance(n, Read) or source is None or source.monoid is not None or n.guard is not None:
                return n
            if n.index != tuple(composite(dim) for dim in source.dims) or not set(e.over) & set(source.axes):
                return n
            if not is_stored_as(source.body, source.outputs[0].dtype, self.dtypes):
                return n
            product = taken_apart(source.body, "mul", lambda p: stays(p, e), lambda d: stays(d, e))
            return source.body if any(reads(x) for x in (*product.masks, *product.divisors)) else n

        if e.monoid is None:
            return e
        return replace(e, bodies=tuple(bottom_up(b, opened, into_reads=False) for b in e.bodies))

    def learn(self, e: Equation) -> None:
        """Note whether the tensor that an equation defines has no negative elements."""
        if makes_no_negative(e, self.positive):
            self.positive.add(e.name)

    def sheltered(self, body: Expr, e: Equation) -> Expr:
        """What is left around a reduction, without reads out of range where the empty reduction made none."""
        body = sheltered(body, None, self.shapes)
        if any(is_exposed(r, self.shapes) for r in reads(body)):
            return sheltered(unless_empty(e, body), None, self.shapes)
        return body

    def stored(self, e: Equation, core: Expr) -> DType:
        """The type of the reduction: no narrower than the original was reduced in."""
        assert e.monoid is not None
        if e.monoid.chooses:
            return e.outputs[0].dtype
        own = accumulated(e.monoid, core, e.outputs[0].dtype, self.dtypes)
        whole = reduced_type(e.monoid, 0, dtype_of(e.body, self.dtypes))
        return own if own.is_bool else join(own, whole if own.is_complex else whole.part)

    def parts(self, e: Equation) -> tuple[Expr, Around, bool] | None:
        """What leaves the reduction, and whether both sides are equal over an empty axis; None where nothing leaves."""
        if e.monoid is not None and e.monoid.chooses:
            found = self.from_choice(e)
            return None if found is None else (*found, True)
        identity = None if e.monoid is None or e.monoid.product is None else e.monoid.unit  # something may leave
        if identity is None:
            return None
        self.empty.begin()
        for candidate in (self.leaving(e), masks_only(e)):
            if candidate is not None:
                core, around = candidate
                holds = self.empty.is_never(e) or self.empty.value(around(identity), e) == identity
                if holds or e.domain is None:
                    return core, around, holds
        return None

    def leaving(self, e: Equation) -> Parts | None:
        assert e.monoid is not None
        match e.monoid.product:
            case "mul":
                return self.from_sum(e)
            case "and" | "or" as op:
                return _from_junction(e, op)
            case _:
                return self.from_extreme(e) if self.scope.type(e.body).is_float else None

    def from_sum(self, e: Equation) -> Parts | None:
        """Factors, divisors and masks, except those that keep a sum from overflowing.

        These are a maximum that divides more than once, and a divisor of a single factor that is not its sum: there is
        little to gain where nothing is contracted.
        """
        divisors = [n.args[1] for n in walk(e.body) if isinstance(n, Apply) and n.op == "div"]
        kept = {d for d in divisors if divisors.count(d) > 1 and self.is_maximum(d)}
        whole = taken_apart(e.body, "mul", lambda p: stays(p, e), lambda d: stays(d, e))
        if sum(not stays(f, e) for f in whole.factors) == 1:
            kept |= {d for d in divisors if not self.is_total(d, e)}
        product = taken_apart(e.body, "mul", lambda p: stays(p, e), lambda d: stays(d, e) and d not in kept)
        return _parted(product, e)

    def is_total(self, d: Expr, e: Equation) -> bool:
        """Is it made of a sum over the same axes, as a normaliser of weights is?"""
        sources = [self.done[r.tensor] for r in reads(d) if r.tensor in self.done]
        return any(
            self.is_total(s.body, e) if s.monoid is None else s.monoid.op == "add" and set(e.over) <= set(s.over)
            for s in sources
        )

    def is_maximum(self, x: Expr) -> bool:
        """Is it a maximum or a minimum, or made of one?"""
        sources = [self.done[r.tensor] for r in reads(x) if r.tensor in self.done]
        return any(
            any(map(self.is_maximum, s.bodies)) if s.monoid is None else s.monoid.extreme is not None for s in sources
        )

    def from_extreme(self, e: Equation) -> Parts | None:
        """Terms, scales that are not negative, and masks, from the outermost inwards.

        A scale that is the same everywhere stays with what it scales, which others read scaled too: all of them are in
        the same units then, however a program is written, and none has fewer positions without it.
        """
        core: Expr = e.body
        around: Around = _nothing
        found: Parts | None = None
        while (one := self.one_from_extreme(core, e)) is not None:
            inside, inner = one
            around = _composed(around, inner)
            found = found if is_closed_scale(core, inside) else (inside, around)
            core = inside
        return None if found is None or stays(found[0], e) else found

    def one_from_extreme(self, x: Expr, e: Equation) -> Parts | None:
        match x:
            case Apply("add" | "mul" as op, (c, y)) if stays(c, e) and (op == "add" or self.scales(c)):
                return y, lambda value: Apply(op, (c, value))
            case Apply("add" | "sub" | "mul" | "div" as op, (y, c)) if stays(c, e) and (
                op in ("add", "sub") or self.scales(c)
            ):
                return y, lambda value: Apply(op, (value, c))
            case Apply("where", (p, y, other)) if stays(p, e) and stays(other, e):
                return y, lambda value: Apply("where", (p, value, other))
            case Apply("where", (p, other, y)) if stays(p, e) and stays(other, e):
                return y, lambda value: Apply("where", (p, other, value))
            case _:
                return None

    def from_choice(self, e: Equation) -> Parts | None:
        """The value that a position is chosen by (the first of equals), without what does not change the choice."""
        assert e.monoid is not None
        if e.monoid.order is None or 0 in e.monoid.results:  # the value that is chosen would change
            return None
        core: Expr = e.body
        around: Around = _nothing
        while True:
            match core:
                case Apply("where", (p, other, y)) | Apply("where", (p, y, other)) if stays(p, e) and stays(other, e):
                    if e.domain is not None:
                        break
                    around = _composed(around, _unless(p if core.args[1] is other else Apply("not", (p,)), e))
                    core = y
                case Apply("div", (y, c)) if stays(c, e) and self.scales(c):
                    core = y
                case _:
                    break
        return None if core is e.body or stays(core, e) else (core, around)

    def scales(self, c: Expr) -> bool:
        """Is it at least 0, so that multiplying by it keeps the order?"""
        return not_negative(c, self.positive)


def is_closed_scale(x: Expr, inside: Expr) -> bool:
    """Is x what is inside times or by a value that is the same everywhere?"""
    match x:
        case Apply("mul" | "div", args):
            return any(a is not inside and is_closed(a) for a in args)
        case _:
            return False


def stays(x: Expr, e: Equation) -> bool:
    """Is the value the same at every position of the reduced axes?"""
    return set(e.over).isdisjoint(axes_of(x))


# ---------------------------------------------------------------------------------------------------------------------
# The parts that leave


def masks_only(e: Equation) -> Parts | None:
    """The masks of a sum, which may leave even if nothing else may."""
    if e.monoid is None or e.monoid.op != "add":
        return None
    product = taken_apart(e.body, "mul", lambda p: stays(p, e), lambda _: False)
    sign, product.negative = product.negative, False
    core = multiplied(product.factors)
    return (Apply("neg", (core,)) if sign else core, product.around) if product.masks else None


def _from_junction(e: Equation, op: str) -> Parts | None:
    product = taken_apart(e.body, op, lambda p: op == "and" and stays(p, e), lambda _: False)
    return _parted(product, e)


def _parted(product: Product, e: Equation) -> Parts | None:
    outer = [f for f in product.factors if stays(f, e)]
    moving = [f for f in product.factors if not stays(f, e)]
    if not moving or not (outer or product.masks or product.divisors):
        return None
    core = multiplied(moving, product.op)
    return core, lambda value: product.around(multiplied((*outer, value), product.op))


def _unless(p: Expr, e: Equation) -> Around:
    """Position 0 where p holds and no position elsewhere; over an empty axis there is none, whatever p is."""
    there = reduce(lambda a, b: Apply("and", (a, b)), (Apply("gt", (Extent(a), ZERO)) for a in e.over), p)
    return lambda value: Apply("where", (there, ZERO, value))


def _nothing(value: Expr) -> Expr:
    return value


def _composed(outer: Around, inner: Around) -> Around:
    return lambda value: outer(inner(value))
