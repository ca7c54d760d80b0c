"""Builds one kernel: names, scopes, and scalar expressions as tile values.

Types become explicit here: arguments of an operation are converted to one type, narrow floats to f32, literals take the
type of what they meet. Loads are bound to names, as are operations that occur more than once. A float divisor that is
the same all over a tile is inverted once, before the tile is multiplied by it; what has one value a row is divided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import assert_never

from einc import ein, tile
from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, F64, FLOAT, I32, I64, INT, U64, DType, compute, join
from einc.ein import Apply, Cast, Const, Equation, Expr, Monoid, Program, Read
from einc.ein.guards import composite
from einc.ein.inference import dtype_of as inferred
from einc.ein.printer import print_equation
from einc.ein.ranges import needs_check
from einc.pipeline.plan import Plan
from einc.tile.typing import axes_of, dtype_of
from einc.tile.walk import loops, tile_axes, values_in, walk_values

Axes = tuple[tile.TileAxis, ...]
Inside = Callable[[Read, tuple[str, ...], DType], tile.Value | None]

_NARROW = 1 << 16  # integer factors below this keep products of positions within the index type


@dataclass(slots=True)
class Block:
    """Statements being collected, with what is already bound in them and the states of the loop they belong to."""

    builder: Builder
    statements: list[tile.Statement] = field(default_factory=list)
    bound: dict[tuple[Expr, DType], tile.Value] = field(default_factory=dict)
    states: list[tile.Carried] = field(default_factory=list)
    full: tile.Full | None = None

    def carry(self, name: str, type_: tile.TileType, init: tile.Value, after: tile.Value) -> str:
        """Carry a state round the loop: `after` is its value at the end of a block; gives the name of that."""
        b = self.builder
        bound = b.name(f"{name}_next")
        self.statements.append(tile.Let((bound,), (type_,), after))
        b.types[bound] = b.types[name] = type_
        self.states.append(tile.Carried(name, type_, init, bound))
        return bound


class Builder:
    """One kernel in the making, for equations of a program that are already split into real parts.

    `inside` gives the value of a tensor that the kernel itself computes, None for one in memory.
    """

    def __init__(self, program: Program, plan: Plan, inside: Inside) -> None:
        self.program = program
        self.inside = inside
        self.given = {p.name for p in program.operands}
        self.dtypes = program.dtypes()  # of tensors as they are read here: one made here need not be rounded
        self.stored = dict(self.dtypes)
        self.shapes = program.shapes()
        self.wide = F64 in {t.part for t in self.dtypes.values()}
        self.types: dict[str, tile.TileType] = {}
        self.groups: dict[tuple[str, ...], str] = {}
        self.tile_of: dict[str, str] = {}
        self.position: dict[str, tile.Value] = {}
        self.beside: dict[str, tuple[str, ...]] = {}
        self.roles: dict[str, str] = {}
        self.blocks = [Block(self)]
        self.finer: dict[Expr, Callable[[], tile.Value]] = {}  # ways to expressions with less rounding
        self.inverts = True  # a tile is multiplied by the inverse of what it is divided by
        kept = {t.name for eq in plan.equations for t in eq.outputs} - set(plan.stores)
        self.taken = Counter([a.name for a in program.axes] + [n for n in self.dtypes if n not in kept])
        for p in program.scalars:
            self.types[p.name] = tile.TileType(self.scalar_type(p.dtype))
        self.sheltered = plan.sheltered
        self.shared: set[Expr] = set()
        self.share(e for eq in plan.equations for e in eq.expressions())

    def share(self, expressions: Iterable[Expr]) -> None:
        """Bind the operations, and what is read, that occur more than once in these."""
        uses = Counter(n for e in expressions for n in ein.walk(e) if isinstance(n, Apply | Read))
        self.shared |= {e for e, n in uses.items() if n > 1 and ein.reads(e)}

    # Names -----------------------------------------------------------------------------------------------------------

    def names(self, wanted: str, count: int) -> tuple[str, ...]:
        """Several fresh names."""
        return tuple(self.name(wanted) for _ in range(count))

    def name(self, wanted: str) -> str:
        """A fresh name: the wanted one in lower case, numbered where it is taken."""
        wanted = wanted.lower()
        name, n = wanted, 0
        while self.taken[name]:
            n += 1
            name = f"{wanted}_{n}"
        self.taken[name] += 1
        return name

    def scalar_type(self, dtype: DType) -> DType:
        """Float parameters are f32 unless the program holds an f64 tensor; integers are as wide as positions."""
        return (F64 if self.wide else F32) if dtype.is_float else dtype

    # Axes ------------------------------------------------------------------------------------------------------------

    def axis(self, axes: tuple[str, ...], role: str) -> tile.TileAxis:
        """A tile axis for a group of `ein` axes, without a size yet; only `batch` axes will stay without one."""
        name = axes[0] if len(axes) == 1 else self.name("_".join(axes))
        block = None if role == "batch" else tile.UNSIZED
        self.groups[axes], self.roles[name] = name, role
        self.tile_of.update(dict.fromkeys(axes, name))
        self.types[name] = tile.TileType(INT, (name,) if block else ())
        return tile.TileAxis(name, axes, role, block)

    def run_along(self, axes: tuple[str, ...], axis: tile.TileAxis) -> None:
        """Let other `ein` axes have the positions of a tile axis, once it is entered."""
        for member in axes:
            self.tile_of[member] = self.groups[(member,)] = axis.name
            self.beside[axis.name] = (*self.beside.get(axis.name, ()), member)

    def enter(self, axes: tuple[tile.TileAxis, ...]) -> None:
        """Make the positions of these tile axes' members known from here on."""
        for axis in axes:
            self.position.update(dict.fromkeys(self.beside.get(axis.name, ()), tile.Ref(axis.name)))
            rest: tile.Value = tile.Ref(axis.name)
            if len(axis.axes) == 1:
                self.position[axis.axes[0]] = rest
                continue
            for member in reversed(axis.axes[1:]):
                extent = tile.ExtentOf(member)
                self.position[member] = self._let(member, tile.Elem("mod", (rest, extent)), (axis.name,))
                rest = tile.Elem("floordiv", (rest, extent))
            self.position[axis.axes[0]] = self._let(axis.axes[0], rest, (axis.name,))

    def composite(self, dim: tuple[str, ...]) -> tile.Value:
        """The index into a dimension that is a group of axes."""
        if dim in self.groups:
            return tile.Ref(self.groups[dim])
        if not dim:
            return tile.Lit(0, INT)
        index = self.position[dim[0]]
        for member in dim[1:]:
            scaled = tile.Elem("mul", (index, tile.ExtentOf(member)))
            index = tile.Elem("add", (scaled, self.position[member]))
        return index

    def declare(self, buffer: tile.Buffer) -> None:
        """Make a tensor known that is none of the program's."""
        self.shapes[buffer.name], self.stored[buffer.name] = buffer.dims, buffer.dtype

    # Statements ------------------------------------------------------------------------------------------------------

    def emit(self, statement: tile.Statement) -> None:
        self.blocks[-1].statements.append(statement)

    @contextmanager
    def loop(
        self,
        axis: tile.TileAxis,
        start: tile.Value | None = None,
        stop: tile.Value | None = None,
        exact: bool = False,
        reverse: bool = False,
    ) -> Iterator[Block]:
        """A loop over the axis, whose body is what is built inside; its states become known after it."""
        block = Block(self)
        self.blocks.append(block)
        self.enter((axis,))
        before = dict(self.position)
        yield block
        self.blocks.pop()
        self.position = before
        states, body = tuple(block.states), tuple(block.statements)
        self.emit(tile.Loop(axis, states, body, start, stop, exact, reverse, block.full))

    def bind(self, wanted: str, value: tile.Value, order: tuple[str, ...]) -> tile.Value:
        """The value under a name; a name already, it stays."""
        return value if isinstance(value, tile.Ref) else self._let(self.name(wanted), value, order)

    def keep(self, e: Read, real: DType, value: tile.Value, order: tuple[str, ...]) -> tile.Value:
        """The value of a read, bound if it is a tile that will be read again."""
        if e not in self.shared or not self.axes_of(value):
            return value
        self.blocks[-1].bound[e, real] = self.bind(e.tensor, value, order)
        return self.blocks[-1].bound[e, real]

    def _let(self, name: str, value: tile.Value, order: tuple[str, ...]) -> tile.Ref:
        extends = axes_of(value, self.types)
        type_ = tile.TileType(dtype_of(value, self.types), tuple(a for a in order if a in extends))
        self.types[name] = type_
        self.emit(tile.Let((name,), (type_,), value))
        return tile.Ref(name)

    def fold(
        self, eq: Equation, axis: str, args: tuple[tile.Value, ...], order: tuple[str, ...], types: tuple[DType, ...]
    ) -> tuple[tile.Value, ...]:
        """Fold a tile axis away, each component under a name of its own."""
        assert eq.monoid is not None
        return self.several(f"{eq.name}_block", tile.Fold(eq.monoid, axis, args), order, types)

    def several(
        self, wanted: str, value: tile.Fold | tile.Scan, order: tuple[str, ...], types: tuple[DType, ...]
    ) -> tuple[tile.Value, ...]:
        """Each component of a value under a name of its own."""
        found = axes_of(value, self.types)
        all_types = tuple(tile.TileType(t, tuple(a for a in order if a in found)) for t in types)
        names = self.names(wanted, len(types))
        self.types.update(zip(names, all_types, strict=True))
        self.emit(tile.Let(names, all_types, value))
        return tuple(tile.Ref(n) for n in names)

    def combine(self, monoid: Monoid, a: tuple[tile.Value, ...], b: tuple[tile.Value, ...]) -> tuple[tile.Value, ...]:
        """The monoid's combine of two states, component by component."""
        known = {f"a{k}": v for k, v in enumerate(a)} | {f"b{k}": v for k, v in enumerate(b)}

        def value(e: Expr) -> tile.Value:
            match e:
                case ein.Scalar(name=name):
                    return known[name]
                case Apply(op=op, args=args):
                    return tile.Elem(op, tuple(value(x) for x in args))
                case Const(value=literal):
                    return tile.Lit(literal, _literal_type(literal, F32))
                case Cast(dtype=dtype, arg=arg):
                    return self.convert(value(arg), dtype)
                case _:
                    raise AssertionError(f"a monoid combines with {e}")

        return tuple(value(e) for e in monoid.combine)

    # Expressions -----------------------------------------------------------------------------------------------------

    def dtype(self, e: Expr) -> DType:
        """The inferred type of an expression, weak types included."""
        return inferred(e, self.dtypes)

    def axes_of(self, v: tile.Value) -> frozenset[str]:
        """The tile axes a value extends over."""
        return axes_of(v, self.types)

    def type_of(self, v: tile.Value) -> DType:
        return dtype_of(v, self.types)

    def convert(self, v: tile.Value, t: DType) -> tile.Value:
        """The value as type t; a literal simply becomes one of that type."""
        if self.type_of(v) == t:
            return v
        if isinstance(v, tile.Lit) and not isinstance(v.value, str):
            return tile.Lit(_literal(v.value, t), t)
        return tile.Convert(t, v)

    def typed(self, e: Expr, order: tuple[str, ...], t: DType) -> tile.Value:
        """An expression as a value of type t, over tile axes in this order."""
        real = compute(t) if t.is_float else F32
        return self.convert(self._value(e, order, real), t)

    def widened(self, e: Expr, order: tuple[str, ...], t: DType) -> tile.Value:
        """Like `typed`, but sums and products of integers are made in type t, not converted to it afterwards."""
        match e:
            case Apply(op="add" | "sub" | "mul" | "neg" as op, args=args) if t.is_int and self.dtype(e).is_int:
                return tile.Elem(op, tuple(self.widened(a, order, t) for a in args))
            case _:
                return self.typed(e, order, t)

    def _value(self, e: Expr, order: tuple[str, ...], real: DType) -> tile.Value:
        """An expression as a value; `real` is the type that weak floats take."""
        match e:
            case Const(value=value):
                return tile.Lit(value, _literal_type(value, real))
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
        """A subscript, in the index type where no value of it can wrap there: alone, or moved on from where it is read.

        A sum of a read integer and a position that leaves the index type is negative, and so is no position.
        """
        match e:
            case Cast(dtype=t, arg=arg) if t == I64 and fits_index(self.dtype(arg)):
                return self.convert(self._value(arg, order, F32), INT)
            case Apply(op="add", args=(a, b)) if _is_place(a) or _is_place(b):
                read = b if _is_place(a) else a
                if isinstance(read, Cast) and fits_index(self.dtype(read.arg)):
                    return tile.Elem("add", (self.place(a, order), self.place(b, order)))
        return self._value(e, order, F32)

    def _operation(self, e: Apply, order: tuple[str, ...], real: DType) -> tile.Value:
        op, rule = e.op, OPS[e.op].rule
        types = [self.dtype(a) for a in e.args]
        if rule is Rule.SELECT:
            t = _meeting(types[1:], real)
            chosen = tuple(self._as(a, order, t) for a in e.args[1:])
            return tile.Elem("where", (self.typed(e.args[0], order, BOOL), *chosen))
        if rule is Rule.LOGIC:
            return tile.Elem(op, tuple(self.typed(a, order, BOOL) for a in e.args))
        if rule is Rule.RANDOM:
            return tile.Elem(op, tuple(self._value(a, order, F32) for a in e.args))
        t = _meeting(types, real)
        if rule is Rule.FLOATING and not t.is_float:
            t = real
        if rule is Rule.ARITHMETIC and t.is_bool:
            t = INT
        if t == INT and op in ("mul", "pow") and _may_be_long(e):
            t = I64
        if rule is Rule.TRUTH and U64 in types and t.is_int and len(set(types)) > 1:
            return self._with_u64(op, e.args, order)
        if rule is Rule.TRUTH and t.is_int and len(set(types)) > 1:
            t = INT if all(map(_fits_position, e.args, types)) else I64
        args = tuple(self._as(a, order, t) for a in e.args)
        if t == INT and any(self.type_of(self._value(a, order, F32)) == I64 for a in e.args):
            args, t = tuple(self._as(a, order, I64) for a in e.args), I64
        if self.inverts and op == "div" and t.is_float and not isinstance(args[1], tile.Lit) and self._is_spread(args):
            inverse = tile.Elem("div", (tile.Lit(1.0, t), args[1]))
            return tile.Elem("mul", (args[0], self.bind("inverse", inverse, order)))
        return arithmetic(op, args, t)

    def _with_u64(self, op: str, args: tuple[Expr, ...], order: tuple[str, ...]) -> tile.Value:
        """A comparison of u64 with another integer, in i64: what is not in that is greater than all that is."""
        a, b = (self._as(x, order, I64) for x in args)
        first = self.dtype(args[0]) == U64
        below = tile.Elem("lt", (a if first else b, tile.Lit(0, I64)))
        if op == "ne" or op in (("gt", "ge") if first else ("lt", "le")):
            return tile.Elem("or", (below, tile.Elem(op, (a, b))))
        return tile.Elem("and", (tile.Elem("not", (below,)), tile.Elem(op, (a, b))))

    def _is_spread(self, args: tuple[tile.Value, ...]) -> bool:
        """Whether the first argument extends over more than its rows, and the second is the same all over it."""
        extends = self.axes_of(args[0])
        several = len(extends) > 1 or any(self.roles.get(a) not in ("row", "column") for a in extends)
        return several and not self.axes_of(args[1])

    def _as(self, e: Expr, order: tuple[str, ...], t: DType) -> tile.Value:
        return self.convert(self._value(e, order, t if t.is_float else F32), t)

    # The kernel ------------------------------------------------------------------------------------------------------

    def kernel(self, plan: Plan, grid: Axes, whole: Axes) -> tile.Kernel:
        """What has been built, without bindings that nothing uses, with the arguments it needs."""
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
        kernel = tile.Kernel(plan.stores[-1], title, tuple(buffers), (), (), grid, body, whole)
        used = {v.axis for v in values if isinstance(v, tile.ExtentOf)}
        used |= {a for t in tile_axes(kernel).values() for a in t.axes}
        scalars = {v.name for v in values if isinstance(v, tile.ScalarArg)}
        return replace(
            kernel,
            extents=tuple(a.name for a in self.program.axes if a.name in used),
            scalars=tuple((p.name, self.scalar_type(p.dtype)) for p in self.program.scalars if p.name in scalars),
        )


