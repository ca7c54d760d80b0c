"""The grammar's derivations into the nodes of `einc.frontend.syntax`: one method for each name in `einc.lark`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeAlias

from lark import Transformer, v_args

from einc.errors import SyntaxError, nearest
from einc.frontend.lexer import Word
from einc.frontend.syntax import (
    AxisStatement,
    Call,
    Definition,
    Definitions,
    Extent,
    Function,
    FunctionParam,
    Group,
    Literal,
    Name,
    Node,
    OperandDecl,
    Operation,
    Quoted,
    Read,
    Return,
    ScalarDecl,
    Statement,
    Target,
)
from einc.source import Span
from einc.types import BY_NAME, DType

Param: TypeAlias = OperandDecl | ScalarDecl
_INFIX = {
    "or": "or", "and": "and", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne", "+": "add",
    "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "**": "pow",
}  # fmt: skip
_CONSTANTS: dict[str, bool | float] = {"true": True, "false": False, "inf": float("inf")}
_LONGEST_NUMBER = 400  # digits


@dataclass(frozen=True, slots=True)
class _Subscripts:
    """What stands between the brackets after a name, up to the `]`."""

    items: tuple[Node, ...]
    guard: Node | None
    end: Span


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A `def`."""

    name: str
    params: tuple[Param, ...]
    body: tuple[Statement, ...]
    span: Span


@v_args(inline=True)
class Trees(Transformer[Word, Any]):
    """Called by the parser as it reduces, so that no depth of nesting needs recursion."""

    # -- expressions

    def name(self, word: Word) -> Node:
        return Name(str(word), word.span)

    def number(self, word: Word) -> Node:
        return Literal(_number(word), word.span)

    def constant(self, word: Word) -> Node:
        return Literal(_CONSTANTS[word], word.span)

    def quoted(self, word: Word) -> Node:
        return Quoted(word[1:-1], Span(word.span.source, word.span.start + 1, word.span.end - 1))

    def extent(self, left: Word, name: Word, right: Word) -> Node:
        return Extent(str(name), left.span.to(right.span))

    def parentheses(self, left: Word, node: Node, right: Word) -> Node:
        """The node itself, marked with its parentheses; a quoted string keeps the place of its text."""
        return node if isinstance(node, Quoted) else replace(node, span=left.span.to(right.span))

    def group(self, left: Word, *rest: Word) -> Node:
        names = tuple(Name(str(w), w.span) for w in rest[:-1])
        return Group(names, left.span.to(rest[-1].span))

    def infix(self, left: Node, op: Word, right: Node) -> Node:
        return Operation(_INFIX[op], (left, right), left.span.to(right.span))

    def chain(self, first: Node, *rest: Any) -> Node:
        """`a < b < c` is `a < b and b < c`."""
        sides = (first, *rest[1::2])
        links = [self.infix(a, op, b) for a, op, b in zip(sides, rest[::2], sides[1:], strict=False)]
        return reduce(lambda p, q: Operation("and", (p, q), p.span.to(q.span)), links)

    def prefix(self, op: Word, value: Node) -> Node:
        span = op.span.to(value.span)
        if op == "not":
            return Operation("not", (value,), span)
        if isinstance(value, Literal) and not isinstance(value.value, bool) and value.span.text[:1] != "(":
            return Literal(-value.value, span)
        return Operation("neg", (value,), span)

    def positive(self, value: Node) -> Node:
        return value

    def subscripts(self, *parts: Any) -> _Subscripts:
        *items, guard, end = parts
        return _Subscripts(tuple(i for i in items if i is not None), guard, end.span)

    def read(self, name: Word, at: _Subscripts) -> Node:
        return Read(str(name), at.items, at.guard, name.span.to(at.end))

    def call(self, name: Word, over: _Subscripts | None, *rest: Any) -> Node:
        *args, end = rest
        axes = None if over is None else tuple(_axis(i, "an operation is over") for i in over.items)
        domain = None if over is None else over.guard
        return Call(str(name), axes, domain, tuple(a for a in args if a is not None), name.span.to(end.span))

    # -- statements

    def target(self, name: Word, at: _Subscripts | None, kind: Word | None) -> Target:
        if at is None:
            return Target(str(name), None, _dtype(kind), name.span)
        return Target(str(name), _dims(at, "the left of a definition"), _dtype(kind), name.span.to(at.end))

    def definition(self, *parts: Any) -> Definition:
        *targets, value = parts
        return Definition(tuple(targets), value, targets[0].span.to(value.span))

    def axis_statement(self, name: Word, extent: Node) -> AxisStatement:
        return AxisStatement(str(name), extent, name.span)

    def results(self, word: Word, *values: Node) -> Return:
        return Return(values, word.span.to(values[-1].span))

    def block(self, *statements: Statement) -> tuple[Statement, ...]:
        return statements

    # -- functions and the program

    def single(self, name: Word) -> tuple[Name, bool]:
        return Name(str(name), name.span), False

    def rest(self, _star: Word, name: Word) -> tuple[Name, bool]:
        return Name(str(name), name.span), True

    def axes(self, *axes: tuple[Name, bool] | None) -> tuple[tuple[Name, bool], ...]:
        return tuple(a for a in axes if a is not None)

    def argument(self, name: Word, at: _Subscripts | None, default: Node | None) -> FunctionParam:
        axes = () if at is None else tuple(_axis(i, "an argument is read at") for i in at.items)
        return FunctionParam(str(name), axes, default, name.span)

    def one_line(self, fn: Word, name: Word, *parts: Any) -> Function:
        *head, value = parts
        return _function(fn, name, head, (Return((value,), value.span),))

    def with_body(self, fn: Word, name: Word, *parts: Any) -> Function:
        *head, body = parts
        return _function(fn, name, head, body)

    def operand(self, name: Word, at: _Subscripts, kind: Word | None) -> Param:
        return OperandDecl(str(name), _dims(at, "a signature"), _dtype(kind), name.span.to(at.end))

    def scalar(self, name: Word, kind: Word, default: Node | None) -> Param:
        if kind not in ("int", "float", "bool"):
            raise SyntaxError(
                f"a scalar parameter is an int, a float or a bool, not '{kind}'",
                kind.span,
                hint=f"{name}: {'int' if kind[:1] in 'iu' else 'float'}; a tensor has brackets: {name}[i]: {kind}",
            )
        return ScalarDecl(str(name), str(kind), default, name.span)

    def untyped(self, name: Word) -> Param:
        raise SyntaxError(
            f"'{name}' is neither a tensor with its axes nor a scalar with its type",
            name.span,
            hint=f"{name}[i, j] for a tensor, {name}[] for one without axes, {name}: float for a scalar",
        )

    def kernel(self, word: Word, name: Word, *parts: Any) -> _Kernel:
        *params, body = parts
        return _Kernel(str(name), tuple(p for p in params if p is not None), body, word.span.to(name.span))

    def program(self, *items: Function | _Kernel | Statement) -> Definitions | None:
        return _assemble(items)


