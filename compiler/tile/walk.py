"""The values and statements of a tile program, walked and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from operator import is_
from typing import Any, TypeVar, assert_never

from einc.base.types import INT
from einc.tile import (
    Convert,
    Dot,
    Elem,
    ExtentOf,
    Fill,
    Fold,
    Kernel,
    Let,
    Lit,
    Load,
    Loop,
    Ref,
    ScalarArg,
    Scan,
    Statement,
    Store,
    TileAxis,
    TileType,
    Value,
)

T = TypeVar("T")

# ---------------------------------------------------------------------------------------------------------------------
# Values


_LEAVES = frozenset((Ref, Lit, ExtentOf, ScalarArg))  # the kinds of values that have none below


def values_of(v: Value) -> tuple[Value, ...]:
    """The values directly below."""
    match v:
        case Elem(args=args) | Fold(args=args) | Scan(args=args):
            return args
        case Ref() | Lit() | ExtentOf() | ScalarArg():
            return ()
        case Convert(arg=arg):
            return (arg,)
        case Load(index=index, mask=mask):
            return index if mask is None else (*index, mask)
        case Dot(left=left, right=right, acc=acc, left_in=left_in, right_in=right_in):
            return (left, right, acc, *(p for p in (left_in, right_in) if p is not None))
        case Fill(value=value):
            return (value,)
        case _:
            assert_never(v)


def rebuild(v: Value, f: Callable[[Value], Value]) -> Value:
    """The same value with f applied to those directly below; the value itself where nothing changed."""
    match v:
        case Elem(op=op, args=args):
            new = tuple(map(f, args))
            return v if all(map(is_, new, args)) else Elem(op, new)
        case Ref() | Lit() | ExtentOf() | ScalarArg() | Fill():
            return v
        case Fold(args=args) | Scan(args=args):
            new = tuple(map(f, args))
            return v if all(map(is_, new, args)) else replace(v, args=new)
        case Convert(dtype=dtype, arg=arg):
            below = f(arg)
            return v if below is arg else Convert(dtype, below)
        case Load(index=index, mask=mask):
            at, where = tuple(map(f, index)), None if mask is None else f(mask)
            return v if where is mask and all(map(is_, at, index)) else replace(v, index=at, mask=where)
        case Dot(left=left, right=right, acc=acc, left_in=left_in, right_in=right_in):
            x, y, z = f(left), f(right), f(acc)
            p, q = (None if p is None else f(p) for p in (left_in, right_in))
            same = x is left and y is right and z is acc and p is left_in and q is right_in
            return v if same else replace(v, left=x, right=y, acc=z, left_in=p, right_in=q)
        case _:
            assert_never(v)


def walk_values(*roots: Value) -> Iterator[Value]:
    """Every value in some expressions, parents first."""
    stack = [*reversed(roots)]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Elem):  # as most that have any below are
            stack += node.args[::-1]
        elif type(node) not in _LEAVES:
            stack += values_of(node)[::-1]


def names_in(*roots: Value) -> set[str]:
    """The names that some expressions read."""
    return {v.name for v in walk_values(*roots) if isinstance(v, Ref)}


# ---------------------------------------------------------------------------------------------------------------------
# Statements


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a statement stands: the types of the names bound there, and the loops around it, outermost first."""

    names: dict[str, TileType] = field(default_factory=dict)
    loops: tuple[Loop, ...] = ()

    def inside(self, loop: Loop) -> Scope:
        """Where the first statement of a loop stands."""
        return Scope(self.names | {loop.axis.name: loop_position(loop.axis)} | _states(loop), (*self.loops, loop))

    def bind(self, s: Statement) -> None:
        """Add the names that a statement binds."""
        match s:
            case Let(names=(name,), types=(type_,)):
                self.names[name] = type_
            case Let(names=names, types=types):
                self.names.update(zip(names, types, strict=True))
            case Loop():
                self.names.update(_states(s))
            case Store():
                pass
            case _:
                assert_never(s)


