"""Compute by itself what is picked out of a tensor, instead of reading it from memory.

    U[i] = h(T[i, t[i]])   -->   P[i] = T's definition at (i, t[i]);  U[i] = h(where(0 <= t[i] < |j|, P[i], 0))

T has more positions than are picked. A kernel that computes T and reads it at positions other than its own needs all of
it in memory first, as the logits of a cross-entropy for the one of the target. What T is made of is picked likewise.
This is an alternative, taken where its kernels are predicted to take less time, or to pass on less (`partition`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

from einc.ein import FALSE, ZERO, Apply, AxisValue, Equation, Expr, Program, Read, axes_of, reads, substitute
from einc.ein.guards import conjoin, positions
from einc.ein.ranges import needs_check
from einc.ein.rewriting import bottom_up, names, unused
from einc.passes.algebra.exposure import inside, sheltered
from einc.passes.planning.compared import compared
from einc.passes.streaming.prefix import prefix
from einc.pipeline import Context
from einc.pipeline import positions as count
from einc.pipeline.plan import Alternative, Planned

_FEWER = 8  # times as many positions has what is picked from, at least


def picked(program: Program, _: Sequence[Planned], context: Context) -> Iterator[Alternative]:
    """The program with all that is picked computed by itself, if anything is."""
    picking = _Picking(program, context)
    made = picking.program_picked()
    if made != program:
        yield Alternative(made, leads=True)


class _Picking:
    """The equations of a program, with what they pick in equations of their own before them."""

    def __init__(self, program: Program, context: Context) -> None:
        self.program, self.context = program, context
        self.shapes, self.taken = program.shapes(), names(program)
        self.made = {t.name: eq for eq in program.equations for t in eq.outputs}
        self.once = compared(program)
        self.known: dict[Read, Expr] = {}
        self.equations: list[Equation] = []

    def program_picked(self) -> Program:
        for eq in self.program.equations:
            self.equations.append(self.reading(eq))
        return replace(self.program, equations=tuple(self.equations))

    def reading(self, eq: Equation) -> Equation:
        """The equation reading what it picks from equations of their own, which come before it."""
        found = {r for e in eq.computed() for r in reads(e) if self.is_picked(r)}
        values: Mapping[Expr, Expr] = {r: self.value(r) for r in sorted(found, key=repr)}
        return eq.map(lambda e: bottom_up(e, lambda n: values.get(n, n))) if values else eq

    def is_picked(self, r: Read) -> bool:
        """Does a read pick some values of a tensor that is computed, of which it is right to compute these again?"""
        eq = self.made.get(r.tensor)
        if eq is None or len(eq.outputs) > 1 or eq.outputs[0].dtype.is_complex or r.tensor in self.once:
            return False
        if any(len(d) != 1 for d in eq.dims) or r.index == tuple(map(AxisValue, eq.axes)):
            return False
        if any(not reads(e) and not isinstance(e, AxisValue) and axes_of(e) for e in r.index):
            return False  # a tensor that is read along other axes is gathered, which is more than to pick
        at = {a for e in (*r.index, *(() if r.guard is None else (r.guard,))) for a in axes_of(e)}
        fewer = _FEWER * count(tuple(at), self.context) <= count(eq.axes, self.context)
        return fewer and at.isdisjoint(eq.over) and prefix(eq, self.program) is None

    def value(self, r: Read) -> Expr:
        """The value of such a read: 0 where it is out of range, or its guard does not hold."""
        if r not in self.known:
            eq = self.made[r.tensor]
            checked = zip(r.index, eq.dims, needs_check(self.program, r), strict=True)
            test = reduce(conjoin, [t for e, dim, needed in checked if needed for t in inside(e, dim)], r.guard)
            own = self.at(eq, r, test)
            self.equations.append(self.reading(own))
            value: Expr = Read(own.name, tuple(map(AxisValue, own.axes)))
            zero = FALSE if own.outputs[0].dtype.is_bool else ZERO
            self.known[r] = value if test is None else Apply("where", (test, value, zero))
        return self.known[r]

    def at(self, eq: Equation, r: Read, test: Expr | None) -> Equation:
        """The definition at the positions of a read, for all axes that these depend on."""
        name = unused(f"{eq.name}_at", self.taken)
        self.taken.add(name)
        place = positions(eq.dims, r.index)
        axes = dict.fromkeys(a for e in (*r.index, *(() if test is None else (test,))) for a in axes_of(e))
        moved = eq.map(lambda e: sheltered(substitute(e, place), test, self.shapes))
        return replace(moved, outputs=(replace(eq.outputs[0], name=name),), dims=tuple((a,) for a in axes), within=None)
