"""Expressions over einsum strings: `softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"`.

A string is a value with the axes of its output, and values combine by axis name. A product with a string of one term
and an arrow contracts. A call without axes is over the last axis of its argument.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from einc import ein
from einc.base import errors
from einc.base.errors import AxisError
from einc.base.facts import Fact
from einc.base.source import Source, Span
from einc.base.types import BOOL, FLOAT, DType, numpy_result
from einc.ein.monoids import MONOIDS
from einc.frontend.elaboration.cascade import Cascade
from einc.frontend.elaboration.library import library
from einc.frontend.elaboration.reductions import reduction
from einc.frontend.elaboration.scopes import Scope
from einc.frontend.elaboration.translate import Translator
from einc.frontend.elaboration.values import Dims, Result, Value, flatten
from einc.frontend.programs.programs import close
from einc.frontend.programs.undeclared import check_scalar
from einc.frontend.programs.usage import conditions
from einc.frontend.strings.layout import operand_name
from einc.frontend.strings.strings import Placed, Strings, place_strings
from einc.frontend.strings.termparser import parse_terms
from einc.frontend.strings.terms import Subscripts, as_letters, choose
from einc.frontend.syntax.nodes import Call, Name, Node, Operation, Quoted, Read, children, walk

_RESULT = "out"
_LONGEST_LABEL = 6
_STATEMENT = re.compile(r"\s*((def|fn|axis|return)\s|\w+\s*(\[[^\]]*\])?\s*(:\s*\w+\s*)?=[^=])")


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its tree, its strings in order of appearance, and what a call gives."""

    node: Node
    strings: tuple[tuple[Quoted, Subscripts], ...]
    operands: tuple[str, ...]
    scalars: tuple[str, ...]
    span: Span


def read_expression(source: Source) -> Expression:
    """The expression that a text is. Raises `SyntaxError`."""
    from einc.frontend.syntax.grammar import parse_expression

    if _STATEMENT.match(source.text):
        quote = re.search(r"[\"']", source.text)
        at = quote.start() if quote else 0
        raise errors.SyntaxError(
            "einsum strings stand in expressions, not in programs",
            source.span(at, at + 1),
            hint="write the sum of products: C[i, j] = A[i, k] * B[k, j]",
        )
    node = parse_expression(source)
    strings = tuple((n, parse_terms(n.text, n.span)) for n in walk(node) if isinstance(n, Quoted))
    operands = tuple(operand_name(k) for k in range(sum(len(s.inputs) for _, s in strings)))
    return Expression(node, strings, operands, _scalars(node, strings, operands), source.whole())


def _scalars(node: Node, strings: Sequence[tuple[Quoted, Subscripts]], operands: Collection[str]) -> tuple[str, ...]:
    """The names that no reading of the strings has as axes: numbers that the caller gives. None may be an operand's."""
    likely, axes = dict[str, None](), dict[str, None]()
    for _, s in strings:
        likely |= _axes(choose(s))
        for reading in (as_letters(s), s):
            axes |= _axes(reading) if reading else {}
    found: dict[str, None] = {}
    stack = [node]
    while stack:
        n = stack.pop()
        if isinstance(n, Name) and n.name not in axes:
            if n.name in operands:
                raise errors.NameError(
                    f"'{n.name}' is an operand",
                    n.span,
                    fact=f"the terms of strings are operands, in order: {', '.join(operands)}",
                    hint="quote its axes where it is meant, and give a number another name",
                )
            if n.name not in found:
                check_scalar(n, likely)
            found[n.name] = None
        stack += reversed([c for c in children(n) if not (isinstance(n, Call) and c in (n.axes or ()))])
    return tuple(found)


def _axes(s: Subscripts) -> dict[str, None]:
    return dict.fromkeys(a.name for t in s.terms for a in t.axes())


def elaborate_expression(e: Expression, facts: Mapping[str, Fact] | None) -> ein.Program:
    """The cascade that an expression means for operands of these ranks and types. Its result is `out`."""
    strings = place_strings(e.strings, facts, e.span, _likely_types(e))
    names = {*e.operands, *e.scalars, *strings.axes}
    cascade = Cascade(taken={*names})
    for o in strings.operands:
        cascade.declare(o.name, o.dims, o.dtype)
    for name in e.scalars:
        cascade.number(name, FLOAT)
    result_name = cascade.fresh(_RESULT)
    axes = {a: (a,) for a in strings.axes}
    scope = Scope(axes, dict.fromkeys(e.scalars, FLOAT), {}, prefix=result_name)
    t = ExpressionTranslator(cascade, scope, library(()), strings)
    result = t.result(e.node)
    alone = isinstance(e.node, Quoted)  # a string alone has the type that NumPy gives it
    joined = numpy_result([o.dtype for o in strings.operands]) if alone else None
    dtype = joined or cascade.value_type(result, result.shape)
    cascade.give(result_name, result.shape, result, dtype, e.span)
    params: tuple[ein.Operand | ein.Param, ...] = (*strings.operands, *(ein.Param(s, FLOAT) for s in e.scalars))
    return close("expression", params, cascade, {}, (result_name,), places=strings.axes, span=e.span)