def _states(loop: Loop) -> dict[str, TileType]:
    return {c.name: c.type for c in loop.carried}


def loop_position(axis: TileAxis) -> TileType:
    """The type of a loop axis's position inside the loop."""
    return TileType(INT, (axis.name,) if axis.blocked else ())


def walk(
    body: Iterable[Statement], scope: Scope | None = None, full: bool = False
) -> Iterator[tuple[Statement, Scope]]:
    """Every statement with its scope, a loop before the statements in it; with unmasked bodies of loops, if `full`."""
    here = scope or Scope()
    for s in body:
        yield s, here
        if isinstance(s, Loop):
            yield from walk(s.body, here.inside(s), full)
            yield from walk(s.full.body if full and s.full is not None else (), here.inside(s), full)
        here.bind(s)


def each(body: Iterable[Statement]) -> Iterator[Statement]:
    """Every statement, a loop before the statements in it: the walk without scopes."""
    stack = [iter(body)]
    while stack:
        for s in stack[-1]:
            yield s
            if isinstance(s, Loop):
                stack.append(iter(s.body))
                break
        else:
            stack.pop()


def rewritten(
    body: Iterable[Statement], f: Callable[[Statement, Scope], Iterable[Statement]], scope: Scope | None = None
) -> tuple[Statement, ...]:
    """The statements that f makes of every statement in its scope; a loop comes with its body already rewritten."""
    here = scope or Scope()
    body = tuple(body)
    made: list[Statement] = []
    for s in body:
        given = s
        if isinstance(s, Loop) and (inner := rewritten(s.body, f, here.inside(s))) is not s.body:
            given = replace(s, body=inner)
        made += f(given, here)
        here.bind(s)
    return body if len(made) == len(body) and all(map(is_, made, body)) else tuple(made)


def own_values(s: Statement) -> tuple[Value, ...]:
    """Every whole expression of a statement, without those of the statements in it."""
    match s:
        case Let(value=value):
            return (value,)
        case Store(index=index, value=value, mask=mask):
            return (*index, value, *(() if mask is None else (mask,)))
        case Loop(carried=carried):
            return (*(c.init for c in carried), *s.bounds)
        case _:
            assert_never(s)


def over_values(s: Statement, f: Callable[[Value], Value]) -> Statement:
    """The statement with f applied to its whole expressions, and to those of the statements in it."""
    match s:
        case Let(names=names, types=types, value=value):
            made = f(value)
            return s if made is value else Let(names, types, made)
        case Store(index=index, value=value, mask=mask):
            return replace(s, index=tuple(map(f, index)), value=f(value), mask=None if mask is None else f(mask))
        case Loop(carried=carried, body=body, start=start, stop=stop, full=full):
            if full is not None:
                full = replace(
                    full,
                    start=None if full.start is None else f(full.start),
                    stop=f(full.stop),
                    holds=tuple(map(f, full.holds)),
                    body=tuple(over_values(x, f) for x in full.body),
                )
            return replace(
                s,
                carried=tuple(replace(c, init=f(c.init)) for c in carried),
                body=tuple(over_values(x, f) for x in body),
                start=None if start is None else f(start),
                stop=None if stop is None else f(stop),
                full=full,
            )
        case _:
            assert_never(s)


def renaming(names: Mapping[str, str]) -> Callable[[Value], Value]:
    """Replaces names in a value."""

    def renamed(v: Value) -> Value:
        return Ref(names.get(v.name, v.name)) if isinstance(v, Ref) else rebuild(v, renamed)

    return renamed


def roots(body: tuple[Statement, ...]) -> Iterator[Value]:
    """Every whole expression of the statements, those of loops included."""
    return (v for s in each(body) for v in own_values(s))


def loops(body: Iterable[Statement]) -> Iterator[Loop]:
    """Every loop, outer ones first."""
    for s in body:
        if isinstance(s, Loop):
            yield s
            yield from loops(s.body)


