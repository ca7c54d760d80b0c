"""The share of its blocks that a walk visits, by the positions that its reductions need.

    sum[j](where(j <= i and i - j < w, f, 0))   -->   about w / |j| of the blocks of j, and those that the mask cuts

A plan is weighed before it has tiles, so that blocks of one length are looked at, for a sample of the rows. What data
decides may hold everywhere, what goes along two walked axes bounds neither, and a walk that stores what it computes
visits all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.ein import Apply, AxisValue, Cast, Const, Expr, Extent, Program
from einc.passes.algebra.domain import Domain, either
from einc.passes.estimate.sides import blocked, stepped
from einc.passes.streaming.walks import needed, walks
from einc.pipeline import Context, once
from einc.pipeline.plan import Planned

if TYPE_CHECKING:
    import numpy as np

    Values = np.ndarray[Any, Any]

_BLOCK = 64  # positions of a block along any axis
_STEP = 8  # positions between those that are looked at
_SAMPLE = 16  # blocks that are looked at of the shorter axis
_MOST_AXES = 2
_NUMPY = {  # the operations of positions, by their names there
    "add": "add", "sub": "subtract", "mul": "multiply", "floordiv": "floor_divide", "mod": "mod", "neg": "negative",
    "abs": "abs", "min": "minimum", "max": "maximum", "and": "logical_and", "or": "logical_or", "not": "logical_not",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
    "where": "where",
}  # fmt: skip


@once
def share(plan: Planned, context: Context) -> float:
    """The share of the blocks of a plan's walk that are visited; 1 where nothing is known to leave any out."""
    return _visited(_told(plan, context), context)


def masked_axes(plan: Planned, context: Context) -> frozenset[str]:
    """The axes whose positions decide together which blocks these are."""
    return frozenset(a for p in _told(plan, context) for a in ein.axes_of(p))


@once
def _told(plan: Planned, context: Context) -> Domain:
    """What is known of the positions that a plan's walk needs."""
    found = walks(plan) if plan.walked and context.level >= 2 else ()
    if len(found) != 1 or found[0].stores or found[0].scans or not found[0].links:
        return frozenset()
    if stepped(plan, context) and blocked(plan, context):  # a loop within steps has no bounds
        return frozenset()
    named = {t.name: eq for eq in plan.equations for t in eq.outputs}
    links = found[0].links
    each = (needed(a.monoid, a.bodies, (a.domain, x.equation.within), named) for x in links for a in x.accumulators)
    whole = reduce(either, each)
    known = (p for p in whole if len({*ein.axes_of(p)} & {*plan.walked}) < 2)
    return frozenset(p for p in known if not ein.tensors_of(p))


@once
def smallest(program: Program, context: Context) -> float:
    """A share of its blocks that no walk of a program visits less than."""
    named = {t.name: eq for eq in program.equations for t in eq.outputs}
    sums = [eq for eq in program.equations if eq.monoid is not None] if context.level >= 2 else []
    each = (needed(eq.monoid, eq.bodies, (eq.domain, eq.within), named) for eq in sums if eq.monoid is not None)
    return min((_visited(n, context) for n in each), default=1.0)


def _visited(predicates: Domain, context: Context) -> float:
    told = sorted((p for p in predicates if not ein.tensors_of(p)), key=repr)
    return _counted(tuple(told), context) if told else 1.0


@once
def _counted(predicates: tuple[Expr, ...], context: Context) -> float:
    """The share of blocks, along all axes of some predicates, in which all of these hold somewhere."""
    import numpy as np

    axes = sorted({a for p in predicates for a in ein.axes_of(p)}, key=context.size)
    if not 0 < len(axes) <= _MOST_AXES or not all(map(context.size, axes)):
        return 1.0
    at: dict[str, Values] = {}
    shape: list[int] = []
    for k, a in enumerate(axes):
        count = -(-context.size(a) // _BLOCK)
        some = np.unique(np.linspace(0, count - 1, _SAMPLE).astype(np.int64))
        blocks = np.arange(count) if a == axes[-1] else some
        places = np.minimum(blocks[:, None] * _BLOCK + np.arange(0, _BLOCK, _STEP), context.size(a) - 1)
        at[a] = places.reshape([-1 if n == k else 1 for n in range(len(axes))])
        shape += places.shape
    true = np.ones([prod(shape[k : k + 2]) for k in range(0, len(shape), 2)], bool)
    with np.errstate(all="ignore"):
        for p in predicates:
            value = _value(p, at, context)
            true &= True if value is None else value
    return float(true.reshape(shape).any(axis=tuple(range(1, len(shape), 2))).mean())


def _value(e: Expr, at: Mapping[str, Values], context: Context) -> Any:
    """An expression of positions at all of these; None for one of anything else."""
    import numpy as np

    match e:
        case Const(value=bool() | int() as v):
            return v
        case AxisValue(axis=a):
            return at[a]
        case Extent(axis=a):
            return context.size(a)
        case Cast(dtype=t, arg=x) if t.is_int:
            return _value(x, at, context)
        case Apply(op=op, args=args) if op in _NUMPY:
            values = [_value(x, at, context) for x in args]
            f = getattr(np, _NUMPY[op])
            if any(v is None for v in values):
                return None
            return reduce(f, values) if op in ("min", "max") else f(*values)
    return None
