"""An axis as a group and a place in it, where it is read as such.

    S[h, i, j] = sum[d](Q[h, i, d] * K[h // (|h| / |g|), j, d])
    -->   S[g, r, i, j] = sum[d](Q[g * |r| + r, i, d] * K[g, j, d])        |r| = |h| / |g|

An axis h that indexes some tensor by `h // (|h| / |g|)` is a group g and a position r in it, as the division is exact.
So it is where h is divided by `|h| // |g|`, or by a number that the extents show to be that, and indexes a dimension of
extent |g| without a guard: all of h would not be in range otherwise.
Intermediate tensors get both axes as dimensions; a result keeps its one dimension, of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from einc.ein import (
    Apply,
    AxisDecl,
    AxisValue,
    Const,
    Equation,
    Expr,
    Extent,
    Program,
    Read,
    Tensor,
    axes_of,
    reads,
)
from einc.ein.guards import composite
from einc.ein.rewriting import bottom_up, names, unused


def exactly(program: Program, extents: Mapping[str, int] | None = None) -> Program:
    """The program with `|h| / |g|` for every divisor that has to be that, at all extents or at these."""
    shapes, known = program.shapes(), extents or {}

    def is_share(c: Expr, h: str, g: str) -> bool:
        if isinstance(c, Const) and h in known and g in known:
            return isinstance(c.value, int) and c.value * known[g] == known[h]
        return c == Apply("floordiv", (Extent(h), Extent(g)))

    def at(n: Expr) -> Expr:
        if not isinstance(n, Read) or n.guard is not None:
            return n
        index: list[Expr] = []
        for e, dim in zip(n.index, shapes[n.tensor], strict=True):
            match e, dim:
                case Apply("floordiv", (AxisValue(h) as whole, c)), (g,) if h != g and is_share(c, h, g):
                    index.append(Apply("floordiv", (whole, Apply("exactdiv", (Extent(h), Extent(g))))))
                case _:
                    index.append(e)
        return n if tuple(index) == n.index else replace(n, index=tuple(index))

    made = tuple(e.map(lambda x: bottom_up(x, at)) for e in program.equations)
    return program if made == program.equations else replace(program, equations=made)


def divides(program: Program) -> bool:
    """Is there a subscript that divides an axis by a number, so that extents may show it to be a group's?"""
    return any(
        isinstance(x, Apply)
        and x.op == "floordiv"
        and isinstance(x.args[0], AxisValue)
        and isinstance(x.args[1], Const)
        for eq in program.equations
        for e in eq.expressions()
        for r in reads(e)
        for x in r.index
    )


def grouped(program: Program) -> dict[str, str]:
    """Every axis h with a subscript `h // (|h| / |g|)` somewhere, with that g."""
    found: dict[str, str] = {}
    subscripts = (
        i for eq in program.equations for e in eq.expressions() for r in reads(e) for x in r.index for i in _parts(x)
    )
    for e in subscripts:
        match e:
            case Apply("floordiv", (AxisValue(h), Apply("exactdiv", (Extent(whole), Extent(g))))) if whole == h != g:
                found.setdefault(h, g)
            case _:
                pass
    return found


def _parts(e: Expr) -> tuple[Expr, ...]:
    return (e, *(x for a in e.args for x in _parts(a))) if isinstance(e, Apply) else (e,)