def lets(body: Iterable[Statement]) -> Iterator[Let]:
    """Every binding, those of loops included."""
    for s in body:
        if isinstance(s, Let):
            yield s
        elif isinstance(s, Loop):
            yield from lets(s.body)


def values_in(body: tuple[Statement, ...]) -> Iterator[Value]:
    """Every value in the statements, those of loops included."""
    return walk_values(*roots(body))


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


def once(f: Callable[[Kernel], T]) -> Callable[[Kernel], T]:
    """The function, which works its result out once for each kernel, where it is kept: passes, their checks and
    generators ask again and again. Nobody changes what it gives."""
    return _kept(f, lambda kernel: kernel.found)


def once_for_all(f: Callable[[Kernel], T]) -> Callable[[Kernel], T]:
    """The same for what no choices decide, which kernels with others know as well."""
    return _kept(f, lambda kernel: kernel.lasting)


def _kept(f: Callable[[Kernel], T], where: Callable[[Kernel], dict[str, Any]]) -> Callable[[Kernel], T]:
    name = f"{f.__module__}.{f.__qualname__}"

    @wraps(f)
    def known(kernel: Kernel) -> T:
        found = where(kernel)
        if name not in found:
            found[name] = f(kernel)
        result: T = found[name]
        return result

    return known


@once_for_all
def every_value(kernel: Kernel) -> tuple[Value, ...]:
    """Every value in the statements of a kernel, those of loops included."""
    return tuple(values_in(kernel.body))


@once_for_all
def bindings(kernel: Kernel) -> tuple[Let, ...]:
    """Every binding of a kernel, those of loops included."""
    return tuple(lets(kernel.body))


@once_for_all
def tile_axes(kernel: Kernel) -> Mapping[str, TileAxis]:
    """Every tile axis of a kernel by name: the grid's, then the loops' in order."""
    return {a.name: a for a in (*kernel.grid, *kernel.whole, *(loop.axis for loop in loops(kernel.body)))}


def repeated_axes(kernel: Kernel) -> frozenset[str]:
    """The blocked axes of the grid that a stored tensor lacks: every block writes it, even one without positions.

    What blocks only add to needs none of these.
    """
    added = {s.tensor for s in each(kernel.body) if isinstance(s, Store) and s.adds}
    stored = [{a for dim in b.dims for a in dim} for b in kernel.buffers if b.written and b.name not in added]
    return frozenset(a.name for a in kernel.grid if a.blocked and any(axes.isdisjoint(a.axes) for axes in stored))


def segments(kernel: Kernel) -> frozenset[str]:
    """The tile axes of walks over segments: data bounds them, and decides whatever is read along them.

    They are short as a rule, and what they read does not lie side by side.
    """
    read = _depending(kernel.body, lambda v: isinstance(v, Load))
    found = [loop for loop in loops(kernel.body) if any(b is not None and read(b) for b in (loop.start, loop.stop))]
    return frozenset(loop.axis.name for loop in found if _is_gathered(loop, read))


def _is_gathered(loop: Loop, read: Callable[[Value], bool]) -> bool:
    """Does data decide the index of all that is read along a walk?"""
    along = _depending(loop.body, lambda v: isinstance(v, Ref) and v.name == loop.axis.name)
    indices = [v.index for v in values_in(loop.body) if isinstance(v, Load) and any(map(along, v.index))]
    return all(any(map(read, index)) for index in indices)


def _depending(body: tuple[Statement, ...], on: Callable[[Value], bool]) -> Callable[[Value], bool]:
    """Tells whether a value depends on some others, through whatever is bound in these statements."""
    names: set[str] = set()

    def depends(v: Value) -> bool:
        return any(on(x) or (isinstance(x, Ref) and x.name in names) for x in walk_values(v))

    for s in lets(body):
        if depends(s.value):
            names.update(s.names)
    return depends
