"""The extents of an einsum string's axes, from the operands' shapes: every dim is checked against every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from einc.base.errors import AxisError, CallError, ShapeError, nearest
from einc.base.source import Span
from einc.frontend.strings.layout import Layout, Shape, listed, members, operand_name
from einc.frontend.strings.terms import Group, clip


@dataclass(frozen=True, slots=True)
class _Seen:
    """A place where an axis is a dim of its own: its extent there, the operand, and the place in the text."""

    extent: int
    operand: int
    span: Span


def plain_extents(layout: Layout, shapes: Sequence[Shape], sizes: Mapping[str, int]) -> dict[str, int]:
    """The extent of every axis that is a dim of its own, and of those in `sizes`, which the caller gives.

    Extent 1 gives way to any other. Raises `ShapeError` for extents that differ, `CallError` for unusable `sizes`.
    """
    _check_sizes(layout, sizes)
    first: dict[str, _Seen] = {}
    for k, (dims, shape) in enumerate(zip(layout.inputs, shapes, strict=True)):
        _check_repeats(layout, dims, shape, k)
        for group, extent in zip(dims, shape, strict=True):
            if len(group.parts) == 1:
                (axis,) = members(group)
                _meet(layout, axis.name, _Seen(extent, k, group.span), first, shapes, sizes)
    return dict(sizes) | {axis: seen.extent for axis, seen in first.items()}


def find_extents(layout: Layout, shapes: Sequence[Shape], sizes: Mapping[str, int]) -> dict[str, int]:
    """The extent of every axis: after the plain ones, a composite dim gives the extent of the only unknown axis in it.

    Raises `ShapeError` for composite dims that their axes do not fill, `AxisError` for axes left open.
    """
    found = plain_extents(layout, shapes, sizes)
    composite = [
        (g, n, k)
        for k, (dims, shape) in enumerate(zip(layout.inputs, shapes, strict=True))
        for g, n in zip(dims, shape, strict=True)
        if len(g.parts) != 1
    ]
    _solve(composite, found)
    return found


def _check_sizes(layout: Layout, sizes: Mapping[str, int]) -> None:
    names = [a.name for a in layout.axes() if a.name not in layout.dots]
    for name, size in sizes.items():
        if name not in names:
            raise CallError(
                f"'{clip(name)}' is neither an axis of the string nor an option",
                layout.span,
                fact=f"axes: {listed(names)}" if names else "the string has no axes",
                hint=nearest(name, names) or "leave it out",
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise CallError(
                f"the extent of axis '{clip(name)}' is not a whole number", layout.span, fact=f"{name}={size!r}"
            )


def _check_repeats(layout: Layout, dims: Sequence[Group], shape: Shape, operand: int) -> None:
    """An axis that one operand has twice reads its diagonal: both extents are equal, without broadcasting."""
    seen: dict[str, int] = {}
    for group, extent in zip(dims, shape, strict=True):
        for axis in members(group):
            if len(group.parts) == 1 and seen.setdefault(axis.name, extent) != extent:
                raise ShapeError(
                    f"{layout.called(axis.name)} is twice in operand {operand_name(operand)},"
                    f" with extents {seen[axis.name]} and {extent}",
                    axis.span,
                    fact=f"{operand_name(operand)} has shape {shape}",
                    hint="make the extents equal, as a diagonal needs, or give the two axes different names",
                )


def _meet(
    layout: Layout, axis: str, seen: _Seen, first: dict[str, _Seen], shapes: Sequence[Shape], sizes: Mapping[str, int]
) -> None:
    """Take one more dim of an axis into account; extent 1 gives way."""
    if axis in sizes and sizes[axis] != seen.extent:
        raise ShapeError(
            f"{layout.called(axis)} has extent {seen.extent} in operand {operand_name(seen.operand)},"
            f" but {axis}={sizes[axis]}",
            seen.span,
            fact=_shapes(shapes, seen.operand),
            hint=f"leave out {axis}={sizes[axis]}",
        )
    other = first.get(axis)
    if other is None or other.extent == 1:
        first[axis] = seen
    elif seen.extent not in (1, other.extent):
        raise ShapeError(
            f"{layout.called(axis)} has extent {other.extent} in operand {operand_name(other.operand)},"
            f" but {seen.extent} in operand {operand_name(seen.operand)}",
            seen.span,
            fact=_shapes(shapes, other.operand, seen.operand),
            hint="pass operands whose extents are equal or 1, or give the two axes different names",
        )


def _shapes(shapes: Sequence[Shape], *operands: int) -> str:
    return ", ".join(f"{operand_name(k)} has shape {shapes[k]}" for k in dict.fromkeys(operands))


def _solve(composite: list[tuple[Group, int, int]], found: dict[str, int]) -> None:
    """Find the axes that only composite dims have, and check every composite dim."""
    left = composite
    while left:
        open_before = left
        left = []
        for group, extent, operand in open_before:
            unknown = [a for a in members(group) if a.name not in found]
            if len(unknown) > 1:
                left.append((group, extent, operand))
                continue
            known = prod(found.get(a.name, 1) for a in members(group))
            if unknown and known:
                found[unknown[0].name] = extent // known
            if extent != prod(found.get(a.name, 1) for a in members(group)) or (unknown and not known):
                raise _unequal(group, extent, operand, known, [a.name for a in unknown], found)
        if len(left) == len(open_before):
            raise _open(left[0], found)


def _unequal(
    group: Group, extent: int, operand: int, known: int, unknown: list[str], found: Mapping[str, int]
) -> ShapeError:
    parts = ", ".join(f"|{clip(a.name)}| = {found[a.name]}" for a in members(group) if a.name not in unknown)
    wanted = f"is not a multiple of {known}" if unknown else f"is not {known}"
    return ShapeError(
        f"extent {extent} of {group.span.text} in operand {operand_name(operand)} {wanted}",
        group.span,
        fact=parts or "a dimension without axes has extent 1",
        hint="pass an operand that fits, or other extents for the axes in the parentheses",
    )


def _open(dim: tuple[Group, int, int], found: Mapping[str, int]) -> AxisError:
    group, extent, operand = dim
    unknown = [clip(a.name) for a in members(group) if a.name not in found]
    return AxisError(
        f"the extents of {' and '.join(map(repr, unknown))} cannot be told apart",
        group.span,
        fact=f"{group.span.text} has extent {extent} in operand {operand_name(operand)}",
        hint=f"give one of them: {unknown[0]}=…",
    )
