"""The type and the axes of every tile value, and the verifier that rests on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from einc import tile
from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, INT, DType, accumulator
from einc.pipeline.forms import IllegalIR
from einc.tile import TileType

Types = Mapping[str, TileType]


def dtype_of(v: tile.Value, names: Types) -> DType:
    """The element type of a value; `INT` is the type of positions and extents, i32 or i64 as the launch needs."""
    match v:
        case tile.Ref(name=name):
            return names[name].dtype
        case tile.Lit(dtype=dtype) | tile.Load(dtype=dtype) | tile.Convert(dtype=dtype):
            return dtype
        case tile.ExtentOf():
            return INT
        case tile.ScalarArg(name=name):
            return names[name].dtype
        case tile.Elem(op=op, args=args):
            return _element(op, args, names)
        case tile.Dot(acc=acc):
            return dtype_of(acc, names)
        case tile.Fold(args=args) | tile.Scan(args=args):
            return dtype_of(args[0], names)
        case tile.Fill(value=value):
            return value.dtype


def _element(op: str, args: tuple[tile.Value, ...], names: Types) -> DType:
    if op == "rand":
        return F32
    if op == "where":
        return dtype_of(args[1], names)
    if OPS[op].rule in (Rule.TRUTH, Rule.LOGIC):
        return BOOL
    return dtype_of(args[0], names)


def axes_of(v: tile.Value, names: Types) -> frozenset[str]:
    """The tile axes a value extends over."""
    match v:
        case tile.Ref(name=name):
            return frozenset(names[name].axes)
        case tile.Dot():
            return frozenset(v.sides.result)
        case tile.Fold(axis=axis, args=args):
            return frozenset().union(*(axes_of(a, names) for a in args)) - {axis}
        case tile.Scan(axis=axis, args=args):
            return frozenset((axis,)).union(*(axes_of(a, names) for a in args))
        case _:
            return frozenset().union(*(axes_of(below, names) for below in tile.values_of(v)))


def verify(schedule: tile.Schedule) -> None:
    """Every name bound once before its use, argument types equal, axes of a binding as its value has them, every
    kernel's buffers declared. Raises `IllegalIR` on the first statement that breaks one."""
    for kernel in schedule.kernels:
        _Verifier(kernel).run()


def scope(kernel: tile.Kernel) -> dict[str, TileType]:
    """The names that hold throughout a kernel: its grid's positions and its scalars."""
    names = {a.name: TileType(INT, (a.name,) if a.block else ()) for a in (*kernel.grid, *kernel.whole)}
    return names | {name: TileType(dtype) for name, dtype in kernel.scalars}


def loop_position(axis: tile.TileAxis) -> TileType:
    """The type of a loop axis's position inside the loop."""
    return TileType(INT, (axis.name,) if axis.block else ())


def multiplied(kernel: tile.Kernel) -> tuple[tuple[tile.Dot, DType], ...]:
    """The dots of a kernel in order, each with the type of the elements it multiplies."""
    return tuple(_multiplied(kernel.body, scope(kernel)))


def _multiplied(body: tuple[tile.Statement, ...], names: dict[str, TileType]) -> Iterator[tuple[tile.Dot, DType]]:
    for s in body:
        if isinstance(s, tile.Loop):
            names |= {s.axis.name: loop_position(s.axis)} | {c.name: c.type for c in s.carried}
            yield from _multiplied(s.body, names)
            continue
        yield from ((v, dtype_of(v.left, names)) for v in tile.values_in((s,)) if isinstance(v, tile.Dot))
        if isinstance(s, tile.Let):
            names |= zip(s.names, s.types, strict=True)


