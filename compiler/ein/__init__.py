"""What is computed: a cascade of equations over named axes, in single-assignment form.

    T[i...] = monoid[r... : p](f)

An **equation** defines one or more tensors over the output axes i. With a monoid it reduces scalar expressions f over
the axes r, restricted to the domain p; without one it is pointwise. Scalar expressions read tensors at axis
expressions, under guards. All nodes are frozen and compared by value; source spans do not count.

The text form of each node is what `einc.ein.printer` writes and the parser reads back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import is_

from einc.base.source import Span
from einc.base.types import F32, F64, DType
from einc.ein.expressions import (
    FALSE,
    ONE,
    TRUE,
    ZERO,
    Apply,
    AxisValue,
    Cast,
    Const,
    Expr,
    Extent,
    Read,
    Scalar,
    axes_of,
    children,
    reads,
    rebuild,
    substitute,
    tensors_of,
    walk,
)
from einc.ein.monoids import Monoid

__all__ = [
    "FALSE", "ONE", "TRUE", "ZERO", "Apply", "AxisDecl", "AxisValue", "Cast", "Const", "Equation", "Expr", "Extent",
    "Monoid", "Operand", "Param", "Program", "Read", "Scalar", "Tensor", "axes_of", "children", "reads", "rebuild",
    "substitute", "tensors_of", "walk",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that an equation defines: its name and the type it is stored in."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Equation:
    """`T[dims] = monoid[over : domain within bound](bodies)`, or pointwise `T[dims] = body` where `monoid` is None.

    `dims` are the output's dimensions, each a group of axes, outermost first: `O[b, (g r), i]` has three.

    There is one body for each component of the monoid (argmax: the value, then its index, which texts write only where
    it is not the row-major position in `over`), and one output tensor for each result.

    `within` bounds the positions that a reduction needs: outside it every body is the identity of the monoid, or the
    result is not read. It changes no value; a kernel may take the bounds of its loop from it.

    `added` are output axes that its domain equates to places which data decides: a kernel may add each term there as it
    is computed, in no order that is fixed.

    `product` is the type that a contraction multiplies in, once that is settled (`einc.ein.origins`).
    """

    outputs: tuple[Tensor, ...]
    dims: tuple[tuple[str, ...], ...]
    bodies: tuple[Expr, ...]
    monoid: Monoid | None = None
    over: tuple[str, ...] = ()
    domain: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)
    within: Expr | None = None
    product: DType | None = None
    added: tuple[str, ...] = ()
    axes: tuple[str, ...] = field(init=False, compare=False, repr=False)  # the output axes, in order
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(axis for dim in self.dims for axis in dim))
        if self.monoid is None:
            object.__setattr__(self, "product", None)
            object.__setattr__(self, "added", ())
        parts = (self.outputs, self.dims, self.bodies, self.monoid, self.over, self.domain)
        object.__setattr__(self, "_hash", hash((*parts, self.within, self.product, self.added)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def name(self) -> str:
        return self.outputs[0].name

    @property
    def body(self) -> Expr:
        return self.bodies[0]

    @property
    def space(self) -> tuple[str, ...]:
        """The axes whose positions it is computed at."""
        return (*(a for a in self.axes if a not in self.added), *self.over)

    def computed(self) -> tuple[Expr, ...]:
        """The expressions that decide the values: the bodies, then the domain if there is one."""
        return self.bodies if self.domain is None else (*self.bodies, self.domain)

    def expressions(self) -> tuple[Expr, ...]:
        """Every expression: the bodies, the domain, and `within`."""
        return self.computed() if self.within is None else (*self.computed(), self.within)

    def map(self, f: Callable[[Expr], Expr]) -> Equation:
        """The equation with f applied to every expression in it; the equation itself where nothing changed."""
        old = self.expressions()
        new = tuple(map(f, old))
        if all(map(is_, new, old)):
            return self
        found = iter(new)
        bodies = tuple(next(found) for _ in self.bodies)
        domain = None if self.domain is None else next(found)
        within = None if self.within is None else next(found)
        return replace(self, bodies=bodies, domain=domain, within=within)


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor parameter: each dimension is a group of axes, outermost first (`(g r)` is two, `1` is none).

    If its type is `declared`, the text names it, and an operand of no other type may be given."""

    name: str
    dims: tuple[tuple[str, ...], ...]
    dtype: DType
    span: Span | None = field(default=None, compare=False, repr=False)
    declared: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Param:
    """A scalar parameter of type int, float or bool, with a default over extents and earlier scalars."""

    name: str
    dtype: DType
    default: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AxisDecl:
    """An axis and its extent: a formula over other extents and scalars, or None where an operand decides it."""

    name: str
    extent: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Program:
    """A cascade: parameters in the caller's order, axes, equations each after those it reads, and names of results.

    `precision` is what its contractions of f32 multiply in, one of `einc.base.types.PRECISIONS`; it changes no meaning.
    """

    name: str
    params: tuple[Operand | Param, ...]
    axes: tuple[AxisDecl, ...]
    equations: tuple[Equation, ...]
    results: tuple[str, ...]
    span: Span | None = field(default=None, compare=False, repr=False)
    precision: DType = F32

    @property
    def operands(self) -> tuple[Operand, ...]:
        return tuple(p for p in self.params if isinstance(p, Operand))

    @property
    def scalars(self) -> tuple[Param, ...]:
        return tuple(p for p in self.params if isinstance(p, Param))

    @property
    def real(self) -> DType:
        """The type of parameters that are floats: f32 unless the program holds an f64 tensor."""
        return F64 if F64 in {t.part for t in self.dtypes().values()} else F32

    def dtypes(self) -> dict[str, DType]:
        """The type of every tensor and scalar by name."""
        given = {p.name: p.dtype for p in self.params}
        return given | {t.name: t.dtype for e in self.equations for t in e.outputs}

    def shapes(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """The dimensions of every tensor, each a group of axes."""
        given = {p.name: p.dims for p in self.operands}
        return given | {t.name: e.dims for e in self.equations for t in e.outputs}
