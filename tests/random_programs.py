"""Random well-formed programs with operand values: what the property tests of every stage draw from.

Equations are drawn one after another, each over what exists so far: maps, masks, reductions (argmax included), products
of several tensors, softmax rows; reads at axes, at affine, divided and gathered subscripts, with and without guards;
composite dimensions; extents 0 and 1.

Every value carries how it may be used. It is **exact** while it is a short product of quarters of small integers, so
that any order of summation gives the same bits; only exact values are compared, rounded to narrow types or ranked by
argmax. It is **finite** unless a division, a mask or an empty maximum made it otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from einc.ein import (
    MONOIDS,
    TRUE,
    Apply,
    AxisDecl,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Operand,
    Param,
    Program,
    Read,
    Scalar,
    Tensor,
)
from einc.guards import composite, conjoin, implied_guard
from einc.types import BF16, BOOL, C64, C128, F16, F32, F64, FLOAT, I8, I32, I64, INT, DType

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]
Dims = tuple[tuple[str, ...], ...]

_LETTERS = "ijklmn"
_MOST_POSITIONS = 400  # of an equation's iteration space
_NUMPY = {F16: "float16", BF16: "float32", F32: "float32", F64: "float64", I8: "int8", I32: "int32", I64: "int64"}
_NUMPY |= {BOOL: "bool", C64: "complex64", C128: "complex128"}


@dataclass(frozen=True)
class Case:
    """A program, values for its operands (bf16 as float32 arrays) and scalars, and the extents of its axes."""

    program: Program
    operands: dict[str, Array]
    scalars: dict[str, bool | int | float]
    sizes: dict[str, int]


@dataclass(frozen=True)
class Value:
    """An expression, the number of exact factors in its terms (more than 3: rounded), and whether it is finite."""

    expr: Expr
    degree: int = 1
    finite: bool = True

    @property
    def exact(self) -> bool:
        return self.degree <= 3


_ROUNDED = 9


@dataclass(frozen=True)
class _Known:
    """A tensor that may be read."""

    dims: Dims
    dtype: DType
    degree: int = 1
    finite: bool = True

    @property
    def kind(self) -> str:
        return "i" if self.dtype.is_int else self.dtype.kind


@dataclass
class _Drawing:
    """A program in the making."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    kinds: str
    sizes: dict[str, int] = field(default_factory=dict)
    params: list[Operand | Param] = field(default_factory=list)
    derived: list[AxisDecl] = field(default_factory=list)
    tensors: dict[str, _Known] = field(default_factory=dict)
    equations: list[Equation] = field(default_factory=list)

    def pick(self, options: Sequence[T]) -> T:
        chosen: T = self.draw(st.sampled_from(list(options)))
        return chosen

    def chance(self, one_in: int) -> bool:
        return bool(self.draw(st.integers(0, one_in - 1)) == one_in - 1)

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

    # -- the signature

    def signature(self, zero: bool) -> None:
        extents = [2, 3, 1, 4, 5, *([0] if zero else [])]
        for axis in _LETTERS[: self.draw(st.integers(2, 4))]:
            self.sizes[axis] = self.pick(extents)
        for name in "ABCD"[: self.draw(st.integers(1, 4))]:
            self.operand(name, self.some(tuple(self.sizes), 0, 3), self.operand_type())
        if self.chance(3):
            self.params.append(Param("scale", FLOAT, self.pick([None, Const(0.5)])))
        if self.chance(3):
            self.params.append(Param("window", INT, self.pick([None, Const(2)])))
        self.bind_axes()

    def operand_type(self) -> DType:
        of_kind = {"f": [F32, F32, BF16, F16, F64], "i": [I32, I64, I8], "b": [BOOL], "c": [C64, C128]}
        return self.pick(of_kind[self.pick("fff" + self.kinds)])

    def operand(self, name: str, axes: tuple[str, ...], dtype: DType) -> None:
        dims = self.grouped(axes)
        if dims and self.chance(8):
            dims = (*dims, dims[0]) if self.chance(2) else (*dims, ())
        self.params.append(Operand(name, dims, dtype))
        self.tensors[name] = _Known(dims, dtype)

    def grouped(self, axes: tuple[str, ...]) -> Dims:
        """The axes as dimensions, now and then two in one."""
        if len(axes) >= 2 and self.chance(4):
            return ((axes[0], axes[1]), *((a,) for a in axes[2:]))
        return tuple((a,) for a in axes)

    def bind_axes(self) -> None:
        """See that every axis has an extent: by a dimension of its own, or by a formula."""
        bound = {dim[0] for known in self.tensors.values() for dim in known.dims if len(dim) == 1}
        composite = {axis for known in self.tensors.values() for dim in known.dims for axis in dim} - bound
        for axis in [a for a in self.sizes if a not in bound]:
            if axis in composite or self.chance(2):
                self.operand(f"{axis.upper()}_", (axis,), self.operand_type())
            else:
                self.derived.append(AxisDecl(axis, Const(self.sizes[axis])))
        for axis in [a for a in self.sizes if self.sizes[a] > 0][:1]:
            if self.chance(3):
                self.sizes["x"] = self.sizes[axis] - 1
                self.derived.append(AxisDecl("x", Apply("sub", (Extent(axis), Const(1)))))

    # -- reads

    def extent(self, dim: tuple[str, ...]) -> int:
        return prod(self.sizes[a] for a in dim)

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
        found: list[Expr] = [
            Read(n, tuple(composite(dim) for dim in dims))
            for n, dims in at_hand
            if {a for d in dims for a in d} <= set(axes)
        ]
        return found + ([Apply("mul", (AxisValue(axes[0]), AxisValue(axes[-1])))] if axes else [])

    # -- scalar expressions

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
        a = self.value("f", axes, depth, guard)
        if form == "curve":
            return Value(self.curve(a.expr), _ROUNDED, a.finite)
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
            return Value(Apply("div", (a.expr, below)), _ROUNDED, both_finite and safe)
        return Value(Apply("mul", (a.expr, b.expr)), a.degree + b.degree, both_finite)

    def curve(self, x: Expr) -> Expr:
        """A smooth function that stays far from overflow."""
        one_plus = Apply("add", (Const(1), Apply("abs", (x,))))
        return self.pick(
            [
                Apply("tanh", (x,)),
                Apply("exp", (Apply("min", (x, Const(1))),)),
                Apply("exp2", (Apply("neg", (Apply("abs", (x,)),)),)),
                Apply("sqrt", (Apply("abs", (x,)),)),
                Apply("rsqrt", (one_plus,)),
                Apply("log", (one_plus,)),
                Apply("erf", (x,)),
                Apply("cos", (x,)),
            ]
        )

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

    # -- equations

    def space(self, least_over: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Output axes and reduced axes, of a bounded number of positions."""
        axes = self.some(tuple(self.sizes), max(least_over, 1), 4)
        while prod(max(self.sizes[a], 1) for a in axes) > _MOST_POSITIONS:
            axes = axes[:-1]
        split = self.draw(st.integers(least_over, len(axes))) if least_over else 0
        return axes[split:], axes[:split]

    def domain(self, axes: tuple[str, ...]) -> Expr | None:
        """Where a reduction takes terms; the reads of its body are guarded by it."""
        return self.value("b", axes, 1).expr if self.chance(4) else None

    def give(
        self, name: str, out: tuple[str, ...], value: Value, kind: str, dtype: DType | None = None, **reduction: Any
    ) -> str:
        """Append an equation; its type is wide enough for what it holds, and narrow now and then if that is exact."""
        stored = {"f": [F32, F32, F64], "i": [I32, I64], "b": [BOOL], "c": [C64, C128]}[kind]
        if kind == "f" and value.exact and value.finite:
            stored += [BF16, F16]
        dtype = dtype or self.pick(stored)
        bodies = reduction.pop("bodies", (value.expr,))
        dims = self.grouped(out)
        self.equations.append(Equation((Tensor(name, dtype),), dims, bodies, **reduction))
        self.tensors[name] = _Known(dims, dtype, value.degree, value.finite)
        return name

    def equation(self, name: str) -> None:
        forms = ["map", "reduce", "contract", "rank", "softmax", "logic", "count"]
        {
            "map": self.map, "reduce": self.reduce, "contract": self.contract, "rank": self.rank,
            "softmax": self.softmax, "logic": self.logic, "count": self.count,
        }[self.pick(forms)](name)  # fmt: skip

    def map(self, name: str) -> None:
        out, _ = self.space(0)
        kind = self.pick("ff" + self.kinds)
        self.give(name, out, self.value(kind, out, 3), kind)

    def reduce(self, name: str) -> None:
        out, over = self.space(1)
        monoid = self.pick(["sum", "max", "min", "sum", "prod"])
        kind = "i" if "i" in self.kinds and self.chance(4) else "f"
        where = self.domain((*out, *over))
        value = self.value(kind, (*out, *over), 3, where)
        rounded = monoid == "prod" or kind == "i"
        known = replace(value, degree=_ROUNDED if rounded else value.degree)
        known = replace(known, finite=value.finite and monoid in ("sum", "prod"))
        dtype = I64 if kind == "i" else None
        self.give(name, out, known, kind, dtype, bodies=(value.expr,), **reducing(monoid, over, where))

    def contract(self, name: str) -> None:
        """A sum of a product of reads, the food of dots and contraction orders."""
        out, over = self.space(1)
        kind = "c" if "c" in self.kinds and self.readable("c") and self.chance(3) else "f"
        axes = (*out, *over)
        names = [n for n in self.readable(kind) if self.tensors[n].finite and self.sane(n, axes)]
        factors = (
            [self.read(self.pick(names), axes, None) for _ in range(self.draw(st.integers(2, 4)))] if names else []
        )
        factors = factors or [self.leaf(kind, axes, None)]
        body, degree = factors[0].expr, sum(f.degree for f in factors)
        for f in factors[1:]:
            body = Apply("mul", (body, f.expr))
        self.give(name, out, Value(body, degree), kind, **reducing("sum", over, None))

    def rank(self, name: str) -> None:
        out, over = self.space(1)
        value = self.value("f", (*out, *over), 2)
        if not (value.exact and value.finite):
            value = self.leaf("i", (*out, *over), None)
        position = Value(value.expr, 2)
        bodies: tuple[Expr, ...] = (value.expr, composite(over))
        monoid = self.pick(["argmax", "argmin"])
        if prod(self.sizes[a] for a in over) == 0:
            monoid, bodies = "min", (Const(1),)
        self.give(name, out, position, "i", I64, bodies=bodies, **reducing(monoid, over, None))

    def logic(self, name: str) -> None:
        out, over = self.space(1)
        where = self.domain((*out, *over))
        value = self.value("b", (*out, *over), 2, where)
        self.give(name, out, value, "b", **reducing(self.pick(["any", "all"]), over, where))

    def count(self, name: str) -> None:
        out, over = self.space(1)
        where = self.domain((*out, *over))
        value = replace(self.value("b", (*out, *over), 2, where), degree=2)
        self.give(name, out, value, "i", I64, **reducing("sum", over, where))

    def softmax(self, name: str) -> None:
        """A row statistic, its exponentials and their quotient, masked or not, as the prelude writes it or by hand."""
        out, over = self.space(1)
        over, axes = over[:1], (*out, *over[1:], *over[:1])
        out = axes[:-1]
        score = self.masked("f", axes, 2, None) if self.chance(2) else self.value("f", axes, 2)
        s = self.give(f"{name}_score", axes, score, "f", F32)
        x = self.own(s)
        m = self.give(f"{name}_max", out, Value(x, score.degree, False), "f", F32, **reducing("max", over, None))
        e = Apply("exp", (Apply("sub", (x, self.own(m))),))
        careful = not self.chance(3)
        if careful:
            e = Apply("where", (Apply("eq", (x, Const(-inf))), Const(0), e))
        weight = self.give(f"{name}_exp", axes, Value(e, _ROUNDED, careful), "f", F32)
        total = self.give(
            f"{name}_sum", out, Value(self.own(weight), _ROUNDED, careful), "f", F32, **reducing("sum", over, None)
        )
        quotient: Expr = Apply("div", (self.own(weight), self.own(total)))
        if careful:
            quotient = Apply("where", (Apply("eq", (self.own(total), Const(0))), Const(0), quotient))
        if self.chance(2):
            self.give(name, axes, Value(quotient, _ROUNDED, careful), "f", F32)
        else:
            v = self.value("f", (*over, *out[:1]), 1)
            body = Apply("mul", (quotient, v.expr))
            self.give(name, out, Value(body, _ROUNDED, v.finite and careful), "f", F32, **reducing("sum", over, None))

    def own(self, name: str) -> Read:
        """The tensor at the axes it was defined with."""
        return Read(name, tuple(composite(dim) for dim in self.tensors[name].dims))

    # -- the whole

    def case(self, equations: int) -> Case:
        for n in range(equations):
            self.equation(f"T{n}")
        last = self.equations[-1].name
        others = [e.name for e in self.equations[:-1]]
        results = (last, *self.some(others, 0, 2)) if self.chance(2) else (last,)
        seen = dict.fromkeys(a for p in self.params if isinstance(p, Operand) for dim in p.dims for a in dim)
        axes = (*(AxisDecl(a) for a in seen), *self.derived)
        program = Program("random", tuple(self.params), axes, tuple(self.equations), results)
        values = np.random.default_rng(self.draw(st.integers(0, 1 << 16)))
        operands = {p.name: self.array(p, values) for p in program.operands}
        given: dict[str, bool | int | float] = {p.name: 0.5 if p.dtype == FLOAT else 2 for p in program.scalars}
        return Case(program, operands, given, dict(self.sizes))

    def array(self, p: Operand, values: np.random.Generator) -> Array:
        shape = tuple(self.extent(dim) for dim in p.dims)
        if p.dtype.is_bool:
            return values.integers(0, 2, shape).astype(bool)
        if p.dtype.is_int:
            return values.integers(-1, 5, shape).astype(_NUMPY[p.dtype])
        quarters = values.integers(-8, 9, shape) / 4
        if p.dtype.is_complex:
            quarters = quarters + 1j * (values.integers(-8, 9, shape) / 4)
        return np.asarray(quarters, _NUMPY[p.dtype])


def reducing(monoid: str, over: tuple[str, ...], domain: Expr | None) -> dict[str, Any]:
    """The fields of an equation that reduces."""
    return {"monoid": MONOIDS[monoid], "over": over, "domain": domain}


@st.composite
def cases(
    draw: Callable[[st.SearchStrategy[Any]], Any], *, most: int = 4, kinds: str = "fibc", zero_extents: bool = True
) -> Case:
    """A program of up to `most` definitions with values. `kinds`: any of f(loat) i(nteger) b(ool) c(omplex)."""
    drawing = _Drawing(draw, kinds)
    drawing.signature(zero_extents)
    return drawing.case(draw(st.integers(1, most)))


def programs(**options: Any) -> st.SearchStrategy[Program]:
    """Programs alone; the options are those of `cases`."""
    return cases(**options).map(lambda case: case.program)


def texts(**options: Any) -> st.SearchStrategy[str]:
    """Programs in the language's own text."""
    from einc.printer import print_program

    return programs(**options).map(print_program)
