"""The terms of an einsum string as groups of axes, one a dim: the axes of ellipses named, the output written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from einc.base.errors import AxisError, ShapeError, nearest
from einc.base.source import Span
from einc.base.words import count
from einc.frontend.strings.terms import Axis, Dots, Group, Subscripts, Term, clip

Shape = tuple[int, ...]
DOTS = "dots"  # an axis of an ellipsis is called `dots0`, `dots1`, ... from the left of the longest


@dataclass(frozen=True, slots=True)
class Layout:
    """An einsum string whose dims are groups of axes, a plain dim a group of one; `dots` are the axes of ellipses."""

    inputs: tuple[tuple[Group, ...], ...]
    output: tuple[Group, ...]
    dots: tuple[str, ...]
    span: Span

    def axes(self) -> tuple[Axis, ...]:
        """Every axis once: those of the inputs in order of appearance, then those that only the output has."""
        first: dict[str, Axis] = {}
        for group in (g for dims in (*self.inputs, self.output) for g in dims):
            for axis in members(group):
                first.setdefault(axis.name, axis)
        return tuple(first.values())

    def called(self, axis: str) -> str:
        """What messages call an axis: what the user wrote."""
        return "an axis of '...'" if axis in self.dots else f"axis '{clip(axis)}'"


def members(group: Group) -> Iterator[Axis]:
    """The axes of a group that has no ellipsis."""
    return (p for p in group.parts if isinstance(p, Axis))


def operand_name(k: int) -> str:
    """The name of operand k, counted from 0: A to Z, then A1 to Z1, and so on."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[k % 26] + (str(k // 26) if k >= 26 else "")


def lay_out(
    subscripts: Subscripts, shapes: Sequence[Shape] | None, sizes: Mapping[str, int], *, sum_dots: bool = False
) -> Layout:
    """Name the axes of ellipses, aligned at their right ends, and write the output that an implicit string means.

    Without shapes an ellipsis stands for no axes. `sizes` gives extents to axes that only the output has. NumPy allows
    an output without `...` only where the ellipsis is empty; PyTorch sums over its axes, as `sum_dots` asks for.
    """
    counts = [0] * len(subscripts.inputs) if shapes is None else _dots_lengths(subscripts.inputs, shapes)
    longest = max(counts, default=0)
    taken = {a.name for t in subscripts.terms for a in t.axes()}
    dots = tuple(_unused(f"{DOTS}{k}", taken) for k in range(longest))
    inputs = tuple(
        tuple(_groups(term, dots[longest - count :])) for term, count in zip(subscripts.inputs, counts, strict=True)
    )
    if subscripts.output is None:
        return Layout(inputs, _implicit(inputs, dots, subscripts.span), dots, subscripts.span)
    output = tuple(_groups(subscripts.output, dots))
    layout = Layout(inputs, output, dots, subscripts.span)
    _check_output(layout, subscripts.output, sizes, sum_dots=sum_dots)
    return layout


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _dots_lengths(inputs: Sequence[Term], shapes: Sequence[Shape]) -> list[int]:
    """How many axes the ellipsis of each term stands for; every term is checked against its operand's rank."""
    return [
        _dots_length(term, operand_name(k), shape) for k, (term, shape) in enumerate(zip(inputs, shapes, strict=True))
    ]


def _dots_length(term: Term, name: str, shape: Shape) -> int:
    written = sum(not isinstance(d, Dots) for d in term.dims)
    if len(shape) == written:
        return 0
    if len(shape) > written and any(isinstance(d, Dots) for d in term.dims):
        return len(shape) - written
    spare = len(shape) - written
    single = len(shape) == 1 and "".join(a.name for a in term.axes()) == term.span.text
    if spare > 0:
        hint = f"label {count(spare, 'more axis', 'more axes')}, or write '...' for all that are left"
    elif single:
        hint = f"if this is the name of one axis, write it in parentheses: ({clip(term.span.text)})"
    else:
        hint = f"leave out {count(-spare, 'axis', 'axes')}"
    raise ShapeError(
        f"operand {name} has {count(len(shape), 'dimension')}, but its term has {written}",
        term.span,
        fact=f"{name} has shape {shape}",
        hint=hint,
    )


def listed(names: Sequence[str]) -> str:
    return ", ".join([clip(n) for n in names[:26]] + ["…"] * (len(names) > 26))


def _groups(term: Term, dots: Sequence[str]) -> Iterator[Group]:
    for dim in term.dims:
        match dim:
            case Axis(span=span):
                yield Group((dim,), span)
            case Dots(span):
                yield from (Group((Axis(name, span),), span) for name in dots)
            case Group(parts, span):
                named = ([Axis(n, p.span) for n in dots] if isinstance(p, Dots) else [p] for p in parts)
                yield Group(tuple(a for some in named for a in some), span)


def _implicit(inputs: Sequence[Sequence[Group]], dots: Sequence[str], span: Span) -> tuple[Group, ...]:
    """The axes of the ellipsis, then those that the inputs have once, in alphabetical order."""
    axes = [a for dims in inputs for g in dims for a in members(g)]
    times = Counter(a.name for a in axes)
    once = sorted((a for a in axes if times[a.name] == 1 and a.name not in dots), key=lambda a: a.name)
    return tuple(Group((a,), a.span) for a in (*(Axis(name, span) for name in dots), *once))


def _check_output(layout: Layout, output: Term, sizes: Mapping[str, int], *, sum_dots: bool) -> None:
    known = {a.name: a for dims in layout.inputs for g in dims for a in members(g)}
    seen: set[str] = set()
    for axis in (a for g in layout.output for a in members(g)):
        if axis.name in seen:
            raise AxisError(
                f"{layout.called(axis.name)} is twice in the output",
                axis.span,
                fact="an output has each of its axes once",
                hint="leave out one of the two",
            )
        seen.add(axis.name)
        if axis.name not in known and axis.name not in sizes:
            names = [n for n in known if n not in layout.dots]
            raise AxisError(
                f"{layout.called(axis.name)} is in the output, but in no operand",
                axis.span,
                fact=f"axes of the operands: {listed(names)}" if names else "the operands have no axes",
                hint=nearest(axis.name, names) or "leave it out of the output, or give it to an operand",
            )
    if not sum_dots and not seen.issuperset(layout.dots):
        raise AxisError(
            "the output has no '...', but the ellipses of the operands are not empty",
            output.span,
            fact=f"'...' stands for {count(len(layout.dots), 'axis', 'axes')}",
            hint="write '...' in the output too, or label the axes to sum over",
        )


def broadcast(layout: Layout, shapes: Sequence[Shape], extents: Mapping[str, int]) -> Layout:
    """Dims of extent 1 whose axis is longer elsewhere become `1`: they are read at 0."""

    def dim(group: Group, extent: int) -> Group:
        stretched = len(group.parts) == 1 and extent == 1 and any(extents[a.name] != 1 for a in members(group))
        return replace(group, parts=()) if stretched else group

    inputs = tuple(
        tuple(dim(g, n) for g, n in zip(dims, shape, strict=True))
        for dims, shape in zip(layout.inputs, shapes, strict=True)
    )
    return replace(layout, inputs=inputs)
