"""Tile values as Triton expressions: tiles of named axes become broadcasts by position.

Every value is written over its own axes first, in the order that is asked for, and only then indexed with `None` up to
the axes of what it meets: `(i < size_i)[:, None]`. A tile whose axes lie in another order is transposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from einc import tile
from einc.codegen import library
from einc.codegen.names import Names
from einc.ein import Apply, Const, Expr, Monoid, Scalar, walk
from einc.ops import OPS, Rule
from einc.tile import TileType, Value
from einc.tiletypes import dtype_of
from einc.types import BOOL, F32, F64, INT, DType

Axes = tuple[str, ...]

TYPES = {
    "bool": "tl.int1", "i8": "tl.int8", "i16": "tl.int16", "i32": "tl.int32", "i64": "tl.int64",
    "u8": "tl.uint8", "u16": "tl.uint16", "u32": "tl.uint32", "u64": "tl.uint64",
    "f16": "tl.float16", "bf16": "tl.bfloat16", "f32": "tl.float32", "f64": "tl.float64",
    "f8e4m3": "tl.float8e4nv", "f8e5m2": "tl.float8e5", "int": "INT",
}  # fmt: skip

# How tightly Python's operators bind, loosest first.
COMPARE, OR, AND, SUM, PRODUCT, SIGN, ATOM = range(7)

_INFIX = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT), "exactdiv": ("//", PRODUCT),
    "lt": ("<", COMPARE), "le": ("<=", COMPARE), "gt": (">", COMPARE), "ge": (">=", COMPARE),
    "eq": ("==", COMPARE), "ne": ("!=", COMPARE), "and": ("&", AND), "or": ("|", OR),
}  # fmt: skip
_CALLS = {
    name: f"tl.{name}"
    for name in ("sqrt", "rsqrt", "exp", "exp2", "log", "log2", "erf", "sin", "cos", "abs", "floor", "ceil")
}
_LIBRARY = {"tanh": "tanh", "tan": "tan", "round": "round_even"}
_FLIPPED = {"lowest": -math.inf, "highest": math.inf}
_KNOWN_POWERS = frozenset((*range(1, 65), *range(-64, 0)))
_PROPAGATE = "propagate_nan=tl.PropagateNan.ALL"


@dataclass(frozen=True, slots=True)
class Text:
    """An expression and how tightly its outermost operator binds."""

    code: str
    level: int = ATOM

    def at(self, level: int) -> str:
        """The code, in parentheses where it binds more loosely than that."""
        return self.code if self.level >= level else f"({self.code})"


@dataclass(slots=True)
class File:
    """What the kernels of one file share: its names, the library functions in use, and those made for it: by what they
    compute, their names and sources."""

    names: Names
    library: dict[str, str] = field(default_factory=dict)
    made: dict[Hashable, tuple[str, str]] = field(default_factory=dict)

    def helper(self, name: str) -> str:
        """What the file calls a library function, which it now brings along."""
        if name not in self.library:
            for needed in library.needs(name):
                self.helper(needed)
            self.library[name] = self.names.fresh(name)
        return self.library[name]

    def function(self, key: Hashable, wanted: str, source: Callable[[str], str]) -> str:
        """What the file calls a function made for it; `source` writes it, once, under its name."""
        if key not in self.made:
            name = self.names.fresh(wanted, ascii_only=True)
            self.made[key] = name, source(name)
        return self.made[key][0]


class Expressions:
    """Writes the values of one kernel. `python` are its names, `types` what they hold, `blocks` the tile sizes' names
    and `buffers` the tensors by name."""

    def __init__(self, file: File, buffers: dict[str, tile.Buffer], python: dict[tuple[str, str], str]) -> None:
        self.file = file
        self.buffers = buffers
        self.python = python
        self.types: dict[str, TileType] = {}
        self.blocks: dict[str, str] = {}
        self.natural: set[str] = set()  # names that are never negative
        self._axes: dict[int, tuple[Value, frozenset[str]]] = {}

    # Names and types -------------------------------------------------------------------------------------------------

    def name(self, kind: str, wanted: str) -> str:
        return self.python[kind, wanted]

    def dtype(self, v: Value) -> DType:
        return dtype_of(v, self.types)

    def axes(self, v: Value) -> frozenset[str]:
        """The tile axes a value extends over."""
        known = self._axes.get(id(v))
        if known is not None:
            return known[1]
        match v:
            case tile.Ref(name=name):
                found = frozenset(self.types[name].axes)
            case tile.Dot(row=row, column=column):
                found = frozenset((row, column))
            case tile.Fold(axis=axis, args=args):
                found = frozenset().union(*map(self.axes, args)) - {axis}
            case _:
                found = frozenset().union(*map(self.axes, tile.values_of(v)))
        self._axes[id(v)] = v, found  # with the value, lest another takes its place in memory
        return found

    def shape(self, axes: Axes) -> str:
        return f"[{', '.join(self.blocks[a] for a in axes)}]"

    # Broadcasting ----------------------------------------------------------------------------------------------------

    def over(self, v: Value, target: Axes) -> Text:
        """The value such that it meets tiles over the target's axes by position."""
        extends = self.axes(v)
        own = tuple(a for a in target if a in extends)
        return self.expanded(self.value(v, own), own, target)

    def expanded(self, text: Text, own: Axes, target: Axes) -> Text:
        if not own or own == target:
            return text
        index = ", ".join(":" if a in own else "None" for a in target)
        return Text(f"{text.at(ATOM)}[{index}]")

    def full(self, v: Value, target: Axes) -> Text:
        """The value as a tile over all of the target's axes."""
        text = self.over(v, target)
        if self.axes(v) == frozenset(target):
            return text
        if isinstance(v, tile.Lit):
            return self.filled(v, target)
        return Text(f"tl.broadcast_to({text.code}, {self.shape(target)})")

    def filled(self, v: tile.Lit, axes: Axes) -> Text:
        """A tile, or a scalar, of one value."""
        dtype = TYPES[v.dtype.name]
        if v.value == 0 and axes and not v.dtype.is_bool:
            return Text(f"tl.zeros({self.shape(axes)}, {dtype})")
        shape = self.shape(axes) if axes else "()"
        return Text(f"tl.full({shape}, {literal(v).code}, {dtype})")

    def arranged(self, text: Text, have: Axes, want: Axes) -> Text:
        """The tile with its axes in the order wanted."""
        if have == want:
            return text
        if len(have) == 2:
            return Text(f"tl.trans({text.code})")
        return Text(f"tl.permute({text.code}, ({', '.join(str(have.index(a)) for a in want)}))")

    # Values ----------------------------------------------------------------------------------------------------------

    def value(self, v: Value, order: Axes) -> Text:
        """The value over exactly these axes, which are its own (of a `Fill`: any)."""
        match v:
            case tile.Ref(name=name):
                return self.arranged(Text(self.name("value", name)), self.types[name].axes, order)
            case tile.Lit():
                return literal(v)
            case tile.ExtentOf(axis=axis):
                return Text(self.name("extent", axis))
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
                return self.elem(op, args, order)
            case tile.Dot():
                return self.dot(v, order)
            case tile.Fold():
                return self.fold(v, order)

    def strict(self, v: Value, order: Axes) -> Text:
        """The value where Triton would guess a literal's type."""
        return self.filled(v, ()) if isinstance(v, tile.Lit) else self.over(v, order)

    def convert(self, dtype: DType, arg: Value, order: Axes) -> Text:
        if isinstance(arg, tile.Lit):
            return self.filled(tile.Lit(arg.value, dtype), ())
        have, text = self.dtype(arg), self.value(arg, order)
        if have == dtype:
            return text
        if dtype.is_bool:
            wide = Text(f"{text.at(ATOM)}.to(tl.float32)") if have.bits == 8 and have.is_float else text
            return Text(f"{wide.at(SUM)} != 0", COMPARE)
        if isinstance(arg, tile.ScalarArg | tile.ExtentOf):
            return Text(f"tl.cast({text.code}, {TYPES[dtype.name]})")
        if _via_f32(have, dtype):
            text = Text(f"{text.at(ATOM)}.to(tl.float32)")
        return Text(f"{text.at(ATOM)}.to({TYPES[dtype.name]})")

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

    def load(self, v: tile.Load, order: Axes) -> Text:
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

    # Operations ------------------------------------------------------------------------------------------------------

    def elem(self, op: str, args: tuple[Value, ...], order: Axes) -> Text:
        t = self.dtype(args[-1])
        if op == "rand":
            return self.rand(args, order)
        if op == "where":
            condition, *chosen = (self.over(a, order).code for a in args)
            if not any(self.axes(a) for a in args[1:]):
                chosen = [self.strict(a, order).code for a in args[1:]]
            return Text(f"tl.where({condition}, {', '.join(chosen)})")
        if op in ("floordiv", "mod") and t.is_int:
            return self.divide(op, args, order)
        if op in ("max", "min"):
            return self.extreme(op, args, t, order)
        if op == "pow":
            return self.power(args[0], args[1], t, order)
        if op in _INFIX:
            return self.infix(op, args, t, order)
        if op in ("neg", "not"):
            sign = "-" if op == "neg" else "~"
            return Text(f"{sign}{self.strict(args[0], order).at(ATOM)}", SIGN)
        inside = self.strict(args[0], order).code
        called = _CALLS.get(op) or self.file.helper(_LIBRARY[op])
        return Text(f"{called}({inside})")

    def infix(self, op: str, args: tuple[Value, ...], t: DType, order: Axes) -> Text:
        sign, level = _INFIX[op]
        a, b = (self.over(x, order) for x in args)
        if isinstance(args[0], tile.Lit) and isinstance(args[1], tile.Lit):
            a = self.filled(args[0], ())
        if t == INT and OPS[op].rule is Rule.ARITHMETIC and all(_is_raw(x) for x in args):
            first = next((n for n, x in enumerate(args) if not isinstance(x, tile.Lit)), 0)
            a, b = (Text(f"tl.cast({x.code}, INT)") if n == first else x for n, x in enumerate((a, b)))
        left, right = level, level + 1
        if level == COMPARE:
            left, right = OR, OR
        return Text(f"{a.at(left)} {sign} {b.at(right)}", level)

    def divide(self, op: str, args: tuple[Value, ...], order: Axes) -> Text:
        """Division that rounds down: Triton's own where no operand can be negative."""
        if all(self.is_natural(a) for a in args):
            sign = "//" if op == "floordiv" else "%"
            a, b = (self.over(x, order) for x in args)
            return Text(f"{a.at(PRODUCT)} {sign} {b.at(SIGN)}", PRODUCT)
        called = self.file.helper("floor_div" if op == "floordiv" else "floor_mod")
        return Text(f"{called}({', '.join(self.strict(a, order).code for a in args)})")

    def extreme(self, op: str, args: tuple[Value, ...], t: DType, order: Axes) -> Text:
        if t.is_bool:
            return self.infix("or" if op == "max" else "and", args, t, order)
        inside = ", ".join(self.strict(a, order).code for a in args)
        return Text(f"tl.{op}imum({inside}{f', {_PROPAGATE}' if t.is_float else ''})")

    def power(self, x: Value, y: Value, t: DType, order: Axes) -> Text:
        base = self.strict(x, order)
        known = y.value if isinstance(y, tile.Lit) else None
        if known in (0.5, -0.5):
            return Text(f"tl.{'sqrt' if known == 0.5 else 'rsqrt'}({base.code})")
        if isinstance(known, int | float) and known in _KNOWN_POWERS and (known > 0 or t.is_float):
            n = int(abs(known))
            text = base if n == 1 else Text(f"{self.known_power(n)}({base.code})")
            if n == 2 and isinstance(x, tile.Ref):
                text = Text(f"{base.at(PRODUCT)} * {base.at(SIGN)}", PRODUCT)
            return text if known > 0 else Text(f"1.0 / {text.at(SIGN)}", PRODUCT)
        called = "power" if t.is_float else "signed_power" if t.kind == "i" else "integer_power"
        return Text(f"{self.file.helper(called)}({base.code}, {self.full(y, order).code})")

    def known_power(self, n: int) -> str:
        wanted = {2: "square", 3: "cube"}.get(n, f"power_{n}")
        return self.file.function(("power", n), wanted, lambda name: library.known_power(name, n))

    def rand(self, args: tuple[Value, ...], order: Axes) -> Text:
        """The Philox block at an index of any length, as `einc.philox` defines it."""
        seed, *index = args
        words = [self.word(e, order) for e in index]
        while len(words) > 4:
            first = f"{words[0].at(PRODUCT)} * -1640531535 + {words[1].at(PRODUCT)}"  # 0x9E3779B1, signed
            words[:2] = [Text(first, SUM)]
        words += [Text("0")] * (4 - len(words))
        inside = ", ".join(w.code for w in words)
        return Text(f"{self.file.helper('uniform')}({self.strict(seed, order).code}, {inside})")

    def word(self, e: Value, order: Axes) -> Text:
        """An index modulo 2**32, as a signed integer."""
        if isinstance(e, tile.Lit):
            return Text(str((int(e.value) + (1 << 31)) % (1 << 32) - (1 << 31)))
        return Text(f"tl.cast({self.strict(e, order).code}, tl.int32)")

    def is_natural(self, v: Value) -> bool:
        """Is an integer certainly not negative?"""
        match v:
            case tile.Ref(name=name):
                return name in self.natural
            case tile.Lit(value=value):
                return not isinstance(value, str) and value >= 0
            case tile.ExtentOf():
                return True
            case tile.Elem(op="max", args=args):
                return any(map(self.is_natural, args))
            case tile.Elem(op="mod", args=(_, b)):
                return self.is_natural(b)
            case tile.Elem(op="where", args=(_, a, b)):
                return self.is_natural(a) and self.is_natural(b)
            case tile.Elem(op="add" | "mul" | "floordiv" | "exactdiv" | "min", args=args):
                return all(map(self.is_natural, args))
            case tile.Elem(op="abs"):
                return True
            case tile.Convert(dtype=dtype, arg=arg):
                return dtype.kind == "u" or self.is_natural(arg)
            case _:
                return self.dtype(v).kind in "ub"

    # Contractions and reductions -------------------------------------------------------------------------------------

    def dot(self, v: tile.Dot, order: Axes) -> Text:
        t = self.dtype(v.left)
        left, right = self.full(v.left, (v.row, v.inner)), self.full(v.right, (v.inner, v.column))
        code = f"{left.code}, {right.code}"
        if not (isinstance(v.acc, tile.Lit | tile.Fill)):
            code += f", {self.full(v.acc, (v.row, v.column)).code}"
        if t == F32:
            code += ', input_precision="ieee"'
        elif t == F64:
            code += ', input_precision="ieee", out_dtype=tl.float64'
        elif t.is_int:
            code += ", out_dtype=tl.int32"
        elif t.bits == 8:
            code += ", max_num_imprecise_acc=0"
        return self.arranged(Text(f"tl.dot({code})"), (v.row, v.column), order)

    def fold(self, v: tile.Fold, order: Axes) -> Text:
        """The tiles of each component, one axis folded away."""
        inside = self.operand_order(v, order)
        at = inside.index(v.axis)
        types = tuple(self.dtype(a) for a in v.args)
        args = [self.full(a, inside) for a in v.args]
        result = tuple(a for a in inside if a != v.axis)
        if len(v.args) > 1:
            combine = self.combine(v.monoid, types)
            return Text(f"tl.reduce(({', '.join(a.code for a in args)}), {at}, {combine})")
        return self.arranged(self.fold_one(v.monoid, types[0], args[0], at), result, order)

    def fold_one(self, monoid: Monoid, t: DType, arg: Text, at: int) -> Text:
        match monoid.name:
            case "sum" if not t.is_bool:
                text = Text(f"tl.sum({arg.code}, {at})")
                return Text(f"{text.code}.to({TYPES[t.name]})") if t.is_int and 0 < t.bits < 32 else text
            case "any" | "all":
                which = "max" if monoid.name == "any" else "min"
                return Text(f"tl.{which}({arg.at(ATOM)}.to(tl.int32), {at}) != 0", COMPARE)
            case "max" | "min" if t.is_int:
                text = Text(f"tl.{monoid.name}({arg.code}, {at})")
                return Text(f"{text.code}.to({TYPES[t.name]})") if 0 < t.bits < 32 else text
            case "max" | "min" if t.is_float:
                combine = self.file.helper(f"{monoid.name}imum")
            case "prod":
                combine = self.file.helper("product")
            case _:
                combine = self.combine(monoid, (t,))
        return Text(f"tl.reduce({arg.code}, {at}, {combine})")

    def operand_order(self, v: tile.Fold, result: Axes) -> Axes:
        """The order of a fold's operand: as its largest tile lies, if that gives the result's order."""
        inside = frozenset((*result, v.axis))
        lying = [self.types[n.name].axes for a in v.args for n in tile.walk_values(a) if isinstance(n, tile.Ref)]
        for axes in lying:
            if frozenset(axes) == inside and tuple(a for a in axes if a != v.axis) == result:
                return axes
        return (*result, v.axis)

    def combine(self, monoid: Monoid, types: tuple[DType, ...]) -> str:
        """The name of the function that combines two states of a monoid."""
        wanted = f"{monoid.name}_combine"
        return self.file.function(
            (monoid, types), wanted, lambda name: combine_function(self.file, name, monoid, types)
        )


