"""Which kernels have the form that roles are for: one walk, dots by consumers' rows, all else position by position."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from einc import tile
from einc.base.types import F32
from einc.tile import Dot, Fold, Kernel, Let, Load, Loop, Ref, Scan
from einc.tile.typing import axes_of, multiplied, scope
from einc.tile.walk import (
    bindings,
    every_value,
    lets,
    loops,
    names_in,
    once_for_all,
    own_values,
    tile_axes,
    values_in,
    values_of,
    walk_values,
)

_NARROW = 2  # bytes of what warpgroups multiply


class Unfit(Exception):
    """Why a kernel's warps get no roles."""


@once_for_all
def walked(kernel: Kernel) -> tuple[Loop, str]:
    """The one loop of a kernel, and the axis of the rows of its dots. Raises `Unfit` where there is no such loop."""
    found = list(loops(kernel.body))
    if len(found) != 1 or found[0] not in kernel.body:
        raise Unfit(f"it has {len(found)} loops")
    (loop,) = found
    if not all(isinstance(s, Let) for s in loop.body):
        raise Unfit("its walk stores tiles")
    dots = multiplied(kernel)
    inside = [v for v in values_in(loop.body) if isinstance(v, Dot)]
    rows = {d.row for d in inside}
    if not dots or len(inside) != len(dots):
        raise Unfit("its dots are not in its loop" if dots else "it has no dots")
    if loop.reverse:
        raise Unfit("its walk does not take blocks in order")
    if not loop.axis.blocked and len({d.column for d in inside}) > 1:
        raise Unfit("its walk takes positions one at a time, and its dots do not share columns")
    blocked = {a.name for a in kernel.grid if a.blocked}
    if len(rows) != 1 or not rows <= blocked <= {*rows, *(d.column for d in inside)}:
        raise Unfit("its dots do not share the rows that a program has")
    if any(d.batch for d, _ in dots):
        raise Unfit("its dots have a batch axis")
    if any(t.size != _NARROW or not t.is_float for _, t in dots):
        raise Unfit("its dots are not of floats of two bytes")
    return loop, rows.pop()


@once_for_all
def along(kernel: Kernel) -> str:
    """The axis that tiles of a step have beside rows: that of a walk by blocks, or else the columns of dots."""
    loop, _ = walked(kernel)
    return loop.axis.name if loop.axis.blocked else multiplied(kernel)[0][0].column


def parts(kernel: Kernel) -> tuple[tuple[tile.Statement, ...], Loop, tuple[tile.Statement, ...]]:
    """What stands before the loop of a kernel, the loop, and what stands behind it."""
    at = next(k for k, s in enumerate(kernel.body) if isinstance(s, Loop))
    loop = kernel.body[at]
    assert isinstance(loop, Loop)
    return kernel.body[:at], loop, kernel.body[at + 1 :]


@once_for_all
def beside_loop(kernel: Kernel) -> frozenset[str]:
    """The names that what stands before the loop, or behind it, reads."""
    before, _, after = parts(kernel)
    return frozenset(names_in(*(v for s in (*before, *after) for v in own_values(s))))


@once_for_all
def beside_dots(kernel: Kernel) -> frozenset[str]:
    """The names that steps of the loop compute with: all but those of sides of dots."""
    _, loop, _ = parts(kernel)
    found = set[str]()
    for v in values_in(loop.body):
        sides = (v.left, v.right) if isinstance(v, Dot) else ()
        found |= {x.name for x in values_of(v) if isinstance(x, Ref) and x not in sides}
    return frozenset(found)


@once_for_all
def shared(kernel: Kernel) -> tuple[str, ...]:
    """The scalars before the loop of a kernel that all rows of a block decide."""
    made = {s.names[0]: s for s in bindings(kernel)}
    before = kernel.body[: next(k for k, s in enumerate(kernel.body) if isinstance(s, Loop))]

    def decided(s: Let) -> bool:
        found = [] if s.types[0].axes else list(walk_values(s.value))
        named = [made[v.name] for v in found if isinstance(v, Ref) and v.name in made]
        return any(isinstance(v, Fold) for v in found) or any(map(decided, named))

    return tuple(s.names[0] for s in before if isinstance(s, Let) and decided(s))


def check_fit(kernel: Kernel, row: str, copied: AbstractSet[str]) -> None:
    """Raise `Unfit` for a value, but those `copied`, that consumers do not compute by themselves, each for its rows."""
    roots = {id(s.value) for s in bindings(kernel)}
    for v in every_value(kernel):
        if isinstance(v, Scan):
            raise Unfit("it has prefixes")
        if isinstance(v, Dot) and id(v) not in roots:
            raise Unfit("it computes with the result of a dot in place")
    types = {s.names[0]: s.types[0].dtype for s in bindings(kernel)}
    if any(not types[n].is_int for n in shared(kernel)):
        raise Unfit("its rows share a number that is no integer")
    names = {**scope(kernel), **{s.names[0]: s.types[0] for s in bindings(kernel)}}
    made = {s.names[0]: s.value for s in bindings(kernel)}
    if any(len(axes_of(x, names)) > 1 for n in shared(kernel) for x in walk_values(made[n])):
        raise Unfit("its rows share a number that pairs of positions decide")
    axes = tile_axes(kernel)
    homes = {row, *(d.column for d, _ in multiplied(kernel)), *(a.name for a in kernel.whole)}
    computed = [s.value for s in bindings(kernel) if not (isinstance(s.value, Load) and s.value.tensor in copied)]
    for v in walk_values(*computed):
        if isinstance(v, Ref) and v.name in axes and axes[v.name].blocked and v.name not in homes:
            raise Unfit(f"consumers have no tile along {v.name}")
    (loop,) = loops(kernel.body)
    for s in lets(loop.body):
        if isinstance(s.value, Fold) and s.value.axis == row:
            raise Unfit("it folds rows")
        if isinstance(s.value, Dot) and s.types[0].dtype != F32:
            raise Unfit("its dots do not add up in f32")
        if len(s.types) > 1:
            raise Unfit("it folds several values at once")
        own = s.types[0].axes
        if isinstance(s.value, tile.Load) and row not in own and len(own) > 1:
            continue
        if len(own) > 2 or (len(own) == 2 and own[0] != row):
            raise Unfit(f"{s.names[0]} is no tile of rows")
    assert row in axes
