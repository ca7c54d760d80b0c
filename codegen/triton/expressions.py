"""Tile values as Triton expressions: names and literals, conversions, and what reaches memory."""

from __future__ import annotations

from typing import assert_never

from einc import tile
from einc.base.types import F32, INT, DType
from einc.codegen.emit.text import ATOM, COMPARE, PRODUCT, SUM, Axes, Text, literal
from einc.codegen.triton import contractions, operations
from einc.codegen.triton.writer import TYPES, Writer
from einc.tile import Value
from einc.tile.sums import sum_of, terms_of
from einc.tile.walk import values_in, walk_values

_BEYOND = 1 << 30  # a position beyond the end of every tensor, in 32 bits


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
        code, moving = [self.name("tensor", tensor)], list[str]()
        for k, e in enumerate(index):
            if e == tile.Lit(0, INT):
                continue
            stride = self.name("stride", f"{tensor}.{k}")
            still, stepped = self.apart_from_steps(e)
            if stepped is None:
                own = moving if self.is_stepped(e) else code
                own.append(f"{self.over(e, target).at(PRODUCT)} * {stride}")
                continue  # else the sum of both is in range, but neither need be
            code.append(f"{self.over(still, target).at(ATOM)}.to(tl.int64) * {stride}")
            moving.append(f"tl.cast({self.value(stepped, ()).code}, tl.int64) * {stride}")
        code += moving
        if part:
            code.append(str(part))
        return Text(" + ".join(code), SUM if len(code) > 1 else ATOM)

    def is_stepped(self, v: Value) -> bool:
        """Does a value change from step to step of the loop?"""
        return any(isinstance(x, tile.Ref) and x.name in self.stepped for x in walk_values(v))

    def apart_from_steps(self, e: Value) -> tuple[Value, Value | None]:
        """An index as a tile that no step of the loop changes, which need be computed only once, and a number."""
        terms = terms_of(e)
        stepped = [(plus, v) for plus, v in terms if not self.axes(v)]
        still = [(plus, v) for plus, v in terms if self.axes(v)]
        if not still or not any(self.is_stepped(v) for _, v in stepped) or any(self.is_stepped(v) for _, v in still):
            return e, None
        return sum_of(still), sum_of(stepped)

    def window(self, v: tile.Load, order: Axes) -> Text:
        """A block that a descriptor finds: its dimensions are in the order of memory, those of one position dropped."""
        sides = self.windows[v.tensor]
        places = [self.coordinate(v.index[dims[0]], axis) for axis, dims in sides]
        if v.mask is not None:
            places[-1] = f"tl.where({self.value(v.mask, ()).code}, {places[-1]}, {_BEYOND})"
        code = f"{self.name('tensor', v.tensor)}.load([{', '.join(places)}])"
        have = tuple(axis for axis, _ in sides if axis is not None)
        if len(have) < len(sides):
            code += f".reshape({self.shape(have)})"
        return self.arranged(Text(code), have, order)

    def coordinate(self, index: Value, axis: str | None) -> str:
        """Where a block begins along a dimension, in 32 bits."""
        if axis is not None:
            first = self.python.get(("position", axis))
            if first is None:
                return "0"  # all of an axis that is held whole
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
        elif v.tensor in self.walked:
            masked += f', eviction_policy="{self.walked[v.tensor]}"'
        text = Text(f"tl.load({pointer.code}{masked})")
        stored = self.buffers[v.tensor].dtype.part
        return text if stored == v.dtype else Text(f"{text.code}.to({TYPES[v.dtype.name]})")

    def store(self, s: tile.Store) -> str:
        target = self.lying(s)
        pointer = self.pointer(s.tensor, s.index, s.part, target)
        if frozenset().union(*map(self.axes, s.index)) != frozenset(target):
            pointer = Text(f"tl.broadcast_to({pointer.code}, {self.shape(target)})")
        masked = "" if s.mask is None else f", mask={self.over(s.mask, target).code}"
        if s.adds:
            return f'tl.atomic_add({pointer.code}, {self.over(s.value, target).code}{masked}, sem="relaxed")'
        return f"tl.store({pointer.code}, {self.over(s.value, target).code}{masked})"

    def lying(self, s: tile.Store) -> Axes:
        """The order of a tile that is stored: that of its type, or first what is neighbours in memory, where it is one
        of several axes of a tile axis. Triton does not see that these are, and then takes the first axis to be."""
        target = s.type.axes
        along = [(i, axes) for i in s.index if (axes := self.axes(i))]
        if len(target) < 2 or not along or (isinstance(along[-1][0], tile.Ref) and along[-1][0].name in target):
            return target
        first = along[-1][1]
        return (*(a for a in target if a in first), *(a for a in target if a not in first))


def walked_again(statements: tuple[tile.Statement, ...], loop: tile.Loop) -> dict[str, str]:
    """How long the cache should keep what a walk loads that another walks again: until the last one has read it.

    Walks that contract wait for their dots, not for memory.
    """
    walks = [s for s in statements if isinstance(s, tile.Loop)]
    if len(walks) < 2 or any(isinstance(v, tile.Dot) for v in values_in(statements)):
        return {}
    read = [{v.tensor for v in values_in(s.body) if isinstance(v, tile.Load)} for s in walks]
    n = next(k for k, s in enumerate(walks) if s is loop)
    later, earlier = (set[str]().union(*part) for part in (read[n + 1 :], read[:n]))
    return dict.fromkeys(read[n] & earlier, "evict_first") | dict.fromkeys(read[n] & later, "evict_last")


def _via_f32(have: DType, want: DType) -> bool:
    """Does Triton convert only in two steps: narrow floats to and from what is no float of up to 32 bits, and 8-bit
    floats to each other?"""
    if have.is_float and want.is_float and max(have.bits, want.bits) <= 32:
        return have.bits == want.bits == 8
    return any(t.is_float and t.bits < 32 for t in (have, want)) and F32 not in (have, want)
