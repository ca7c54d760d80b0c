"""Rewrites that hold for any program: from the leaves up, of names, of equal and of dead equations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from einc.ein import Equation, Expr, Program, Read, Tensor, children, reads, rebuild
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
