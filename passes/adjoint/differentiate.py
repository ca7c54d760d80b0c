"""The adjoint program: gradients of a loss by operands, from those by the results.

    T[o] = monoid[r](f)    -->    dA[a] += sum[o, r : a == e(o, r)](dT[o] * df/dA)      for each read A[e(o, r)]

Equations are taken from the last to the first. What the monoid lets through decides the cotangent of f (`seeds`), the
chain rule what each read gets of it (`chain`), and the read's own index where that goes (`transpose`). References that
only shift are constants (`shifts`). The result is a program like any other: forward equations, then backward ones.

Reverse accumulation as in Griewank and Walther, *Evaluating Derivatives*, ch. 3, on equations in place of operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from einc.base.types import DType, compute
from einc.ein import (
    ZERO,
    Apply,
    AxisValue,
    Const,
    Equation,
    Expr,
    Extent,
    Operand,
    Program,
    Read,
    Tensor,
    axes_of,
    tensors_of,
)
from einc.ein.conditions import all_of, conjuncts
from einc.ein.guards import composite, conjoin
from einc.ein.monoids import MONOIDS
from einc.ein.origins import tensors
from einc.ein.rewriting import drop_dead, names, unused
from einc.passes.adjoint.chain import Chain, Contribution
from einc.passes.adjoint.diagonals import Combination, combination
from einc.passes.adjoint.factors import named_factors
from einc.passes.adjoint.groups import by_groups
from einc.passes.adjoint.quotients import Quotients
from einc.passes.adjoint.reassociate import read_in_place, reassociated
from einc.passes.adjoint.seeds import Seed, seeds
from einc.passes.adjoint.shifts import shifts
from einc.passes.adjoint.transpose import Axes, Piece, pointed, transposed
from einc.passes.algebra.folding import call
from einc.passes.algebra.identities import simplify_expression
from einc.passes.algebra.scope import Scope


@dataclass(frozen=True, slots=True)
class Adjoint:
    """A program with its derivatives.

    `program` takes the operands of `forward` and a cotangent for each result that has one, and gives gradients.
    `forward` has, beside the program's own equations, those that only the derivative reads. `cotangents` and
    `gradients` are their names, by result and by operand; an operand that no result depends on has no gradient.
    """

    forward: Program
    program: Program
    cotangents: dict[str, str]
    gradients: dict[str, str]


def differentiate(
    program: Program,
    operands: Iterable[str],
    results: Iterable[str] | None = None,
    constants: frozenset[str] = frozenset(),
) -> Adjoint:
    """The gradients by these operands, given cotangents of these results, or of all that are of floats.

    `constants` are tensors that are known to have no derivative, beside those that only shift.
    """
    wanted = program.results if results is None else tuple(results)
    program = named_factors(read_in_place(by_groups(program)))
    return _Reverse(program, frozenset(operands), wanted, constants | shifts(program)).run()


@dataclass
class _Reverse:
    program: Program
    wanted: frozenset[str]
    results: tuple[str, ...]
    constant: frozenset[str]
    pieces: dict[str, list[Piece]] = field(default_factory=dict)  # by tensor, what its gradient is made of
    backward: list[Equation] = field(default_factory=list)

    def __post_init__(self) -> None:
        p = self.program
        self.taken = names(p)
        self.dtypes = p.dtypes()
        named = {t.name: e for e in p.equations for t in e.outputs}
        self.quotients = Quotients(named, self.dtypes, self.taken, tensors(p))
        self.view = self.quotients.program(p.equations)  # as it is differentiated, and computed again
        self.shapes = {**p.shapes(), **{t.name: e.dims for e in self.view for t in e.outputs}}
        self.axes = Axes({a.name: a.extent for a in p.axes}, set(self.taken))
        self.active = self._active()
        self.named: dict[str, str] = {}  # the gradient of each tensor
        self.spaces: dict[str, tuple[tuple[str, ...], ...]] = {}  # and its dimensions

    def run(self) -> Adjoint:
        cotangents = {r: self._named(r) for r in dict.fromkeys(self.results) if r in self.active}
        for r, name in cotangents.items():
            self._know(name, self.dtypes[r], self.shapes[r])
            own = tuple(composite(group) for group in self.shapes[r])
            self.pieces[r] = [Piece((), None, Read(name, own))]
        extended: list[list[Equation]] = []
        for e in reversed(self.view):
            extended.append(self._through(e))
        gradients = {p.name: self._gradient(p.name) for p in self.program.operands if p.name in self._reached()}
        return self._made(cotangents, gradients, [e for part in reversed(extended) for e in part])

    def _reached(self) -> frozenset[str]:
        return self.wanted & self.pieces.keys()

    def _active(self) -> frozenset[str]:
        """The tensors that have a derivative by an operand asked for."""
        found = {o.name for o in self.program.operands if o.name in self.wanted and _inexact(o.dtype)}
        for e in self.view:
            below = {t for x in e.bodies for t in tensors_of(x)}
            if e.name not in self.constant and not found.isdisjoint(below):
                found |= {t.name for t in e.outputs if _inexact(t.dtype)}
        return frozenset(found)

    # -- one equation

    def _through(self, e: Equation) -> list[Equation]:
        """Pass the cotangents of an equation's outputs on to what it reads; the equation, with what that takes."""
        there = [t.name for t in e.outputs if t.name in self.pieces]
        if not there or e.name in self.constant:
            return [e]
        found = seeds(e, {name: self._gradient(name) for name in there}, self._aside)
        for seed in found.seeds:
            self._spread(e, seed)
        return [e, *found.extra]

    def _spread(self, e: Equation, seed: Seed) -> None:
        chain = Chain(self.active, self.dtypes)
        space = (*e.axes, *e.over)
        for c in chain.contributions(seed.body, seed.cotangent, seed.guard):
            dims = self._space(c.read.tensor)
            kept = _bare(c.read)
            over = tuple(a for a in space if a not in kept)
            if (found := combination(c.read)) is not None:
                piece = self._along(c, found, space, dims)
            elif kept and over and tuple((a,) for a in kept) != dims:
                value = self._part(c, kept, over)
                piece = transposed(replace(c.read, guard=None), value, None, kept, dims, self.axes, self.shapes)
            else:
                piece = transposed(c.read, c.value, c.guard, space, dims, self.axes, self.shapes)
            self.pieces.setdefault(c.read.tensor, []).append(piece)

    def _part(self, c: Contribution, kept: tuple[str, ...], over: tuple[str, ...]) -> Expr:
        """What a read contributes at each position of the axes that it is read at, which may be those of others too.

        So it is summed where all that it is made of is computed, and put at its place in the gradient afterwards.
        """
        piece = pointed(Piece(over, conjoin(c.guard, c.read.guard), c.value))
        part = Tensor(self._unused(f"d{c.read.tensor}_{''.join(kept)}"), compute(self.dtypes[c.read.tensor]))
        dims = tuple((a,) for a in kept)
        self._know(part.name, part.dtype, dims)
        made = _summed(part, dims, piece) if piece.over else Equation((part,), dims, (_alone(piece),))
        self.backward.append(made)
        return Read(part.name, tuple(map(AxisValue, kept)))

    def _along(
        self, c: Contribution, found: Combination, space: tuple[str, ...], dims: tuple[tuple[str, ...], ...]
    ) -> Piece:
        """What a read contributes whose index depends on a combination of axes, first at each of its values."""
        tensor = c.read.tensor
        axis = self.axes.fresh(found.name, found.extent, {*space, *(a for d in dims for a in d)})
        own = (*found.others, axis)
        part = Tensor(self._unused(f"d{tensor}_{''.join(own)}"), compute(self.dtypes[tensor]))
        inner = tuple((a,) for a in own)
        self._know(part.name, part.dtype, inner)
        guard = conjoin(c.guard, c.read.guard)
        piece = transposed(found.read(part.name), c.value, guard, space, inner, self.axes, self.shapes)
        self.backward.append(_summed(part, inner, piece))
        value = Read(part.name, tuple(map(AxisValue, own)))
        return transposed(found.along(c.read, axis), value, None, own, dims, self.axes, self.shapes)

    def _aside(self, of: str, what: str, dtype: DType, dims: tuple[tuple[str, ...], ...]) -> str:
        """The name of a tensor that only the derivative reads."""
        name = self._unused(f"{of}_{what}")
        self._know(name, dtype, dims)
        return name

    # -- the gradient of one tensor

    def _gradient(self, name: str) -> str:
        """The name of a tensor's gradient, which is the sum of its pieces."""
        if name in self.named:
            return self.named[name]
        dtype, dims = self.dtypes[name], self._space(name)
        own = tuple(composite(group) for group in dims)
        known = _read_whole(self.pieces[name], own)
        if known is not None and name not in self.wanted:
            self.named[name] = known
            return known
        made = self.named[name] = self._named(name)
        if name not in self.wanted:
            dtype = compute(dtype)
        self._know(made, dtype, dims)
        pieces = _gathered(self.pieces[name])
        alone = [p for p in pieces if not p.over]
        sums = [p for p in pieces if p.over]
        if len(sums) == 1 and not alone:
            self.backward.append(_summed(Tensor(made, dtype), dims, sums[0]))
            return made
        values: list[Expr] = []
        for k, p in enumerate(sums, 1):
            part = Tensor(self._unused(f"{made}_{k}"), compute(dtype))
            self._know(part.name, part.dtype, dims)
            self.backward.append(_summed(part, dims, p))
            values.append(Read(part.name, own))
        values += [_alone(p) for p in alone]
        whole = reduce(lambda x, y: call("add", x, y), values)
        self.backward.append(Equation((Tensor(made, dtype),), dims, (whole,)))
        return made

    def _space(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The dimensions of a tensor's gradient: the tensor's own, each axis once, A[i, i] --> dA[i, i_2]."""
        if name not in self.spaces:
            met: set[str] = set()
            dims = []
            for group in self.shapes[name]:
                axes = tuple(self.axes.fresh(a, Extent(a), met) if a in met else a for a in group)
                met |= {*group, *axes}
                dims.append(axes)
            self.spaces[name] = tuple(dims)
        return self.spaces[name]

    def _named(self, name: str) -> str:
        return self._unused(f"d{name}")

    def _unused(self, wanted: str) -> str:
        name = unused(wanted, self.taken)
        self.taken.add(name)
        self.axes.taken.add(name)
        return name

    def _know(self, name: str, dtype: DType, dims: tuple[tuple[str, ...], ...]) -> None:
        self.dtypes[name] = dtype
        self.shapes[name] = dims

    # -- the whole

    def _made(self, cotangents: dict[str, str], gradients: dict[str, str], forward: list[Equation]) -> Adjoint:
        p = self.program
        known = len(self.quotients.new)
        written = self.quotients.program(self.backward)
        later = self.quotients.new[known:]
        view = (*forward, *later)
        own = reassociated(view, [e for e in written if e not in later])
        scope = Scope(self.dtypes, self.shapes)
        backward = [e.map(lambda x: simplify_expression(x, scope)) for e in own]
        kept = _as_written(p, view)
        given = tuple(Operand(name, self.shapes[r], self.dtypes[r]) for r, name in cotangents.items())
        operands = tuple(x for x in p.params if isinstance(x, Operand))
        scalars = tuple(x for x in p.params if not isinstance(x, Operand))
        whole = replace(
            p,
            name=f"{p.name}_gradient",
            params=(*operands, *given, *scalars),
            axes=(*p.axes, *self.axes.added),
            equations=(*view, *backward),
            results=tuple(gradients.values()),
        )
        return Adjoint(replace(p, equations=kept), drop_dead(whole), cotangents, gradients)


def _as_written(program: Program, view: Sequence[Equation]) -> tuple[Equation, ...]:
    """The equations that run ahead: the program's own, and those that only its derivative has."""
    own = {e.name: e for e in program.equations}
    return tuple(own.get(e.name, e) for e in view)


def _bare(read: Read) -> tuple[str, ...]:
    """The axes that a tensor is read at, each once and bare, beside constants; none where an index is anything else."""
    axes = tuple(i.axis for i in read.index if isinstance(i, AxisValue))
    others = [i for i in read.index if not isinstance(i, AxisValue | Const)]
    return () if others or len(set(axes)) < len(axes) else axes


def _inexact(t: DType) -> bool:
    return t.is_float or t.is_complex


def _read_whole(pieces: Sequence[Piece], own: tuple[Expr, ...]) -> str | None:
    """The tensor that the only piece is, position by position."""
    match pieces:
        case [Piece((), None, Read(tensor, index, None))] if index == own:
            return tensor
        case _:
            return None


def _gathered(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces that sum over the same axes under the same condition, as one."""
    found: dict[tuple[tuple[str, ...], Expr | None], Expr] = {}
    for p in pieces:
        key = p.over, p.condition
        found[key] = call("add", found[key], p.value) if key in found else p.value
    return [Piece(over, condition, value) for (over, condition), value in found.items()]


def _alone(p: Piece) -> Expr:
    return p.value if p.condition is None else call("where", p.condition, p.value, ZERO)


def _summed(t: Tensor, dims: tuple[tuple[str, ...], ...], p: Piece) -> Equation:
    """The sum that a piece is; conditions on its axes are its domain, and others mask the body."""
    own = [c for c in conjuncts(p.condition) if set(axes_of(c)) & set(p.over)]
    others = all_of(c for c in conjuncts(p.condition) if c not in own)
    body = p.value if others is None else Apply("where", (others, p.value, ZERO))
    return Equation((t,), dims, (body,), MONOIDS["sum"], p.over, all_of(own))
