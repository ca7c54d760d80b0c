"""Checks of tile values, and the error about an illegal one: the statement, the fact that decided, a thing to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn, assert_never

from einc import tile
from einc.base.errors import AxisError, DTypeError, Error, IllegalIR, NameError
from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, INT, DType, accumulator
from einc.tile import Buffer, TileType, Value

Axes = frozenset[str]
NO_AXES: Axes = frozenset()


class Fault(IllegalIR):
    """An illegal kernel or statement `at`; `kind` is the error to raise if a person wrote it."""

    def __init__(
        self, at: object, message: str, kind: type[Error] = Error, *, fact: str = "", hint: str = "", kernel: str = ""
    ) -> None:
        self.at, self.message, self.kind, self.fact, self.hint = at, message, kind, fact, hint
        where = f"kernel {kernel}: " if kernel else ""
        node = "" if at is None or isinstance(at, tile.Kernel) else f": {at}"
        super().__init__(f"{where}{message}{f' ({fact})' if fact else ''}{node}")


class Checker:
    """Finds the type and axes of values and checks them, with these names and buffers known."""

    def __init__(self, kernel: str, buffers: Mapping[str, Buffer], names: Mapping[str, TileType], at: object) -> None:
        self.kernel, self.buffers, self.names, self.at = kernel, buffers, names, at
        self.asked: list[str] = []  # the names that decide what was found so far

    def fail(self, message: str, kind: type[Error], fact: str = "", hint: str = "") -> NoReturn:
        raise Fault(self.at, message, kind, fact=fact, hint=hint, kernel=self.kernel)

    def value(self, v: Value) -> tuple[DType, Axes]:
        """The element type of a value and the tile axes that it extends over."""
        match v:
            case tile.Ref(name=name) | tile.ScalarArg(name=name):
                if name not in self.names:
                    self.fail(f"'{name}' is not bound here", NameError, hint="bind it in a statement before")
                self.asked.append(name)
                t = self.names[name]
                return t.dtype, frozenset(t.axes)
            case tile.Elem():
                return self.operation(v)
            case tile.Lit(dtype=dtype) | tile.Fill(value=tile.Lit(dtype=dtype)):
                return dtype, NO_AXES
            case tile.ExtentOf():
                return INT, NO_AXES
            case tile.Convert(dtype=dtype, arg=arg):
                return dtype, self.value(arg)[1]
            case tile.Load():
                return v.dtype, self.load(v)
            case tile.Dot():
                return self.dot(v)
            case tile.Fold(axis=axis):
                dtype, axes = self.folded(v)
                return dtype, axes - {axis}
            case tile.Scan(axis=axis):
                dtype, axes = self.folded(v)
                return dtype, axes | {axis}
            case _:
                assert_never(v)

    def operation(self, v: tile.Elem) -> tuple[DType, Axes]:
        op = OPS.get(v.op)
        if op is None:
            self.fail(f"there is no operation '{v.op}'", NameError, hint="`einc functions` lists them")
        if len(v.args) != op.arity and not (op.arity < 0 and v.args):
            fact = f"it takes {op.arity}"
            self.fail(f"'{v.op}' has {len(v.args)} arguments", AxisError, fact, "give it as many")
        types, extents = zip(*map(self.value, v.args), strict=True)
        axes, rule = NO_AXES.union(*extents), op.rule
        if v.op == "rand":
            return F32, axes
        if v.op == "where":
            if types[0] != BOOL:
                self.fail("'where' takes a truth value as condition", DTypeError, f"it is {types[0]}", "compare it")
            types = types[1:]
        if types.count(types[0]) < len(types):
            shown = ", ".join(map(str, types))
            self.fail(f"arguments of '{v.op}' differ in type", DTypeError, f"they are {shown}", "convert one: f32(x)")
        if rule is Rule.LOGIC and types[0] != BOOL:
            self.fail(f"'{v.op}' takes truth values", DTypeError, f"its arguments are {types[0]}", "compare them")
        if rule is Rule.FLOATING and not types[0].is_float:
            self.fail(f"'{v.op}' takes floats", DTypeError, f"its arguments are {types[0]}", "convert them: f32(x)")
        return (BOOL if rule in (Rule.LOGIC, Rule.TRUTH) else types[0]), axes

    def load(self, v: tile.Load) -> Axes:
        dtype = self.element(v.tensor, v.part)
        if v.dtype != dtype:
            self.fail(f"'{v.tensor}' is loaded as {v.dtype}", DTypeError, f"its elements are {dtype}", "convert them")
        axes = self.index(v.tensor, v.index)
        return axes if v.mask is None else axes | self.mask(v.mask)

    def mask(self, v: Value) -> Axes:
        dtype, axes = self.value(v)
        if dtype != BOOL:
            self.fail("a mask is not a truth value", DTypeError, f"it is {dtype}", "compare it")
        return axes

    def element(self, tensor: str, part: int | None) -> DType:
        """The type of a tensor's elements, or of a part of them."""
        b = self.buffers.get(tensor)
        if b is None:
            self.fail(f"'{tensor}' is not a buffer of the kernel", NameError, hint="list it in 'reads' or 'writes'")
        if b.dtype.is_complex != (part is not None):
            what = "one part at a time: .re, .im" if b.dtype.is_complex else "without a part"
            self.fail(f"'{tensor}' is accessed {what}", DTypeError, f"its elements are {b.dtype}", "write it so")
        return b.dtype.part

    def index(self, tensor: str, index: tuple[Value, ...]) -> Axes:
        rank = len(self.buffers[tensor].dims)
        if len(index) != rank:
            fact = f"it has {rank}, and {len(index)} stand here"
            self.fail(f"'{tensor}' has another number of dimensions", AxisError, fact, "give each an index")
        found = [self.value(i) for i in index]
        for t, _ in found:
            if not t.is_int:
                self.fail("an index is not an integer", DTypeError, f"it is {t}", "convert it: int(x)")
        return NO_AXES.union(*(axes for _, axes in found))

    def blocked(self, axis: str) -> None:
        """Check that a tile axis of this name exists and has more than one position per program."""
        self.asked.append(axis)
        t = self.names.get(axis)
        if t is None or t.axes != (axis,):
            found = ", ".join(sorted(n for n, t in self.names.items() if t.axes == (n,)))
            fact = f"there are {found}" if found else "there are none"
            self.fail(f"there is no blocked tile axis '{axis}' here", AxisError, fact, "name one of the kernel's")

    def dot(self, d: tile.Dot) -> tuple[DType, Axes]:
        sides = d.sides
        for axis in (*sides.result, d.inner):
            self.blocked(axis)
        (left, rows), (right, columns), (acc, over) = map(self.value, (d.left, d.right, d.acc))
        for side, axes, allowed in (
            ("left", rows, sides.over(d.row, d.inner)),
            ("right", columns, sides.over(d.inner, d.column)),
            ("accumulator", over, sides.result),
        ):
            if not axes <= {*allowed}:
                fact = f"the {side} one over {', '.join(sorted(axes))}, not {', '.join(allowed)}"
                hint = "dot[rows, columns : inner](x, y)"
                self.fail("an operand of a dot extends over other axes", AxisError, fact, hint)
        for p, own in ((d.left_in, sides.over(d.row, d.inner)), (d.right_in, sides.over(d.inner, d.column))):
            if p is not None and not self.mask(p) <= {*own}:
                fact = f"it takes {', '.join(own)}"
                message = "the condition where a side of a dot counts extends over other axes"
                self.fail(message, AxisError, fact, "fold the others")
        if left != right or accumulator(left) != acc:
            fact = f"{left}, {right}, and the accumulator {acc}"
            self.fail("a dot's operands do not fit in type", DTypeError, fact, "convert one, or the accumulator")
        if d.product is not None and left != d.product.held:
            self.fail(f"a dot of {left} has no precision", DTypeError, f"{d.product} is of f32", "leave it out")
        return acc, frozenset(sides.result)

    def folded(self, v: tile.Fold | tile.Scan) -> tuple[DType, Axes]:
        found = [self.value(a) for a in v.args]
        axes = NO_AXES.union(*(a for _, a in found))
        if v.axis not in axes or isinstance(v, tile.Scan):  # states of a walk that has ended may extend over its axis
            self.blocked(v.axis)
        if len(v.args) != v.monoid.components:
            fact = f"{v.monoid.components} components, {len(v.args)} arguments"
            self.fail(f"'{v.monoid.name}' has another number of arguments", AxisError, fact, "give it one a component")
        return found[0][0], axes
