"""What elaborating an expression gives: a scalar expression with its type and axes, or a reduction without a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from einc.base.source import Span
from einc.base.types import DType
from einc.ein import Expr, Monoid

Dims: TypeAlias = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an axis cannot be summed over here: `inside` says what the axis sits in.

    An obstacle that is `alone` goes away once the value is multiplied by one that has the axis outside of functions.
    """

    inside: str
    span: Span
    alone: bool = True


Obstacles: TypeAlias = Mapping[str, Obstacle]


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar expression of a type.

    `dims` are the axes of the tensors read, in order of appearance, composite where a tensor has them composite, and
    `positions` the axes that appear only as positions. `obstacles` are the axes that an implicit sum cannot be taken
    over; `depth` and `size` are those of the expression as a tree, guards included.
    """

    expr: Expr
    dtype: DType
    span: Span
    dims: Dims = ()
    positions: tuple[str, ...] = ()
    obstacles: Obstacles = field(default_factory=dict)
    depth: int = 1
    size: int = 1

    @property
    def axes(self) -> tuple[str, ...]:
        """Every axis it depends on: those of tensors, then those that appear only as positions."""
        return (*flatten(self.dims), *self.positions)

    @property
    def shape(self) -> Dims:
        """The dimensions of a tensor that holds it."""
        return (*self.dims, *((a,) for a in self.positions))


@dataclass(frozen=True, slots=True)
class Reduction:
    """`monoid[over : domain within bound](bodies)`, to become an equation of its own or the right side of a definition.

    `label` is what its tensor is named after; `dtype` the type it is stored in, if a cast says so.
    """

    monoid: Monoid
    over: tuple[str, ...]
    bodies: tuple[Value, ...]
    domain: Expr | None
    span: Span
    dims: Dims
    positions: tuple[str, ...]
    label: str
    dtype: DType | None = None
    within: Expr | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        return (*flatten(self.dims), *self.positions)

    @property
    def shape(self) -> Dims:
        return (*self.dims, *((a,) for a in self.positions))


Result: TypeAlias = Value | Reduction


def flatten(dims: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(axis for dim in dims for axis in dim)


def merge(*parts: Dims) -> Dims:
    """The dimensions of all parts in order, each axis where it first appears; extents of 1 only from the first part."""
    dims: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for part in parts:
        leads = not dims
        for dim in part:
            left = tuple(a for a in dict.fromkeys(dim) if a not in seen)
            if left or (leads and not dim):
                dims.append(left)
                seen.update(left)
    return tuple(dims)


def without(dims: Dims, axes: Iterable[str]) -> Dims:
    """The dimensions that are left when axes are gone; those of extent 1 go too."""
    gone = set(axes)
    left = (tuple(a for a in dim if a not in gone) for dim in dims)
    return tuple(dim for dim in left if dim)


def collect(values: Sequence[Value], order: Sequence[int] | None = None) -> tuple[Dims, tuple[str, ...]]:
    """The dims and positions of several values together; `order` says whose dims come first."""
    ordered = values if order is None else [values[k] for k in order]
    dims = merge(*(v.dims for v in ordered))
    taken = set(flatten(dims))
    positions = dict.fromkeys(a for v in values for a in v.positions if a not in taken)
    return dims, tuple(positions)


def union(values: Iterable[Value]) -> Obstacles:
    """The obstacles of all values; for each axis the first."""
    found: dict[str, Obstacle] = {}
    for v in values:
        for axis, obstacle in v.obstacles.items():
            found.setdefault(axis, obstacle)
    return found


def multiplied(values: Sequence[Value]) -> Obstacles:
    """The obstacles of a product: an axis that one factor has outside of functions, the product has so too."""
    free = {a for v in values for a in v.axes if a not in v.obstacles}
    lasting = {a: o for v in values for a, o in v.obstacles.items() if not o.alone}
    return {a: lasting.get(a, o) for a, o in union(values).items() if a in lasting or a not in free}


def blocked(value: Value, inside: str, span: Span) -> Obstacles:
    """The obstacles of a value that now sits inside something: one for each of its axes."""
    return {a: Obstacle(inside, span) for a in value.axes}
