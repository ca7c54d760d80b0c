"""The grammar's derivations into the nodes of `einc.frontend.syntax`: one method for each name in `einc.lark`."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

from lark import Transformer, v_args

from einc.base.errors import SyntaxError
from einc.base.source import Span
from einc.frontend.syntax.assembly import (
    Kernel,
    Param,
    Subscripts,
    assemble,
    axis_name,
    check_no_bound,
    check_repeated,
    dims_of,
    dtype_named,
    function,
    read_number,
)
from einc.frontend.syntax.lexer import Word
from einc.frontend.syntax.nodes import (
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

_INFIX = {
    "or": "or", "and": "and", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne", "+": "add",
    "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "**": "pow",
}  # fmt: skip
_CONSTANTS: dict[str, bool | float] = {"true": True, "false": False, "inf": float("inf")}


@v_args(inline=True)
class Trees(Transformer[Word, Any]):
    """Called by the parser as it reduces, so that no depth of nesting needs recursion."""

    # -- expressions

    def name(self, word: Word) -> Node:
        return Name(str(word), word.span)

    def number(self, word: Word) -> Node:
        return Literal(read_number(word), word.span)

    def constant(self, word: Word) -> Node:
        return Literal(_CONSTANTS[word], word.span)

    def quoted(self, word: Word) -> Node:
        return Quoted(word[1:-1], Span(word.span.source, word.span.start + 1, word.span.end - 1))

    def extent(self, left: Word, name: Word, right: Word) -> Node:
        return Extent(str(name), left.span.to(right.span))

    def parentheses(self, left: Word, node: Node, right: Word) -> Node:
        """The node itself, its place widened to the parentheses; a quoted string keeps the place of its text."""
        return node if isinstance(node, Quoted) else replace(node, span=left.span.to(right.span))

    def group(self, left: Word, *rest: Word) -> Node:
        names = tuple(Name(str(w), w.span) for w in rest[:-1])
        return Group(names, left.span.to(rest[-1].span))

    def infix(self, left: Node, op: Word, right: Node) -> Node:
        return Operation(_INFIX[op], (left, right), left.span.to(right.span))

    def chain(self, first: Node, *rest: Any) -> Node:
        """`a < b < c` is `a < b and b < c`."""
        sides = (first, *rest[1::2])
        for middle in sides[1:-1]:
            check_repeated(middle)
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

    def subscripts(self, *parts: Any) -> Subscripts:
        *items, guard, within, end = parts
        return Subscripts(tuple(i for i in items if i is not None), guard, within, end.span)

    def read(self, name: Word, at: Subscripts) -> Node:
        check_no_bound(at, "a read")
        return Read(str(name), at.items, at.guard, name.span.to(at.end))

    def call(self, name: Word, over: Subscripts | None, *rest: Any) -> Node:
        *args, end = rest
        axes = None if over is None else tuple(axis_name(i, "an operation is over") for i in over.items)
        domain, within = (None, None) if over is None else (over.guard, over.within)
        span = name.span.to(end.span)
        return Call(str(name), axes, domain, tuple(a for a in args if a is not None), span, within)

    # -- statements

    def target(self, name: Word, at: Subscripts | None, kind: Word | None) -> Target:
        if at is None:
            return Target(str(name), None, dtype_named(kind), name.span)
        return Target(str(name), dims_of(at, "the left of a definition"), dtype_named(kind), name.span.to(at.end))

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

    def argument(self, name: Word, at: Subscripts | None, default: Node | None) -> FunctionParam:
        axes = () if at is None else tuple(axis_name(i, "an argument is read at") for i in at.items)
        return FunctionParam(str(name), axes, default, name.span)

    def one_line(self, fn: Word, name: Word, *parts: Any) -> Function:
        *head, value = parts
        return function(fn, name, head, (Return((value,), value.span),))

    def with_body(self, fn: Word, name: Word, *parts: Any) -> Function:
        *head, body = parts
        return function(fn, name, head, body)

    def operand(self, name: Word, at: Subscripts, kind: Word | None) -> Param:
        return OperandDecl(str(name), dims_of(at, "a signature"), dtype_named(kind), name.span.to(at.end))

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

    def kernel(self, word: Word, name: Word, *parts: Any) -> Kernel:
        *params, body = parts
        return Kernel(str(name), tuple(p for p in params if p is not None), body, word.span.to(name.span))

    def program(self, *items: Function | Kernel | Statement) -> Definitions | None:
        return assemble(items)
