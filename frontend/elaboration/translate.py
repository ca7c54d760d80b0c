"""Nodes of the syntax tree into values: names resolved, types and axes found, reductions set apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from einc import ein
from einc.base import errors
from einc.base.errors import CallError, DTypeError, nearest
from einc.base.ops import CONSTANTS, OPS
from einc.base.source import Span
from einc.base.types import BOOL, BY_NAME, FLOAT, INT, DType
from einc.base.words import count
from einc.ein.guards import argument_guard
from einc.ein.monoids import MONOIDS
from einc.ein.printer import print_dims
from einc.frontend.elaboration import functions, reads, reductions
from einc.frontend.elaboration.cascade import Cascade, bare
from einc.frontend.elaboration.library import Library
from einc.frontend.elaboration.operations import operate
from einc.frontend.elaboration.scopes import Scope
from einc.frontend.elaboration.values import Reduction, Result, Value, blocked
from einc.frontend.syntax.nodes import Call, Extent, Group, Literal, Name, Node, Operation, Quoted, Read
from einc.frontend.syntax.synonyms import meant

_WEAK = {bool: BOOL, int: INT, float: FLOAT}


@dataclass(frozen=True)
class Translator:
    """Elaborates the expressions of one scope, appending to a cascade what needs an equation of its own."""

    cascade: Cascade
    scope: Scope
    library: Library

    def within(self, scope: Scope, library: Library | None = None) -> Translator:
        """A translator of a program's expressions, for another scope of the same cascade and for other functions."""
        return Translator(self.cascade, scope, self.library if library is None else library)

    def value(self, node: Node, guard: ein.Expr | None = None) -> Value:
        """The scalar expression of a node under a guard; a reduction is bound to a tensor and read."""
        result = self.result(node, guard)
        return result if isinstance(result, Value) else self.bound(result)

    def bound(self, r: Reduction) -> Value:
        read = self.cascade.bind(self.named(r.label), r, r.span)
        inside = f"{r.monoid.name}[{', '.join(r.over)}](…)"
        return replace(read, obstacles=blocked(read, inside, r.span))

    def named(self, label: str) -> str:
        return f"{self.scope.prefix}_{label}" if self.scope.prefix else label

    def result(self, node: Node, guard: ein.Expr | None = None) -> Result:
        """What a node elaborates to under a guard: a value, or a reduction that has no name yet."""
        self.cascade.spend(self.scope.at(node.span))
        match node:
            case Literal():
                return self._literal(node)
            case Name():
                return self._name(node)
            case Extent():
                return self._extent(node)
            case Read():
                return reads.read(self, node, guard)
            case Operation(op, args, span):
                return self.apply(op, self._arguments(op, args, guard), self.scope.at(span))
            case Call():
                return self._call(node, guard)
            case Group():
                raise errors.SyntaxError(
                    "a composite axis stands only in subscripts", self.scope.at(node.span), hint="multiply with '*'"
                )
            case Quoted():
                return self.quoted(node, guard)

    def quoted(self, node: Quoted, _guard: ein.Expr | None) -> Result:
        raise errors.SyntaxError(
            "einsum strings stand in expressions, not in programs",
            node.span,
            hint="write the sum of products: C[i, j] = A[i, k] * B[k, j]",
        )

    # -- leaves

    def _literal(self, node: Literal) -> Value:
        value = node.value
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise DTypeError("this number does not fit 64 bits", self.scope.at(node.span), hint=f"{float(value)!r}")
        return Value(ein.Const(value), _WEAK[type(value)], self.scope.at(node.span))

    def _name(self, node: Name) -> Value:
        name, scope, span = node.name, self.scope, self.scope.at(node.span)
        if name in scope.arguments:
            return replace(scope.arguments[name].value, span=span)
        if name in scope.scalars:
            return Value(ein.Scalar(name), scope.scalars[name], span)
        if name in scope.tensors:
            if name in scope.axes:
                read = name + print_dims(scope.tensors[name].dims)
                raise errors.NameError(
                    f"'{name}' is a tensor and an axis",
                    span,
                    fact="without brackets, either could be meant",
                    hint=f"write {read} to read the tensor; to use the position on the axis, rename one of the two",
                )
            return bare(scope.tensors[name], span)
        if name in scope.axes:
            axis = scope.single(name, span)
            return Value(ein.AxisValue(axis), INT, span, (), (axis,))
        if name in CONSTANTS:
            return Value(ein.Const(CONSTANTS[name]), FLOAT, span)
        raise self._unknown(name, span)

    def _unknown(self, name: str, span: Span) -> errors.Error:
        known = (*self.scope.values(), *self.scope.axes)
        if self.is_function(name):
            return errors.NameError(f"'{name}' is a function", span, hint=f"call it: {name}(x)")
        return errors.NameError(
            f"'{name}' is not defined",
            span,
            fact=f"names here: {', '.join(known)}" if known else "",
            hint=nearest(name, known) or "make it a parameter, or define it",
        )

    def _extent(self, node: Extent) -> Value:
        span = self.scope.at(node.span)
        product = ein.Extent("")
        expr: ein.Expr | None = None
        for axis in self.scope.axis(node.axis, node.span):
            product = ein.Extent(axis)
            expr = product if expr is None else ein.Apply("mul", (expr, product), span)
        return Value(ein.ONE if expr is None else expr, INT, span)

    # -- operations

    def _arguments(self, op: str, args: Sequence[Node], guard: ein.Expr | None) -> list[Value]:
        """The arguments of an operation, each under the guard of its place."""
        values: list[Value] = []
        for node in args:
            values.append(self.value(node, argument_guard(op, [v.expr for v in values], guard)))
        return values

    def apply(self, op: str, values: Sequence[Value], span: Span) -> Value:
        """An operation on values."""
        return operate(op, values, span, self.order(op, len(values)))

    def order(self, _op: str, count: int) -> Sequence[int]:
        """Whose axes come first."""
        return range(count)

    def cast(self, node: Call, result: Result) -> Result:
        """`bf16(x)` of a result; a reduction is stored in the type right away."""
        dtype, span = BY_NAME[node.function], self.scope.at(node.span)
        if isinstance(result, Reduction) and _stores(result, dtype):
            return replace(result, dtype=dtype)
        value = result if isinstance(result, Value) else self.bound(result)
        if value.dtype.is_complex and not dtype.is_complex:
            raise DTypeError(
                f"{dtype}(…) would lose the imaginary part",
                span,
                fact=f"the value has type {value.dtype}",
                hint="take the real part: re(x)",
            )
        if value.dtype == dtype and isinstance(value.expr, ein.Cast):
            return value
        depth, size = value.depth + 1, value.size + 1
        return replace(value, expr=ein.Cast(dtype, value.expr), dtype=dtype, depth=depth, size=size, span=span)

    # -- calls

    def is_function(self, name: str) -> bool:
        return name in BY_NAME or name in MONOIDS or name in self.library or (name in OPS and not OPS[name].infix)

    def axes_for(self, node: Call, _guard: ein.Expr | None) -> Call:
        """The call with its axes filled in, where they may be left out."""
        return node

    def _call(self, node: Call, guard: ein.Expr | None) -> Result:
        name = node.function
        if name in BY_NAME:
            self._no_axes(node)
            return self.cast(node, self.result(self._counted(node, 1)[0], guard))
        if name in MONOIDS and (node.axes is not None or name not in OPS or len(node.args) == 1):
            return reductions.reduce(self, node, guard)
        if name in OPS and not OPS[name].infix and name != "neg":
            self._no_axes(node)
            return self._operation(node, guard)
        if name in self.library:
            results = functions.expand(self, node, guard)
            if len(results) == 1:
                return results[0]
            raise CallError(
                f"'{name}' has {len(results)} results",
                self.scope.at(node.span),
                hint=f"name each: A[i], B[i] = {name}(…)",
            )
        raise self._no_function(node)

    def _operation(self, node: Call, guard: ein.Expr | None) -> Value:
        op, span = OPS[node.function], self.scope.at(node.span)
        if op.name in ("max", "min") and len(node.args) > 2:
            values = self._arguments(op.name, node.args, guard)
            total = values[0]
            for v in values[1:]:
                total = self.apply(op.name, [total, v], span)
            return total
        args = self._counted(node, op.arity)
        return self.apply(op.name, self._arguments(op.name, args, guard), span)

    def _counted(self, node: Call, arity: int) -> tuple[Node, ...]:
        if len(node.args) == arity or (arity < 0 and node.args):
            return node.args
        wanted = "at least 1 argument" if arity < 0 else count(arity, "argument")
        raise CallError(
            f"'{node.function}' takes {wanted}, not {len(node.args)}",
            self.scope.at(node.span),
            hint={"where": "where(condition, a, b)", "rand": "rand(seed, i, j)"}.get(
                node.function, f"{node.function}({', '.join('xyz'[: max(arity, 1)])})"
            ),
        )

    def _no_axes(self, node: Call) -> None:
        if node.axes is not None:
            raise CallError(
                f"'{node.function}' takes no axes: it is computed element by element",
                self.scope.at(node.span),
                hint=f"{node.function}(…)",
            )

    def _no_function(self, node: Call) -> errors.Error:
        name, span = node.function, self.scope.at(node.span)
        if name in self.scope.tensors:
            return errors.NameError(f"'{name}' is a tensor, not a function", span, hint=f"read it: {name}[…]")
        known = [*self.library, *MONOIDS, *BY_NAME, *(n for n, op in OPS.items() if not op.infix)]
        return errors.NameError(
            f"there is no function '{name}'", span, hint=meant(name, known) or f"define it: fn {name}(x) = …"
        )


def _stores(r: Reduction, dtype: DType) -> bool:
    """Can the cast of a reduction be the type that it is stored in?"""
    return r.dtype is None and (dtype.is_float or dtype.is_int) and not any(b.dtype.is_complex for b in r.bodies)
