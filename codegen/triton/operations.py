"""Elementwise operations of `einc.base.ops` as Triton expressions."""

from __future__ import annotations

from einc import tile
from einc.base.ops import OPS, Rule
from einc.base.types import F32, INT, DType
from einc.codegen.emit import library
from einc.codegen.emit.text import AND, ATOM, COMPARE, OR, PRODUCT, SIGN, SUM, Axes, Text
from einc.codegen.triton.writer import Writer
from einc.tile import Value
from einc.tile.walk import walk_values

_INFIX = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT), "exactdiv": ("//", PRODUCT),
    "lt": ("<", COMPARE), "le": ("<=", COMPARE), "gt": (">", COMPARE), "ge": (">=", COMPARE),
    "eq": ("==", COMPARE), "ne": ("!=", COMPARE), "and": ("&", AND), "or": ("|", OR),
}  # fmt: skip
_CALLS = {
    name: f"tl.{name}"
    for name in ("sqrt", "rsqrt", "exp", "exp2", "log", "log2", "erf", "sin", "cos", "abs", "floor", "ceil")
}
_LIBRARY = {
    "tanh": "tanh", "tan": "tan", "round": "round_even", "log1p": "log1p", "expm1": "expm1", "atan2": "atan2",
}  # fmt: skip
_KNOWN_POWERS = frozenset((*range(1, 65), *range(-64, 0)))
_PROPAGATE = "propagate_nan=tl.PropagateNan.ALL"


def elem(w: Writer, op: str, args: tuple[Value, ...], order: Axes) -> Text:
    t = w.dtype(args[-1])
    if op == "rand":
        return rand(w, args, order)
    if op == "where":
        written = w.over if any(w.axes(a) for a in args[1:]) else w.strict
        chosen = ", ".join(written(a, order).code for a in args[1:])
        return Text(f"tl.where({w.over(args[0], order).code}, {chosen})")
    if op in ("floordiv", "mod") and t.is_int:
        return divide(w, op, args, order)
    if op in ("max", "min"):
        return extreme(w, op, args, t, order)
    if op == "pow":
        return power(w, args[0], args[1], t, order)
    if op in _INFIX:
        return infix(w, op, args, t, order)
    if op == "neg" and t == INT and w.axes(args[0]):
        return Text(f"{w.file.helper('less')}(0, {w.strict(args[0], order).code})")
    if op in ("neg", "not"):
        sign = "-" if op == "neg" else "~"
        return Text(f"{sign}{w.strict(args[0], order).at(ATOM)}", SIGN)
    inside = ", ".join(w.strict(a, order).code for a in args)
    if op in _LIBRARY:
        return Text(f"{w.file.helper(_LIBRARY[op])}({inside})")
    return Text(f"{_CALLS.get(op, f'libdevice.{op}')}({inside})")


def infix(w: Writer, op: str, args: tuple[Value, ...], t: DType, order: Axes) -> Text:
    if op == "div" and t == F32 and w.axes(args[0]) and (inverse := _inverse(args[1])) is not None:
        op, args = "mul", (args[0], inverse)
    sign, level = _INFIX[op]
    if op == "mul" and len(order) > 3 and _gaps(w, args[0], order)[-1:] == (2,) and _gaps(w, args[1], order) == (0,):
        args = args[::-1]  # Triton (3.6 and 3.7) takes a sum of such products for one of matrices, and fails
    a, b = (w.over(x, order) for x in args)
    if isinstance(args[0], tile.Lit) and isinstance(args[1], tile.Lit):
        a = w.filled(args[0], ())
    if t == INT and OPS[op].rule is Rule.ARITHMETIC and all(_is_raw(x) for x in args):
        first = next((n for n, x in enumerate(args) if not isinstance(x, tile.Lit)), 0)
        a, b = (Text(f"tl.cast({x.code}, INT)") if n == first else x for n, x in enumerate((a, b)))
    if op == "sub" and t == INT and w.axes(args[1]) and not w.is_position(args[0]):
        return Text(f"{w.file.helper('less')}({a.code}, {b.code})")
    left, right = level, level + 1
    if level == COMPARE:
        left, right = OR, OR
    return Text(f"{a.at(left)} {sign} {b.at(right)}", level, a.constant and b.constant)


def _inverse(v: Value) -> tile.Lit | None:
    """What a tile is multiplied by in place of being divided by a number, which GPUs compute so, but each time."""
    if not isinstance(v, tile.Lit) or not isinstance(v.value, int | float) or not 1e-30 < abs(v.value) < 1e30:
        return None
    return tile.Lit(1 / v.value, v.dtype)


def _gaps(w: Writer, v: Value, order: Axes) -> tuple[int, ...]:
    """Where a tile is spread to meet one over all of these axes."""
    own = w.axes(v)
    return tuple(n for n, a in enumerate(order) if a not in own) if own else ()


