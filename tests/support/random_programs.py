"""Random well-formed programs with operand values: what the property tests of every stage draw from.

Equations are drawn one after another, each over what exists so far: maps, masks, reductions (argmax included), products
of several tensors, softmax rows; reads at axes, at affine, divided and gathered subscripts, with and without guards;
composite dimensions; extents 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from einc.base.types import (
    BF16,
    BOOL,
    C64,
    C128,
    F16,
    F32,
    F64,
    FLOAT,
    I8,
    I16,
    I32,
    I64,
    INT,
    U8,
    U16,
    U32,
    U64,
    DType,
)
from einc.ein import Apply, AxisDecl, Const, Equation, Expr, Extent, Operand, Param, Program, Read, Tensor
from einc.ein.guards import composite
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import unused
from tests.support.random_expressions import ROUNDED, Dims, Expressions, Known, Value

Array = np.ndarray[Any, np.dtype[Any]]

_LETTERS = "ijklmn"
_INTEGERS = (I16, U8, U16, U32, U64)
_MOST_POSITIONS = 400  # of an equation's iteration space
_NUMPY = {F16: "float16", BF16: "float32", F32: "float32", F64: "float64", I8: "int8", I32: "int32", I64: "int64"}
_NUMPY |= {I16: "int16", U8: "uint8", U16: "uint16", U32: "uint32", U64: "uint64"}
_NUMPY |= {BOOL: "bool", C64: "complex64", C128: "complex128"}


# What a program's names may be instead: such as generated code has, words of Python and Triton, letters that are alike.
_WORLDS: tuple[dict[str, str], ...] = (
    {},
    {
        "i": "c", "j": "c_in", "k": "BC", "l": "INT", "m": "c0", "n": "C", "x": "c_mixed", "A": "a", "B": "a_1",
        "C": "size_c", "D": "b", "scale": "num_warps", "window": "out", "T0": "T0_kernel", "T1": "t0", "T2": "blocks_c",
    },
    {
        "i": "k", "j": "K", "k": "BK", "l": "k_in", "m": "k0", "n": "k_mixed", "x": "size_k", "A": "tl", "B": "triton",
        "C": "torch", "D": "lambda", "scale": "device", "window": "INT", "T0": "program", "T1": "max_combine",
    },
    {
        "i": "\u00b5", "j": "\u03bc", "k": "ﬁ", "l": "fi", "m": "ß", "n": "x" * 70, "x": "y" * 70,
        "A": "ℓ", "B": "_", "C": "__name__", "D": "launch",
        "scale": "\u2126", "window": "\u03a9", "T0": "float", "T1": "t0", "T2": "where_",
    },
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A program, values for its operands (bf16 as float32 arrays) and scalars, and the extents of its axes."""

    program: Program
    operands: dict[str, Array]
    scalars: dict[str, bool | int | float]
    sizes: dict[str, int]


