"""A cascade in the making: its equations in order, the types of the tensors they define, and the names in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from einc.base.errors import Error
from einc.base.recursion import make_room
from einc.base.source import Span
from einc.base.types import DType, compute, settle
from einc.ein import Cast, Equation, Expr, Read, Tensor, walk
from einc.ein.guards import composite
from einc.ein.inference import default_dtypes, reduced_type
from einc.ein.origins import Origin, given, origin, value_origins
from einc.frontend.elaboration.values import Dims, Reduction, Result, Value, merge, without

_MOST_NODES = 100_000  # of syntax that are elaborated; the body of a function counts at every call
_DEEPEST = 1000  # levels of one scalar expression
_LARGEST = 50_000  # nodes of one scalar expression


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor that may be read: its name in the cascade, dimensions and type.

    The first `hidden` dimensions are the caller's, and subscripts inside the function do not mention them. A tensor of
    a function is `whole` if it was defined without brackets, and is then read without. It is `cast` if the text gives
    it the type that it would be kept in anyway: then each of its reads is a cast to that type.
    """

    name: str
    dims: Dims
    dtype: DType
    hidden: int = 0
    whole: bool = False
    cast: bool = False

    def read(self, read: Read) -> Expr:
        """The expression that a read of it becomes."""
        return Cast(self.dtype, read) if self.cast else read


@dataclass(slots=True)
class Cascade:
    """What elaboration appends to. `taken` are all names in use, `dims` the dimensions of every tensor so far, `hints`
    the extents of the axes that functions bring in, `places` the calls of these, `origins` where values come from."""

    taken: set[str] = field(default_factory=set)
    equations: list[Equation] = field(default_factory=list)
    hints: dict[str, list[Expr]] = field(default_factory=dict)
    dims: dict[str, Dims] = field(default_factory=dict)
    dtypes: dict[str, DType] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    places: dict[str, Span] = field(default_factory=dict)
    nodes: int = 0

    def fresh(self, name: str) -> str:
        """The name, or the name with the first number that makes it unused."""
        unique, count = name, 1
        while unique in self.taken:
            count += 1
            unique = f"{name}{count}"
        self.taken.add(unique)
        return unique

    def spend(self, span: Span) -> None:
        """Count a node; raises `Error` where a small text grows without end."""
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            raise Error(
                "the program is too large",
                span,
                fact=f"written out, with its functions, it has more than {_MOST_NODES} operations",
                hint="bind what is used several times to a name",
            )

    def declare(self, name: str, dims: Dims, dtype: DType) -> Known:
        """An operand."""
        return self._know(name, dims, dtype, given(name, dtype))

    def number(self, name: str, dtype: DType) -> None:
        """A scalar parameter."""
        self.dtypes[name], self.origins[name] = dtype, Origin(dtype)

    def _know(self, name: str, dims: Dims, dtype: DType, origin: Origin) -> Known:
        self.dims[name], self.dtypes[name], self.origins[name] = dims, dtype, origin
        return Known(name, dims, dtype)

    def value_type(self, result: Result, dims: Dims) -> DType:
        """The type that a result has as a value, whatever type it is computed and kept in."""
        if isinstance(result, Value):
            return settle(origin(result.expr, self.origins).type)
        if result.dtype is not None:
            return result.dtype
        axes, bodies = tuple(axis for dim in dims for axis in dim), [b.expr for b in result.bodies]
        return settle(value_origins(result.monoid, result.over, axes, bodies, self.origins)[0].type)

    def give(self, name: str, dims: Dims, result: Result, dtype: DType, span: Span, *, written: bool = False) -> Known:
        """Append the equation that defines a tensor; `written` says that the text names its type."""
        written = written or (isinstance(result, Reduction) and result.dtype is not None)
        (known,) = self.give_all([name], dims, result, [dtype], span, written=[written])
        return known

    def give_all(
        self,
        names: Sequence[str],
        dims: Dims,
        result: Result,
        dtypes: Sequence[DType],
        span: Span,
        *,
        written: Sequence[bool],
    ) -> tuple[Known, ...]:
        """Append the equation that defines several tensors, the components of one reduction."""
        outputs = tuple(Tensor(name, dtype) for name, dtype in zip(names, dtypes, strict=True))
        if isinstance(result, Reduction):
            exprs = tuple(b.expr for b in result.bodies)
            reduced = (result.monoid, result.over, result.domain)
            equation = Equation(outputs, dims, exprs, *reduced, span, result.within)
        else:
            equation = Equation(outputs, dims, (result.expr,), span=span)
        self.equations.append(equation)
        made = value_origins(equation.monoid, equation.over, equation.axes, equation.bodies, self.origins)
        found = []
        for k, (t, o) in enumerate(zip(outputs, made, strict=True)):
            known = self._know(t.name, dims, t.dtype, o)
            if written[k] and t.dtype != settle(o.type):
                self.origins[t.name] = given(f"{t.name}: {t.dtype}", t.dtype)
                usual = default_dtypes(equation.monoid, equation.bodies, self.dtypes)[k]
                known = replace(known, cast=t.dtype == usual)
            found.append(known)
        return tuple(found)

    def bind(self, name: str, result: Result, span: Span) -> Value:
        """The result as a tensor of its own, read at its own axes."""
        dims = without(result.shape, ())
        return bare(self.give(self.fresh(name), dims, result, default_dtype(result), span), span)


def default_dtype(result: Result) -> DType:
    """The type that a result is stored in where the text names none."""
    if isinstance(result, Value):
        return result.dtype if isinstance(result.expr, Cast) else compute(settle(result.dtype))
    k = result.monoid.results[0]
    return result.dtype or reduced_type(result.monoid, k, result.bodies[min(k, len(result.bodies) - 1)].dtype)


def bare(known: Known, span: Span) -> Value:
    """A tensor at the axes it was defined with."""
    read = Read(known.name, tuple(composite(dim) for dim in known.dims), None, span)
    return Value(known.read(read), known.dtype, span, merge(known.dims))


def check_extent(depth: int, size: int, span: Span) -> None:
    """Raise `Error` where an expression is deeper or larger than any stage can follow."""
    if depth <= _DEEPEST and size <= _LARGEST:
        make_room(depth)
        return
    what, most = ("nested too deeply", f"{_DEEPEST} levels") if depth > _DEEPEST else ("too large", f"{_LARGEST} parts")
    raise Error(
        f"the expression is {what}",
        span,
        fact=f"written out, with its functions and guards, it has more than {most}",
        hint="bind parts of it to names",
    )


def guard_size(guard: Expr | None) -> int:
    """The number of nodes of a guard; counting ends where it is too large anyway."""
    return 0 if guard is None else sum(1 for _ in islice(walk(guard), _LARGEST + 1))