def combine_function(file: File, name: str, monoid: Monoid, types: tuple[DType, ...]) -> str:
    """A `@triton.jit` function of two states, earlier and later, with what occurs more than once bound first."""
    states = [f"{side}{k}" for side in "ab" for k in range(monoid.components)]
    writer = Expressions(file, {}, {("value", s): s for s in states})
    writer.types = {s: TileType(types[int(s[1:])]) for s in states}
    lines = [f"def {name}({', '.join(states)}):", f'    """Two states of {monoid.name}, the earlier and the later."""']
    bound: dict[Expr, Value] = {}
    for e in _repeated(monoid.combine):
        chosen = f"c{len(bound)}" if bound else "c"
        value = _as_value(e, bound, types)
        writer.types[chosen] = TileType(writer.dtype(value))
        writer.python["value", chosen] = chosen
        lines.append(f"    {chosen} = {writer.value(value, ()).code}")
        bound[e] = tile.Ref(chosen)
    results = (writer.strict(_as_value(e, bound, types), ()).code for e in monoid.combine)
    return "\n".join(["@triton.jit", *lines, f"    return {', '.join(results)}"])


def _repeated(expressions: tuple[Expr, ...]) -> Iterator[Expr]:
    """The outermost operations that occur more than once."""
    nodes = [n for e in expressions for n in walk(e) if isinstance(n, Apply)]
    found: list[Expr] = []
    for n in nodes:
        inside = any(n in tuple(walk(f)) for f in found)
        if nodes.count(n) > 1 and not inside:
            found.append(n)
            yield n


