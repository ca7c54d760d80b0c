"""The places of blocks: what equations over two axes are at the positions within a block of each.

    i = A * I + p,  j = A * I - B * (D - n) + q:      S[i, j] = sum[d](Q[i, d] * K[j, d])
    -->   S_block[D, I, p, q] = sum[d](Q[A * I + p, d] * K[A * I - B * (D - n) + q, d])

What is computed at both axes is computed again at the new ones, and what has one of them is read there. A block may
overhang an extent: what is read is guarded, so that it is 0 beyond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from einc.base.ops import COMPARISONS
from einc.ein import (
    ONE,
    Apply,
    AxisValue,
    Const,
    Equation,
    Expr,
    Extent,
    Program,
    Read,
    Scalar,
    Tensor,
    axes_of,
    reads,
    rebuild,
    tensors_of,
    walk,
)
from einc.ein.domains import conjunction, holds
from einc.ein.guards import conjoin
from einc.ein.rewriting import unused
from einc.passes.algebra.exposure import inside, within
from einc.passes.algebra.linear import Form, combined, form, less, written


@dataclass(frozen=True, slots=True)
class Diagonals:
    """The places of two axes in blocks along diagonals: pairs of positions whose difference is the same, or their sum.

    The position along `walked` counts blocks of so many `rows` with `step`, and positions in them with the first of
    `places`. Along `across` there are blocks of so many `columns`, a part of these, and the second of `places` counts
    the positions in one; which block it is follows from `step` and `diagonal`, which counts the diagonals of blocks:
    `middle` is the number of that with both first positions. Not `all` of them are there where masks leave others out.
    """

    walked: str
    across: str
    falls: bool  # the sum is the same along a diagonal
    rows: int
    columns: int
    step: str
    diagonal: str
    places: tuple[str, str]
    middle: Expr
    all: bool

    @property
    def first(self) -> Form:
        """The position along `walked`."""
        return {AxisValue(self.step): self.rows, AxisValue(self.places[0]): 1}

    @property
    def second(self) -> Form:
        """The position along `across`."""
        place: Form = {AxisValue(self.places[1]): 1}
        if self.falls:
            return {AxisValue(self.diagonal): self.columns, AxisValue(self.step): -self.rows} | place
        up: Form = {AxisValue(self.step): self.rows, AxisValue(self.diagonal): -self.columns}
        return combined((1, up), (self.columns, form(self.middle) or {}), (1, place))

    @property
    def axes(self) -> tuple[str, ...]:
        """All that a pair of positions is made of."""
        return (self.diagonal, self.step, *self.places)

    @property
    def inside(self) -> tuple[Expr, ...]:
        """The conditions that both positions are within the extents."""
        first, second = written(self.first), written(self.second)
        return Apply("lt", (first, Extent(self.walked))), *inside(second, (self.across,))


def blocks_of(axis: str, size: int) -> Expr:
    """The number of blocks of so many positions along an axis."""
    return Apply("floordiv", (Apply("add", (Extent(axis), Const(size - 1))), Const(size)))


@dataclass(frozen=True, slots=True)
class Place:
    """Where an equation is read: the form of each of its axes."""

    at: Mapping[str, Form]

    def of(self, e: Expr) -> Expr:
        """The expression there."""
        known = form(e) if any(a in self.at for a in axes_of(e)) else None
        if known is not None:
            return written(self.form(known))
        match e:
            case AxisValue() | Const() | Extent() | Scalar():
                return e
            case _:
                return rebuild(e, self.of)

    def form(self, f: Form) -> Form:
        return combined(*((n, self.at[x.axis] if isinstance(x, AxisValue) and x.axis in self.at else {x: 1})
                          for x, n in f.items()))  # fmt: skip


@dataclass
class Blocks:
    """The equations of a program at the places of blocks, in the making."""

    program: Program
    diagonals: Diagonals
    taken: set[str]
    known: list[Form | None] = field(default_factory=list)  # what is less than 0 wherever a pair of positions counts
    made: dict[tuple[str, tuple[Expr, ...]], Equation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.named = {t.name: e for e in self.program.equations for t in e.outputs}
        self.shapes = self.program.shapes()

    def placed(self, e: Expr) -> Expr:
        """An expression at these places, with the equations that it reads there, and guards where it may overhang."""
        if not isinstance(e, Read):
            return rebuild(e, self.placed)
        index = tuple(map(self.placed, e.index))
        guard = None if e.guard is None else conjunction(self.unknown(self.placed(e.guard)))
        if not set(self.diagonals.places) <= {a for i in index for a in axes_of(i)} or not self.can_move(e, index):
            return replace(e, index=index, guard=conjoin(self.within(e.tensor, index), guard))
        eq = self.at(self.named[e.tensor], index)
        whole: Expr = Read(eq.name, tuple(map(AxisValue, eq.axes)))
        return whole if guard is None else Apply("where", (guard, whole, Const(0)))

    def within(self, tensor: str, index: tuple[Expr, ...]) -> Expr | None:
        """The condition that what is read is there, as far as it is not certain."""
        found = within(index, self.shapes[tensor])
        return None if found is None else conjunction(p for p in holds(found) if counts(p))

    def unknown(self, guard: Expr) -> Iterator[Expr]:
        """The conjuncts of a guard that do not hold wherever a pair of positions counts."""
        return (p for p in holds(guard) if counts(p, self.known))

    def can_move(self, e: Read, index: tuple[Expr, ...]) -> bool:
        """Is it of an equation that can be computed at other places, and within its extents at all that count?"""
        source = self.named.get(e.tensor)
        return (
            source is not None
            and len(source.outputs) == 1
            and not source.outputs[0].dtype.is_complex
            and all(len(d) == 1 for d in source.dims)
            and all(self.is_place(i) for i in index)
            and {a for i in index for a in axes_of(i)}.isdisjoint(source.over)
        )

    def is_place(self, index: Expr) -> bool:
        """Is it one of the two positions, or has it nothing to do with them?"""
        d = self.diagonals
        return set(d.axes).isdisjoint(axes_of(index)) or form(index) in (d.first, d.second)

    def at(self, eq: Equation, index: tuple[Expr, ...]) -> Equation:
        """An equation at such places."""
        key = eq.name, index
        if key not in self.made:
            place = Place({a: form(i) or {i: 1} for a, i in zip(eq.axes, index, strict=True)})
            found = dict.fromkeys(a for i in index for a in axes_of(i))
            own = self.ordered(found)
            moved = eq.map(lambda e: self.placed(place.of(e)))
            name = unused(f"{eq.name}_block", self.taken)
            self.taken.add(name)
            dims = tuple((a,) for a in own)
            self.shapes[name] = dims
            self.made[key] = replace(moved, outputs=(Tensor(name, eq.outputs[0].dtype),), dims=dims, within=None)
        return self.made[key]

    def ordered(self, axes: Collection[str]) -> tuple[str, ...]:
        """The axes in the order of a tensor at these places: the longest diagonals are begun together."""
        first, *last = self.diagonals.axes
        others = (a for a in axes if a not in self.diagonals.axes)
        return *((first,) if first in axes else ()), *others, *(a for a in last if a in axes)

    def equations(self) -> list[Equation]:
        """What is computed there, each after those that it reads."""
        return list(self.made.values())

    def compares(self) -> bool:
        """Is any of it compared with what is computed elsewhere? It may differ in the last bit."""
        own = {e.name for e in self.made.values()}
        computed = (n for e in self.made.values() for x in e.computed() for n in walk(x) if isinstance(n, Apply))
        compared = (n for n in computed if n.op in COMPARISONS and all(map(reads, n.args)))
        return any(not own.isdisjoint(tensors_of(n)) for n in compared)


def counts(p: Expr, known: Collection[Form | None] = ()) -> bool:
    """Does a comparison say more than what is known to be less than 0, and than that a sum of positions is not?"""
    found = less(p)
    return found is None or not (found in known or all(n < 0 and _is_natural(x) for x, n in found.items()))


def _is_natural(x: Expr) -> bool:
    return x == ONE or isinstance(x, AxisValue)
