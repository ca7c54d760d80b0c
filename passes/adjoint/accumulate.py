"""Reverse accumulation: the equations of gradients by operands, from those by results.

    T[o] = monoid[r](f)    -->    dA[a] += sum[o, r : a == e(o, r)](dT[o] * df/dA)      for each read A[e(o, r)]

Equations are taken from the last to the first. What the monoid lets through decides the cotangent of f (`seeds`), the
chain rule what each read gets of it (`chain`), and the read's own index where that goes (`transpose`). References that
only shift are constants (`shifts`).

Reverse accumulation as in Griewank and Walther, *Evaluating Derivatives*, ch. 3, on equations in place of operations.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    Read,
    Tensor,
    axes_of,
    tensors_of,
)
from einc.ein.conditions import all_of, conjuncts
from einc.ein.guards import composite, conjoin
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import names, unused
from einc.passes.adjoint.chain import Chain, Contribution
from einc.passes.adjoint.derivation import Derivation
from einc.passes.adjoint.diagonals import Combination, combination
from einc.passes.adjoint.seeds import Seed, seeds
from einc.passes.adjoint.shifts import shifts
from einc.passes.adjoint.transpose import Axes, Piece, guarded, pointed, transposed
from einc.passes.algebra.folding import call


def accumulate(d: Derivation) -> Derivation:
    """The program with the equations of its gradients: of each tensor at once, from the last to the first."""
    return _Reverse(d).run()


@dataclass
class _Reverse:
    derivation: Derivation
    pieces: dict[str, list[Piece]] = field(default_factory=dict)  # by tensor, what its gradient is made of
    backward: list[Equation] = field(default_factory=list)

    def __post_init__(self) -> None:
        p = self.derivation.whole
        self.wanted, self.view = self.derivation.wanted, self.derivation.forward
        self.constant = self.derivation.constants | shifts(self.derivation.program)
        self.taken, self.dtypes, self.shapes = names(p), p.dtypes(), p.shapes()
        self.axes = Axes({a.name: a.extent for a in p.axes}, set(self.taken))
        self.active = self._active()
        self.named: dict[str, str] = {}  # the gradient of each tensor
        self.spaces: dict[str, tuple[tuple[str, ...], ...]] = {}  # and its dimensions

    def run(self) -> Derivation:
        cotangents = {r: self._named(r) for r in dict.fromkeys(self.derivation.results) if r in self.active}
        for r, name in cotangents.items():
            self._know(name, self.dtypes[r], self.shapes[r])
            own = tuple(composite(group) for group in self.shapes[r])
            self.pieces[r] = [Piece((), None, Read(name, own))]
        extended: list[list[Equation]] = []
        for e in reversed(self.view):
            extended.append(self._through(e))
        operands = [p.name for p in self.derivation.program.operands]
        gradients = {name: self._gradient(name) for name in operands if name in self._reached()}
        return replace(
            self.derivation,
            forward=tuple(e for part in reversed(extended) for e in part),
            differentiated=True,
            backward=tuple(self.backward),
            axes=tuple(self.axes.added),
            cotangents=cotangents,
            gradients=gradients,
        )

    def _reached(self) -> frozenset[str]:
        return self.wanted & self.pieces.keys()

    def _active(self) -> frozenset[str]:
        """The tensors that have a derivative by an operand asked for."""
        found = {o.name for o in self.derivation.program.operands if o.name in self.wanted and _inexact(o.dtype)}
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
        if piece.over != over:  # what is put at a place may be out of range there
            piece = guarded(piece, self.shapes)
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
