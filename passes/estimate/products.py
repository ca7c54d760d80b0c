"""The products of two tensors among plans: what generators know the best tiles and the time of.

seconds = the generator's time of the product + what follows it in the same kernel: more bytes, and its arithmetic
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

from einc import ein
from einc.base.facts import MOST_ALIGNED
from einc.ein import Apply, AxisValue, Cast, Const, Read
from einc.ein.domains import holds
from einc.passes.algebra.contraction import contraction
from einc.passes.algebra.exposure import Dims
from einc.passes.estimate.cost import Cost, Model
from einc.passes.estimate.sides import blocked, stepped
from einc.passes.estimate.units import arithmetic, reached
from einc.passes.estimate.waits import access, best
from einc.pipeline import Context, Product
from einc.pipeline.plan import Planned

_NARROW = 2  # bytes of an element that matrix units multiply


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """A plan that is one product of two tensors: its two reads, those with the rows first, and its extents."""

    plan: Planned
    sides: tuple[Read, Read]
    product: Product
    context: Context
    dims: Mapping[str, Dims]

    def fits(self, read: Read) -> bool:
        """Does a side lie in memory as its blocks are read best, with no batch axis the fastest?"""
        return access(read, self.plan, self.context) == best(read)

    def order(self, read: Read) -> tuple[int, ...]:
        """The dimensions of a side in an order in which blocks of it are rows in memory; none if there is no such.

        Batch axes come first, the others stay as they lie, but one that blocks lie along is last.
        """
        axes = [e.axis if isinstance(e, AxisValue) else "" for e in read.index]
        order = sorted(self.context.layouts[read.tensor].order, key=lambda k: axes[k] not in self.plan.batch)
        rows, columns, walked = self.plan.rows, self.plan.columns, blocked(self.plan, self.context)
        along = {*rows, *columns, *walked} if "" not in axes else {rows[-1], columns[-1], walked[-1]}
        found = sorted(
            (k for k in order if axes[k] in along), key=lambda k: (k == order[-1], self.context.size(axes[k]))
        )
        return (*(k for k in order if k != found[-1]), found[-1]) if found else ()

    def bytes(self, read: Read) -> float:
        """Bytes of a side."""
        return float(self.product.size * prod(self.context.extent(a) for dim in self.dims[read.tensor] for a in dim))

    def lined(self, read: Read) -> float:
        """Bytes that a copy of a side fills, whose rows begin at whole lines."""
        last = prod(map(self.context.extent, self.dims[read.tensor][self.order(read)[-1]]))
        line = MOST_ALIGNED // self.product.size
        return self.bytes(read) * ceil(last / line) * line / max(last, 1)

    def copying(self, copied: tuple[Read, ...]) -> Product:
        """The product with some sides copied."""
        accesses = tuple(best(r) if r in copied else n for n, r in zip(self.product.access, self.sides, strict=True))
        others = [r for r in self.sides if r not in copied]
        return replace(self.product, access=accesses, lined=_lined(others, self.context))


def cost_of(plan: Planned, model: Model, share: float = 1.0, masked: float = 0.0) -> Cost:
    """The cost of a plan whose kernel is made: of a product and what follows it, by the generator's own model."""
    found, own, context = product_of(plan, model), model.cost(plan, share, masked), model.context
    if found is None or not context.target.has_descriptors or context.backend.seconds is None:
        return own
    p, rates = found.product, context.target.rates
    beside = max(own.bytes - p.size * p.batch * (p.inner * (p.rows + p.columns) + p.rows * p.columns), 0.0)
    later, _ = arithmetic(rates, 0.0, own.vector, own.special)
    multiplied = max(context.backend.seconds(p, context.target), model.scattering(plan))
    seconds = multiplied + later + beside / reached(rates)
    return replace(own, seconds=seconds)


def product_of(plan: Planned, model: Model) -> Single | None:
    """The product of two tensors that a plan computes, whatever it makes of it at the same positions."""
    sums = [eq for eq in plan.equations if eq.monoid is not None]
    first = sums == list(plan.equations[:1])
    return single(replace(plan, equations=plan.equations[:1]), model) if first else None


def single(plan: Planned, model: Model) -> Single | None:
    """The product of two tensors, of elements that matrix units multiply, that a plan is alone; None for any other."""
    context = model.context
    if len(plan.equations) > 1 or not plan.walked or plan.whole or plan.scanned:
        return None
    (eq,) = plan.equations
    found = contraction(eq, eq.body, context.size) if eq.monoid is not None and eq.monoid.adds else None
    if found is None or len(found.terms) > 1 or set(found.shape.batch) != set(plan.batch):
        return None
    (term,) = found.terms
    sides = [r for r in map(_read, (*term.left, *term.right)) if r is not None]
    if (len(sides), len(term.left), len(term.right)) != (2, 1, 1):
        return None
    sizes = {model.dtypes[r.tensor].size for r in sides}
    if len(sizes) != 1 or max(sizes) > _NARROW or not all(model.dtypes[r.tensor].is_float for r in sides):
        return None
    left, right = sides
    across = tuple(_is_across(r, plan, context) for r in sides)
    accesses = tuple(access(r, plan, context) for r in sides)
    groups = (plan.batch, plan.rows, plan.columns, plan.walked)
    batch, rows, columns, inner = (prod(map(context.extent, axes)) for axes in groups)
    lined = _lined(sides, context)
    steps = prod(map(context.extent, stepped(plan, context)))
    product = Product(batch, rows, columns, inner, max(sizes), lined, accesses, across, steps)
    return Single(plan, (left, right), product, context, model.shapes)


def _read(factor: ein.Expr) -> Read | None:
    """The read that a factor of a product is, where its guard holds and 0 elsewhere; None if it is computed."""
    match factor:
        case Read():
            return factor
        case Cast(arg=arg):
            return _read(arg)
        case Apply(op="where", args=(p, Read(guard=guard) as read, Const(value=0))) if guard is not None:
            return read if set(holds(p)) <= set(holds(guard)) else None
        case _:
            return None


def _is_across(read: Read, plan: Planned, context: Context) -> bool:
    """Are neighbours of a side in memory rows, or columns?"""
    layout = context.layouts.get(read.tensor)
    fastest = None if layout is None else layout.fastest(read.index)
    return isinstance(fastest, AxisValue) and fastest.axis in (*plan.rows, *plan.columns)


def _lined(sides: list[Read], context: Context) -> bool:
    lying: Mapping[str, object] = context.layouts
    known = [context.layouts[r.tensor].aligned for r in sides if r.tensor in lying]
    return min(known, default=MOST_ALIGNED) == MOST_ALIGNED