def divide(w: Writer, op: str, args: tuple[Value, ...], order: Axes) -> Text:
    """Division that rounds down: Triton's own where no operand can be negative."""
    if all(is_natural(w, a) for a in args):
        sign = "//" if op == "floordiv" else "%"
        a, b = (w.over(x, order) for x in args)
        return Text(f"{a.at(PRODUCT)} {sign} {b.at(SIGN)}", PRODUCT, a.constant and b.constant)
    called = w.file.helper("floor_div" if op == "floordiv" else "floor_mod")
    return Text(f"{called}({', '.join(w.strict(a, order).code for a in args)})")


def extreme(w: Writer, op: str, args: tuple[Value, ...], t: DType, order: Axes) -> Text:
    if t.is_bool:
        return infix(w, "or" if op == "max" else "and", args, t, order)
    found = [w.over(a, order) for a in args]
    if t != INT or all(x.constant for x in found):
        found = [w.certain(a, x) for a, x in zip(args, found, strict=True)]
    inside = ", ".join(x.code for x in found)
    return Text(f"tl.{op}imum({inside}{f', {_PROPAGATE}' if t.is_float else ''})")


def power(w: Writer, x: Value, y: Value, t: DType, order: Axes) -> Text:
    base = w.strict(x, order)
    known = y.value if isinstance(y, tile.Lit) else None
    if known in (0.5, -0.5):
        return Text(f"tl.{'sqrt' if known == 0.5 else 'rsqrt'}({base.code})")
    if isinstance(known, int | float) and known in _KNOWN_POWERS and (known > 0 or t.is_float):
        n = int(abs(known))
        text = base if n == 1 else Text(f"{known_power(w, n)}({base.code})")
        if n == 2 and isinstance(x, tile.Ref):
            text = Text(f"{base.at(PRODUCT)} * {base.at(SIGN)}", PRODUCT)
        return text if known > 0 else Text(f"1.0 / {text.at(SIGN)}", PRODUCT)
    called = "real_power" if t.is_float else "signed_power" if t.kind == "i" else "integer_power"
    return Text(f"{w.file.helper(called)}({base.code}, {w.full(y, order).code})")


def known_power(w: Writer, n: int) -> str:
    wanted = {2: "square", 3: "cube"}.get(n, f"power_{n}")
    return w.file.function(("power", n), wanted, lambda name: library.known_power(name, n))


def rand(w: Writer, args: tuple[Value, ...], order: Axes) -> Text:
    """The Philox block at an index of any length, as `einc.philox` defines it."""
    seed, *index = args
    words = [word(w, e, order) for e in index]
    while len(words) > 4:
        first = f"{words[0].at(PRODUCT)} * -1640531535 + {words[1].at(PRODUCT)}"  # 0x9E3779B1, signed
        words[:2] = [Text(first, SUM)]
    words += [Text("0")] * (4 - len(words))
    inside = ", ".join(w.code for w in words)
    return Text(f"{w.file.helper('random_float')}({w.strict(seed, order).code}, {inside})")


def word(w: Writer, e: Value, order: Axes) -> Text:
    """An index modulo 2**32, as a signed integer."""
    if isinstance(e, tile.Lit):
        return Text(str((int(e.value) + (1 << 31)) % (1 << 32) - (1 << 31)))
    return Text(f"tl.cast({w.strict(e, order).code}, tl.int32)")


def is_natural(w: Writer, v: Value) -> bool:
    """Is an integer certainly not negative?"""
    match v:
        case tile.Ref(name=name):
            return name in w.natural
        case tile.Lit(value=value):
            return not isinstance(value, str) and value >= 0
        case tile.ExtentOf():
            return True
        case tile.Elem(op="max", args=args):
            return any(is_natural(w, a) for a in args)
        case tile.Elem(op="mod", args=(_, b)):
            return is_natural(w, b)
        case tile.Elem(op="where", args=(_, a, b)):
            return is_natural(w, a) and is_natural(w, b)
        case tile.Elem(op="add" | "mul" | "floordiv" | "exactdiv" | "min", args=args):
            return all(is_natural(w, a) for a in args)
        case tile.Elem(op="abs"):
            return True
        case tile.Convert(dtype=dtype, arg=arg):
            have = w.dtype(arg)
            wraps = dtype.is_int and 0 < dtype.bits < (have.bits or 64) + (have.kind == "u")
            return dtype.kind == "u" or (is_natural(w, arg) and not wraps)
        case _:
            return w.dtype(v).kind in "ub"


def _is_raw(v: Value) -> bool:
    """Made of extents, scalar arguments and literals only: as wide as the caller's integers."""
    return all(isinstance(n, tile.ExtentOf | tile.ScalarArg | tile.Lit | tile.Elem) for n in walk_values(v))