def _function(fn: Word, name: Word, head: list[Any], body: tuple[Statement, ...]) -> Function:
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


def _assemble(items: tuple[Function | _Kernel | Statement, ...]) -> Definitions | None:
    """One program from what stands at the outermost level; None if there is nothing."""
    functions = tuple(i for i in items if isinstance(i, Function))
    kernels = [i for i in items if isinstance(i, _Kernel)]
    statements = tuple(i for i in items if not isinstance(i, Function | _Kernel))
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


def _number(word: Word) -> int | float:
    digits = word.replace("_", "")
    if len(digits) > _LONGEST_NUMBER:
        raise SyntaxError("this number is too long", word.span, fact=f"it has {len(digits)} characters")
    if digits.isdigit():
        return int(digits)
    value = float(digits)
    if value == float("inf"):
        raise SyntaxError("this number is larger than any float", word.span, hint="inf")
    return value


def _axis(node: Node, what: str) -> Name:
    if isinstance(node, Name):
        return node
    raise SyntaxError(f"{what} axes, each by its name", node.span, hint="name the axes: sum[j, k](x)")


def _dims(at: _Subscripts, where: str) -> tuple[Group | Name, ...]:
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


def _dtype(kind: Word | None) -> DType | None:
    if kind is None:
        return None
    if kind in BY_NAME:
        return BY_NAME[kind]
    known = {"int": "i64", "float": "f32", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}
    raise SyntaxError(
        f"'{kind}' is no type of elements",
        kind.span,
        fact=f"types: {', '.join(BY_NAME)}",
        hint=known.get(str(kind)) or nearest(str(kind), BY_NAME) or "one of these",
    )
