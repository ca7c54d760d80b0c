"""The syntax tree between the parser and the elaborator: what was written, every node with its place.

Nodes are compared by what they say, not by where they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from einc.base.source import Span
from einc.base.types import DType


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, `true`, `false` or `inf`."""

    value: bool | int | float
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A bare name: an axis, a scalar, or a tensor read at the axes it was defined with."""

    name: str
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Extent:
    """`|d|`."""

    axis: str
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """A composite axis in a subscript: `(g r)`; `()` and `1` are the empty group, of extent 1."""

    axes: tuple[Name, ...]
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Read:
    """`T[e, ...]`, or with a guard of its own, `T[e, ... : p]`."""

    tensor: str
    index: tuple[Node, ...]
    guard: Node | None
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """`f(x, ...)`; `f[axes](x, ...)` and `f[axes : p within q](x, ...)` where `axes` is not None.

    Casts are calls of a type.
    """

    function: str
    axes: tuple[Name, ...] | None
    domain: Node | None
    args: tuple[Node, ...]
    span: Span = field(compare=False, repr=False)
    within: Node | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A written operator, by its name in `einc.base.ops`, with one or two arguments."""

    op: str
    args: tuple[Node, ...]
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Quoted:
    """An einsum string inside an expression: `"bihd,bjhd->bhij"`; `span` covers the text without its quotes."""

    text: str
    span: Span = field(compare=False, repr=False)


Node = Literal | Name | Extent | Group | Read | Call | Operation | Quoted


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below: subscripts before guards, axes and domains before arguments."""
    match node:
        case Read(index=index, guard=guard):
            return index if guard is None else (*index, guard)
        case Call(axes=axes, domain=domain, within=within, args=args):
            return (*(axes or ()), *(n for n in (domain, within) if n is not None), *args)
        case Operation(args=args):
            return args
        case Group(axes=names):
            return names
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """Every node, parents before children, left to right; without recursion, so that depth is no limit."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(children(top)))


@dataclass(frozen=True, slots=True)
class Target:
    """The left of a definition: `S[b, (g r), i]`, `P` (no brackets: `index` is None), with an optional type.

    `1` stands in `index` as the empty group.
    """

    name: str
    index: tuple[Group | Name, ...] | None
    dtype: DType | None
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Definition:
    """`T[...] = e`, or `V[...], I[...] = e` for an operation with several results."""

    targets: tuple[Target, ...]
    value: Node
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AxisStatement:
    """`axis g = groups`."""

    name: str
    extent: Node
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Return:
    """`return O, L`."""

    values: tuple[Node, ...]
    span: Span = field(compare=False, repr=False)


Statement = Definition | AxisStatement | Return


def expressions(s: Statement) -> tuple[Node, ...]:
    """The expressions of a statement."""
    match s:
        case Definition(value=value):
            return (value,)
        case AxisStatement(extent=extent):
            return (extent,)
        case Return(values=values):
            return values


@dataclass(frozen=True, slots=True)
class OperandDecl:
    """`Q[b, (g r), i, d]` or `Q[b, i, d]: bf16` in a signature; `1` stands in `dims` as the empty group."""

    name: str
    dims: tuple[Group | Name, ...]
    dtype: DType | None
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ScalarDecl:
    """`window: int`, `scale: float = rsqrt(|d|)` in a signature; kind is `int`, `float` or `bool`."""

    name: str
    kind: str
    default: Node | None
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FunctionParam:
    """`x`; `x[j]`, an argument that the body may read at another axis; `eps = 1e-6`, one that a call may leave out."""

    name: str
    axes: tuple[Name, ...]
    default: Node | None
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Function:
    """`fn softmax[*r](x) = e`, or `fn softmax[*r](x):` with a body of definitions and a return.

    `axes` are the axis parameters in order; the last of a `variadic` function takes all that remain.
    """

    name: str
    axes: tuple[Name, ...]
    variadic: bool
    params: tuple[FunctionParam, ...]
    body: tuple[Statement, ...]
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Definitions:
    """A parsed text: functions and one program. `name` is empty and `params` None for statements without a `def`."""

    functions: tuple[Function, ...]
    name: str
    params: tuple[OperandDecl | ScalarDecl, ...] | None
    body: tuple[Statement, ...]
    span: Span = field(compare=False, repr=False)
