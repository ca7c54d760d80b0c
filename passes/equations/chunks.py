"""Whether a predicate may hold anywhere in a chunk of each of its axes, by intervals instead of values.

    doc[b, i] == doc[b, j]    -->   doc_least[b, m] <= doc_most[b, c] and doc_least[b, c] <= doc_most[b, m]

An expression has a least and a greatest value over a chunk; for data along one chunked axis, equations of their own
tabulate them. A value that is not known may be anything, so that the predicate may hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from einc import ein
from einc.base.ops import DENIED
from einc.base.types import I64, U64, DType
from einc.ein import TRUE, ZERO, Apply, AxisDecl, AxisValue, Cast, Const, Equation, Expr, Extent, Program, Read
from einc.ein.guards import conjoin
from einc.ein.inference import dtype_of, exact, is_position, reduced_type
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import names, unused
from einc.passes.algebra.folding import call

CHUNK = 16  # positions per chunk; a start is rounded down to a multiple of it

Interval = tuple[Expr, Expr]  # least and greatest value, both included


class Chunks:
    """Chunked axes of a program, and the tables of the least and greatest values in each chunk of data."""

    def __init__(self, program: Program, chunked: Sequence[str]) -> None:
        self.dtypes = program.dtypes()
        self.taken = names(program)
        self.extents = {a.name: a.extent for a in program.axes}
        self.lengths = {a: self.name(f"{a}_chunk") for a in chunked}
        self.inner = self.name("r")
        self.equations: list[Equation] = []
        self.tables: dict[tuple[Expr, str], Read] = {}

    def name(self, wanted: str) -> str:
        found = unused(wanted, self.taken)
        self.taken.add(found)
        return found

    def of(self, axis: str) -> str:
        """The axis that counts the chunks of an axis."""
        return self.lengths[axis]

    @property
    def own(self) -> set[str]:
        return set(self.lengths.values())

    def axes(self) -> tuple[AxisDecl, ...]:
        """The axes of chunks and, if there are tables, the axis of positions in a chunk."""
        found = [
            AxisDecl(c, Apply("floordiv", (Apply("add", (Extent(a), Const(CHUNK - 1))), Const(CHUNK))))
            for a, c in self.lengths.items()
        ]
        return (*found, *([AxisDecl(self.inner, Const(CHUNK))] if self.equations else []))

    # --------------------------------------------------------------------------------------------------------- truth

    def possible(self, p: Expr) -> Expr:
        """A condition for the predicate to hold somewhere in the chunks; true where none is known."""
        match p:
            case Const():
                return p
            case Apply(op="and", args=(x, y)):
                return call("and", self.possible(x), self.possible(y))
            case Apply(op="or", args=(x, y)):
                return call("or", self.possible(x), self.possible(y))
            case Apply(op="where", args=(c, x, y)):
                one = call("and", self.possible(c), self.possible(x))
                return call("or", one, call("and", self.possible(Apply("not", (c,))), self.possible(y)))
            case Apply(op="not", args=(x,)) if (opposite := self.opposite(x)) is not None:
                return self.possible(opposite)
        along = self.along(p)
        if not along:
            return p
        if len(along) == 1 and ein.reads(p):
            return self.table(p, "any", along[0])
        match p:
            case Apply(op=op, args=(a, b)) if op in DENIED and self.is_exact(a) and self.is_exact(b):
                return self.comparison(op, a, b)
            case Read():
                point = self.point(p)
                return TRUE if point is None else point
            case Apply(op="not", args=(Read() as r,)):
                point = self.point(r)
                return TRUE if point is None else Apply("not", (point,))
            case _:
                return TRUE

    def certain(self, p: Expr) -> Expr:
        """A condition for the predicate to hold everywhere in the chunks; false where none is known."""
        return self.denied(self.possible(self.denied(p)))

    def denied(self, p: Expr) -> Expr:
        """The predicate's negation, of comparisons of integers and of truth values where it can be."""
        match p:
            case Const(bool() as known):
                return Const(not known)
            case Apply(op="and" | "or" as op, args=(x, y)):
                return call("or" if op == "and" else "and", self.denied(x), self.denied(y))
            case _:
                return self.opposite(p) or Apply("not", (p,))

    def opposite(self, x: Expr) -> Expr | None:
        match x:
            case Apply(op="and" | "or" as op, args=args):
                return Apply("or" if op == "and" else "and", tuple(Apply("not", (a,)) for a in args))
            case Apply(op="not", args=(y,)):
                return y
            case Apply(op=op, args=(a, b)) if op in DENIED and self.is_exact(a) and self.is_exact(b):
                return Apply(DENIED[op], (a, b))
            case _:
                return None

    def comparison(self, op: str, a: Expr, b: Expr) -> Expr:
        if U64 in (dtype_of(a, self.dtypes), dtype_of(b, self.dtypes)):
            return TRUE
        x, y = self.interval(a), self.interval(b)
        if x is None or y is None:
            return TRUE
        match op:
            case "lt" | "le":
                return Apply(op, (x[0], y[1]))
            case "gt" | "ge":
                return Apply(op, (x[1], y[0]))
            case "eq":
                return call("and", Apply("le", (x[0], y[1])), Apply("le", (y[0], x[1])))
            case _:
                return call("or", Apply("ne", (x[0], y[1])), Apply("ne", (x[1], y[0])))

    def is_exact(self, e: Expr) -> bool:
        return dtype_of(e, self.dtypes).is_int

    def along(self, e: Expr) -> tuple[str, ...]:
        """The chunked axes that an expression depends on."""
        return tuple(a for a in ein.axes_of(e) if a in self.lengths)

    # ----------------------------------------------------------------------------------------------------- intervals

    def interval(self, e: Expr) -> Interval | None:
        """The least and greatest value of an integer in the chunks."""
        along = self.along(e)
        if not along:
            return e, e
        match e:
            case AxisValue(axis=axis):
                start = call("mul", AxisValue(self.lengths[axis]), Const(CHUNK))
                return start, call("add", start, Const(CHUNK - 1))
            case Apply(op="floordiv", args=(AxisValue(axis=axis), Const(int() as n))) if n > 0 and n % CHUNK == 0:
                c = AxisValue(self.lengths[axis])
                at = c if n == CHUNK else Apply("floordiv", (c, Const(n // CHUNK)))
                return at, at
        if len(along) == 1 and ein.reads(e):
            return self.table(e, "min", along[0]), self.table(e, "max", along[0])
        match e:
            case Read():
                point = self.point(e)
                return None if point is None else (point, point)
            case Cast(dtype=t, arg=x) if t == I64 and self.is_exact(x):
                return self.interval(x)
            case Apply(op=op, args=args):
                known = [k for a in (args[1:] if op == "where" else args) if (k := self.interval(a)) is not None]
                wide = [(exact(low, self.dtypes), exact(high, self.dtypes)) for low, high in known]
                whole = _combined(op, wide) if len(wide) == len(args) - (op == "where") else None
                return whole if whole is None else _in_type(whole, dtype_of(e, self.dtypes))
            case _:
                return None

    def point(self, e: Read) -> Read | None:
        """A read whose index does not change within the chunks, at that index."""
        if e.guard is not None:
            return None
        found = [self.interval(i) for i in e.index]
        at = [x[0] for x in found if x is not None and x[0] == x[1]]
        return replace(e, index=tuple(at)) if len(at) == len(found) else None

    def table(self, e: Expr, monoid: str, axis: str) -> Read:
        """The least or greatest value of data in each chunk of an axis, or whether any of it is true there."""
        if (e, monoid) not in self.tables:
            own = tuple(self.lengths.get(a, a) for a in ein.axes_of(e))
            position = Apply(
                "add", (Apply("mul", (AxisValue(self.lengths[axis]), Const(CHUNK))), AxisValue(self.inner))
            )
            exists = Apply("lt", (position, Extent(axis)))
            body = _guarded(ein.substitute(e, {axis: position}), exists)
            what = {"min": "least", "max": "most", "any": "any"}[monoid]
            name = self.name(f"{ein.reads(e)[0].tensor}_{what}")
            dtype = reduced_type(MONOIDS[monoid], 0, dtype_of(e, self.dtypes))
            dims = tuple((a,) for a in own)
            made = Equation((ein.Tensor(name, dtype),), dims, (body,), MONOIDS[monoid], (self.inner,), exists)
            self.equations.append(made)
            self.dtypes[name] = dtype
            self.tables[e, monoid] = Read(name, tuple(AxisValue(a) for a in own))
        return self.tables[e, monoid]


def _in_type(whole: Interval, t: DType) -> Interval:
    """The interval of values computed in a type: the whole type if the ideal values leave it, since they wrap."""
    if is_position(t):
        return whole
    least, most = t.limits
    fits = Apply("and", (Apply("ge", (whole[0], Const(least))), Apply("le", (whole[1], Const(most)))))
    return Apply("where", (fits, whole[0], Const(least))), Apply("where", (fits, whole[1], Const(most)))


def _combined(op: str, known: list[Interval]) -> Interval | None:
    match op, known:
        case "neg", [(low, high)]:
            return call("neg", high), call("neg", low)
        case "abs", [(low, high)]:
            least = Apply("max", (Apply("max", (low, call("neg", high))), ZERO))
            return least, Apply("max", (call("neg", low), high))
        case "add", [a, b]:
            return call("add", a[0], b[0]), call("add", a[1], b[1])
        case "sub", [a, b]:
            return call("sub", a[0], b[1]), call("sub", a[1], b[0])
        case (("mul" | "floordiv"), [a, (Const(int() as n), _)]) if n > 0:
            return call(op, a[0], Const(n)), call(op, a[1], Const(n))
        case "mul", [(Const(int() as n), _), a] if n > 0:
            return call(op, a[0], Const(n)), call(op, a[1], Const(n))
        case "mod", [_, (Const(int() as n), _)] if n > 0:
            return ZERO, Const(n - 1)
        case (("max" | "min"), [a, b]):
            return Apply(op, (a[0], b[0])), Apply(op, (a[1], b[1]))
        case "where", [a, b]:
            return Apply("min", (a[0], b[0])), Apply("max", (a[1], b[1]))
        case _:
            return None


def _guarded(e: Expr, guard: Expr) -> Expr:
    """The expression with its reads made only where the guard holds."""
    inner = ein.rebuild(e, lambda below: _guarded(below, guard))
    return replace(inner, guard=conjoin(guard, inner.guard)) if isinstance(inner, Read) else inner
