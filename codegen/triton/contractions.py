"""Contractions, reductions and prefixes of tiles as Triton, and the functions that combine a monoid's states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from einc import tile
from einc.base.types import BOOL, F32, F64, I32, DType
from einc.codegen.emit.text import ATOM, COMPARE, Axes, Text
from einc.codegen.triton.writer import TYPES, Writer
from einc.ein import Apply, Cast, Const, Expr, Monoid, Scalar, walk
from einc.ein.monoids import MONOIDS
from einc.tile import TileType, Value
from einc.tile.walk import walk_values

_TOGETHER = 128  # products of 8 bits that Hopper's units add up, to 14 bits, before f32 takes their sum


def dot(w: Writer, v: tile.Dot, order: Axes) -> Text:
    """A dot and what it is added to.

    Products of f32 are added up one by one: a chain of 512 is rounded as often, sums of 128 of them a quarter as often,
    and four times. In shorter blocks the additions would take time. So are the sums of products of 8 bits, whose units
    round more (DeepSeek-V3, section 3.3.2): the error is that of cuBLAS with `use_fast_accum=False`.
    """
    t = w.dtype(v.left)
    sides = (v.sides.over(v.row, v.inner), v.sides.over(v.inner, v.column))
    left, right = (side(w, x, axes) for x, axes in zip((v.left, v.right), sides, strict=True))
    code = ", ".join(counted(w, v, left, right))
    if not (isinstance(v.acc, tile.Lit | tile.Fill)):
        code += f", {w.full(v.acc, v.sides.result).code}"
    if v.product is not None:
        return w.arranged(Text(f'tl.dot({code}, input_precision="{v.product}")'), v.sides.result, order)
    if t == F32 and len(v.sides.result) == 2:
        return w.arranged(Text(f"{w.file.helper('dot_f32')}({code})"), v.sides.result, order)
    if t == F32:
        code += ', input_precision="ieee"'
    elif t == F64:
        code += ', input_precision="ieee", out_dtype=tl.float64'
    elif t.is_int:
        code += ", out_dtype=tl.int32"
    elif t.bits == 8:
        block = w.blocks[v.inner]
        code += f", max_num_imprecise_acc={block} if {block} < {_TOGETHER} else {_TOGETHER}"
    return w.arranged(Text(f"tl.dot({code})"), v.sides.result, order)


def side(w: Writer, v: Value, axes: Axes) -> Text:
    """A side of a dot.

    Triton lays a side of 64 bits out by the narrowest type that it sees it computed from, and fails where that has
    fewer than 32: beside tensors of such types it is shown no further than the side itself.
    """
    text = w.full(v, axes)
    narrow = any(0 < b.dtype.part.bits < 32 for b in w.buffers.values())
    return Text(f"{w.file.helper('opaque')}({text.code})") if narrow and w.dtype(v) == F64 else text


def counted(w: Writer, v: tile.Dot, left: Text, right: Text) -> tuple[str, str]:
    """Both sides as they are multiplied: one that counts where the other says so is 0 where no row, or column, does."""
    sides = [left.code, right.code]
    last = len(v.sides.result) - 1
    for p, axes, side, over in ((v.left_in, (v.row, v.inner), 1, last - 1), (v.right_in, (v.inner, v.column), 0, last)):
        if p is not None:
            counts = w.full(p, v.sides.over(*axes)).code
            sides[side] = f"{w.file.helper('where_counted')}({sides[side]}, {counts}, {over})"
    return sides[0], sides[1]


def fold(w: Writer, v: tile.Fold, order: Axes) -> Text:
    """The tiles of each component, one axis folded away."""
    inside = operand_order(w, v, order)
    at = inside.index(v.axis)
    types = tuple(w.dtype(a) for a in v.args)
    args = [w.full(a, inside) for a in v.args]
    result = tuple(a for a in inside if a != v.axis)
    if len(v.args) > 1:
        combine = combiner(w, v.monoid, types)
        return Text(f"tl.reduce(({', '.join(a.code for a in args)}), {at}, {combine})")
    arg = args[0]
    if as_loaded(w, v.args[0]) and 0 < at == len(inside) - 1 and types[0].is_float:
        arg, at = w.arranged(arg, inside, (v.axis, *result)), 0
    return w.arranged(fold_one(w, v.monoid, types[0], arg, at), result, order)


def as_loaded(w: Writer, v: Value) -> bool:
    """Is it what a step of a walk loads?

    Folds of that along the last axis Triton divides between a thread's own positions, in the walk, and all threads',
    after it, and in doing so mistakes the rows for each other that a thread has apart, where it reads down columns
    (repaired after 3.7: triton-lang/triton#11186). So the last axis is made the first, which moves nothing.
    """
    return isinstance(v, tile.Load) or (isinstance(v, tile.Ref) and v.name in w.loaded)


def scan(w: Writer, v: tile.Scan, order: Axes) -> Text:
    """The tiles of each component, every position combined with those before it on an axis."""
    at = order.index(v.axis)
    types = tuple(w.dtype(a) for a in v.args)
    args = [w.full(a, order) for a in v.args]
    if len(args) > 1:
        combine = combiner(w, v.monoid, types)
        inside = f"({', '.join(a.code for a in args)}), {at}, {combine}"
        return Text(f"tl.associative_scan({inside}{_backwards(v)})")
    return scan_one(w, v, types[0], args[0], at)


def scan_one(w: Writer, v: tile.Scan, t: DType, arg: Text, at: int) -> Text:
    op = v.monoid.op
    if op == "add" and not t.is_bool:
        return Text(f"tl.cumsum({arg.code}, {at}{_backwards(v)})")
    if v.monoid.truths:
        combine = combiner(w, MONOIDS["max" if op == "or" else "min"], (I32,))
        found = f"tl.associative_scan({arg.at(ATOM)}.to(tl.int32), {at}, {combine}{_backwards(v)})"
        return Text(f"{found} != 0", COMPARE)
    if op in ("max", "min") and t.is_float:
        combine = w.file.helper(f"{op}imum")
    else:
        combine = w.file.helper("times") if op == "mul" else combiner(w, v.monoid, (t,))
    return Text(f"tl.associative_scan({arg.code}, {at}, {combine}{_backwards(v)})")


def _backwards(v: tile.Scan) -> str:
    return ", reverse=True" if v.reverse else ""


def fold_one(w: Writer, monoid: Monoid, t: DType, arg: Text, at: int) -> Text:
    match monoid.op:
        case "add" if not t.is_bool:
            text = Text(f"tl.sum({arg.code}, {at})")
            return Text(f"{text.code}.to({TYPES[t.name]})") if t.is_int and 0 < t.bits < 32 else text
        case "or" | "and" as op:
            which = "max" if op == "or" else "min"
            return Text(f"tl.{which}({arg.at(ATOM)}.to(tl.int32), {at}) != 0", COMPARE)
        case "max" | "min" as op if t.is_int:
            text = Text(f"tl.{op}({arg.code}, {at})")
            return Text(f"{text.code}.to({TYPES[t.name]})") if 0 < t.bits < 32 else text
        case "max" | "min" as op if t.is_float:
            combine = w.file.helper(f"{op}imum")
        case "mul":
            combine = w.file.helper("times")
        case _:
            combine = combiner(w, monoid, (t,))
    return Text(f"tl.reduce({arg.code}, {at}, {combine})")


def operand_order(w: Writer, v: tile.Fold, result: Axes) -> Axes:
    """The order of a fold's operand: as its largest tile lies, if that gives the result's order."""
    inside = frozenset((*result, v.axis))
    lying = [w.types[n.name].axes for a in v.args for n in walk_values(a) if isinstance(n, tile.Ref)]
    for axes in lying:
        if frozenset(axes) == inside and tuple(a for a in axes if a != v.axis) == result:
            return axes
    return (*result, v.axis)


def combined(monoid: Monoid, earlier: Sequence[Value], later: Sequence[Value], types: Sequence[DType]) -> list[Value]:
    """The combination of two states, component by component."""
    sides = (("a", earlier), ("b", later))
    bound: dict[Expr, Value] = {Scalar(f"{side}{k}"): v for side, state in sides for k, v in enumerate(state)}
    return [_as_value(e, bound, tuple(types)) for e in monoid.combine]


def combiner(w: Writer, monoid: Monoid, types: tuple[DType, ...]) -> str:
    """The name of the function that combines two states of a monoid."""
    wanted = f"{monoid.name}_combine"
    return w.file.function((monoid, types), wanted, lambda name: combine_function(w, name, monoid, types))


def combine_function(w: Writer, name: str, monoid: Monoid, types: tuple[DType, ...]) -> str:
    """A `@triton.jit` function of two states, earlier and later, with what occurs more than once bound first."""
    states = [f"{side}{k}" for side in "ab" for k in range(monoid.components)]
    writer = w.apart({s: TileType(types[int(s[1:])]) for s in states})
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
        case Cast(dtype=dtype, arg=Const(value=value)):
            return tile.Lit(value, dtype)
        case Cast(dtype=dtype, arg=arg):
            return tile.Convert(dtype, _as_value(arg, bound, types))
        case Apply(op=op, args=args):
            return tile.Elem(op, tuple(_as_value(a, bound, types) for a in args))
        case _:
            raise AssertionError(f"a monoid combines with {e}")
