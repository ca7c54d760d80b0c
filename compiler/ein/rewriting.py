"""Rewrites that hold for any program: from the leaves up, of names, of equal and dead equations, of parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from einc.ein import (
    Equation,
    Expr,
    Extent,
    Operand,
    Program,
    Read,
    Scalar,
    Tensor,
    children,
    reads,
    rebuild,
    tensors_of,
    walk,
)
from einc.ein.guards import composite


def bottom_up(e: Expr, f: Callable[[Expr], Expr], into_reads: bool = True) -> Expr:
    """f at every node, its children rewritten first; without recursion, and once for a shared node.

    Without `into_reads`, f is given each read as it is, its subscripts and guard untouched.
    """
    done: dict[int, Expr] = {}
    stack = [(e, False)]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        below = children(node) if into_reads or not isinstance(node, Read) else ()
        if below and not ready:
            stack.append((node, True))
            stack.extend((child, False) for child in below)
        else:
            done[id(node)] = f(rebuild(node, lambda child: done[id(child)]) if below else node)
    return done[id(e)]


def depth(e: Expr) -> int:
    """The number of nodes on the longest path down."""
    deepest: dict[int, int] = {}
    stack = [(e, False)]
    while stack:
        node, ready = stack.pop()
        below = children(node)
        if ready or not below:
            deepest[id(node)] = 1 + max((deepest[id(child)] for child in below), default=0)
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in below)
    return deepest[id(e)]


def replaced(e: Expr, others: Mapping[Expr, Expr]) -> Expr:
    """The expression with some of its parts replaced, the largest first."""
    return others[e] if e in others else rebuild(e, lambda below: replaced(below, others))


def read_as(e: Expr, values: Mapping[str, Expr]) -> Expr:
    """The expression with reads of some tensors replaced by values."""
    if isinstance(e, Read) and e.tensor in values:
        return values[e.tensor]
    return rebuild(e, lambda below: read_as(below, values))


def reading(e: Expr, names: Mapping[str, str]) -> Expr:
    """The expression with some tensors read under other names."""

    def rename(n: Expr) -> Expr:
        return replace(n, tensor=names[n.tensor]) if isinstance(n, Read) and n.tensor in names else n

    return bottom_up(e, rename) if names else e


def renamed(e: Equation, names: Mapping[str, str]) -> Equation:
    """The equation with tensors read under other names."""
    return e.map(lambda x: reading(x, names)) if names else e


def drop_dead(program: Program) -> Program:
    """The program without equations that no result depends on."""
    live = set(program.results)
    kept: list[Equation] = []
    for e in reversed(program.equations):
        if any(t.name in live for t in e.outputs):
            live.update(r.tensor for x in e.expressions() for r in reads(x))
            kept.append(e)
    return replace(program, equations=tuple(reversed(kept)))


def merge_equal(program: Program) -> Program:
    """One equation for all that differ only in the names of their outputs."""
    first: dict[Equation, int] = {}
    kept: list[Equation] = []
    names: dict[str, str] = {}
    for e in program.equations:
        e = renamed(e, names)
        anonymous = replace(e, outputs=tuple(Tensor("", t.dtype) for t in e.outputs))
        at = first.setdefault(anonymous, len(kept))
        if at == len(kept):
            kept.append(e)
        elif e.name not in program.results:
            names |= {t.name: s.name for t, s in zip(e.outputs, kept[at].outputs, strict=True)}
        elif kept[at].name not in program.results:
            names |= {s.name: t.name for t, s in zip(e.outputs, kept[at].outputs, strict=True)}
            kept[at] = replace(kept[at], outputs=e.outputs)
        else:
            kept.append(e if e.monoid is None else _copy(e, kept[at]))
    return replace(program, equations=tuple(renamed(e, names) for e in kept))


def _copy(e: Equation, original: Equation) -> Equation:
    """The outputs of the equation, read from an equal one."""
    own = tuple(composite(group) for group in e.dims)
    reads = tuple(Read(t.name, own) for t in original.outputs)
    return replace(e, bodies=reads, monoid=None, over=(), domain=None)


def unused(wanted: str, taken: Iterable[str]) -> str:
    """The name, with a number after it if it is taken."""
    there = set(taken)
    name, n = wanted, 1
    while name in there:
        n += 1
        name = f"{wanted}_{n}"
    return name


def names(program: Program) -> set[str]:
    """Every name that a tensor, an axis or a scalar of the program has."""
    return {*program.dtypes(), *(a.name for a in program.axes)}


def taking(program: Program, saved: Sequence[Operand], cotangents: Collection[str]) -> Program:
    """The program with the parameters that it needs: saved tensors go between its own operands and cotangents.

    An operand is needed if it is read, or if it alone tells how long an axis is.
    """
    last = [p for p in program.operands if p.name in cotangents]
    operands = [*(p for p in program.operands if p.name not in cotangents), *saved, *last]
    read = {t for e in program.equations for x in e.expressions() for t in tensors_of(x)}
    needs = _Needs({a.name: a.extent for a in program.axes}, {p.name: p.default for p in program.scalars})
    for e in program.equations:
        needs.add(*e.axes, *e.over)
        for x in e.expressions():
            needs.read(x)
    taken = [p for p in operands if p.name in read]
    needs.add(*(a for p in taken for group in p.dims for a in group))
    while (p := needs.telling(operands, taken)) is not None:  # which may have further axes
        taken.append(p)
        needs.add(*(a for group in p.dims for a in group))
    return replace(
        program,
        params=(*(p for p in operands if p in taken), *(p for p in program.scalars if p.name in needs.scalars)),
        axes=tuple(a for a in program.axes if a.name in needs.axes),
    )


@dataclass
class _Needs:
    """The axes and scalars that something depends on, and those that their formulas do."""

    extents: Mapping[str, Expr | None]
    defaults: Mapping[str, Expr | None]
    axes: set[str] = field(default_factory=set)
    scalars: set[str] = field(default_factory=set)

    def add(self, *axes: str) -> None:
        for axis in axes:
            if axis not in self.axes:
                self.axes.add(axis)
                self.read(self.extents[axis])

    def telling(self, operands: Iterable[Operand], taken: Collection[Operand]) -> Operand | None:
        """The first operand that tells how long an axis is that those taken do not tell of.

        One with a dimension of its own for the axis, if there is any; else a dimension of several axes tells the one of
        them that is not told otherwise.
        """
        own = {group for p in taken for group in p.dims}
        free = [a for a in sorted(self.axes) if self.extents[a] is None]
        alone = next((p for a in free if (a,) not in own for p in operands if (a,) in p.dims), None)
        if alone is not None:
            return alone
        told = self.told(own)
        others = [p for p in operands if p not in taken]
        return next((p for a in free if a not in told for p in others if any(a in group for group in p.dims)), None)

    def told(self, dims: Collection[tuple[str, ...]]) -> set[str]:
        """The axes whose extents follow from these dimensions and from formulas."""
        told: set[str] = set()
        formulas = {
            a: {n.axis for n in walk(e) if isinstance(n, Extent)} for a, e in self.extents.items() if e is not None
        }
        while True:
            left = [[a for a in group if a not in told] for group in dims]
            new = {axes[0] for axes in left if len(axes) == 1 and axes[0] not in formulas}
            new |= {a for a, needed in formulas.items() if a not in told and needed <= told}
            if not new:
                return told
            told |= new

    def read(self, e: Expr | None) -> None:
        for n in () if e is None else walk(e):
            if isinstance(n, Extent):
                self.add(n.axis)
            elif isinstance(n, Scalar) and n.name not in self.scalars:
                self.scalars.add(n.name)
                self.read(self.defaults[n.name])