class _Verifier:
    def __init__(self, kernel: tile.Kernel) -> None:
        self.kernel = kernel
        self.buffers = {b.name: b for b in kernel.buffers}

    def run(self) -> None:
        self.body(self.kernel.body, scope(self.kernel))

    def fail(self, what: str, node: object) -> None:
        raise IllegalIR(f"kernel {self.kernel.name}: {what}: {node}")

    def body(self, statements: tuple[tile.Statement, ...], names: dict[str, TileType]) -> dict[str, TileType]:
        for s in statements:
            match s:
                case tile.Let():
                    self.let(s, names)
                case tile.Loop():
                    self.loop(s, names)
                case tile.Store():
                    for v in (*s.index, s.value, *([s.mask] if s.mask is not None else [])):
                        self.value(v, names)
                    if dtype_of(s.value, names) != s.type.dtype:
                        self.fail("a store of another type than its value", s)
                    self.buffer(s.tensor, len(s.index), s)
        return names

    def let(self, s: tile.Let, names: dict[str, TileType]) -> None:
        self.value(s.value, names)
        extends = axes_of(s.value, names)
        for name, type_ in zip(s.names, s.types, strict=True):
            if name in names:
                self.fail(f"'{name}' is bound twice", s)
            if not isinstance(s.value, tile.Fill) and frozenset(type_.axes) != extends:
                self.fail(f"'{name}' is declared over {type_.axes} but extends over {sorted(extends)}", s)
            if len(s.names) == 1 and type_.dtype != dtype_of(s.value, names):
                self.fail(f"'{name}' is declared {type_.dtype} but is {dtype_of(s.value, names)}", s)
            names[name] = type_

    def loop(self, s: tile.Loop, names: dict[str, TileType]) -> None:
        for v in s.bounds:
            self.value(v, names)
        inner = dict(names)
        inner[s.axis.name] = loop_position(s.axis)
        for state in s.carried:
            self.value(state.init, names)
            if dtype_of(state.init, names) != state.type.dtype:
                self.fail(f"state '{state.name}' is {state.type.dtype} but begins as {dtype_of(state.init, names)}", s)
            inner[state.name] = state.type
        if s.full is not None and s.full.body:
            self.ends(s, self.body(s.full.body, dict(inner)))
        self.ends(s, self.body(s.body, inner))
        names |= {state.name: state.type for state in s.carried}

    def ends(self, s: tile.Loop, inner: dict[str, TileType]) -> None:
        """Every state has its value at the end of the loop's body."""
        for state in s.carried:
            if state.after not in inner or inner[state.after] != state.type:
                self.fail(f"state '{state.name}' has no value of its type after a block", state)

    def buffer(self, name: str, rank: int, node: object) -> None:
        if name not in self.buffers:
            self.fail(f"'{name}' is not a buffer", node)
        if len(self.buffers[name].dims) != rank:
            self.fail(f"'{name}' has {len(self.buffers[name].dims)} dimensions", node)

    def value(self, v: tile.Value, names: dict[str, TileType]) -> None:
        for node in tile.walk_values(v):
            match node:
                case tile.Ref(name=name) | tile.ScalarArg(name=name) if name not in names:
                    self.fail(f"'{name}' is not bound here", v)
                case tile.Load(tensor=tensor, index=index):
                    self.buffer(tensor, len(index), node)
                case tile.Elem(op=op, args=args) if op not in ("where", "rand"):
                    if len({dtype_of(a, names) for a in args}) > 1:
                        self.fail(f"arguments of '{op}' differ in type", node)
                case tile.Dot():
                    self.dot(node, names)
                case _:
                    pass

    def dot(self, d: tile.Dot, names: dict[str, TileType]) -> None:
        left, right = axes_of(d.left, names), axes_of(d.right, names)
        if not left <= {*d.sides.over(d.row, d.inner)} or not right <= {*d.sides.over(d.inner, d.column)}:
            self.fail("operands of a dot extend over other axes", d)
        element = dtype_of(d.left, names)
        if element != dtype_of(d.right, names) or accumulator(element) != dtype_of(d.acc, names):
            self.fail("a dot's operands and accumulator do not fit in type", d)
