"""Random scalar expressions over the tensors there are: reads, masks, arithmetic, functions, conditions.

Every value carries how it may be used. It is **exact** while it is a short product of quarters of small integers, so
that any order of summation gives the same bits; only exact values are compared, rounded to narrow types or ranked by
argmax. It is **finite** unless a division, a mask or an empty maximum made it otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import TypeVar

from hypothesis import strategies as st

from einc.base.types import BF16, F16, F32, F64, FLOAT, INT, DType
from einc.ein import (
    TRUE,
    Apply,
    AxisValue,
    Cast,
    Const,
    Expr,
    Extent,
    Operand,
    Param,
    Read,
    Scalar,
)
from einc.ein.guards import composite, conjoin, implied_guard
from einc.ein.inference import dtype_of, position
from tests.support.draws import Draws

T = TypeVar("T")
Dims = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Value:
    """An expression, the number of exact factors in its terms (more than 3: rounded), and whether it is finite."""

    expr: Expr
    degree: int = 1
    finite: bool = True

    @property
    def exact(self) -> bool:
        return self.degree <= 3


ROUNDED = 9


@dataclass(frozen=True)
class Known:
    """A tensor that may be read."""

    dims: Dims
    dtype: DType
    degree: int = 1
    finite: bool = True

    @property
    def kind(self) -> str:
        return "i" if self.dtype.is_int else self.dtype.kind


@dataclass
class Expressions(Draws):
    """Draws expressions; `sizes` are the extents of the axes there are, `kinds` what values there may be."""

    kinds: str
    sizes: dict[str, int] = field(default_factory=dict)
    params: list[Operand | Param] = field(default_factory=list)
    tensors: dict[str, Known] = field(default_factory=dict)

    def some(self, options: Sequence[str], least: int, most: int) -> tuple[str, ...]:
        """Between `least` and `most` distinct options, in drawn order."""
        if least > len(options):
            least = len(options)
        picked: list[str] = self.draw(
            st.lists(st.sampled_from(list(options)), min_size=least, max_size=min(most, len(options)), unique=True)
            if options
            else st.just([])
        )
        return tuple(picked)

    def extent(self, dim: tuple[str, ...]) -> int:
        return prod(self.sizes[a] for a in dim)

    @property
    def dtypes(self) -> dict[str, DType]:
        """The types of tensors and scalars by name."""
        return {n: known.dtype for n, known in self.tensors.items()} | {
            p.name: p.dtype for p in self.params if isinstance(p, Param)
        }

    def readable(self, kind: str) -> list[str]:
        return [name for name, known in self.tensors.items() if known.kind == kind]

    def read(self, name: str, axes: tuple[str, ...], guard: Expr | None) -> Value:
        """The tensor at its own axes where they are at hand, and at drawn subscripts elsewhere."""
        known = self.tensors[name]
        index: list[Expr] = []
        for dim in known.dims:
            extent = self.extent(dim)
            own = set(dim) <= set(axes) and (extent == 0 or not self.chance(6))
            index.append(composite(dim) if own else self.subscript(extent, axes, guard))
        return Value(Read(name, tuple(index), implied_guard(index, known.dims, guard)), known.degree, known.finite)

    def subscript(self, extent: int, axes: tuple[str, ...], guard: Expr | None) -> Expr:
        """An axis expression that stays in range, or may leave it: under a guard, or because it depends on data."""
        never = any(self.sizes[a] == 0 for a in axes)  # nothing is read, so nothing is out of range
        options = [*self.gathers(axes), *(Const(c) for c in range(min(extent, 2))), *([Const(7)] if never else [])]
        for a in axes:
            size, at = self.sizes[a], AxisValue(a)
            options += [at] if size <= extent or guard is not None else []
            options += [Apply("floordiv", (at, Const(2)))] if (size + 1) // 2 <= extent else []
            options += [Apply("mod", (at, Const(extent)))]
            options += [Apply("sub", (Apply("sub", (Extent(a), Const(1))), at))] if size <= extent else []
            options += [Apply("add", (at, Const(1)))] if size < extent or guard is not None else []
            options += [Apply("sub", (at, Const(1)))] if guard is not None else []
            options += [Apply("add", (at, AxisValue(b))) for b in axes if b == a or size + self.sizes[b] - 1 <= extent]
        return self.pick(options)

    def gathers(self, axes: tuple[str, ...]) -> list[Expr]:
        """Positions that depend on data, or that only the run time can bound."""
        at_hand = [(n, self.tensors[n].dims) for n in self.readable("i")]
        reads: list[Expr] = [
            Read(n, tuple(composite(dim) for dim in dims))
            for n, dims in at_hand
            if {a for d in dims for a in d} <= set(axes)
        ]
        moved: list[Expr] = [Apply("sub", (Apply("mul", (Const(99), r)), Const(98))) for r in reads[:1]]
        found = [position(e, self.dtypes) for e in (*reads, *moved)]
        return found + ([Apply("mul", (AxisValue(axes[0]), AxisValue(axes[-1])))] if axes else [])

    def value(self, kind: str, axes: tuple[str, ...], depth: int, guard: Expr | None = None) -> Value:
        """An expression of a kind: `f`, `i`, `b` or `c`."""
        if depth <= 0 or self.chance(4):
            return self.leaf(kind, axes, guard)
        return {"f": self.real, "i": self.integer, "b": self.truth, "c": self.complex}[kind](axes, depth - 1, guard)

    def leaf(self, kind: str, axes: tuple[str, ...], guard: Expr | None) -> Value:
        names = [n for n in self.readable(kind) if self.sane(n, axes)]
        if names and not self.chance(6):
            return self.read(self.pick(names), axes, guard)
        if kind == "i" and axes:
            options: list[Expr] = [AxisValue(self.pick(axes)), Const(2), Extent(axes[0]), *self.scalars(INT)]
            return Value(self.pick(options))
        if kind == "b" and axes:
            i, j = AxisValue(self.pick(axes)), AxisValue(self.pick(axes))
            return Value(Apply(self.pick(["le", "lt", "eq", "ne", "ge"]), (i, j)))
        real: list[Expr] = [Const(0.5), Const(2.0), Const(1), *self.scalars(FLOAT)]
        literals: dict[str, list[Expr]] = {"f": real, "i": [Const(1)], "b": [TRUE], "c": [Const(2)]}
        return Value(self.pick(literals[kind]))

    def weight(self, axes: tuple[str, ...]) -> Value:
        """A factor that positions, extents and scalars decide, and no tensor."""
        i, j, k = (AxisValue(self.pick(axes)) for _ in range(3))
        far = Apply("sub", (i, j))
        exact: list[Expr] = [
            i,
            far,
            Apply("add", (Apply("add", (i, j)), k)),
            Apply("where", (Apply("le", (i, j)), k, Const(0))),
        ]
        exact += [Cast(F32, Apply("le", (i, j))), Extent(i.axis), *self.scalars(INT), *self.scalars(FLOAT)]
        base: Expr = self.pick([Const(0.5), Const(2), *self.scalars(FLOAT)])
        rounded: list[Expr] = [
            Apply("rand", (Const(7), i, j)),
            Apply("pow", (base, i)),
            Apply("pow", (Const(0.5), far)),
        ]
        rounded += [Apply("div", (Const(1), Apply("add", (Apply("add", (i, j)), Const(1)))))]
        return Value(self.pick(exact), 2) if self.chance(2) else Value(self.pick(rounded), ROUNDED)

    def scalars(self, dtype: DType) -> list[Expr]:
        return [Scalar(p.name) for p in self.params if isinstance(p, Param) and p.dtype == dtype]

    def sane(self, name: str, axes: tuple[str, ...]) -> bool:
        """No subscript is in range of an empty dimension, except an axis of its own."""
        return all(self.extent(dim) > 0 or set(dim) <= set(axes) for dim in self.tensors[name].dims)

    def masked(self, kind: str, axes: tuple[str, ...], depth: int, guard: Expr | None) -> Value:
        test = self.value("b", axes, depth - 1, guard)
        yes = self.value(kind, axes, depth, conjoin(guard, test.expr))
        no = self.value(kind, axes, depth - 1, conjoin(guard, Apply("not", (test.expr,))))
        if kind == "f" and self.chance(4):
            no = Value(Const(-inf), 1, False)
        return Value(
            Apply("where", (test.expr, yes.expr, no.expr)), max(yes.degree, no.degree), yes.finite and no.finite
        )

    def real(self, axes: tuple[str, ...], depth: int, guard: Expr | None) -> Value:
        form = self.pick(
            ["product", "sum", "where", "max", "curve", "divide", "abs", "cast", "square", "floor", "mixed"]
        )
        if form == "where":
            return self.masked("f", axes, depth, guard)
        if form == "cast" and "c" in self.kinds:
            z = self.value("c", axes, depth, guard)
            return replace(z, expr=Apply(self.pick(["re", "im"]), (z.expr,)))
        if form == "curve" and axes and self.chance(8):
            return Value(Apply("rand", (Const(7), *(AxisValue(a) for a in axes))), ROUNDED)
        a = self.value("f", axes, depth, guard)
        if form == "curve":
            return Value(self.curve(a.expr), ROUNDED, a.finite)
        if form == "abs":
            return replace(a, expr=Apply(self.pick(["abs", "neg"]), (a.expr,)))
        if form == "square":
            return replace(a, expr=Apply("pow", (a.expr, Const(2))), degree=2 * a.degree)
        if form in ("cast", "floor"):
            if not (a.exact and a.finite):
                return replace(a, expr=Cast(F64, a.expr))
            narrow = Cast(self.pick([BF16, F16, F32]), a.expr)
            return replace(
                a, expr=narrow if form == "cast" else Apply(self.pick(["floor", "ceil", "round"]), (a.expr,))
            )
        b = self.value("i" if form == "mixed" else "f", axes, depth, guard)
        both_finite = a.finite and b.finite
        if form in ("sum", "max"):
            op = self.pick(["add", "sub"] if form == "sum" else ["max", "min"])
            return Value(Apply(op, (a.expr, b.expr)), max(a.degree, b.degree), both_finite)
        if form == "divide":
            safe = not self.chance(3)
            below = Apply("add", (Const(1), Apply("abs", (b.expr,)))) if safe else b.expr
            return Value(Apply("div", (a.expr, below)), ROUNDED, both_finite and safe)
        return Value(Apply("mul", (a.expr, b.expr)), a.degree + b.degree, both_finite)

    def curve(self, x: Expr, bounded: bool = False) -> Expr:
        """A smooth function that stays far from overflow; `bounded` ones are finite at infinities too, or NaN."""
        one_plus = Apply("add", (Const(1), Apply("abs", (x,))))
        curves = [
            Apply("tanh", (x,)),
            Apply("exp", (Apply("min", (x, Const(1))),)),
            Apply("exp2", (Apply("neg", (Apply("abs", (x,)),)),)),
            Apply("sqrt", (Apply("abs", (x,)),)),
            Apply("rsqrt", (one_plus,)),
            Apply("log", (one_plus,)),
            Apply("erf", (x,)),
            Apply("log1p", (Apply("abs", (x,)),)),
            Apply("expm1", (Apply("min", (x, Const(1))),)),
            Apply("atan2", (x, one_plus)),
            Apply("cos", (x,)),
        ]
        return self.pick([c for c in curves if not (bounded and c.op in ("sqrt", "log", "log1p"))])

    def integer(self, axes: tuple[str, ...], depth: int, guard: Expr | None) -> Value:
        form = self.pick(["add", "sub", "mul", "floordiv", "mod", "max", "where", "abs"])
        if form == "where":
            return self.masked("i", axes, depth, guard)
        a = self.value("i", axes, depth, guard)
        if form == "abs":
            return replace(a, expr=Apply("abs", (a.expr,)))
        if form in ("floordiv", "mod"):
            return replace(a, expr=Apply(form, (a.expr, Const(self.pick([2, 3])))))
        b = self.value("i", axes, depth, guard)
        degree = a.degree + b.degree if form == "mul" else max(a.degree, b.degree)
        if form == "sub" and dtype_of(Apply(form, (a.expr, b.expr)), self.dtypes).kind == "u":
            form = "add"  # what wraps is too large for floats
        return a if degree > 3 else Value(Apply(form, (a.expr, b.expr)), degree)

    def truth(self, axes: tuple[str, ...], depth: int, guard: Expr | None) -> Value:
        form = self.pick(["compare", "and", "or", "not", "order"])
        if form in ("and", "or"):
            a = self.value("b", axes, depth, guard)
            holds = a.expr if form == "and" else Apply("not", (a.expr,))
            b = self.value("b", axes, depth, conjoin(guard, holds))
            return Value(Apply(form, (a.expr, b.expr)))
        if form == "not":
            return Value(Apply("not", (self.value("b", axes, depth, guard).expr,)))
        kind = "f" if form == "compare" else "i"
        a, b = self.value(kind, axes, depth, guard), self.value(kind, axes, depth, guard)
        if not (a.exact and b.exact):
            return self.leaf("b", axes, guard)
        return Value(Apply(self.pick(["lt", "le", "gt", "ge", "eq", "ne"]), (a.expr, b.expr)))

    def complex(self, axes: tuple[str, ...], depth: int, guard: Expr | None) -> Value:
        form = self.pick(["add", "sub", "mul", "where", "neg"])
        if form == "where":
            return self.masked("c", axes, depth, guard)
        a = self.value("c", axes, depth, guard)
        if form == "neg":
            return a if isinstance(a.expr, Const) else replace(a, expr=Apply("neg", (a.expr,)))
        b = self.value(self.pick(["c", "f"]), axes, depth, guard)
        degree = a.degree + b.degree if form == "mul" else max(a.degree, b.degree)
        return Value(Apply(form, (a.expr, b.expr)), degree, a.finite and b.finite)
