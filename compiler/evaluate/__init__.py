"""The meaning of the language: every equation evaluated on NumPy arrays, floats in double precision.

Floats of any width are float64 and complex numbers complex128, never rounded to a narrower type, so that the result is
the ideal one. Integers have exactly their types and wrap. Sums and products of integers accumulate in at least i32 and
at least the type they are stored in, and so do sums, differences and products at the root of such a body. Integer
division by zero gives 0. A read whose guard is false, or whose index is out of range, is 0. An empty reduction gives
the identity of its monoid: an empty `max` is -inf, and `argmax` is the greatest i64 if no position counts; over an axis
of extent 0 it is an error. Positions that a mask excludes from a reduction are not read (`ein.exclusion`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from einc.base.types import ranged
from einc.binding import bind
from einc.ein import Equation, Operand, Program
from einc.evaluate.elementwise import Array, as_stored
from einc.evaluate.fields import Box, Scope, scalar
from einc.evaluate.reductions import component_types, components, identity


def evaluate(
    program: Program, operands: Mapping[str, object], scalars: Mapping[str, bool | int | float] | None = None
) -> tuple[Array, ...]:
    """The results for these operands (anything that `numpy.asarray` takes) and scalars.

    Raises what `einc.binding.bind` raises for operands that do not fit.
    """
    given = {name: np.asarray(x) for name, x in operands.items()}
    bindings = bind(program, {name: x.shape for name, x in given.items()}, scalars)
    real = program.real
    values = {name: scalar(ranged(v, real) if isinstance(v, float) else v) for name, v in bindings.scalars.items()}
    with np.errstate(all="ignore"):
        tensors = {p.name: _operand(p, given[p.name]) for p in program.operands}
        named = {t.name: e for e in program.equations for t in e.outputs}
        finite = all(np.isfinite(x).all() for x in tensors.values() if x.dtype.kind in "fc")
        scope = Scope(tensors, program.shapes(), program.dtypes(), bindings.extents, values, named, finite)
        for e in program.equations:
            tensors.update(_equation(e, scope))
    return tuple(tensors[name] for name in program.results)


def _operand(p: Operand, x: Array) -> Array:
    return np.ascontiguousarray(as_stored(x, p.dtype)).reshape(x.shape)


def _equation(e: Equation, scope: Scope) -> dict[str, Array]:
    """The tensors that an equation gives."""
    extents = tuple(scope.extents[a] for a in e.axes)
    axes = (*e.axes, *e.over)
    box = Box(axes, tuple((0, scope.extents[a]) for a in axes))
    if 0 in extents:
        found = [np.empty(extents)] * (e.monoid.components if e.monoid else len(e.bodies))
    elif 0 in box.shape and e.monoid is not None:
        found = identity(e.monoid, component_types(e, scope.dtypes))
    else:
        found = components(e, box, scope)
    results = e.monoid.results if e.monoid else range(len(found))
    shape = [math.prod(scope.extents[a] for a in dim) for dim in e.dims]
    return {
        t.name: np.array(np.broadcast_to(as_stored(found[k], t.dtype), extents), order="C").reshape(shape)
        for t, k in zip(e.outputs, results, strict=True)
    }
