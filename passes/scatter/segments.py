"""Sums over the positions that data sends to a place, as sums over segments of those positions, sorted by place.

    S[v, d] = sum[b, n : v == token[b, n]](x[b, n, d])
    -->   order[t] = the positions of (b, n) by their token, in ascending order, equal ones as they were
          start[v], count[v] = where those with token v begin in it, and how many there are
          S[v, d] = sum[k : k < count[v]](x[order[start[v] + k] // |n|, order[start[v] + k] % |n|, d])

The gradient of a read whose index is data has this form. As it is written, every place looks at every position: that
is |v| |b| |n| terms. Sorted, each position is one term of one place. Several places at once, `v == p[n] and w ==
q[n]`, are sorted by `p * |w| + q`, and axes that both sides have, `v == token[b, n]` for S[b, v], are sorted one by
one. What else is required of positions that are sorted, no place has those which fail. Terms of a place are added in
the order of their positions, so that results are the same in every run.

Sorting is not of the language: who runs the program makes `order`, `start` and `count`, which are operands of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from einc.base.types import I64
from einc.ein import (
    ZERO,
    Apply,
    AxisDecl,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Operand,
    Program,
    Read,
    Tensor,
    rebuild,
    substitute,
)
from einc.ein.conditions import all_of, placed
from einc.ein.rewriting import drop_dead, names, replaced, taking, unused
from einc.passes.scatter.places import Scatter, Told, scatter, terms_first, worthwhile
from einc.pipeline.parts import Segments

_NOWHERE = Const(-1)


@dataclass(frozen=True, slots=True)
class Segmented:
    """A program whose sums go over `segments`; `indices` computes those of their indices that are no operands.

    `extents` are those of its axes.
    """

    program: Program
    segments: tuple[Segments, ...]
    indices: Program | None
    extents: Mapping[str, int]


def segmented(program: Program, extents: Mapping[str, int], always: bool = False) -> Segmented | None:
    """The program for these extents with sums over segments, where that saves work; None where it never does.

    It may be one for these extents alone, unless it has to be right `always`.
    """
    made = _Segmenting(program, extents, always)
    equations = tuple(made_of for e in program.equations for made_of in made.over_segments(e))
    if not made.segments:
        return None
    axes = (*program.axes, *made.axes)
    whole = drop_dead(replace(program, name=f"{program.name}_in_order", axes=axes, equations=equations))
    segments = tuple(s for s, _ in made.segments.values())
    return Segmented(taking(whole, made.operands, ()), segments, made.computed(), {**extents, **made.counted})


@dataclass
class _Segmenting:
    """A program in the making; `extents` are those of its axes, for which alone it is right unless it is `always`."""

    program: Program
    extents: Mapping[str, int]
    always: bool
    taken: set[str] = field(default_factory=set)
    axes: list[AxisDecl] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)  # the extents of these
    operands: list[Operand] = field(default_factory=list)
    indices: list[Equation] = field(default_factory=list)
    segments: dict[object, tuple[Segments, str]] = field(default_factory=dict)  # each with the axis of its counts

    def __post_init__(self) -> None:
        self.shapes = self.program.shapes()
        self.taken |= names(self.program) | {a.name for a in self.program.axes}

    def over_segments(self, e: Equation) -> list[Equation]:
        """The equation as a sum over segments, and what that sums; as it is where that saves nothing."""
        found = scatter(e)
        if found is None or not worthwhile(e, found, self.program, self.extents.__getitem__):
            return [e]
        if e.monoid is not None and e.monoid.adds and set(e.over) > set(found.summed):
            name = self._unused(f"{e.name}_terms")
            terms, e = terms_first(e, found, name, self.shapes)
            self.shapes[name] = terms.dims
            found = scatter(e)
            assert found is not None
            return [terms, self._over_segments(e, found)]
        return [self._over_segments(e, found)]

    def _over_segments(self, e: Equation, found: Scatter) -> Equation:
        segments, k = self._sorted(found)
        kept = tuple(AxisValue(a) for a in found.kept)
        at = (*kept, *(AxisValue(v) for v in found.places))
        flat: Expr = Apply("add", (Read(segments.start, at), AxisValue(k)))
        flat = Read(segments.order, (*kept, flat))
        here: dict[str, Expr] = {}
        for a in reversed(found.summed[1:]):
            here[a] = Apply("mod", (flat, Extent(a)))
            flat = Apply("floordiv", (flat, Extent(a)))
        here[found.summed[0]] = flat
        inside = Apply("lt", (AxisValue(k), Read(segments.count, at)))
        domain = all_of((inside, *(substitute(c, here) for c in found.rest)))
        told = Told(e.domain)
        known = {told.of(place): AxisValue(v) for v, place in found.places.items()}
        body = substitute(_at_places(told.of(e.body), known), here)
        shapes = {**self.shapes, **{p.name: p.dims for p in self.operands}}
        return replace(
            e,
            bodies=(placed(body, domain, shapes),),
            over=(k, *(a for a in e.over if a not in found.summed)),
            domain=None if domain is None else placed(domain, None, shapes),
            within=None,
        )

    def computed(self) -> Program | None:
        """What computes the indices that are not operands."""
        if not self.indices:
            return None
        results = tuple(e.name for e in self.indices)
        whole = replace(
            self.program,
            name=f"{self.program.name}_indices",
            equations=(*self.program.equations, *self.indices),
            results=results,
        )
        return taking(drop_dead(whole), (), ())

    def _sorted(self, found: Scatter) -> tuple[Segments, str]:
        """What is sorted for the terms of an equation, and the axis along which those of a place are counted."""
        value = self._index(found)
        key = value, found.kept, found.summed, tuple(self.extents[v] for v in found.places)
        if key not in self.segments:
            index = self._read_whole(value, (*found.kept, *found.summed))
            if index is None:
                index = self._unused("index")
                dims = tuple((a,) for a in (*found.kept, *found.summed))
                self.indices.append(Equation((Tensor(index, I64),), dims, (value,)))
            t, k, order, start, count = map(self._unused, ("t", "k", "order", "start", "count"))
            self.axes += [AxisDecl(t), AxisDecl(k, Extent(t))]
            self.counted |= dict.fromkeys((t, k), prod(self.extents[a] for a in found.summed))
            kept = tuple((a,) for a in found.kept)
            at = (*kept, *((v,) for v in found.places))
            self.operands += [Operand(order, (*kept, (t,)), I64), Operand(start, at, I64), Operand(count, at, I64)]
            self.segments[key] = Segments(index, len(kept), tuple(found.places), order, start, count), k
        return self.segments[key]

    def _index(self, found: Scatter) -> Expr:
        """The place of each position as one number; one that is no place for those with none."""
        first, *others = (Cast(I64, place) for place in found.places.values())
        whole: Expr = first
        for v, place in zip(tuple(found.places)[1:], others, strict=True):
            whole = Apply("add", (Apply("mul", (whole, Extent(v))), place))
        inside = [Apply("le", (ZERO, x)) for x in found.places.values() if others]
        inside += [Apply("lt", (x, Extent(v))) for v, x in found.places.items() if others]
        condition = all_of((*inside, *found.conditions))
        return whole if condition is None else Cast(I64, Apply("where", (condition, whole, _NOWHERE)))

    def _read_whole(self, value: Expr, axes: tuple[str, ...]) -> str | None:
        """The operand that an index is, position by position."""
        dims = {p.name: p.dims for p in self.program.operands}
        while isinstance(value, Cast) and value.dtype == I64:
            value = value.arg
        match value:
            case Read(tensor, index, None) if index == tuple(map(AxisValue, axes)):
                own = dims.get(tensor, ())
                lengths = [[self.extents[a] for a in d] for d in own]
                equal = not self.always and lengths == [[self.extents[a]] for a in axes]
                return tensor if equal or own == tuple((a,) for a in axes) else None
        return None

    def _unused(self, wanted: str) -> str:
        name = unused(wanted, self.taken)
        self.taken.add(name)
        return name


def _at_places(e: Expr, places: Mapping[Expr, Expr]) -> Expr:
    """The expression with places of terms that tensors are read at replaced by axes of the output."""
    e = rebuild(e, lambda below: _at_places(below, places))
    if isinstance(e, Read):
        return replace(e, index=tuple(replaced(i, places) for i in e.index))
    return e
