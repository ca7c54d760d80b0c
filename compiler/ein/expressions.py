"""Scalar expressions, the values at a position, and what can be read off them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from operator import is_
from typing import assert_never

from einc.base.source import Span
from einc.base.types import DType


@dataclass(frozen=True, slots=True)
class Const:
    """A literal: `2`, `0.5`, `-inf`, `true`. Weakly typed; 1, 1.0 and true are three constants."""

    value: bool | int | float
    kind: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", type(self.value).__name__)


@dataclass(frozen=True, slots=True, eq=False, init=False)
class AxisValue:
    """The position along an axis, an integer from 0: `j` in `j <= i`.

    There is one for each axis, so that equal ones are the same: they are compared more often than anything else.
    """

    axis: str

    def __new__(cls, axis: str) -> AxisValue:
        found = _POSITIONS.get(axis)
        if found is None:
            made = object.__new__(cls)
            object.__setattr__(made, "axis", axis)
            found = _POSITIONS.setdefault(axis, made)
        return found

    def __reduce__(self) -> tuple[type[AxisValue], tuple[str]]:
        return AxisValue, (self.axis,)


_POSITIONS: dict[str, AxisValue] = {}


@dataclass(frozen=True, slots=True)
class Extent:
    """The number of positions of an axis: `|d|`."""

    axis: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar parameter: `window`."""

    name: str


@dataclass(frozen=True, slots=True)
class Read:
    """`T[e...]`, one axis expression for each dimension; `T[e... : g]` reads only where the guard g holds.

    Where the guard is false, or an index that depends on data is out of range, the value is 0.
    """

    tensor: str
    index: tuple[Expr, ...]
    guard: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.tensor, self.index, self.guard)))

    def __hash__(self) -> int:
        return self._hash  # computed once: passes look expressions up all the time


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation of `einc.base.ops` applied to arguments."""

    op: str
    args: tuple[Expr, ...]
    span: Span | None = field(default=None, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.op, self.args)))

    def __hash__(self) -> int:
        return self._hash  # computed once: passes look expressions up all the time


@dataclass(frozen=True, slots=True)
class Cast:
    """`f32(x)`: the value rounded to a type."""

    dtype: DType
    arg: Expr


Expr = Const | AxisValue | Extent | Scalar | Read | Apply | Cast

TRUE, FALSE, ZERO, ONE = Const(True), Const(False), Const(0), Const(1)


def children(e: Expr) -> tuple[Expr, ...]:
    """The expressions directly below, a read's index and guard included."""
    match e:
        case Apply(args=args):
            return args
        case Cast(arg=arg):
            return (arg,)
        case Read(index=index, guard=guard):
            return index if guard is None else (*index, guard)
        case Const() | AxisValue() | Extent() | Scalar():
            return ()
        case _:
            assert_never(e)


def rebuild(e: Expr, f: Callable[[Expr], Expr]) -> Expr:
    """The same node with f applied to its children; the node itself where nothing changed."""
    match e:
        case Apply(args=args):
            new = tuple(map(f, args))
            return e if all(map(is_, new, args)) else Apply(e.op, new, e.span)
        case Cast(arg=arg):
            below = f(arg)
            return e if below is arg else Cast(e.dtype, below)
        case Read(index=index, guard=guard):
            at = tuple(map(f, index))
            under = None if guard is None else f(guard)
            same = under is guard and all(map(is_, at, index))
            return e if same else Read(e.tensor, at, under, e.span)
        case Const() | AxisValue() | Extent() | Scalar():
            return e
        case _:
            assert_never(e)


def walk(e: Expr) -> Iterator[Expr]:
    """Every node, parents before children, left to right; without recursion, so that depth is no limit."""
    stack = [e]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Apply):  # as most that have any below are
            stack += node.args[::-1]
        elif below := children(node):
            stack += below[::-1]


@lru_cache(maxsize=4096)
def axes_of(e: Expr) -> tuple[str, ...]:
    """The axes whose positions the value depends on, in order of appearance (extents do not count)."""
    return tuple(dict.fromkeys(n.axis for n in walk(e) if isinstance(n, AxisValue)))


@lru_cache(maxsize=4096)
def reads(e: Expr) -> tuple[Read, ...]:
    """Every read, in order of appearance, those inside subscripts and guards included."""
    return tuple(n for n in walk(e) if isinstance(n, Read))


@lru_cache(maxsize=4096)
def tensors_of(e: Expr) -> frozenset[str]:
    """The names of the tensors that are read."""
    return frozenset(r.tensor for r in reads(e))


def substitute(e: Expr, axes: dict[str, Expr]) -> Expr:
    """Replace axis positions by expressions."""
    if isinstance(e, AxisValue):
        return axes.get(e.axis, e)
    return rebuild(e, lambda below: substitute(below, axes))