def _likely_types(e: Expression) -> dict[str, DType]:
    """Strings of one term that stand as conditions are truth values."""
    truths = {c.span.start for n in walk(e.node) for c in conditions(n) if isinstance(c, Quoted)}
    found, k = dict[str, DType](), 0
    for node, s in e.strings:
        if node.span.start in truths and len(s.inputs) == 1:
            found[operand_name(k)] = BOOL
        k += len(s.inputs)
    return found


@dataclass(frozen=True)
class ExpressionTranslator(Translator):
    """Elaborates einsum strings, products that contract, and calls that leave out their axes."""

    strings: Strings
    known: dict[int, Result] = field(default_factory=dict)  # arguments elaborated before their call, by identity

    def result(self, node: Node, guard: ein.Expr | None = None) -> Result:
        if id(node) in self.known:
            return self.known.pop(id(node))
        if isinstance(node, Read):
            raise errors.SyntaxError(
                "the tensors of an expression are einsum strings",
                node.span,
                fact="each term of a string is an operand, in order",
                hint='quote the axes: "ij"',
            )
        if isinstance(node, Operation) and node.op == "mul":
            contraction = self._product(node, guard)
            if contraction is not None:
                return contraction
        return super().result(node, guard)

    def named(self, label: str) -> str:
        """A string's contraction is named after its operands."""
        return label if label.isupper() else super().named(label)

    def order(self, op: str, count: int) -> Sequence[int]:
        """The values chosen from decide the order of the axes, not the condition."""
        return (1, 2, 0) if op == "where" else range(count)

    def quoted(self, node: Quoted, _guard: ein.Expr | None) -> Result:
        """The value of a string on its own."""
        placed = self.strings.placed[node.span.start]
        if placed.lacking:
            raise AxisError(
                f"axis '{placed.lacking[0]}' is in the output, but in no term of the string",
                node.span,
                fact="a string is an einsum of its own, unless a value is multiplied by it",
                hint=f'contract a value that has the axis: X * "{node.text.strip()}"',
            )
        return self._contract(placed.reads, placed, node.span)

    def _product(self, node: Operation, guard: ein.Expr | None) -> Result | None:
        """`X * "term->out"` or `"term->out" * X`: the contraction of both."""
        left, right = node.args
        for string, other in ((right, left), (left, right)):
            placed = self.strings.placed[string.span.start] if isinstance(string, Quoted) else None
            if placed is not None and placed.contracts:
                value = self.value(other, guard)
                factors = (value, *placed.reads) if other is left else (*placed.reads, value)
                return self._contract(factors, placed, node.span)
        return None

    def _contract(self, factors: Sequence[Value], placed: Placed, span: Span) -> Result:
        """The product of the factors, summed over every axis that the output lacks."""
        truths = all(f.dtype.is_bool for f in factors)
        body = factors[0]
        for f in factors[1:]:
            body = self.apply("and" if truths else "mul", [body, f], span)
        missing = [a for a in flatten(placed.output) if a not in body.axes]
        if missing:
            raise AxisError(
                f"axis '{missing[0]}' is in the output, but in nothing that is multiplied",
                span,
                fact=f"the axes are {', '.join(body.axes)}",
                hint="leave it out of the output",
            )
        moving = set(ein.axes_of(body.expr))  # an axis that an operand is only stretched along is not summed
        over = tuple(a for a in body.axes if a not in flatten(placed.output) and a in moving)
        body = replace(body, obstacles={})
        if not over:
            return _shaped(body, placed.output, span)
        r = reduction(MONOIDS["any" if truths else "sum"], over, [body], None, span)
        label = placed.label if len(factors) == len(placed.reads) and len(placed.label) <= _LONGEST_LABEL else "sum"
        return replace(r, dims=placed.output, positions=(), label=label)

    def axes_for(self, node: Call, guard: ein.Expr | None) -> Call:
        """A call without axes is over the last axis of its first argument."""
        takes = node.function in MONOIDS or bool(self.library[node.function].function.axes)
        if node.axes is not None or not takes or not node.args:
            return node
        value = self.value(node.args[0], guard)
        self.known[id(node.args[0])] = value
        if not value.axes:
            raise AxisError(
                f"'{node.function}' needs an axis, but its argument has none",
                node.span,
                hint="give it a value with axes",
            )
        return replace(node, axes=(Name(value.axes[-1], node.span),))


def _shaped(value: Value, dims: Dims, span: Span) -> Value:
    """The value with its axes in another order."""
    return replace(value, dims=dims, positions=(), span=span)
