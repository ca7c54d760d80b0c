"""What equations read from outside and store: each tensor once, and of what is picked only that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from einc import ein
from einc.base.types import DType
from einc.ein import Equation
from einc.passes.algebra.exposure import Dims
from einc.pipeline import Context, positions


def moved(
    equations: tuple[Equation, ...],
    stores: tuple[str, ...],
    shapes: Mapping[str, Dims],
    dtypes: Mapping[str, DType],
    context: Context,
) -> dict[str, int]:
    """The bytes of each tensor that one kernel for the equations reads from outside, or stores."""
    read, found = _places(equations), dict[str, int]()
    for name in (*sorted(read), *stores):
        size = positions(tuple(a for dim in shapes[name] for a in dim), context)
        if name in read:  # what is picked is less than all
            size = min(size, sum(positions(at, context) for at in read[name]))
        found[name] = size * dtypes[name].size
    return found


@lru_cache(maxsize=1024)
def _places(equations: tuple[Equation, ...]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The axes of the places that equations read each tensor of others at, each group once."""
    own = {t.name for eq in equations for t in eq.outputs}
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for name, at in (place for eq in equations for place in _places_of(eq) if place[0] not in own):
        found.setdefault(name, {})[at] = None
    return {name: tuple(at) for name, at in found.items()}


@lru_cache(maxsize=4096)
def _places_of(eq: Equation) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The tensors that an equation reads, each with the axes of the place."""
    read = (r for e in eq.expressions() for r in ein.reads(e))
    return tuple((r.tensor, tuple(dict.fromkeys(a for e in r.index for a in ein.axes_of(e)))) for r in read)
