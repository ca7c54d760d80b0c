"""Whether a tile program is legal: types, axes, scopes, and what each statement may name."""

from __future__ import annotations

from einc import tile
from einc.base.errors import IllegalIR
from einc.base.types import accumulator
from einc.tile import TileType
from einc.tile.typing import axes_of, dtype_of, loop_position, scope
from einc.tile.walk import walk_values


def verify(schedule: tile.Schedule) -> None:
    """Every name bound once before its use, argument types equal, axes of a binding as its value has them, every
    kernel's buffers declared. Raises `IllegalIR` on the first statement that breaks one."""
    for kernel in schedule.kernels:
        _Verifier(kernel).run()


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
        for node in walk_values(v):
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
