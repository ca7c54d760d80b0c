"""Where what an equation gives is read: predicates that hold at every read of it.

    M[i] = max[j](S);  P[i] = where(i < n, M[i], -inf)    -->   M[i] = max[j](S), within i < n

A mask of rows that has left a reduction bounds it no more by itself; but what nobody reads need not be computed.
"""

from __future__ import annotations

import math
from dataclasses import replace

from einc import ein
from einc.ein import Apply, AxisValue, Const, Expr, Program, Read, Scalar
from einc.guards import composite
from einc.passes.domain import Domain, conjunction, domain, fails, holds


def bound_by_demand(program: Program) -> Program:
    """The program with every reduction within what its readers ask for."""
    asked = demand(program)
    equations = tuple(
        replace(e, within=conjunction(sorted(asked[e.name], key=repr))) if e.monoid and asked.get(e.name) else e
        for e in program.equations
    )
    return replace(program, equations=equations)


def demand(program: Program) -> dict[str, Domain]:
    """By tensor, the predicates over its own axes, and integers that are given, that hold wherever it is read."""
    return _Demand(program).found


class _Demand:
    def __init__(self, program: Program) -> None:
        self.dtypes = program.dtypes()
        self.given = {p.name for p in program.operands}
        self.made = {t.name: e for e in program.equations for t in e.outputs}
        self.found: dict[str, Domain] = dict.fromkeys(program.results, frozenset())
        for e in reversed(program.equations):
            own = frozenset(p for p in self.found.get(e.name, frozenset()) if self.is_plain(p, e.axes))
            self.found[e.name] = own
            for x in e.computed():
                self.visit(x, own)

    def visit(self, e: Expr, under: Domain) -> None:
        """Note the reads of an expression that is evaluated where these predicates hold."""
        match e:
            case Apply(op="where", args=(p, x, y)):
                self.visit(p, under)
                self.visit(x, under.union(holds(p)))
                self.visit(y, under.union(fails(p)))
            case Apply(op="mul" | "add" as op, args=(x, y)):  # 0 * x is 0, and -inf + x is -inf, whatever x is
                nothing = 0 if op == "mul" else -math.inf
                self.visit(x, under | domain(y, nothing))
                self.visit(y, under | domain(x, nothing))
            case Read(tensor=name, index=index) if name in self.made:
                at_home = index == tuple(composite(dim) for dim in self.made[name].dims)
                self.found[name] = self.found.get(name, under) & under if at_home else frozenset()
                for i in index:
                    self.visit(i, under)
            case _:
                for below in ein.children(e):
                    self.visit(below, under)

    def is_plain(self, p: Expr, axes: tuple[str, ...]) -> bool:
        """Is it about some of these axes and made of integers and truth values that are there beforehand?"""
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