def arithmetic(op: str, args: tuple[tile.Value, ...], t: DType) -> tile.Value:
    """An operation on arguments of one type, in operations that exist for that type."""
    match op:
        case "exactdiv":
            return tile.Elem("floordiv", args)
        case "floordiv" if t.is_float:
            return tile.Elem("floor", (tile.Elem("div", args),))
        case "mod" if t.is_float:
            below = tile.Elem("floor", (tile.Elem("div", args),))
            return tile.Elem("sub", (args[0], tile.Elem("mul", (below, args[1]))))
        case "floor" | "ceil" | "round" if not t.is_float:
            return args[0]
        case "abs" if t.kind in "bu":
            return args[0]
        case _:
            return tile.Elem(op, args)


def _meeting(types: list[DType], real: DType) -> DType:
    """The type that arguments are brought to: weak floats become `real`, narrow ones f32."""
    t = types[0]
    for other in types[1:]:
        t = join(t, other)
    return real if t == FLOAT else compute(t)


def _may_be_long(e: Apply) -> bool:
    """Whether an integer product may leave the index type although every position is in it."""
    if e.op == "pow" or all(ein.axes_of(a) for a in e.args):
        return True
    return any(isinstance(a, Const) and abs(a.value) >= _NARROW for a in e.args)


def fits_index(t: DType) -> bool:
    """Whether every value of a strong integer type is one of the index type, however narrow that is at a launch."""
    return t.is_int and 0 < t.bits + (t.kind == "u") <= I32.bits


