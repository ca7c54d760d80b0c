"""A product taken apart into its factors, and put together again, for the laws about sums of products.

    where(p, -(x * y) / d * z, 0)   <-->   mask p, sign, factors x, y, z, divisor d

A `where` whose other side is 0 masks the whole product and may come out of it: 0 * v counts as 0 whatever v is. If it
may not come out, masks inside it still may, together with the divisors that they keep from being 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce

from einc.ein import FALSE, ONE, TRUE, ZERO, Apply, Const, Expr


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