@dataclass(frozen=True, slots=True)
class Split:
    """The axis as a group and a place in it; there are as many groups as positions of the axis `groups`."""

    whole: Program
    axis: str
    groups: str
    group: str
    place: str

    def program(self) -> Program | None:
        """The program over the two axes; None where the order along the axis matters to a reduction."""
        if any(self.axis in eq.over and _is_ordered(eq) for eq in self.whole.equations):
            return None
        apart = {t.name for eq in self.whole.equations for t in eq.outputs if self.is_apart(eq)}
        made: list[Equation] = []
        copies: dict[str, str] = {}
        taken = names(self.whole) | {self.group, self.place}
        for eq in self.whole.equations:
            if self.axis in eq.axes and self.is_read(eq) and eq.name in self.whole.results and self.alone(eq):
                name = copies[eq.name] = unused(f"{eq.name}_rows", taken)
                taken.add(name)
                apart.add(name)
        rewrite = self.rewriter(apart, copies)
        for eq in self.whole.equations:
            new = self.equation(eq, rewrite, eq.name in apart or eq.name in copies)
            if eq.name not in copies:
                made.append(new)
                continue
            inner = replace(new, outputs=(Tensor(copies[eq.name], eq.outputs[0].dtype),))
            read = Read(inner.name, tuple(AxisValue(a) for a in inner.axes))
            made += [inner, Equation(eq.outputs, self.dims(eq, False), (read,), span=eq.span)]
        added = [AxisDecl(self.place, Apply("exactdiv", (Extent(self.axis), Extent(self.groups))))]
        if self.group != self.groups:
            added.append(AxisDecl(self.group, Extent(self.groups)))
        return replace(self.whole, equations=tuple(made), axes=(*self.whole.axes, *added))

    def equation(self, eq: Equation, rewrite: Callable[[Expr], Expr], apart: bool) -> Equation:
        over = tuple(b for a in eq.over for b in ((self.group, self.place) if a == self.axis else (a,)))
        return replace(eq.map(rewrite), dims=self.dims(eq, apart), over=over)

    def dims(self, eq: Equation, apart: bool) -> tuple[tuple[str, ...], ...]:
        """The dimensions of an output: two for one of the axis alone where it is taken apart, else one of both."""
        both = (self.group, self.place)
        found: list[tuple[str, ...]] = []
        for dim in eq.dims:
            if apart and dim == (self.axis,):
                found += [(self.group,), (self.place,)]
            else:
                found.append(tuple(b for a in dim for b in (both if a == self.axis else (a,))))
        return tuple(found)

    def rewriter(self, apart: set[str], copies: Mapping[str, str]) -> Callable[[Expr], Expr]:
        """Expressions over the two axes: the quotient of the axis becomes the group, and so on."""
        shapes = self.whole.shapes()
        group, place = AxisValue(self.group), AxisValue(self.place)
        share = Apply("exactdiv", (Extent(self.axis), Extent(self.groups)))
        position = composite((self.group, self.place))
        known: dict[Expr, Expr] = {
            Apply("floordiv", (position, share)): group,
            Apply("mod", (position, share)): place,
            AxisValue(self.axis): position,
        }

        def at(n: Expr) -> Expr:
            n = known.get(n, n)
            if not isinstance(n, Read):
                return n
            tensor = copies.get(n.tensor, n.tensor)
            if tensor not in apart:
                return n
            index: list[Expr] = []
            for e, dim in zip(n.index, shapes[n.tensor], strict=True):
                index += [group, place] if dim == (self.axis,) else [e]
            return replace(n, tensor=tensor, index=tuple(index))

        return lambda e: bottom_up(e, at)

    def is_apart(self, eq: Equation) -> bool:
        """May the tensors of an equation have two dimensions instead of one? Results may not."""
        inner = not any(t.name in self.whole.results for t in eq.outputs)
        return inner and (self.axis,) in eq.dims and self.alone(eq)

    def alone(self, eq: Equation) -> bool:
        """Has the equation one output, with dimensions of one axis each, that is always read at the axis itself?"""
        if len(eq.outputs) > 1 or any(len(dim) != 1 for dim in eq.dims):
            return False
        at = eq.dims.index((self.axis,)) if (self.axis,) in eq.dims else 0
        return all(r.index[at] == AxisValue(self.axis) for r in self.reads_of(eq))

    def is_read(self, eq: Equation) -> bool:
        return bool(self.reads_of(eq))

    def reads_of(self, eq: Equation) -> list[Read]:
        return [r for e in self.whole.equations for x in e.expressions() for r in reads(x) if r.tensor == eq.name]


def split(program: Program, axis: str, groups: str) -> Split:
    """The axis taken apart. Its group is the axis `groups` itself, unless both appear together somewhere."""
    taken = names(program)
    beside = any({axis, groups} <= _axes(eq) for eq in program.equations)
    group = unused(groups, taken) if beside else groups
    return Split(program, axis, groups, group, unused("r", taken | {group}))


def _axes(eq: Equation) -> set[str]:
    return {*eq.axes, *eq.over, *(a for e in eq.expressions() for a in axes_of(e))}


def _is_ordered(eq: Equation) -> bool:
    assert eq.monoid is not None
    return not eq.monoid.commutative or len(eq.bodies) > 1
