"""Quotients of exponentials, as exponentials of a difference.

    exp(x - m) / l  -->  exp(x - L)            L = m + log(l), and inf where l is 0 and the quotient is masked
    exp(x - m) / l  -->  exp(x - M - log(l))   M = m, and inf likewise      x of a type that it is computed in

    where(l != 0, x / l, 0) + where(l != 0, y / l, 0)  -->  where(l != 0, (x + y) / l, 0)

m and l are values for each row of x: what a row is shifted by, and what it is divided by. So a weight is computed again
from what is saved for its row, without masks that only keep the quotient from 0 / 0: with L = inf it is 0 by itself.
Where several things that a program makes of one sum have gradients, that of the sum is one quotient of their sum.
One number does where x has fewer digits than it is computed in. Its last place is that of m, and x - m is exact near m:
so the weights of a row in f32, of scores of 60, would all be off by 60 units of their last place. Two numbers keep it.

Flash attention keeps L (Dao 2023, *FlashAttention-2*, section 3.1.1); here it follows from the quotient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from einc.base.types import DType, compute, settle
from einc.ein import ZERO, Apply, AxisValue, Cast, Const, Equation, Expr, Read, Tensor, axes_of
from einc.ein.conditions import conjuncts
from einc.ein.origins import Origins, origin, tensors
from einc.ein.rewriting import names, unused
from einc.passes.adjoint.derivation import Derivation
from einc.passes.algebra.products import Definitions, Product, multiplied, taken_apart
from einc.passes.algebra.signs import makes_no_negative


def as_differences(d: Derivation) -> Derivation:
    """Quotients as exponentials of a difference: those of the program, and of its gradients once it has these."""
    whole = d.whole
    named = {t.name: e for e in whole.equations for t in e.outputs}
    found = _Quotients(named, whole.dtypes(), names(whole), tensors(d.program))
    if not d.differentiated:
        return replace(d, forward=tuple(found.program(d.forward)))
    for e in d.forward:
        found.know(e)
    written = found.program([e.map(joined) for e in d.backward])
    own = tuple(e for e in written if e not in found.new)
    return replace(d, forward=(*d.forward, *found.new), backward=own)


@dataclass
class _Quotients:
    """Rewrites quotients in the equations of a program, whose names are `taken`; `dtypes` are of all its tensors, and
    `origins` of those whose values have a type of their own."""

    named: dict[str, Equation]
    dtypes: dict[str, DType]
    taken: set[str]
    origins: Origins
    made: dict[tuple[str, Expr], Equation] = field(default_factory=dict)  # references of rows, by l and value
    new: list[Equation] = field(default_factory=list)  # those that the program did not have
    positive: set[str] = field(default_factory=set)  # tensors without negative elements

    def program(self, equations: Sequence[Equation]) -> list[Equation]:
        """The equations in order, rewritten, each logarithm before the first that reads it."""
        found: list[Equation] = []
        for e in equations:
            known = len(self.new)
            changed = self.rewritten(e)
            found += [*self.new[known:], changed]
            self.know(changed)
        return found

    def know(self, e: Equation) -> None:
        """Take note of an equation that others read."""
        self.named |= {t.name: e for t in e.outputs}
        if makes_no_negative(e, self.positive):
            self.positive.add(e.name)

    def rewritten(self, e: Equation) -> Equation:
        """The equation with its quotients as exponentials of a difference."""
        if e.monoid is not None and not e.monoid.adds:
            return e
        return e.map(self._terms)

    def _terms(self, e: Expr) -> Expr:
        match e:
            case Apply("add" | "sub" as op, (x, y)):
                a, b = self._terms(x), self._terms(y)
                return e if a is x and b is y else _together(op, a, b)
            case Cast(dtype, x):
                a = self._terms(x)
                return e if a is x else Cast(dtype, a)
            case _:
                return self._product(e) or e

    def _product(self, e: Expr) -> Expr | None:
        """A product with a quotient rewritten; None where it has none."""
        product = Definitions(self.named).product(e)
        for k, f in enumerate(product.factors):
            match f:
                case Apply("exp", (Apply("sub", (x, Read(tensor=m) as row)),)):
                    d = next((d for d in product.divisors if self._is_row(d, row, x)), None)
                    if isinstance(d, Read):
                        return self._with(product, k, x, m, d)
        return None

    def _with(self, product: Product, k: int, x: Expr, m: str, d: Read) -> Expr:
        """The product with its k-th factor exp(x - m) divided by d, and without the masks that this replaces."""
        is_zero = Apply("not", (Apply("eq", (d, ZERO)),))
        rows = self._references(m, d.tensor, is_zero in product.masks, self._is_narrow(x))
        exponent = reduce(lambda y, row: Apply("sub", (y, Read(row, d.index))), rows, x)
        power = Apply("exp", (exponent,))
        needless = [is_zero, Apply("not", (Apply("eq", (x, Const(-math.inf))),))]
        divisors = list(product.divisors)
        divisors.remove(d)
        factors = [*product.factors[:k], power, *product.factors[k + 1 :]]
        masks = [p for p in product.masks if p not in needless]
        return Product("mul", product.negative, masks, factors, divisors).around(multiplied(factors))

    def _is_narrow(self, x: Expr) -> bool:
        """Has a value fewer digits than it is computed in?"""
        t = settle(origin(x, self.origins).type)
        return compute(t) != t

    def _references(self, m: str, total: str, masked: bool, narrow: bool) -> list[str]:
        """What exponents of a row are taken from: L, or M and the logarithm of the total, by which it is divided."""
        at = tuple(map(AxisValue, self.named[total].axes))
        shift, divisor = Read(m, at), Read(total, at)
        log = Apply("log", (divisor,))

        def there(value: Expr, else_: float) -> Expr:
            return Apply("where", (Apply("eq", (divisor, ZERO)), Const(else_), value)) if masked else value

        if narrow:
            return [self._row(f"{total}_log", total, there(Apply("add", (shift, log)), math.inf))]
        first = self._row(f"{m}_shift", total, there(shift, math.inf)) if masked else m
        return [first, self._row(f"{total}_log", total, there(log, 0.0))]

    def _row(self, name: str, total: str, value: Expr) -> str:
        """The name of a value of each row that a total has, which the program may have already."""
        key = total, value
        if key not in self.made:
            e = self.named[total]
            known = (o for o in self.named.values() if o.monoid is None and o.bodies == (value,) and o.dims == e.dims)
            self.made[key] = next(known, None) or self._new(unused(name, self.taken), total, value)
        return self.made[key].name

    def _new(self, name: str, total: str, value: Expr) -> Equation:
        self.taken.add(name)
        self.dtypes[name] = self.dtypes[total]
        made = self.named[name] = Equation((Tensor(name, self.dtypes[total]),), self.named[total].dims, (value,))
        self.new.append(made)
        return made

    def _is_row(self, d: Expr, row: Read, x: Expr) -> bool:
        """Is a divisor one for each row, as what is subtracted is, computed by the program, and not negative?"""
        if not isinstance(d, Read) or d.guard is not None or row.guard is not None or d.index != row.index:
            return False
        if not set(axes_of(d)) < set(axes_of(x)) or self.dtypes[d.tensor] != self.dtypes[row.tensor]:
            return False
        e, other = self.named.get(d.tensor), self.named.get(row.tensor)
        if e is None or other is None or e.dims != other.dims or any(len(g) != 1 for g in e.dims):
            return False
        return d.tensor in self.positive


def joined(e: Expr) -> Expr:
    """A sum of quotients by one divisor, each masked where that is 0, as one quotient."""
    match e:
        case Apply("add" | "sub" as op, (x, y)):
            x, y = joined(x), joined(y)
            p, q = _parts(x), _parts(y)
            for d in p.divisors:
                not_zero = Apply("not", (Apply("eq", (d, ZERO)),))
                if d in q.divisors and not_zero in p.masks and not_zero in q.masks:
                    both = Apply(op, (_without(p, d, not_zero), _without(q, d, not_zero)))
                    return Product(masks=[not_zero], divisors=[d]).around(both)
            return Apply(op, (x, y))
        case _:
            return e


def _parts(e: Expr) -> Product:
    """A product taken apart, each of its masks by itself."""
    found = taken_apart(e, "mul", lambda _: True, lambda _: True)
    return replace(found, masks=[q for p in found.masks for q in conjuncts(p)])


def _without(p: Product, divisor: Expr, mask: Expr) -> Expr:
    """A product without a divisor and a mask."""
    divisors = list(p.divisors)
    divisors.remove(divisor)
    masks = [q for q in p.masks if q != mask]
    return replace(p, masks=masks, divisors=divisors).around(multiplied(p.factors))


def _together(op: str, x: Expr, y: Expr) -> Expr:
    """The sum or difference of two terms, of which the last factor is taken out where they share it."""
    match x, y:
        case Apply("mul", (a, p)), Apply("mul", (b, q)) if p == q:
            return Apply("mul", (Apply(op, (a, b)), p))
        case _:
            return Apply(op, (x, y))
