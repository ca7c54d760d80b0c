"""The products of two tensors among plans: what generators know the best tiles and the time of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from einc import ein
from einc.base.facts import MOST_ALIGNED
from einc.ein import AxisValue, Read
from einc.passes.algebra.contraction import contraction
from einc.passes.estimate.cost import Model
from einc.pipeline import Context, Product
from einc.pipeline.plan import Planned

_ENGINE = 16  # bytes at multiples of which copy engines find blocks
_NARROW = 2  # bytes of an element that matrix units multiply


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """A plan that is one product of two tensors: its two reads, those with the rows first, and its extents."""

    plan: Planned
    sides: tuple[Read, Read]
    product: Product
    context: Context

    def fits(self, read: Read) -> bool:
        """Does a side lie in memory as copy engines need, with no batch axis the fastest?"""
        return _access(read, self.plan, self.context, self.product.size) == _ENGINE

    def bytes(self, read: Read) -> float:
        """Bytes of a side."""
        return float(self.product.size * prod(self.context.extent(a) for a in ein.axes_of(read)))

    def copying(self, copied: tuple[Read, ...]) -> Product:
        """The product with some sides copied."""
        access = tuple(_ENGINE if r in copied else n for n, r in zip(self.product.access, self.sides, strict=True))
        others = [r for r in self.sides if r not in copied]
        return replace(self.product, access=access, lined=_lined(others, self.context))


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
    sides = [f for f in (*term.left, *term.right) if isinstance(f, Read)]
    if (len(sides), len(term.left), len(term.right)) != (2, 1, 1):
        return None
    sizes = {model.dtypes[r.tensor].size for r in sides}
    if len(sizes) != 1 or max(sizes) > _NARROW or not all(model.dtypes[r.tensor].is_float for r in sides):
        return None
    left, right = sides
    across = tuple(_is_across(r, plan, context) for r in sides)
    access = tuple(_access(r, plan, context, max(sizes)) for r in sides)
    groups = (plan.batch, plan.rows, plan.columns, plan.walked)
    batch, rows, columns, inner = (prod(map(context.extent, axes)) for axes in groups)
    lined = _lined(sides, context)
    return Single(plan, (left, right), Product(batch, rows, columns, inner, max(sizes), lined, access, across), context)


def _access(read: Read, plan: Planned, context: Context, size: int) -> int:
    """The bytes that are read at once of a side."""
    layout = context.layouts.get(read.tensor)
    if layout is None:
        return _ENGINE
    fastest = read.index[layout.order[-1]]
    lies = layout.packed and isinstance(fastest, AxisValue) and fastest.axis not in plan.batch
    return min(layout.aligned, _ENGINE) if lies else size


def _is_across(read: Read, plan: Planned, context: Context) -> bool:
    """Are neighbours of a side in memory rows, or columns?"""
    layout = context.layouts.get(read.tensor)
    fastest = None if layout is None else read.index[layout.order[-1]]
    return isinstance(fastest, AxisValue) and fastest.axis in (*plan.rows, *plan.columns)


def _lined(sides: list[Read], context: Context) -> bool:
    lying: Mapping[str, object] = context.layouts
    known = [context.layouts[r.tensor].aligned for r in sides if r.tensor in lying]
    return min(known, default=MOST_ALIGNED) == MOST_ALIGNED
