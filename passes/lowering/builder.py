"""Builds one kernel: scalar expressions become tile values, with the types of tiles.

Types become explicit here: arguments of an operation are converted to one type, narrow floats to f32, and literals take
the type of the other arguments. Loads are bound to names, as are operations that occur more than once. A float divisor
that is the same for a whole tile is inverted once and multiplied by; a value per row is divided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import assert_never

from einc import ein, tile
from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, I64, INT, U64, DType, compute
from einc.ein import ZERO, Apply, Cast, Const, Expr, Monoid, Program, Read
from einc.ein.domains import holds
from einc.ein.guards import composite
from einc.ein.inference import dtype_of as inferred
from einc.ein.printer import print_equation
from einc.ein.ranges import needs_check
from einc.passes.lowering.operations import (
    arithmetic,
    fits_index,
    fits_position,
    is_long,
    is_place,
    literal_type,
    may_be_long,
    meeting,
)
from einc.passes.lowering.statements import Axes, Statements
from einc.pipeline.plan import Planned
from einc.tile.live import live
from einc.tile.walk import tile_axes, values_in


def _is_guarded(read: Read, condition: Expr) -> bool:
    """Is a read guarded by a condition, among others?"""
    return read.guard is not None and set(holds(condition)) <= set(holds(read.guard))


Inside = Callable[[Read, tuple[str, ...], DType], tile.Value | None]


class Builder(Statements):
    """A kernel's statements in the making, with the names, types and axes that are known in them.

    `inside` gives the value of a tensor that the kernel itself computes, None for one in memory.
    """

    def __init__(self, program: Program, plan: Planned, inside: Inside) -> None:
        super().__init__(program, plan)
        self.inside = inside
        self.given = {p.name for p in program.operands}
        self.finer: dict[Expr, Callable[[], tile.Value]] = {}  # values of expressions with less rounding
        self.inverts = True  # a tile is multiplied by the inverse of its divisor, but after a walk
        self.walks = bool(plan.walked)
        self.sheltered = plan.sheltered
        self.shared: set[Expr] = set()
        self.share(e for eq in plan.equations for e in eq.expressions())

    def share(self, expressions: Iterable[Expr]) -> None:
        """Bind the operations and reads that occur more than once in these expressions."""
        uses = Counter(n for e in expressions for n in ein.walk(e) if isinstance(n, Apply | Read))
        self.shared |= {e for e, n in uses.items() if n > 1 and ein.reads(e)}

    def keep(self, e: Read, real: DType, value: tile.Value, order: tuple[str, ...]) -> tile.Value:
        """The value of a read, bound if it is a tile that will be read again."""
        if e not in self.shared or not self.axes_of(value):
            return value
        self.blocks[-1].bound[e, real] = self.bind(e.tensor, value, order)
        return self.blocks[-1].bound[e, real]

    def combine(self, monoid: Monoid, a: tuple[tile.Value, ...], b: tuple[tile.Value, ...]) -> tuple[tile.Value, ...]:
        """The monoid's combination of two states, component by component."""
        known = {f"a{k}": v for k, v in enumerate(a)} | {f"b{k}": v for k, v in enumerate(b)}

        def value(e: Expr) -> tile.Value:
            match e:
                case ein.Scalar(name=name):
                    return known[name]
                case Apply(op=op, args=args):
                    return tile.Elem(op, tuple(value(x) for x in args))
                case Const(value=literal):
                    return tile.Lit(literal, literal_type(literal, F32))
                case Cast(dtype=dtype, arg=arg):
                    return self.convert(value(arg), dtype)
                case _:
                    raise AssertionError(f"a monoid combines with {e}")

        return tuple(value(e) for e in monoid.combine)

    # Expressions ------------------------------------------------------------------------------------------------------

    def dtype(self, e: Expr) -> DType:
        """The inferred type of an expression, weak types included."""
        return inferred(e, self.dtypes)

    def typed(self, e: Expr, order: tuple[str, ...], t: DType) -> tile.Value:
        """An expression as a value of type t, over tile axes in this order."""
        if isinstance(e, Cast) and e.dtype.is_float and self.dtype(e.arg) == t and t.is_float and e.dtype.bits > t.bits:
            e = e.arg  # what is widened is not rounded where it is narrowed again
        real = compute(t) if t.is_float else F32
        return self.convert(self._value(e, order, real), t)

    def widened(self, e: Expr, order: tuple[str, ...], t: DType) -> tile.Value:
        """Like `typed`, but sums and products of integers are computed in type t, not converted to it afterwards."""
        match e:
            case Apply(op="add" | "sub" | "mul" | "neg" as op, args=args) if t.is_int and self.dtype(e).is_int:
                return tile.Elem(op, tuple(self.widened(a, order, t) for a in args))
            case _:
                return self.typed(e, order, t)

    def _value(self, e: Expr, order: tuple[str, ...], real: DType) -> tile.Value:
        """An expression as a value; `real` is the type that weak floats take."""
        match e:
            case Const(value=value):
                return tile.Lit(value, literal_type(value, real))
            case ein.AxisValue(axis=axis):
                return self.position[axis]
            case ein.Extent(axis=axis):
                return tile.ExtentOf(axis)
            case ein.Scalar(name=name):
                return tile.ScalarArg(name)
            case Cast(dtype=dtype, arg=arg):
                return self.convert(self._value(arg, order, compute(dtype) if dtype.is_float else F32), dtype)
            case Read() | Apply():
                return self._bound(e, order, real)
            case _:
                assert_never(e)

    def _bound(self, e: Read | Apply, order: tuple[str, ...], real: DType) -> tile.Value:
        for block in self.blocks:
            if (e, real) in block.bound:
                return block.bound[e, real]
        match e:
            case Read():
                made = self.inside(e, order, real)
                if made is not None:
                    return made
                value = self.bind(e.tensor, self._load(e, order, None), order)
            case Apply(op="re" | "im" as part, args=(Read() as read,)):
                load = self._load(read, order, 0 if part == "re" else 1)
                value = self.bind(f"{read.tensor}_{part}", load, order)
            case Apply() if e in self.finer:
                value = self.convert(self.finer[e](), real)
            case Apply(op=op):
                value = self._operation(e, order, real)
                if e not in self.shared:
                    return value
                value = self.bind(op, value, order)
        self.blocks[-1].bound[e, real] = value
        return value

    def _load(self, e: Read, order: tuple[str, ...], part: int | None) -> tile.Load:
        dims = self.shapes[e.tensor]
        index = tuple(self._index(x, dim, order) for x, dim in zip(e.index, dims, strict=True))
        mask = None if e.guard is None else self.typed(e.guard, order, BOOL)
        dtype = self.dtypes[e.tensor]
        checked = needs_check(self.program, replace(e, guard=None) if e in self.sheltered else e)
        return tile.Load(e.tensor, index, dtype.part, checked, mask, part)

    def _index(self, e: Expr, dim: tuple[str, ...], order: tuple[str, ...]) -> tile.Value:
        if len(dim) > 1 and dim in self.groups and e == composite(dim):
            return tile.Ref(self.groups[dim])
        return self.place(e, order)

    def place(self, e: Expr, order: tuple[str, ...]) -> tile.Value:
        """A subscript, in the index type where none of its values can wrap there: alone, or offset from a value read.

        A sum of a read integer and a position that overflows the index type is negative, and so not a position.
        """
        match e:
            case Cast(dtype=t, arg=arg) if t == I64 and fits_index(self.dtype(arg)):
                return self.convert(self._value(arg, order, F32), INT)
            case Apply(op="add", args=(a, b)) if is_place(a) or is_place(b):
                read = b if is_place(a) else a
                if isinstance(read, Cast) and fits_index(self.dtype(read.arg)):
                    return tile.Elem("add", (self.place(a, order), self.place(b, order)))
        value = self._value(e, order, F32)
        t = self.type_of(value)  # of a reduction in this kernel, that of its terms
        return self.convert(value, INT if fits_index(t) else I64) if t != INT else value

    def _operation(self, e: Apply, order: tuple[str, ...], real: DType) -> tile.Value:
        op, rule = e.op, OPS[e.op].rule
        types = [self.dtype(a) for a in e.args]
        if rule is Rule.SELECT:
            if e.args[2] == ZERO and isinstance(e.args[1], Read) and _is_guarded(e.args[1], e.args[0]):
                return self._value(e.args[1], order, real)  # what is not read is 0
            _, chosen = self._alike(e.args[1:], order, meeting(types[1:], real))
            return tile.Elem("where", (self.typed(e.args[0], order, BOOL), *chosen))
        if rule is Rule.LOGIC:
            return tile.Elem(op, tuple(self.typed(a, order, BOOL) for a in e.args))
        if rule is Rule.RANDOM:
            return tile.Elem(op, tuple(self._value(a, order, F32) for a in e.args))
        t = meeting(types, real)
        if rule is Rule.FLOATING and not t.is_float:
            t = real
        if rule is Rule.ARITHMETIC and t.is_bool:
            t = INT
        if t == INT and op in ("mul", "pow") and may_be_long(e):
            t = I64
        if rule is Rule.TRUTH:
            types = [U64 if is_long(a) else t for a, t in zip(e.args, types, strict=True)]
        if rule is Rule.TRUTH and U64 in types and t.is_int and len(set(types)) > 1:
            return self._with_u64(op, e.args, types[0] == U64, order)
        if rule is Rule.TRUTH and t.is_int and len(set(types)) > 1:
            t = INT if all(map(fits_position, e.args, types)) else I64
        t, args = self._alike(e.args, order, t)
        if self.inverts and op == "div" and t.is_float and not isinstance(args[1], tile.Lit) and self._is_spread(args):
            inverse = tile.Elem("div", (tile.Lit(1.0, t), args[1]))
            return tile.Elem("mul", (args[0], self.bind("inverse", inverse, order)))
        return arithmetic(op, args, t)

    def _alike(self, args: tuple[Expr, ...], order: tuple[str, ...], t: DType) -> tuple[DType, tuple[tile.Value, ...]]:
        """The arguments as values of type t; as i64 where that is the type of positions, and one is too wide for it."""
        values = [self._value(a, order, t if t.is_float else F32) for a in args]
        if t == INT and any(self.type_of(v) == I64 for v in values):
            t = I64
        return t, tuple(self.convert(v, t) for v in values)

    def _with_u64(self, op: str, args: tuple[Expr, ...], first: bool, order: tuple[str, ...]) -> tile.Value:
        """A comparison of u64, the `first` or second argument, with another integer, in i64: a value that does not fit
        is greater than all that do."""
        a, b = (self._as(x, order, I64) for x in args)
        below = tile.Elem("lt", (a if first else b, tile.Lit(0, I64)))
        if op == "ne" or op in (("gt", "ge") if first else ("lt", "le")):
            return tile.Elem("or", (below, tile.Elem(op, (a, b))))
        return tile.Elem("and", (tile.Elem("not", (below,)), tile.Elem(op, (a, b))))

    def _is_spread(self, args: tuple[tile.Value, ...]) -> bool:
        """Does the first argument extend over more than its rows, while the second is the same for all of it?

        What a walk leaves is divided once, as the references are that its states follow.
        """
        if self.walks and len(self.blocks) == 1:
            return False
        extends = self.axes_of(args[0])
        several = len(extends) > 1 or any(self.roles.get(a) not in ("row", "column") for a in extends)
        return several and not self.axes_of(args[1])

    def _as(self, e: Expr, order: tuple[str, ...], t: DType) -> tile.Value:
        return self.convert(self._value(e, order, t if t.is_float else F32), t)

    # The kernel ------------------------------------------------------------------------------------------------------

    def kernel(self, plan: Planned, grid: Axes, whole: Axes) -> tile.Kernel:
        """The kernel that has been built, with the arguments that it needs and without unused bindings."""
        own = {eq.name for eq in plan.equations}
        sources = [eq for eq in self.program.equations if eq.name in own]
        body = live(tuple(self.blocks[0].statements))
        values = tuple(values_in(body))
        touched = {v.tensor for v in values if isinstance(v, tile.Load)}
        written = set(plan.stores)
        buffers = [
            tile.Buffer(name, dims, self.stored[name], name in written)
            for name, dims in self.shapes.items()
            if name in touched or name in written
        ]
        title = tuple(print_equation(eq, True, self.shapes) for eq in sources)
        kernel = tile.Kernel(plan.name, title, tuple(buffers), (), (), grid, body, whole)
        used = {v.axis for v in values if isinstance(v, tile.ExtentOf)}
        used |= {a for t in tile_axes(kernel).values() for a in t.axes}
        scalars = {v.name for v in values if isinstance(v, tile.ScalarArg)}
        return replace(
            kernel,
            extents=tuple(a.name for a in self.program.axes if a.name in used),
            scalars=tuple((p.name, self.scalar_type(p.dtype)) for p in self.program.scalars if p.name in scalars),
        )
