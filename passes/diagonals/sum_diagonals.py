"""Sum along diagonals by blocks, in place of storing what is summed.

    T[r] = sum[j : p](X[r + j, j])
    -->   T_blocks[D, p, q] = sum[I : p](X[A * I + p, A * I - B * (D - n) + q])      n = |j| / B, rounded up
          T[r] = sum[p](T_blocks[(r - p + q) // B + n, p, q])      q = (p - r) % B

and so for X[j - r, j], whose diagonals are numbered from the other end, and for X[r - j, j], which rise. X is over i
and j, made by contractions: at one block of A positions i and one of B positions j these are of tiles, as any others
are, while along a diagonal every term would be a product by itself. The blocks of all diagonals with one D are added up
in a tile, and a gather adds up its diagonals. Where a mask bounds i - j, as a window does, there are only the D that it
leaves, counted from the first of them.

It pays where X would be in memory only for this, and is large, or takes longer to move than to compute again. Blocks
are those of a contraction, half as long along j for what is computed with the results. All tiles take (|i| + |j|) * A
numbers, where X takes |i| * |j|. A table that is read at i - j, as of relative positions, has such a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from einc.ein import (
    ONE,
    TRUE,
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
    tensors_of,
)
from einc.ein.domains import conjunction, holds
from einc.ein.rewriting import drop_dead, names, unused
from einc.passes.algebra.exposure import inside
from einc.passes.algebra.folding import call
from einc.passes.algebra.linear import Form, combined, form, less, written
from einc.passes.algebra.scope import accumulated
from einc.passes.diagonals.blocks import Blocks, Diagonals, Place, blocks_of, counts
from einc.passes.estimate.cost import Model
from einc.passes.estimate.units import arithmetic
from einc.passes.streaming.walks import needed
from einc.pipeline import Context, positions

_Ends: TypeAlias = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class _Sum:
    """A sum along diagonals: `at` is where `source` is read along its axis `across`, in terms of r and j."""

    equation: Equation
    source: Equation
    r: str
    j: str
    across: str
    second: int  # the dimension of `source` that is read at j
    at: Form

    @property
    def falls(self) -> bool:
        """Is i + j the same along a diagonal, and not i - j?"""
        return self.at[AxisValue(self.j)] < 0

    @property
    def i_first(self) -> bool:
        """Are positions i rows of a tile, and not j?"""
        return self.source.axes.index(self.across) < self.second

    @property
    def rest(self) -> Form:
        """What `at` is beside r and j."""
        return {x: n for x, n in self.at.items() if x not in (AxisValue(self.r), AxisValue(self.j))}


def sum_diagonals(program: Program, context: Context) -> Program:
    """The program with such sums by blocks where that pays."""
    for eq in program.equations:
        made = next((m for s in _sums(eq, program) if (m := _by_blocks(s, program, context)) is not None), None)
        program = program if made is None else made
    return program


def _sums(eq: Equation, program: Program) -> Iterator[_Sum]:
    """The ways in which an equation is a sum along diagonals."""
    if eq.monoid is None or not eq.monoid.adds or len(eq.outputs) > 1 or eq.outputs[0].dtype.is_complex:
        return
    named = {e.name: e for e in program.equations if e.name not in program.results}
    for read in dict.fromkeys(r for r in reads(eq.body) if r.tensor in named):
        source = named[read.tensor]
        bare = {i.axis: n for n, i in enumerate(read.index) if isinstance(i, AxisValue)}
        for across, index in zip(source.axes, read.index, strict=False):
            for r, j in ((r, j) for j in eq.over if j in bare for r in eq.axes if r not in bare):
                at = form(index)
                if at and {at.get(AxisValue(r)), at.get(AxisValue(j))} <= {1, -1} and set(axes_of(index)) == {r, j}:
                    found = _Sum(eq, source, r, j, across, bare[j], at)
                    if set(eq.over) <= bare.keys() and _is_inside(found):
                        yield found


def _is_inside(s: _Sum) -> bool:
    """Does the domain say that all terms are within the extent of the axis, which its reads then need not?"""
    known = [d for p in holds(s.equation.domain or TRUE) if (d := less(p)) is not None]
    beyond = combined((1, s.at), (-1, {Extent(s.across): 1}))  # < 0
    below = combined((-1, s.at), (-1, {ONE: 1}))
    natural = all(n > 0 for n in s.at.values())
    return beyond in known and (natural or below in known)


# ---------------------------------------------------------------------------------------------------------------------
# The law


def _by_blocks(s: _Sum, program: Program, context: Context) -> Program | None:
    """The program with the sum by blocks; None where it does not pay."""
    taken = names(program)
    diagonals, axes = _axes(s, _bounds(s, program), context, taken)
    context = context.knowing(axes)
    blocks = Blocks(program, diagonals, taken)
    whole = _summed(s, blocks, program)
    if blocks.compares() or not _pays(s, blocks, whole, context):
        return None
    last = _gathered(s, whole, diagonals)
    equations = tuple(
        new for e in program.equations for new in ((*blocks.equations(), whole, last) if e is s.equation else (e,))
    )
    return drop_dead(replace(program, axes=(*program.axes, *axes), equations=equations))


def _axes(s: _Sum, bounds: _Ends, context: Context, taken: set[str]) -> tuple[Diagonals, tuple[AxisDecl, ...]]:
    """Names for the places of blocks, and the axes that they are."""
    i, j = s.across, s.j
    first, second = (i, j) if s.i_first else (j, i)
    columns = context.block(chained=True)
    rows = max(context.block() // columns, 1) * columns
    wanted = f"{first}_block", f"{first}{second}_block", f"{first}_place", f"{second}_place"
    step, diagonal, p, q = (_taken(name, taken) for name in wanted)
    before, after = blocks_of(second, columns), call("mul", Const(rows // columns), Extent(step))
    every, (least, most) = (before, after), bounds
    if least is not None and (n := max((rows - 1 - least) // columns, 0)) < -(-context.size(second) // columns):
        before = Const(n)
    if (
        most is not None
        and (n := max((most - 1) // columns, -1) + 2) < -(-context.size(first) // rows) * rows // columns
    ):
        after = Const(n)
    count = written(combined((1, form(before) or {}), (1, form(after) or {})))
    whole = (before, after) == every
    found = Diagonals(first, second, s.falls, rows, columns, step, diagonal, (p, q), before, whole)
    extents = (blocks_of(first, rows), count, Const(rows), Const(columns))
    return found, tuple(AxisDecl(name, e) for name, e in zip((step, diagonal, p, q), extents, strict=True))


def _bounds(s: _Sum, program: Program) -> _Ends:
    """The least and the greatest difference of the positions of a pair that counts, as far as they are known."""
    if s.falls:
        return None, None
    eq, named = s.equation, {t.name: e for e in program.equations for t in e.outputs}
    assert eq.monoid is not None
    beyond = combined((1, s.at), (-1, {AxisValue(s.j): 1}))
    beyond = beyond if s.i_first else combined((-1, beyond))
    least, most = list[int](), list[int]()
    for f in (f for p in needed(eq.monoid, eq.bodies, (eq.domain, eq.within), named) for f in _less(p)):
        for sign, found in ((1, most), (-1, least)):
            rest = combined((1, f), (-sign, beyond))
            if rest.keys() <= {ONE}:
                found.append(sign * (-rest.get(ONE, 0) - 1))
    return max(least, default=None), min(most, default=None)


def _less(p: Expr) -> Iterator[Form]:
    """The forms that a predicate says are less than 0."""
    match p:
        case Apply("lt" | "le" as op, (Apply("abs", (x,)), y)):
            yield from (f for side in (x, call("neg", x)) if (f := less(Apply(op, (side, y)))) is not None)
        case Apply("eq", (Apply("floordiv", (x, Const(int() as n))), Apply("floordiv", (y, Const(int() as m))))) if (
            n == m
        ):
            near = (Apply("lt", (call("sub", a, b), Const(n))) for a, b in ((x, y), (y, x)))
            yield from (f for q in near if (f := less(q)) is not None)
        case _ if (f := less(p)) is not None:
            yield f


def _taken(wanted: str, taken: set[str]) -> str:
    """A name that is free, which is then taken."""
    name = unused(wanted, taken)
    taken.add(name)
    return name


def _summed(s: _Sum, blocks: Blocks, program: Program) -> Equation:
    """The sums of blocks."""
    eq, d = s.equation, blocks.diagonals
    i, j = (d.first, d.second) if s.i_first else (d.second, d.first)
    along = combined((1, i), (1 if s.falls else -1, j))
    sign = s.at[AxisValue(s.r)]
    place = Place({s.r: combined((sign, along), (-sign, s.rest)), s.j: j})
    terms = (*d.inside, *map(place.of, holds(eq.domain or TRUE)))
    blocks.known = [less(p) for p in terms]
    told = dict.fromkeys(blocks.placed(p) for n, p in enumerate(terms) if counts(p, blocks.known[:n]))
    domain = conjunction(told)
    body = blocks.placed(place.of(eq.body))
    dtypes = program.dtypes() | {e.name: e.outputs[0].dtype for e in blocks.equations()}
    assert eq.monoid is not None
    dtype = accumulated(eq.monoid, body, eq.outputs[0].dtype, dtypes)
    name = _taken(f"{eq.name}_blocks", blocks.taken)
    axes = blocks.ordered([*(a for a in eq.axes if a != s.r), d.diagonal, *d.places])
    over = (d.step, *(a for a in eq.over if a != s.j))
    dims = tuple((a,) for a in axes)
    return replace(eq, outputs=(Tensor(name, dtype),), dims=dims, bodies=(body,), over=over, domain=domain, within=None)


def _gathered(s: _Sum, blocks: Equation, d: Diagonals) -> Equation:
    """The sums of diagonals, each of which is in a few blocks."""
    p, size = AxisValue(d.places[0]), Const(d.columns)
    sign = s.at[AxisValue(s.r)]
    along = combined((sign, {AxisValue(s.r): 1}), (1, s.rest))  # i - j, or i + j
    if s.falls:
        left = combined((1, along), (-1, {p: 1}))
        q: Expr = Apply("mod", (written(left), size))
        number = written(combined((1, left), (-1, {q: 1})))
    else:
        left = combined((1 if s.i_first else -1, along), (-1, {p: 1}))
        q = Apply("mod", (written(combined((-1, left))), size))
        number = written(combined((1, left), (1, {q: 1})))
    number = Apply("floordiv", (number, size))
    number = number if s.falls else call("add", number, d.middle)
    at: dict[str, Expr] = {d.diagonal: number, d.places[1]: q}
    there = None if d.all else conjunction(inside(number, (d.diagonal,)))
    body = Read(blocks.name, tuple(at.get(a, AxisValue(a)) for a in blocks.axes), there)
    return replace(s.equation, bodies=(body,), over=(p.axis,), domain=there, within=None, product=None)


# ---------------------------------------------------------------------------------------------------------------------
# Whether it pays


def _pays(s: _Sum, blocks: Blocks, whole: Equation, context: Context) -> bool:
    """Is there something to multiply, and is what it makes large, or does it take longer to move?

    Then a program takes at most twice as long, as it multiplies the same at least once.
    """
    program, moved = blocks.program, blocks.equations()
    if not any(e.monoid is not None for e in moved) or not _is_only(s, program):
        return False
    model = Model(replace(program, equations=(*program.equations, *moved)), context)
    works = [model.operations(e) for e in moved]
    dots, vector, special = (sum(w[k] for w in works) for k in range(3))
    computing, _ = arithmetic(context.target.rates, dots, vector, special)
    pairs = positions((blocks.diagonals.walked, blocks.diagonals.across), context)
    computing *= min(pairs / positions(blocks.diagonals.axes, context), 1.0)  # other blocks are beyond an extent
    size = positions(s.source.axes, context)
    moving = 2 * size * s.source.outputs[0].dtype.size / context.target.rates.memory
    shapes = program.shapes()
    there = (*(p.name for p in program.operands), *program.results)
    large = size > max(positions(tuple(a for d in shapes[name] for a in d), context) for name in there)
    return positions(whole.axes, context) < size and (large or computing <= moving)


def _is_only(s: _Sum, program: Program) -> bool:
    """Is it read at places other than its own nowhere else, so that it need not be in memory?"""
    others = (r for e in program.equations if e is not s.equation for x in e.computed() for r in reads(x))
    return all(
        r.index == tuple(map(AxisValue, s.source.axes)) and r.guard is None for r in others if r.tensor == s.source.name
    ) and s.source.name not in {n for e in program.equations if e.within is not None for n in tensors_of(e.within)}
