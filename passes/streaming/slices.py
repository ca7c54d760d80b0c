"""A program over one slice of an axis after the other, for what would take too much memory at once.

    Z[n, v] = f(v);   X[n] = sum[v](Z[n, v] * W[v]);                 Y[v] = sum[n](Z[n, v])
    -->   for each slice of v, from `first` on:
    Z[n, v] = f(first + v);   X[n] = X_so_far[n] + sum[v](Z[n, v] * W[v]);   Y[v] = sum[n](Z[n, v])

Operands and results along the axis are slices of the whole ones. A sum over it is added to that of the slices before,
in the type that arithmetic is done in. So Z is there for one slice at a time, each of its elements is computed once,
and the sums are all that is read and written more than once. Nothing may be known of the axis as a whole: its extent, a
position of it that is told by data, or a reduction over it that something else reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from einc.base.types import INT, compute
from einc.ein import (
    Apply,
    AxisValue,
    Equation,
    Expr,
    Extent,
    Operand,
    Param,
    Program,
    Read,
    Scalar,
    Tensor,
    rebuild,
    tensors_of,
    walk,
)
from einc.ein.guards import composite
from einc.ein.rewriting import names, unused
from einc.pipeline.parts import Sliced


def sliced(program: Program, axis: str) -> Sliced | None:
    """The program over a slice of an axis; None where it has to know the whole of it."""
    if any(a.extent is not None for a in program.axes if a.name == axis):
        return None
    if any(n == Extent(axis) for a in program.axes if a.extent is not None for n in walk(a.extent)):
        return None
    if any(n == Extent(axis) for p in program.scalars if p.default is not None for n in walk(p.default)):
        return None
    return _Slicing(program, axis).made()


class _Whole(Exception):
    """The axis has to be known as a whole."""


@dataclass
class _Slicing:
    program: Program
    axis: str
    taken: set[str] = field(init=False)
    along: dict[str, int] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    operands: list[Operand] = field(default_factory=list)
    reads_first: bool = False

    def __post_init__(self) -> None:
        self.taken = set(names(self.program))
        self.first = self.named(f"{self.axis}_first")

    def named(self, wanted: str) -> str:
        name = unused(wanted, self.taken)
        self.taken.add(name)
        return name

    def made(self) -> Sliced | None:
        p = self.program
        try:
            for operand in p.operands:
                self.place(operand.name, operand.dims)
            equations = tuple(made for e in p.equations for made in self.equation(e))
        except _Whole:
            return None
        if not all(r in self.along or r in self.sums for r in p.results):
            return None
        params: list[Operand | Param] = [*p.operands, *self.operands, *p.scalars]
        if self.reads_first:
            params.append(Param(self.first, INT))
        program = replace(p, name=f"{p.name}_slice", params=tuple(params), equations=equations)
        ends = {*(o.name for o in p.operands), *p.results}
        along = {name: k for name, k in self.along.items() if name in ends}
        return Sliced(program, self.first if self.reads_first else None, along, self.sums)

    def place(self, name: str, dims: tuple[tuple[str, ...], ...]) -> None:
        """Note which dimension of a tensor is the axis."""
        found = [k for k, dim in enumerate(dims) if self.axis in dim]
        if found and (len(found) > 1 or dims[found[0]] != (self.axis,)):
            raise _Whole
        if found:
            self.along[name] = found[0]

    def equation(self, e: Equation) -> tuple[Equation, ...]:
        own = e.map(self.shifted)
        if self.axis in e.axes:
            for t in e.outputs:
                self.place(t.name, e.dims)
            return (own,)
        if self.axis in e.over:
            return self.added(own)
        if e.monoid is not None or not {t.name for t in e.outputs}.isdisjoint(self.program.results):
            raise _Whole  # it would be computed anew for each slice
        return (own,)

    def added(self, e: Equation) -> tuple[Equation, Equation]:
        """A sum over the axis: that of the slice, and of all slices so far."""
        read = {t for other in self.program.equations for x in other.expressions() for t in tensors_of(x)}
        if e.monoid is None or not e.monoid.adds or len(e.outputs) > 1 or e.name in read:
            raise _Whole
        if e.name not in self.program.results:
            raise _Whole
        dtype = compute(e.outputs[0].dtype)
        before, part = self.named(f"{e.name}_so_far"), self.named(f"{e.name}_slice")
        self.sums[e.name] = before
        self.operands.append(Operand(before, e.dims, dtype, declared=True))
        at = tuple(map(composite, e.dims))
        total = Apply("add", (Read(before, at), Read(part, at)))
        return replace(e, outputs=(Tensor(part, dtype),)), Equation((Tensor(e.name, dtype),), e.dims, (total,))

    def shifted(self, e: Expr) -> Expr:
        """The expression for a slice, whose positions are those of the whole from `first` on."""
        match e:
            case AxisValue(axis=axis) if axis == self.axis:
                self.reads_first = True
                return Apply("add", (Scalar(self.first), e))
            case Extent(axis=axis) if axis == self.axis:
                raise _Whole
            case Read(tensor=name, index=index) if name in self.along:
                k = self.along[name]
                if index[k] != AxisValue(self.axis):
                    raise _Whole
                found = tuple(i if n == k else self.shifted(i) for n, i in enumerate(index))
                return replace(e, index=found, guard=None if e.guard is None else self.shifted(e.guard))
            case _:
                return rebuild(e, self.shifted)
