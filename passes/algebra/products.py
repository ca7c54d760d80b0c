"""Products and sums of them taken apart into factors, and put together again, for the laws about sums of products.

    where(p, -(x * y) / d * z, 0)   <-->   mask p, sign, factors x, y, z, divisor d

A `where` whose other side is 0 masks the whole product and may come out of it: 0 * v counts as 0 whatever v is. If it
may not come out, masks inside it still may, together with the divisors that they keep from being 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

from einc.ein import FALSE, ONE, TRUE, ZERO, Apply, AxisValue, Const, Equation, Expr, Read, substitute
from einc.ein.conditions import conjuncts
from einc.ein.guards import in_range_by_form


@dataclass
class Product:
    """A product in parts. It is 0 outside its masks, which are listed outermost first, and divided by its divisors in
    turn: taken apart and put together again, it is rounded as before."""

    op: str = "mul"
    negative: bool = False
    masks: list[Expr] = field(default_factory=list)
    factors: list[Expr] = field(default_factory=list)
    divisors: list[Expr] = field(default_factory=list)

    def around(self, core: Expr) -> Expr:
        """The sign, divisors and masks around a value that stands for the product of the factors."""
        value = reduce(lambda x, d: Apply("div", (x, d)), self.divisors, core)
        value = Apply("neg", (value,)) if self.negative else value
        zero = FALSE if self.op == "and" else ZERO
        return reduce(lambda x, p: _masked(p, x, zero), reversed(self.masks), value)


def _masked(p: Expr, x: Expr, zero: Expr) -> Expr:
    match p:
        case Apply("not", (q,)):
            return Apply("where", (q, zero, x))
        case _:
            return Apply("where", (p, x, zero))


def multiplied(factors: Iterable[Expr], op: str = "mul") -> Expr:
    """The product of factors from left to right; 1 for none."""
    found = list(factors)
    return reduce(lambda x, y: Apply(op, (x, y)), found) if found else TRUE if op == "and" else ONE


def taken_apart(e: Expr, op: str, mask: Callable[[Expr], bool], divisor: Callable[[Expr], bool]) -> Product:
    """The parts of a product; `mask` and `divisor` say which masks and divisors may leave their factor."""
    product = Product(op)
    stack = [e]
    while stack:
        match stack.pop():
            case Apply(name, (x, y)) if name == op:
                stack += [y, x]
            case Apply("neg", (x,)) if op == "mul":
                product.negative = not product.negative
                stack.append(x)
            case Apply("div", (x, d)) if op == "mul" and divisor(d):
                product.divisors.insert(0, d)
                stack.append(x)
            case Apply("where", (p, x, zero)) if is_zero(zero) and mask(p):
                product.masks.append(p)
                stack.append(x)
            case Apply("where", (p, zero, x)) if is_zero(zero) and mask(p):
                product.masks.append(Apply("not", (p,)))
                stack.append(x)
            case Apply("where", (p, x, zero)) if op == "mul" and is_zero(zero):
                product.factors.append(Apply("where", (p, _loosened(x, product, mask, divisor), zero)))
            case Apply("where", (p, zero, x)) if op == "mul" and is_zero(zero):
                product.factors.append(Apply("where", (p, zero, _loosened(x, product, mask, divisor))))
            case factor:
                product.factors.append(factor)
    return product


def _loosened(e: Expr, product: Product, mask: Callable[[Expr], bool], divisor: Callable[[Expr], bool]) -> Expr:
    """A masked expression without the parts that may leave through its mask, which are added to the product.

    A divisor leaves only along with a mask that keeps it from being 0: 0 / 0 at a masked position would not be 0.
    """
    inside = taken_apart(e, "mul", mask, divisor)
    kept = [d for d in inside.divisors if Apply("not", (Apply("eq", (d, ZERO)),)) not in inside.masks]
    if len(kept) == len(inside.divisors) and not inside.masks:
        return e
    product.masks += inside.masks
    product.divisors += [d for d in inside.divisors if d not in kept]
    core = reduce(lambda x, d: Apply("div", (x, d)), kept, multiplied(inside.factors))
    return Apply("neg", (core,)) if inside.negative else core


def is_zero(e: Expr) -> bool:
    """Is it a literal 0 or `false`?"""
    return isinstance(e, Const) and e.value == 0


@dataclass
class Flat:
    """A sum of one product over all axes that nested sums go over."""

    over: tuple[str, ...]
    negative: bool = False
    masks: list[Expr] = field(default_factory=list)
    factors: list[Expr] = field(default_factory=list)
    divisors: list[Expr] = field(default_factory=list)

    @property
    def parts(self) -> tuple[list[Expr], list[Expr], list[Expr]]:
        return self.factors, self.divisors, self.masks


def is_sum(e: Equation) -> bool:
    """Is it a sum of one tensor?"""
    return e.monoid is not None and e.monoid.adds and len(e.outputs) == 1


@dataclass(frozen=True, slots=True)
class Definitions:
    """Takes products and sums of them apart, through what is read in them: pointwise tensors, and sums of the names in
    `open`."""

    named: Mapping[str, Equation]
    open: frozenset[str] = frozenset()

    def sum(self, e: Equation) -> Flat:
        """A sum as one over all axes of the sums in it."""
        found = Flat(e.over, masks=conjuncts(e.domain))
        self._add(found, e.body, {*e.axes, *e.over})
        return found

    def _add(self, flat: Flat, e: Expr, taken: set[str]) -> None:
        product = taken_apart(e, "mul", lambda _: True, lambda _: True)
        flat.negative ^= product.negative
        for p in product.masks:
            flat.masks += [q for q in conjuncts(p) if q not in flat.masks]
        for x in product.factors:
            inner = self._definition(x, taken)
            if inner is None:
                flat.factors.append(x)
                continue
            over, body, domain = inner
            flat.over += over
            flat.masks += [q for q in conjuncts(domain) if q not in flat.masks]
            self._add(flat, body, {*taken, *over})
        flat.divisors += product.divisors

    def _definition(self, x: Expr, taken: set[str]) -> tuple[tuple[str, ...], Expr, Expr | None] | None:
        """What a tensor is where it is read: the axes it is summed over, the body, and where that counts."""
        if not isinstance(x, Read) or x.guard is not None or x.tensor not in self.named:
            return None
        e = self.named[x.tensor]
        if len(e.outputs) > 1 or not (e.monoid is None or (x.tensor in self.open and is_sum(e))):
            return None
        if not all(len(g) == 1 for g in e.dims) and not all(map(in_range_by_form, x.index, e.dims)):
            return None
        at = {g[0]: i for g, i in zip(e.dims, x.index, strict=True)} if all(len(g) == 1 for g in e.dims) else {}
        over = {a: _apart(a, taken) for a in e.over}
        at |= {a: AxisValue(new) for a, new in over.items()}
        domain = None if e.domain is None else substitute(e.domain, at)
        return tuple(over.values()), substitute(e.body, at), domain

    def product(self, e: Expr) -> Product:
        """A product with the pointwise tensors in it written out, where these are products."""
        whole = taken_apart(e, "mul", lambda _: True, lambda _: True)
        found = Product("mul", whole.negative, list(whole.masks), [], list(whole.divisors))
        for f in whole.factors:
            inner = self._written_out(f)
            if inner is None:
                found.factors.append(f)
                continue
            found.negative ^= inner.negative
            found.masks += [p for p in inner.masks if p not in found.masks]
            found.factors += inner.factors
            found.divisors += inner.divisors
        return found

    def _written_out(self, f: Expr) -> Product | None:
        e = self.named.get(f.tensor) if isinstance(f, Read) and f.guard is None else None
        if e is None or e.monoid is not None or len(e.outputs) > 1 or not isinstance(f, Read):
            return None
        if not all(in_range_by_form(i, g) for i, g in zip(f.index, e.dims, strict=True)):
            return None
        match e.body:
            case Apply("mul" | "div" | "neg" | "where" | "exp") | Read():
                return self.product(e.body)
            case _:
                return None


def _apart(axis: str, taken: set[str]) -> str:
    return axis if axis not in taken else _apart(f"{axis}'", taken)
