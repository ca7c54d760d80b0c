"""The einsum strings of an expression with its operands: one set of axes for all, and what each string reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from einc import ein
from einc.base.errors import AxisError, CallError
from einc.base.facts import Fact
from einc.base.source import Span
from einc.base.types import F32, DType
from einc.ein.guards import composite
from einc.frontend.elaboration.values import Dims, Value, flatten, merge
from einc.frontend.strings.einsum import legal_names
from einc.frontend.strings.extents import plain_extents
from einc.frontend.strings.layout import Layout, broadcast, lay_out, members, operand_name
from einc.frontend.strings.terms import Axis, Dots, Group, Subscripts, Term, choose
from einc.frontend.syntax.nodes import Quoted


@dataclass(frozen=True, slots=True)
class Placed:
    """A string over its operands: what its terms read, and the dimensions of its output.

    Without an arrow a single term keeps its own dimensions. `arrow` says whether the output is written.
    """

    reads: tuple[Value, ...]
    output: Dims
    arrow: bool
    label: str

    @property
    def contracts(self) -> bool:
        """Does it contract what it is multiplied by? That takes an arrow, and one term or an output axis of no term."""
        return self.arrow and (len(self.reads) == 1 or bool(self.lacking))

    @property
    def lacking(self) -> tuple[str, ...]:
        """The axes of the output that no term has."""
        there = {a for r in self.reads for a in r.axes}
        return tuple(a for a in flatten(self.output) if a not in there)


@dataclass(frozen=True, slots=True)
class Strings:
    """All strings of an expression by their place, with the operands and axes of the expression."""

    operands: tuple[ein.Operand, ...]
    axes: Mapping[str, Span]
    placed: Mapping[int, Placed]


def place_strings(
    strings: Sequence[tuple[Quoted, Subscripts]],
    facts: Mapping[str, Fact] | None,
    span: Span,
    likely: Mapping[str, DType],
) -> Strings:
    """Give every term its operand, every letter one extent, and every ellipsis its axes.

    A dimension of extent 1 whose axis is longer elsewhere is read at 0. Without facts operands are f32, or `likely`.
    Raises `ShapeError` for ranks that do not fit.
    """
    known = _facts(sum(len(s.inputs) for _, s in strings), facts, span)
    chosen, start = list[Subscripts](), 0
    for _, s in strings:
        end = start + len(s.inputs)
        chosen.append(choose(s, None if known is None else [len(f.shape) for f in known[start:end]]))
        start = end
    joint = Subscripts(tuple(t for s in chosen for t in s.inputs), None, span)
    shapes = None if known is None else [f.shape for f in known]
    layout = lay_out(joint, shapes, {})
    stretched = layout if shapes is None else broadcast(layout, shapes, plain_extents(layout, shapes, {}))
    legal = _legal(layout, chosen)
    types = [likely.get(operand_name(k), F32) for k in range(len(joint.inputs))]
    operands = _operands(stretched, legal, types if known is None else [f.dtype for f in known])
    reads = [_read(o, _dims(g, legal)) for o, g in zip(operands, layout.inputs, strict=True)]
    placed, start = {}, 0
    for (node, _), s in zip(strings, chosen, strict=True):
        end = start + len(s.inputs)
        placed[node.span.start] = _place(s, reads[start:end], layout.dots, legal)
        start = end
    return Strings(operands, {legal[a.name]: a.span for a in layout.axes()}, placed)


def _facts(count: int, facts: Mapping[str, Fact] | None, span: Span) -> list[Fact] | None:
    if facts is None:
        return None
    names = [operand_name(k) for k in range(count)]
    spare = [name for name in facts if name not in names]
    if spare:
        raise CallError(
            f"there is no operand '{spare[0]}'",
            span,
            fact=f"the expression has {count} terms: {', '.join(names)}",
            hint="pass one operand a term, in order",
        )
    for name in names:
        if name not in facts:
            raise CallError(
                f"operand '{name}' is missing",
                span,
                fact=f"the expression has {count} terms: {', '.join(names)}",
                hint="pass one operand a term, in order",
            )
    return [facts[n] for n in names]


def _legal(layout: Layout, chosen: Sequence[Subscripts]) -> dict[str, str]:
    """A name for each axis, those of outputs included, that is not a word of the language."""
    legal = legal_names(layout)
    for s in chosen:
        for axis in () if s.output is None else s.output.axes():
            legal.setdefault(axis.name, axis.name)
    return legal


def _dims(groups: Sequence[Group], legal: Mapping[str, str]) -> Dims:
    return tuple(tuple(legal[a.name] for a in members(g)) for g in groups)


def _operands(layout: Layout, legal: Mapping[str, str], types: Sequence[DType]) -> tuple[ein.Operand, ...]:
    return tuple(
        ein.Operand(
            operand_name(k),
            _dims(groups, legal),
            types[k],
            groups[0].span.to(groups[-1].span) if groups else layout.span,
        )
        for k, groups in enumerate(layout.inputs)
    )


def _read(operand: ein.Operand, dims: Dims) -> Value:
    """The operand at its own axes; `dims` also has the axes that it is stretched along."""
    assert operand.span is not None
    read = ein.Read(operand.name, tuple(composite(d) for d in operand.dims), None, operand.span)
    return Value(read, operand.dtype, operand.span, merge(dims))


def _place(s: Subscripts, reads: Sequence[Value], dots: Sequence[str], legal: Mapping[str, str]) -> Placed:
    label = "".join(r.expr.tensor for r in reads if isinstance(r.expr, ein.Read))
    if s.output is not None:
        output = _output(s.output, dots, legal)
    elif len(reads) == 1:
        output = reads[0].dims
    else:
        output = _implicit(s, reads, dots, legal)
    return Placed(tuple(reads), output, s.output is not None, label)


def _output(term: Term, dots: Sequence[str], legal: Mapping[str, str]) -> Dims:
    dims: list[tuple[str, ...]] = []
    for dim in term.dims:
        match dim:
            case Axis(name):
                dims.append((legal[name],))
            case Dots():
                dims += [(legal[d],) for d in dots]
            case Group(parts):
                named = ([legal[d] for d in dots] if isinstance(p, Dots) else [legal[p.name]] for p in parts)
                dims.append(tuple(a for some in named for a in some))
    for k, axis in enumerate(axes := flatten(dims)):
        if axis in axes[:k]:
            raise AxisError(
                f"axis '{axis}' is twice in the output",
                term.span,
                fact="an output has each of its axes once",
                hint="leave out one of the two",
            )
    return tuple(dims)


def _implicit(s: Subscripts, reads: Sequence[Value], dots: Sequence[str], legal: Mapping[str, str]) -> Dims:
    """As in NumPy: the ellipsis, then the axes that the string has once, in alphabetical order."""
    times = Counter(a.name for t in s.inputs for a in t.axes())
    there = {a for r in reads for a in r.axes}
    once = sorted(a for a, n in times.items() if n == 1)
    return (*((legal[d],) for d in dots if legal[d] in there), *((legal[a],) for a in once))
