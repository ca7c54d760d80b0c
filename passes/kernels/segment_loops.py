"""Walk the blocks that no mask touches without masks.

    loop t: f(where p then x else y)   -->   loop t, p holds: f(x);   loop t, elsewhere: f(where p then x else y)

Where p holds for the whole tile is known before the loop, as an interval of t (`limits`). Between those segments the
states go on. It pays where a block is computed with: in loops that contract. What only reduces rows waits for memory
and hides its masks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from einc import tile
from einc.base.ops import DENIED, MIRRORED
from einc.base.types import BOOL
from einc.tile import Elem, Lit, Value
from einc.tile.live import live
from einc.tile.masks import inside
from einc.tile.typing import axes_of, scope
from einc.tile.walk import Scope, bindings, loop_position, rebuild, rewritten, tile_axes, values_in, walk_values
from einc.tile.windows import by_descriptor


def segment_loops(kernel: tile.Kernel) -> tile.Kernel:
    """The kernel with an unmasked body for every loop that gains by one."""
    free = frozenset(by_descriptor(kernel))
    axes = tile_axes(kernel).values()
    edges = frozenset(s.names[0] for s in bindings(kernel) if any(s.value == inside(a) for a in axes))
    body = rewritten(kernel.body, lambda s, here: _segmented(s, here, free, edges), Scope(scope(kernel)))
    return kernel if body == kernel.body else replace(kernel, body=live(body))


def _segmented(
    s: tile.Statement, here: Scope, free: frozenset[str], edges: frozenset[str]
) -> tuple[tile.Statement, ...]:
    return (replace(s, full=_full(s, here.inside(s).names, free, edges)) if isinstance(s, tile.Loop) else s,)


def _full(
    loop: tile.Loop, names: dict[str, tile.TileType], free: frozenset[str], edges: frozenset[str]
) -> tile.Full | None:
    """The loop's unmasked segment, if there is one that saves work; masks of loads from `free` tensors take none.

    `edges` are the names of what says which rows exist.
    """
    if loop.full is None or not any(isinstance(v, tile.Dot) for v in values_in(loop.body)):
        return None
    edge = inside(loop.axis, loop.stop if loop.exact else None)
    known = _Known((*loop.full.holds, edge), names, edges)
    body = live(known.body(loop.body), {c.after for c in loop.carried})
    return replace(loop.full, body=body) if _masks(body, free) < _masks(loop.body, free) else None


def _masks(body: tuple[tile.Statement, ...], free: frozenset[str]) -> int:
    """How many terms the masks of loads, dots and selections have."""
    masked = (v for v in values_in(body) if not (isinstance(v, tile.Load) and v.tensor in free))
    return sum(1 for v in masked for mask in _masks_of(v) or () if mask is not None for _ in walk_values(mask))


def _masks_of(v: Value) -> tuple[Value | None, ...] | None:
    """What may mask a load, a dot or a selection; None of what else there is."""
    match v:
        case tile.Load(mask=mask):
            return (mask,)
        case tile.Dot(left_in=left_in, right_in=right_in):
            return left_in, right_in
        case Elem(op="where", args=(mask, _, _)):
            return (mask,)
        case _:
            return None


class _Known:
    """Values where some predicates hold. No value loses an axis: a mask that alone spreads a whole value stays."""

    def __init__(self, holds: tuple[Value, ...], names: dict[str, tile.TileType], edges: frozenset[str]) -> None:
        self.edges = edges
        self.truths = {_normal(p): True for p in holds} | {
            _normal(Elem(DENIED[p.op], p.args)): False for p in holds if isinstance(p, Elem) and p.op in DENIED
        }
        self.names = names
        self.same: dict[str, Value] = {}  # names that are others where the predicates hold
        self.keeps = False  # every part keeps its axes

    def body(self, statements: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
        return tuple(self.statement(s) for s in statements)

    def statement(self, s: tile.Statement) -> tile.Statement:
        match s:
            case tile.Let(names=names, types=types, value=value):
                self.names.update(zip(names, types, strict=True))
                if (truth := self.truths.get(tile.Ref(names[0]))) is not None:
                    self.truths[_normal(value)] = truth  # what a name is known to be is known of what it names
                known = self.value(value)
                if isinstance(known, Lit) and known.dtype == BOOL and len(names) == 1:
                    self.truths[tile.Ref(names[0])] = bool(known.value)
                found = self.whole(value)
                if isinstance(found, tile.Ref):
                    self.same[names[0]] = found
                return replace(s, value=found)
            case tile.Store(value=value, mask=mask):
                return replace(s, value=self.whole(value), mask=None if mask is None else self.mask(mask))
            case tile.Loop():
                return self.loop(s)
            case _:
                assert_never(s)

    def loop(self, s: tile.Loop) -> tile.Loop:
        """A loop within, with what is known left out of all that it starts from and runs."""
        carried = tuple(replace(c, init=self.whole(c.init)) for c in s.carried)
        self.names |= {s.axis.name: loop_position(s.axis), **{c.name: c.type for c in s.carried}}
        full = s.full
        if full is not None:
            first = None if full.start is None else self.value(full.start)
            full = replace(full, start=first, stop=self.value(full.stop), body=self.inside(full.body))
        start, stop = (None if v is None else self.value(v) for v in (s.start, s.stop))
        return replace(s, carried=carried, body=self.inside(s.body), start=start, stop=stop, full=full)

    def inside(self, body: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
        """A loop's body; what is learnt of its names holds in it alone."""
        truths, same = dict(self.truths), dict(self.same)
        made = self.body(body)
        self.truths, self.same = truths, same
        return made

    def whole(self, v: Value) -> Value:
        """The value with what is known in it left out, over the same axes: parts may lose some that others have."""
        found = self.value(v)
        if axes_of(found, self.names) != axes_of(v, self.names):
            self.keeps = True
            found = self.spread(self.value(v), v)
            self.keeps = False
        return found

    def value(self, v: Value) -> Value:
        """The value with what is known in it left out."""
        truth = self.truths.get(_normal(v))
        if truth is not None:
            return Lit(truth, BOOL)
        match v:
            case tile.Ref(name=name):
                return self.same.get(name, v)
            case tile.Load(index=index, mask=mask):
                found = tuple(self.value(i) for i in index)
                return replace(v, index=found, mask=None if mask is None else self.mask(mask))
            case Elem(op="and" | "or" as op, args=(a, b)):
                return _joined(op, self.value(a), self.value(b))
            case Elem(op="not", args=(a,)):
                x = self.value(a)
                return Lit(not x.value, BOOL) if isinstance(x, Lit) else Elem("not", (x,))
            case Elem(op="where", args=(p, a, b)):
                c, x, y = self.value(p), self.value(a), self.value(b)
                chosen = (x if c.value else y) if isinstance(c, Lit) else Elem("where", (c, x, y))
                return self.spread(chosen, Elem("where", (p, x, y))) if self.keeps else chosen
            case tile.Dot(left=left, right=right, acc=acc, left_in=left_in, right_in=right_in):
                first, second = (None if p is None else self.counting(p) for p in (left_in, right_in))
                x, y, z = (self.whole(a) for a in (left, right, acc))
                return replace(v, left=x, right=y, acc=z, left_in=first, right_in=second)
            case tile.Fold(monoid=monoid, args=(a,)) if monoid.truths and isinstance(known := self.value(a), Lit):
                return known  # tiles have positions
            case tile.Fold(args=args) | tile.Scan(args=args):
                return replace(v, args=tuple(map(self.whole, args)))
            case _:
                return rebuild(v, self.value)

    def mask(self, mask: Value) -> Value | None:
        found = self.value(mask)
        return None if found == Lit(True, BOOL) else found

    def counting(self, mask: Value) -> Value | None:
        """What counts for rows, or columns; where all do that exist, nothing has to be told apart."""
        found = self.mask(mask)
        return None if isinstance(found, tile.Ref) and found.name in self.edges else found

    def spread(self, found: Value, v: Value) -> Value:
        """What was found for a value, if it extends over the same axes."""
        return found if axes_of(found, self.names) == axes_of(v, self.names) else v


def _joined(op: str, a: Value, b: Value) -> Value:
    """A conjunction or disjunction of which a side may be known."""
    decides = op == "or"
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Lit):
            return x if x.value == decides else y
    return Elem(op, (a, b))


def _normal(v: Value) -> Value:
    """One form for a comparison and its mirror image."""
    return Elem(MIRRORED[v.op], v.args[::-1]) if isinstance(v, Elem) and v.op in ("gt", "ge") else v