@dataclass
class _Programs(Expressions):
    """A program in the making: its signature, then its equations."""

    derived: list[AxisDecl] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def called(self, name: str) -> str:
        """What stands for a name in this program."""
        return self.names.get(name, name)

    # -- the signature

    def signature(self, extents: Sequence[int], least: int) -> None:
        self.names = self.pick([{}, *_WORLDS])
        for axis in _LETTERS[: self.draw(st.integers(least, 4))]:
            self.sizes[self.called(axis)] = self.pick(extents)
        for name in "ABCD"[: self.draw(st.integers(1, 4))]:
            self.operand(self.called(name), self.some(tuple(self.sizes), 0, 3), self.operand_type())
        if self.chance(3):
            self.params.append(Param(self.called("scale"), FLOAT, self.pick([None, Const(0.5)])))
        if self.chance(3):
            self.params.append(Param(self.called("window"), INT, self.pick([None, Const(2)])))
        self.bind_axes()

    def operand_type(self) -> DType:
        of_kind = {"f": [F32, F32, BF16, F16, F64], "i": [I32, I64, I8, *_INTEGERS], "b": [BOOL], "c": [C64, C128]}
        return self.pick(of_kind[self.pick("fff" + self.kinds)])

    def operand(self, name: str, axes: tuple[str, ...], dtype: DType) -> None:
        dims = self.grouped(axes)
        if dims and self.chance(8):
            dims = (*dims, dims[0]) if self.chance(2) else (*dims, ())
        self.params.append(Operand(name, dims, dtype))
        self.tensors[name] = Known(dims, dtype)

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
                taken = {*self.tensors, *self.sizes, *(p.name for p in self.params)}
                self.operand(unused(f"{axis.upper()}_", taken), (axis,), self.operand_type())
            else:
                self.derived.append(AxisDecl(axis, Const(self.sizes[axis])))
        for axis in [a for a in self.sizes if self.sizes[a] > 0][:1]:
            if self.chance(3):
                self.sizes[self.called("x")] = self.sizes[axis] - 1
                self.derived.append(AxisDecl(self.called("x"), Apply("sub", (Extent(axis), Const(1)))))

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
        self.tensors[name] = Known(dims, dtype, value.degree, value.finite)
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
        known = replace(value, degree=ROUNDED if rounded else value.degree)
        known = replace(known, finite=value.finite and monoid in ("sum", "prod"))
        dtype = I64 if kind == "i" else None
        self.give(name, out, known, kind, dtype, bodies=(value.expr,), **reducing(monoid, over, where))

    def contract(self, name: str) -> None:
        """A sum of a product of reads and of factors of positions, the food of dots and contraction orders."""
        out, over = self.space(1)
        kind = "c" if "c" in self.kinds and self.readable("c") and self.chance(3) else "f"
        axes = (*out, *over)
        names = [n for n in self.readable(kind) if self.tensors[n].finite and self.sane(n, axes)]
        factors = (
            [self.read(self.pick(names), axes, None) for _ in range(self.draw(st.integers(2, 4)))] if names else []
        )
        factors = factors or [self.leaf(kind, axes, None)]
        if self.chance(3):
            factors += [self.weight(axes) for _ in range(self.draw(st.integers(1, 3)))]
            factors = self.draw(st.permutations(factors))
        body, degree = factors[0].expr, sum(f.degree for f in factors)
        for f in factors[1:]:
            body = Apply("mul", (body, f.expr))
        self.give(name, out, Value(body, degree), kind, **reducing("sum", over, None))

    def product(self, name: str) -> None:
        """A sum of products of two sides, one or both of them computed: the food of dots."""
        rows, columns, *over = self.some(tuple(self.sizes), 3, 4)
        both = [self.side((rows, *over)), self.side((*over, columns))]
        body = Value(Apply("mul", (both[0].expr, both[1].expr)), ROUNDED, both[0].finite and both[1].finite)
        self.give(name, (rows, columns), body, "f", F32, **reducing("sum", tuple(over), None))

    def side(self, axes: tuple[str, ...]) -> Value:
        """What varies over all of these axes: a tensor of theirs if there is one, or a curve through what there is.

        Never infinite: the other side may be so small that it is 0 in the type that both are multiplied in.
        """
        wide = [n for n in self.readable("f") if self.tensors[n].dtype in (F32, F64)]  # what is narrow rounds the other
        own = [n for n in wide if self.tensors[n].finite and self.over(n) == axes]
        if own and self.chance(2):
            return Value(self.own(self.pick(own)), ROUNDED)
        read = self.value("f", axes, 1)
        position = Apply("mul", (Const(0.25), composite(axes)))
        curve = self.curve(Apply("add", (read.expr, position)), bounded=not read.finite)
        return Value(curve, ROUNDED, read.finite)

    def over(self, name: str) -> tuple[str, ...]:
        """The axes a tensor was defined with."""
        return tuple(a for dim in self.tensors[name].dims for a in dim)

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
        weight = self.give(f"{name}_exp", axes, Value(e, ROUNDED, careful), "f", F32)
        total = self.give(
            f"{name}_sum", out, Value(self.own(weight), ROUNDED, careful), "f", F32, **reducing("sum", over, None)
        )
        quotient: Expr = Apply("div", (self.own(weight), self.own(total)))
        if careful:
            quotient = Apply("where", (Apply("eq", (self.own(total), Const(0))), Const(0), quotient))
        if self.chance(2):
            self.give(name, axes, Value(quotient, ROUNDED, careful), "f", F32)
        else:
            v = self.value("f", (*over, *out[:1]), 1)
            body = Apply("mul", (quotient, v.expr))
            self.give(name, out, Value(body, ROUNDED, v.finite and careful), "f", F32, **reducing("sum", over, None))

    def own(self, name: str) -> Read:
        """The tensor at the axes it was defined with."""
        return Read(name, tuple(composite(dim) for dim in self.tensors[name].dims))

    # -- the whole

    def case(self, equations: int, product: bool) -> Case:
        for n in range(equations):
            self.equation(self.called(f"T{n}"))
        if product:
            self.product(self.called(f"T{equations}"))
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
            return values.integers(0 if p.dtype.kind == "u" else -1, 5, shape).astype(_NUMPY[p.dtype])
        quarters = values.integers(-8, 9, shape) / 4
        if p.dtype.is_complex:
            quarters = quarters + 1j * (values.integers(-8, 9, shape) / 4)
        return np.asarray(quarters, _NUMPY[p.dtype])


def reducing(monoid: str, over: tuple[str, ...], domain: Expr | None) -> dict[str, Any]:
    """The fields of an equation that reduces."""
    return {"monoid": MONOIDS[monoid], "over": over, "domain": domain}


@st.composite
def cases(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    *,
    most: int = 4,
    kinds: str = "fibc",
    zero_extents: bool = True,
    extents: Sequence[int] = (2, 3, 1, 4, 5),
    product: bool = False,
) -> Case:
    """A program of up to `most` definitions with values. `kinds`: any of f(loat) i(nteger) b(ool) c(omplex).

    Axes have one of these `extents`, or 0. One more definition may be a `product` of matrices.
    """
    drawing = _Programs(draw, kinds)
    drawing.signature([*extents, *([0] if zero_extents else [])], 3 if product else 2)
    return drawing.case(draw(st.integers(1, most)), product)


def programs(**options: Any) -> st.SearchStrategy[Program]:
    """Programs alone; the options are those of `cases`."""
    return cases(**options).map(lambda case: case.program)


def texts(**options: Any) -> st.SearchStrategy[str]:
    """Programs in the language's own text."""
    from einc.ein.printer import print_program

    return programs(**options).map(print_program)
