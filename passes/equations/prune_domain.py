"""Bound reductions whose domain depends on data, by which chunks of the data can match.

    O[b, i] = sum[j](where(doc[b, i] == doc[b, j], f, 0))
    -->   doc_least[b, c] = min[r](doc[b, c * 16 + r])    doc_most[b, c] = max[r](doc[b, c * 16 + r])
          O_first[b, m] = min[c : doc_least[b, c] <= most of m and least of m <= doc_most[b, c]](c * 16)
          O_last[b, m]  = max[c : the same](c * 16 + 16)
          O[b, i] = the same sum, within O_first[b, i // 16] <= j and j < O_last[b, i // 16]

Each predicate of the domain is evaluated over intervals: whether it may hold anywhere in a chunk of rows and a chunk of
the reduced axis. Least and greatest values of each chunk, and the first and last chunk of each row of chunks, are
ordinary equations of O(n) memory. The predicate stays where it is, as the mask of the tiles that are visited.

Where it holds everywhere in some chunks, the first run of them is tabulated as well. That a position lies outside of
the run, or the predicate holds, is always true, and tells the walk where no mask is needed:

          O_sure[b, m]  = min[c : doc is the same everywhere in chunks m and c](c * 16)
          O_fails[b, m] = min[c : O_sure[b, m] <= c * 16, and it is not](c * 16)
          O[b, i] = the same sum, within … and (j < O_sure[b, i // 16] or O_fails[b, i // 16] <= j or doc[i] == doc[j])

A sum of products whose terms are masked by data, each at its own position, is masked at every position of every tile.
Where a part of the mask that suffices is about few positions of operands, it tells where the others need not be asked:

    sum[j](where(ok[i] or j == t[i], x[i, j], 0) * y[j])   -->   the same, within ok[i] or j == t[i]
    sum[i](where(ok[i] or j == t[i], x[i, j], 0) * y[i])   -->   the same, within i >= min[i : not ok[i]](i) or the mask

It pays where the bounded reductions are predicted to take much longer than the equations that compute the bounds.
Without it every tile of a mask that reads data is visited: for packed documents, all of n * n.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from einc import ein
from einc.base.types import I32, DType
from einc.ein import Apply, AxisValue, Const, Equation, Expr, Program, Read, axes_of
from einc.ein.domains import Domains
from einc.ein.guards import composite
from einc.ein.inference import dtype_of
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import names, unused
from einc.passes.algebra.domain import Domain, conjunction, domain_of, holds, ordered
from einc.passes.algebra.scope import is_stored_as
from einc.passes.equations.chunks import CHUNK, Chunks
from einc.passes.equations.demand import bound_by_demand
from einc.passes.estimate.cost import Model
from einc.passes.estimate.single import alone
from einc.passes.estimate.units import arithmetic
from einc.pipeline import Context, positions

_LEAST_GAIN = 4.0  # the least ratio of the reductions' predicted time to that of their bounds


def prune_domain(program: Program, context: Context) -> Program:
    """The program with bounds for the reductions whose domain depends on data, or that not all rows need."""
    program = bound_by_demand(program)
    named = {e.name: e for e in program.equations}
    dtypes = program.dtypes()
    groups: dict[tuple[str, Domain], list[Equation]] = {}
    for e in program.equations:
        found = _data_domain(e, named, dtypes, context)
        if found is not None:
            groups.setdefault(found, []).append(e)
    pruning = _Pruning(program, context)
    for (axis, predicates), equations in groups.items():
        pruning.bound(axis, predicates, equations)
    for e in pruning.program.equations:
        pruning.suffice(e)
    return pruning.program


def _data_domain(
    e: Equation, named: dict[str, Equation], dtypes: dict[str, DType], context: Context
) -> tuple[str, Domain] | None:
    """The longest axis of a reduction along which predicates of its domain read integers or truth values, and these."""
    if e.monoid is None or e.added:
        return None
    needed: Domain = frozenset() if e.domain is None else frozenset(holds(e.domain))
    needed |= domain_of(e.monoid, (_written_out(b, named, dtypes) for b in e.bodies))
    found = frozenset(ordered(p, lambda x: dtype_of(x, dtypes).is_int) for p in needed)
    read = {a: frozenset(p for p in found if _reads_along(p, a, dtypes)) for a in e.over}
    axis = max((a for a in read if read[a]), key=context.size, default=None)
    return None if axis is None else (axis, read[axis])


def _written_out(e: Expr, named: dict[str, Equation], dtypes: dict[str, DType]) -> Expr:
    """The expression with every pointwise tensor that is read at its own axes replaced by its body."""
    if isinstance(e, Read):
        source = named.get(e.tensor)
        if source is None or source.monoid is not None or e.guard is not None:
            return e
        if e.index != tuple(composite(dim) for dim in source.dims):
            return e
        k = [t.name for t in source.outputs].index(e.tensor)
        body, stored = _written_out(source.bodies[k], named, dtypes), source.outputs[k].dtype
        return body if is_stored_as(body, stored, dtypes) or not stored.is_int else ein.Cast(stored, body)
    return ein.rebuild(e, lambda below: _written_out(below, named, dtypes))


def _reads_along(p: Expr, axis: str, dtypes: dict[str, DType]) -> bool:
    along = [dtypes[r.tensor] for r in ein.reads(p) if axis in axes_of(r)]
    return bool(along) and all(t.is_int or t.is_bool for t in along)


class _Pruning:
    """The program in the making."""

    def __init__(self, program: Program, context: Context) -> None:
        self.program, self.context = program, context

    def bound(self, axis: str, predicates: Domain, equations: list[Equation]) -> None:
        """Bound these equations along the axis, if their predicates exclude any chunks and it pays."""
        given = _defined_before(self.program, equations[0])
        usable = sorted((p for p in predicates if ein.tensors_of(p) <= given), key=repr)
        if not usable:
            return
        row = self.row_axis(usable, axis)
        chunks = Chunks(self.program, tuple(a for a in (axis, row) if a is not None))
        test = conjunction(t for p in usable if (t := chunks.possible(p)) != ein.TRUE)
        if test is None or chunks.of(axis) not in axes_of(test):
            return
        sure = [(p, t) for p in usable if row and (t := chunks.certain(p)) != ein.FALSE]
        made = self.hull(axis, row, test, sure, chunks, equations)
        if self.pays(made, chunks, equations if row is None else self.with_needed(equations, row, axis)):
            self.program = made

    def suffice(self, e: Equation) -> None:
        """Tell where a part of what masks a product holds by itself, if nothing else bounds it and it pays.

        Comparisons of positions alone are bounds without being told.
        """
        if e.product is None or e.added or len(e.over) != 1 or e.within is not None:
            return
        (axis,), program = e.over, self.program
        given = {p.name for p in program.operands}
        domains = Domains({x.name: x for x in program.equations})
        parts = [(p, _sufficient(p, {*e.axes, axis}, given)) for p in sorted(domains.of(e.body, 0), key=repr)]
        told = [(p, d) for p, d in parts if d is not None and (axis not in axes_of(d) or _reads_at(d, axis))]
        tests = [p for p, _ in told]
        tables: list[Equation] = []
        if along := [(p, d) for p, d in told if axis in axes_of(d)]:
            all_hold = conjunction(d for _, d in along)
            assert all_hold is not None
            table = ein.Tensor(unused(f"{e.name}_fails", names(program)), I32)
            own = tuple(a for a in axes_of(all_hold) if a != axis)
            body, dims = (ein.Cast(I32, AxisValue(axis)),), tuple((a,) for a in own)
            tables.append(Equation((table,), dims, body, MONOIDS["min"], (axis,), Apply("not", (all_hold,))))
            beyond = Apply("ge", (AxisValue(axis), Read(table.name, tuple(map(AxisValue, own)))))
            tests += [Apply("or", (beyond, p)) for p, _ in along]
        if tests:
            place = program.equations.index(e)
            bounded = replace(e, within=conjunction(tests))
            done = (*program.equations[:place], *tables, bounded, *program.equations[place + 1 :])
            made = replace(program, equations=done)
            if self.worth(made, [e]):
                self.program = made

    def row_axis(self, predicates: Iterable[Expr], axis: str) -> str | None:
        """The longest other axis that shares no data tensor with the reduced one."""
        found = dict.fromkeys(a for p in predicates for a in axes_of(p) if a != axis)
        for r in (r for p in predicates for r in ein.reads(p)):
            if axis in axes_of(r):
                for i in r.index:
                    found.pop(i.axis, None) if isinstance(i, AxisValue) else None
        return max(found, key=lambda a: self.context.size(a), default=None)

    def hull(
        self,
        axis: str,
        row: str | None,
        test: Expr,
        sure: Sequence[tuple[Expr, Expr]],
        chunks: Chunks,
        equations: list[Equation],
    ) -> Program:
        """The program with the first position that may be needed, and the one after the last, as bounds.

        `sure` are the predicates of which a run of chunks is tabulated, each with where it holds all over two chunks.
        """
        tables = _Tables(axis, row, chunks, equations[0].name)
        start: Expr = Apply("mul", (AxisValue(chunks.of(axis)), Const(CHUNK)))
        first = tables.table("first", "min", test, start)
        last = tables.table("last", "max", test, Apply("add", (start, Const(CHUNK))))
        position = AxisValue(axis)
        tests: list[Expr] = [Apply("ge", (position, first)), Apply("lt", (position, last))]
        if sure:
            holds = conjunction(t for _, t in sure)
            assert holds is not None
            begins = tables.table("sure", "min", holds, start)
            beyond = Apply("ge", (start, tables.here(begins)))
            fails = tables.table("fails", "min", Apply("and", (beyond, Apply("not", (holds,)))), start)
            outside = Apply("or", (Apply("lt", (position, begins)), Apply("ge", (position, fails))))
            tests += [Apply("or", (outside, p)) for p, _ in sure]
        own = {e.name: [] if e.within is None else [e.within] for e in equations}
        bounded = {e.name: replace(e, within=conjunction((*own[e.name], *tests))) for e in equations}
        program = self.program
        place = min(k for k, e in enumerate(program.equations) if e.name in bounded)
        done = tuple(bounded.get(e.name, e) for e in program.equations)
        return replace(
            program,
            axes=(*program.axes, *chunks.axes()),
            equations=(*done[:place], *chunks.equations, *tables.made, *done[place:]),
        )

    def pays(self, made: Program, chunks: Chunks, equations: list[Equation]) -> bool:
        """Do the bounds take O(n) memory, and little time compared with the reductions?"""
        before = {e.name for e in self.program.equations}
        extra = [e for e in made.equations if e.name not in before]
        long = max(self.context.size(a) for a in chunks.lengths)
        if any(positions(tuple(a for a in e.axes if a not in chunks.own), self.context) >= long for e in extra):
            return False
        return self.worth(made, equations)

    def worth(self, made: Program, equations: Sequence[Equation]) -> bool:
        """Do the equations that were made take little time compared with these?"""
        context = self.context.knowing(made.axes)
        model, rates = Model(made, context), context.target.rates
        before = {e.name for e in self.program.equations}
        extra = [e for e in made.equations if e.name not in before]
        counted = [model.operations(e) for e in equations]
        spent = sum(arithmetic(rates, *operations)[0] for operations in counted)
        tables: dict[tuple[tuple[str, ...], ...], float] = {}  # those of the same axes share a kernel
        for e in extra:
            seconds = model.cost(alone(e, made, context)).seconds
            tables[e.axes, e.over] = max(tables.get((e.axes, e.over), 0.0), seconds)
        return spent >= _LEAST_GAIN * sum(tables.values())

    def with_needed(self, equations: Sequence[Equation], row: str, axis: str) -> list[Equation]:
        """These equations, and what they need at each position of the rows and of the axis that they reduce."""
        pair = {row, axis}
        needed, found = {e.name for e in equations}, []
        for e in reversed(self.program.equations):
            if needed.intersection(t.name for t in e.outputs):
                found.append(e)
                needed |= {r.tensor for x in e.expressions() for r in ein.reads(x) if pair <= set(axes_of(r))}
        return found


def _reads_at(e: Expr, axis: str) -> bool:
    """Is anything read along an axis?"""
    return any(axis in axes_of(r) for r in ein.reads(e))


def _sufficient(p: Expr, space: Collection[str], given: Collection[str]) -> Expr | None:
    """The part of a disjunction about the fewest axes, if these are not all and it is about operands."""
    parts, found = [p], []
    while parts:
        match parts.pop():
            case Apply("or", (a, b)):
                parts += [b, a]
            case d if ein.tensors_of(d) <= set(given) and ein.tensors_of(d) and set(axes_of(d)) < set(space):
                found.append(d)
    return min(found, key=lambda d: len(axes_of(d)), default=None)


@dataclass
class _Tables:
    """Equations in the making that reduce what is known of chunks of one axis, for every chunk of the rows."""

    axis: str
    row: str | None
    chunks: Chunks
    stem: str
    made: list[Equation] = field(default_factory=list)

    def table(self, what: str, monoid: str, test: Expr, body: Expr) -> Read:
        """The least or greatest value over the chunks that pass the test, as a read at the axes of the program."""
        column = self.chunks.of(self.axis)
        name = self.chunks.name(f"{self.stem}_{what}")
        axes = tuple(a for a in axes_of(test) if a != column)
        dims = tuple((a,) for a in axes)
        bodies = (ein.Cast(I32, body),)
        self.made.append(Equation((ein.Tensor(name, I32),), dims, bodies, MONOIDS[monoid], (column,), test))
        chunked = None if self.row is None else self.chunks.of(self.row)
        at = (
            Apply("floordiv", (AxisValue(self.row), Const(CHUNK))) if self.row and a == chunked else AxisValue(a)
            for a in axes
        )
        return Read(name, tuple(at))

    def here(self, table: Read) -> Read:
        """The same value as a read at the axes of chunks."""
        (own,) = (e for e in self.made if e.name == table.tensor)
        return Read(table.tensor, tuple(AxisValue(a) for a in own.axes))


def _defined_before(program: Program, e: Equation) -> set[str]:
    """The tensors that exist when an equation is computed."""
    found = {p.name for p in program.operands}
    for other in program.equations:
        if other.name == e.name:
            break
        found |= {t.name for t in other.outputs}
    return found
