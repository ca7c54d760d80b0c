"""Tile values as Triton expressions: names and literals, conversions, and what reaches memory."""

from __future__ import annotations

from typing import assert_never

from einc import tile
from einc.base.types import F32, INT, DType
from einc.codegen.emit.text import ATOM, COMPARE, PRODUCT, SUM, Axes, Text, literal
from einc.codegen.triton import contractions, operations
from einc.codegen.triton.writer import TYPES, Writer
from einc.tile import Value


class Expressions(Writer):
    """Writes values by their kinds."""

    def value(self, v: Value, order: Axes) -> Text:
        """The value over exactly these axes, which are its own (of a `Fill`: any)."""
        match v:
            case tile.Ref(name=name):
                return self.arranged(Text(self.name("value", name)), self.types[name].axes, order)
            case tile.Lit():
                return literal(v)
            case tile.ExtentOf(axis=axis):
                return Text(self.name("extent", axis), constant=True)
            case tile.ScalarArg(name=name):
                text = Text(self.name("scalar", name))
                return Text(f"{text.code} != 0", COMPARE) if self.types[name].dtype.is_bool else text
            case tile.Fill(value=value):
                return self.filled(value, order)
            case tile.Convert(dtype=dtype, arg=arg):
                return self.convert(dtype, arg, order)
            case tile.Load():
                return self.load(v, order)
            case tile.Elem(op=op, args=args):
                return operations.elem(self, op, args, order)
            case tile.Dot():
                return contractions.dot(self, v, order)
            case tile.Fold():
                return contractions.fold(self, v, order)
            case tile.Scan():
                return contractions.scan(self, v, order)
            case _:
                assert_never(v)

    def convert(self, dtype: DType, arg: Value, order: Axes) -> Text:
        if isinstance(arg, tile.Lit):
            return self.filled(tile.Lit(arg.value, dtype), ())
        have, text = self.dtype(arg), self.value(arg, order)
        if have == dtype:
            return text
        if dtype.is_bool:
            wide = Text(f"{text.at(ATOM)}.to(tl.float32)") if have.bits == 8 and have.is_float else text
            return Text(f"{wide.at(SUM)} != 0", COMPARE, text.constant)
        called = text.constant or isinstance(arg, tile.ScalarArg)
        first, *rest = (F32, dtype) if _via_f32(have, dtype) else (dtype,)
        wanted = TYPES[first.name]
        code = f"tl.cast({text.code}, {wanted})" if called else f"{text.at(ATOM)}.to({wanted})"
        return Text("".join([code, *(f".to({TYPES[t.name]})" for t in rest)]))

    # Memory ----------------------------------------------------------------------------------------------------------

    def pointer(self, tensor: str, index: tuple[Value, ...], part: int | None, target: Axes) -> Text:
        """The addresses of elements, broadcast against the target's axes."""
        code = [self.name("tensor", tensor)]
        for k, e in enumerate(index):
            if e == tile.Lit(0, INT):
                continue
            code.append(f"{self.over(e, target).at(PRODUCT)} * {self.name('stride', f'{tensor}.{k}')}")
        if part:
            code.append(str(part))
        return Text(" + ".join(code), SUM if len(code) > 1 else ATOM)

    def window(self, v: tile.Load, order: Axes) -> Text:
        """A block that a descriptor finds: its dimensions are in the order of memory, those of one position dropped."""
        sides = self.windows[v.tensor]
        places = ", ".join(self.coordinate(v.index[dims[0]], axis) for axis, dims in sides)
        code = f"{self.name('tensor', v.tensor)}.load([{places}])"
        have = tuple(axis for axis, _ in sides if axis is not None)
        if len(have) < len(sides):
            code += f".reshape({self.shape(have)})"
        return self.arranged(Text(code), have, order)

    def coordinate(self, index: Value, axis: str | None) -> str:
        """Where a block begins along a dimension, in 32 bits."""
        if axis is not None:
            first = self.name("position", axis)
            return f"tl.cast({first}, tl.int32)" if axis in self.wide else first
        return str(index.value) if isinstance(index, tile.Lit) else f"tl.cast({self.value(index, ()).code}, tl.int32)"

    def load(self, v: tile.Load, order: Axes) -> Text:
        if v.tensor in self.windows:
            return self.window(v, order)
        pointer = self.pointer(v.tensor, v.index, v.part, order)
        inside = frozenset().union(*map(self.axes, v.index))
        if v.mask is not None and order and not inside:  # a scalar pointer takes no tile of masks
            pointer = Text(f"tl.broadcast_to({pointer.code}, {self.shape(order)})")
        masked = ""
        if v.mask is not None:
            zero = "0.0" if v.dtype.is_float else "0"
            masked = f", mask={self.over(v.mask, order).code}, other={zero}"
        if v.apart:  # another policy is what keeps Triton from merging the two loads
            masked += ', eviction_policy="evict_last"'
        text = Text(f"tl.load({pointer.code}{masked})")
        stored = self.buffers[v.tensor].dtype.part
        return text if stored == v.dtype else Text(f"{text.code}.to({TYPES[v.dtype.name]})")

    def store(self, s: tile.Store) -> str:
        target = s.type.axes
        pointer = self.pointer(s.tensor, s.index, s.part, target)
        if frozenset().union(*map(self.axes, s.index)) != frozenset(target):
            pointer = Text(f"tl.broadcast_to({pointer.code}, {self.shape(target)})")
        masked = "" if s.mask is None else f", mask={self.over(s.mask, target).code}"
        return f"tl.store({pointer.code}, {self.over(s.value, target).code}{masked})"


def _via_f32(have: DType, want: DType) -> bool:
    """Does Triton convert only in two steps: narrow floats to and from what is no float of up to 32 bits, and 8-bit
    floats to each other?"""
    if have.is_float and want.is_float and max(have.bits, want.bits) <= 32:
        return have.bits == want.bits == 8
    return any(t.is_float and t.bits < 32 for t in (have, want)) and F32 not in (have, want)
