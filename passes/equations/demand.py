"""Where the values of an equation are read: predicates that hold at every read of them.

    M[i] = max[j](S);  P[i] = where(i < n, M[i], -inf)    -->   M[i] = max[j](S), within i < n

A mask of rows that has left a reduction no longer bounds it; but rows that nothing reads need not be computed.
"""

from __future__ import annotations

import math
from dataclasses import replace

from einc import ein
from einc.ein import Apply, AxisValue, Const, Expr, Program, Read, Scalar
from einc.ein.guards import composite
from einc.passes.algebra.domain import Domain, conjunction, domain, fails, holds


def bound_by_demand(program: Program) -> Program:
    """The program with every reduction restricted to the positions that are read."""
    asked = demand(program)
    equations = tuple(
        replace(e, within=conjunction(sorted(asked[e.name], key=repr))) if e.monoid and asked.get(e.name) else e
        for e in program.equations
    )
    return replace(program, equations=equations)


def demand(program: Program) -> dict[str, Domain]:
    """For each tensor, the predicates over its own axes and given integers that hold wherever it is read."""
    return _Demand(program).found


class _Demand:
    def __init__(self, program: Program) -> None:
        self.dtypes = program.dtypes()
        self.given = {p.name for p in program.operands}
        self.made = {t.name: e for e in program.equations for t in e.outputs}
        self.found: dict[str, Domain] = dict.fromkeys(program.results, frozenset())
        self.read: dict[str, Domain] = dict(self.found)  # what holds wherever the value is looked at, even to absorb it
        for e in reversed(program.equations):
            for table in (self.found, self.read):
                own = [table[t.name] for t in e.outputs if t.name in table] or [frozenset()]
                table[e.name] = frozenset(p for p in frozenset.intersection(*own) if self.is_plain(p, e.axes))
            for x in e.computed():
                self.visit(x, self.read[e.name])

    def visit(self, e: Expr, under: Domain) -> None:
        """Note the reads of an expression that is evaluated where these predicates hold."""
        match e:
            case Apply(op="where", args=(p, x, y)):
                self.visit(p, under)
                self.visit(x, under.union(holds(p)))
                self.visit(y, under.union(fails(p)))
            case Apply(op="mul" | "add" as op, args=(x, y)):
                nothing = 0 if op == "mul" else -math.inf
                for one, other in ((x, y), (y, x)):
                    if isinstance(one, Read) and self.is_absorbed(one, op):
                        self.note(one, under, under | domain(other, nothing))
                    else:
                        self.visit(one, under)
            case Read() if e.tensor in self.made:
                self.note(e, under, under)
            case _:
                for below in ein.children(e):
                    self.visit(below, under)

    def is_absorbed(self, r: Read, op: str) -> bool:
        """Is 0 * r 0, or -inf + r -inf, even where the reduction r has left everything out?"""
        source = self.made.get(r.tensor)
        if source is None or source.monoid is None:
            return False
        unit = math.inf if source.monoid.unit is None else source.monoid.unit.value
        return math.isfinite(unit) if op == "mul" else unit < math.inf

    def note(self, r: Read, looked: Domain, needed: Domain) -> None:
        name = r.tensor
        if r.index != tuple(composite(dim) for dim in self.made[name].dims):
            looked = needed = frozenset()
        self.read[name] = self.read.get(name, looked) & looked
        self.found[name] = self.found.get(name, needed) & needed
        for below in ein.children(r):
            self.visit(below, looked)

    def is_plain(self, p: Expr, axes: tuple[str, ...]) -> bool:
        """Is it a predicate of some of these axes, and of integers and truth values that are available beforehand?"""
        if not ein.axes_of(p):
            return False
        for n in ein.walk(p):
            match n:
                case AxisValue(axis=axis) if axis not in axes:
                    return False
                case Const() if n.kind == "float":
                    return False
                case Read(tensor=name) | Scalar(name=name):
                    t = self.dtypes[name]
                    if not (t.is_int or t.is_bool) or (isinstance(n, Read) and name not in self.given):
                        return False
                case _:
                    pass
        return True
