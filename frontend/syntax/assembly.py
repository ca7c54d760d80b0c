"""The checks that the grammar leaves open: what may be an axis, a number or a type, and that a text is one program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from einc.base.errors import SyntaxError, nearest
from einc.base.source import Span
from einc.base.types import BY_NAME, DType
from einc.frontend.syntax.lexer import Word
from einc.frontend.syntax.nodes import (
    Definitions,
    Function,
    Group,
    Literal,
    Name,
    Node,
    OperandDecl,
    ScalarDecl,
    Statement,
    walk,
)

Param: TypeAlias = OperandDecl | ScalarDecl
# What other languages call types of elements.
MEANT = {"int": "i64", "float": "f32", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}
_LONGEST_NUMBER = 400  # digits
_LARGEST_MIDDLE = 500  # nodes


@dataclass(frozen=True, slots=True)
class Subscripts:
    """What stands between the brackets after a name, up to the `]`: `[items : guard within bound]`."""

    items: tuple[Node, ...]
    guard: Node | None
    within: Node | None
    end: Span


@dataclass(frozen=True, slots=True)
class Kernel:
    """A `def`."""

    name: str
    params: tuple[Param, ...]
    body: tuple[Statement, ...]
    span: Span


def function(fn: Word, name: Word, head: list[Any], body: tuple[Statement, ...]) -> Function:
    axes, *params = head
    marked: tuple[tuple[Name, bool], ...] = axes or ()
    for axis, takes_rest in marked[:-1]:
        if takes_rest:
            raise SyntaxError(
                f"'*{axis.name}' is not the last axis of '{name}'",
                axis.span,
                fact="it takes all the axes that remain",
                hint="put it last",
            )
    names = tuple(a for a, _ in marked)
    variadic = bool(marked) and marked[-1][1]
    given = tuple(p for p in params if p is not None)
    return Function(str(name), names, variadic, given, body, fn.span.to(name.span))


def assemble(items: tuple[Function | Kernel | Statement, ...]) -> Definitions | None:
    """One program from the items at the outermost level; None if there are none."""
    functions = tuple(i for i in items if isinstance(i, Function))
    kernels = [i for i in items if isinstance(i, Kernel)]
    statements = tuple(i for i in items if not isinstance(i, Function | Kernel))
    if len(kernels) > 1:
        raise SyntaxError(
            "a second 'def'",
            kernels[1].span,
            fact=f"a text is one program, and '{kernels[0].name}' is it",
            hint="put it into a file of its own, or make it a function: fn f(x) = …",
        )
    if kernels and statements:
        raise SyntaxError(
            "a statement outside the 'def'",
            statements[0].span,
            fact="beside a 'def' there are only functions",
            hint="indent it, to put it into the 'def'",
        )
    if kernels:
        (one,) = kernels
        return Definitions(functions, one.name, one.params, one.body, one.span)
    if statements:
        return Definitions(functions, "", None, statements, statements[0].span)
    return Definitions(functions, "", None, (), functions[0].span) if functions else None


def check_repeated(node: Node) -> None:
    """The middle of a chained comparison is copied to both sides; nested, that would double at every level."""
    if any(k > _LARGEST_MIDDLE for k, _ in enumerate(walk(node))):
        raise SyntaxError(
            "the middle of a chained comparison is too large",
            node.span,
            fact=f"it is compared on both sides, and has more than {_LARGEST_MIDDLE} parts",
            hint="bind it to a name",
        )


def read_number(word: Word) -> int | float:
    digits = word.replace("_", "")
    if len(digits) > _LONGEST_NUMBER:
        raise SyntaxError("this number is too long", word.span, fact=f"it has {len(digits)} characters")
    if digits.isdigit():
        return int(digits)
    value = float(digits)
    if value == float("inf"):
        raise SyntaxError("this number is larger than any float", word.span, hint="inf")
    return value


def axis_name(node: Node, what: str) -> Name:
    if isinstance(node, Name):
        return node
    raise SyntaxError(f"{what} axes, each by its name", node.span, hint="name the axes: sum[j, k](x)")


def check_no_bound(at: Subscripts, what: str) -> None:
    """Raise `SyntaxError` for a `within` outside of a reduction."""
    if at.within is not None:
        raise SyntaxError(
            f"{what} has no 'within'",
            at.within.span,
            fact="only a reduction bounds where its condition can hold",
            hint="leave it out, or guard the read: T[i : p]",
        )


def dims_of(at: Subscripts, where: str) -> tuple[Group | Name, ...]:
    check_no_bound(at, where)
    if at.guard is not None:
        raise SyntaxError(f"{where} has no guard", at.guard.span, hint="guard the read: T[i : p]")
    return tuple(_dim(i, where) for i in at.items)


def _dim(node: Node, where: str) -> Group | Name:
    match node:
        case Name() | Group():
            return node
        case Literal(int() as value, span) if value == 1 and not isinstance(value, bool):
            return Group((), span)
        case _:
            hint = "name the axis, and give its extent: axis n = 3" if isinstance(node, Literal) else "name the axis"
            raise SyntaxError(f"{where} has axes, composite axes (g r) and 1", node.span, hint=hint)


def dtype_named(kind: Word | None) -> DType | None:
    if kind is None:
        return None
    if kind in BY_NAME:
        return BY_NAME[kind]
    raise SyntaxError(
        f"'{kind}' is not an element type",
        kind.span,
        fact=f"types: {', '.join(BY_NAME)}",
        hint=MEANT.get(str(kind)) or nearest(str(kind), BY_NAME) or "one of these",
    )