def _as_value(e: Expr, bound: dict[Expr, Value], types: tuple[DType, ...]) -> Value:
    if e in bound:
        return bound[e]
    match e:
        case Scalar(name=name):
            return tile.Ref(name)
        case Const(value=value):
            return tile.Lit(value, BOOL if isinstance(value, bool) else types[0])
        case Apply(op=op, args=args):
            return tile.Elem(op, tuple(_as_value(a, bound, types) for a in args))
        case _:
            raise AssertionError(f"a monoid combines with {e}")


def _is_raw(v: Value) -> bool:
    """Made of extents, scalar arguments and literals only: as wide as the caller's integers."""
    return all(isinstance(n, tile.ExtentOf | tile.ScalarArg | tile.Lit | tile.Elem) for n in tile.walk_values(v))


def _via_f32(have: DType, want: DType) -> bool:
    """Does Triton convert only in two steps: narrow floats to and from what is no float of up to 32 bits, and 8-bit
    floats to each other?"""
    if have.is_float and want.is_float and max(have.bits, want.bits) <= 32:
        return have.bits == want.bits == 8
    return any(t.is_float and t.bits < 32 for t in (have, want)) and F32 not in (have, want)


def literal(v: tile.Lit) -> Text:
    """A literal as Python writes it, in the range of its type."""
    value = _bounded(v)
    if isinstance(value, bool):
        return Text(str(value))
    if isinstance(value, int):
        return Text(str(value), ATOM if value >= 0 else SIGN)
    if math.isfinite(value):
        return Text(repr(value), ATOM if value >= 0 else SIGN)
    return Text(f'float("{value}")')


def _bounded(v: tile.Lit) -> bool | int | float:
    t = v.dtype
    if isinstance(v.value, str):
        if t.is_float:
            return _FLIPPED[v.value]
        if t.is_bool:
            return v.value == "highest"
        bits = t.bits or 32
        low, high = (0, (1 << bits) - 1) if t.kind == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)
        return low if v.value == "lowest" else high
    if t.is_bool:
        return bool(v.value)
    if t.is_float:
        return float(v.value)
    value = int(v.value)
    return value % (1 << t.bits) if t.kind == "u" else value