def _is_place(e: Expr) -> bool:
    """Is it a position of an axis, or a part of one?"""
    match e:
        case ein.AxisValue():
            return True
        case Apply(op="floordiv" | "mod", args=(x, Const(value=n))):
            return n > 0 and _is_place(x)
        case _:
            return False


def _fits_position(e: Expr, t: DType) -> bool:
    """Whether an integer's every value is one of the index type."""
    return abs(e.value) < 1 << 31 if isinstance(e, Const) else t == INT or fits_index(t)


def _literal_type(value: bool | float, real: DType) -> DType:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return INT if -(1 << 31) <= value < 1 << 31 else I64
    return real


def _literal(value: bool | float, t: DType) -> bool | int | float:
    if t.is_bool:
        return bool(value)
    if t.is_int and t.bits:
        lowest = -(1 << (t.bits - 1)) if t.kind == "i" else 0
        return (int(value) - lowest) % (1 << t.bits) + lowest
    return int(value) if t.is_int else float(value)


def live(body: tuple[tile.Statement, ...], wanted: AbstractSet[str] = frozenset()) -> tuple[tile.Statement, ...]:
    """The statements without bindings that nothing reads, those of wanted names apart."""
    while True:
        read = (
            {v.name for v in values_in(body) if isinstance(v, tile.Ref)}
            | wanted
            | {c.after for loop in loops(body) for c in loop.carried}
        )
        kept = _without(body, read)
        if kept == body:
            return body
        body = kept


def _without(body: tuple[tile.Statement, ...], read: set[str]) -> tuple[tile.Statement, ...]:
    kept: list[tile.Statement] = []
    for s in body:
        if isinstance(s, tile.Let) and not read & set(s.names):
            continue
        kept.append(_loop_without(s, read) if isinstance(s, tile.Loop) else s)
    return tuple(kept)


def _loop_without(s: tile.Loop, read: set[str]) -> tile.Loop:
    """The loop without bindings that nothing reads, and without what is known to hold of them."""
    body = _without(s.body, read)
    if s.full is None or body == s.body:
        return replace(s, body=body)
    gone = set(_bound(s.body)) - set(_bound(body))
    names = ({v.name for v in walk_values(p) if isinstance(v, tile.Ref)} for p in s.full.holds)
    holds = tuple(p for p, named in zip(s.full.holds, names, strict=True) if gone.isdisjoint(named))
    return replace(s, body=body, full=replace(s.full, holds=holds))


def _bound(body: tuple[tile.Statement, ...]) -> Iterator[str]:
    return (name for s in body if isinstance(s, tile.Let) for name in s.names)
