"""Values at a position, as the language writes them: a graph of operations becomes definitions and expressions.

A value that several others use is written once, as a definition of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from einc.base.intervals import Interval, applied
from einc.base.ops import ATOM, OPS, SIGN, sides
from einc.base.types import BY_NAME
from einc.ein import Const
from einc.ein.printer import bracketed, print_expr

Number = bool | int | float

_UNBOUNDED = 1 << 62  # more positions than any axis has
_SMALL = 4  # nodes; what is not larger is written again where it is used again


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """An operation of `einc.base.ops`, a type or a function of the language, applied to values; compared by identity.

    A leaf has no operation: it is `text`, which binds by `binding`; `read` reads the tensor `text`. `axes` are those
    that the value depends on, `bounds` its least and greatest value if it is an integer or truth value and they are
    known, `always` those whatever the extents of axes are, `number` what it is if it is a literal.
    """

    op: str
    args: tuple[Value, ...] = ()
    text: str = ""
    binding: int = ATOM
    axes: frozenset[str] = frozenset()
    bounds: Interval | None = None
    always: Interval | None = None
    number: Number | None = None
    size: int = field(default=1)


def axis(name: str, extent: int | None) -> Value:
    """The position along an axis, of which the extent may be known."""
    always = 0, _UNBOUNDED - 1
    return Value(
        "", text=name, axes=frozenset((name,)), bounds=always if extent is None else (0, extent - 1), always=always
    )


def extent(name: str) -> Value:
    """The extent of an axis."""
    return Value("", text=f"|{name}|", bounds=(0, _UNBOUNDED), always=(0, _UNBOUNDED))


def number(value: Number) -> Value:
    """A literal."""
    text = print_expr(Const(value))
    bounds = (int(value), int(value)) if isinstance(value, int) else None
    binding = SIGN if text.startswith("-") else ATOM
    return Value("", text=text, binding=binding, bounds=bounds, always=bounds, number=value)


def read(tensor: str, index: Sequence[Value], truth: bool = False) -> Value:
    """A tensor at a position; `truth` says that its elements are truth values."""
    axes = frozenset().union(*(e.axes for e in index))
    bounds, size = (0, 1) if truth else None, _size([e for e in index if e.op])
    return Value("read", tuple(index), tensor, axes=axes, bounds=bounds, always=bounds, size=size)


def apply(op: str, *args: Value) -> Value:
    """An operation, a cast or a function applied; a conjunction or disjunction with a literal is decided."""
    if op in ("and", "or", "not") and (decided := _logic(op, args)) is not None:
        return decided
    bounds, always = _bounds(op, [a.bounds for a in args]), _bounds(op, [a.always for a in args])
    axes = frozenset().union(*(a.axes for a in args))
    return Value(op, args, axes=axes, bounds=bounds, always=always, size=_size(args))


def total(axis: str, summand: Value) -> Value:
    """The sum over an axis."""
    return Value(f"sum[{axis}]", (summand,), axes=summand.axes - {axis}, size=_size((summand,)))


def reading(value: Value, instead: Callable[[Value], Value]) -> Value:
    """The value with other reads in place of its own."""
    made: dict[int, Value] = {}

    def of(v: Value) -> Value:
        if id(v) not in made:
            args = tuple(map(of, v.args))
            same = all(x is y for x, y in zip(args, v.args, strict=True))
            kept = v if same else replace(v, args=args)
            made[id(v)] = instead(kept) if v.op == "read" else kept
        return made[id(v)]

    return of(value)


def _size(args: Sequence[Value]) -> int:
    return 1 + sum(a.size for a in args)


def _bounds(op: str, known: Sequence[Interval | None]) -> Interval | None:
    """The bounds of an operation, given those of its arguments."""
    if op in BY_NAME:
        if BY_NAME[op].is_bool:
            return 0, 1
        return known[0] if BY_NAME[op].is_int else None
    return applied(op, known)


def _logic(op: str, args: Sequence[Value]) -> Value | None:
    """`true and x` is x, `false and x` is false, and so on."""
    if op == "not":
        return number(not args[0].number) if isinstance(args[0].number, bool) else None
    neutral = op == "and"
    for this, other in (args, args[::-1]):
        if isinstance(this.number, bool):
            return other if this.number is neutral else this
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Text


@dataclass(frozen=True, slots=True)
class Written:
    """Lines of definitions, and the expressions that read them."""

    definitions: tuple[str, ...]
    expressions: tuple[str, ...]


def write(values: Sequence[Value], order: Sequence[str]) -> Written:
    """The values as expressions, after definitions of what is used more than once; `order` is that of the axes."""
    uses = Counter(id(a) for node in _nodes(values) for a in node.args)
    uses.update(id(v) for v in values)
    writer = _Writer({key for key, times in uses.items() if times > 1}, tuple(order))
    expressions = tuple(writer.text(v)[0] for v in values)
    return Written(tuple(writer.definitions), expressions)


def _nodes(values: Sequence[Value]) -> Iterator[Value]:
    """Every node once."""
    seen: set[int] = set()
    stack = list(values)
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack += node.args


class _Writer:
    def __init__(self, shared: set[int], order: tuple[str, ...]) -> None:
        self.shared, self.order = shared, order
        self.definitions: list[str] = []
        self.named: dict[int, str] = {}

    def text(self, v: Value) -> tuple[str, int]:
        """The text of a value, and how tightly it binds."""
        if id(v) in self.named:
            return self.named[id(v)], ATOM
        if id(v) not in self.shared or v.size <= _SMALL:
            return self.whole(v)
        body = self.whole(v)[0]
        name = f"x{len(self.named) + 1}[{', '.join(a for a in self.order if a in v.axes)}]"
        self.definitions.append(f"{name} = {body}")
        self.named[id(v)] = name
        return name, ATOM

    def whole(self, v: Value) -> tuple[str, int]:
        if not v.op:
            return v.text, v.binding
        parts = [self.text(a) for a in v.args]
        listed = ", ".join(text for text, _ in parts)
        if v.op == "read":
            return f"{v.text}[{listed}]", ATOM
        op = OPS.get(v.op)
        if op is None or not op.infix:
            return f"{v.op}({listed})", ATOM
        if op.arity == 1:
            space = " " if op.infix.isalpha() else ""
            return f"{op.infix}{space}{bracketed(*parts[0], op.binding)}", op.binding
        left, right = sides(op)
        return f"{bracketed(*parts[0], left)} {op.infix} {bracketed(*parts[1], right)}", op.binding
