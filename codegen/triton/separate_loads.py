"""Give the dots of a loop loads of their own, and loads masks that are there before the dots.

    x = load T[e]; ... x ... dot(x, y)   -->   x = load T[e] apart; z = load T[e]; ... x ... dot(z, y)      in a loop

A load that a loop keeps in flight has its ring of buffers sized for one kind of reader: where a dot of Hopper, which
reads them late, shares it with others, Triton (3.6 and 3.7) lets a copy overwrite what the dot still reads.

    p = f(dot(x, y)); z = load T[e], p   -->   z = load T[e]; z = where p then z else 0                    in a loop

What a load in flight is masked by, Triton (3.6) would have to compute a block ahead, which it cannot do with a dot.

    z = load T[e]; dot(x in p, z)      -->   z = load T[e], some row of the tile has p; dot(x, z)          in a loop

What no row of a dot counts is not read, where nothing else in the loop needs it, and where the rows that count are an
interval: a side that was loaded whole would have to go through registers, and back, to be masked, and to ask all rows
of a tile takes as long. Where data decides beside, such as a document of each row, one row tells for all if they have
the same, as the rows of most tiles do; only those of others are asked, and only for a side of one dot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from einc import tile
from einc.base.ops import MIRRORED
from einc.base.types import BOOL, INT, DType
from einc.ein.monoids import MONOIDS
from einc.ein.rewriting import unused
from einc.pipeline import Context
from einc.tile import Dot, Elem, Lit, Ref, TileType, Value
from einc.tile.live import live
from einc.tile.masks import conjunction, conjuncts, inside
from einc.tile.typing import axes_of, bound_names, dtype_of, scope
from einc.tile.walk import Scope, lets, over_values, rebuild, rewritten, tile_axes, values_in, values_of, walk_values
from einc.tile.windows import by_descriptor

_NONE = Lit(0, INT)


def separate_loads(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """The kernel with a load for every dot of a loop that shares one with other work, and masks that loads can have.

    Where torch may run the tiles, which leaves out positions row by row, and where the generator's dots do so, dots
    keep their conditions.
    """
    conditions = (c for v in values_in(kernel.body) if isinstance(v, Dot) for c in (v.left_in, v.right_in))
    masked = any(c is not None for c in conditions)  # or nothing has to be known of the generator's dots
    by_loads = masked and context.target.vendor != "cpu" and not context.backend.counts(kernel, context)
    taken, unmasked, axes = bound_names(kernel), by_descriptor(kernel).keys(), tile_axes(kernel)
    ends = {a.name: inside(a) for a in axes.values() if a.blocked}
    edges = {s.names[0]: a for s in lets(kernel.body) for a, end in ends.items() if s.value == end}

    def separated(s: tile.Statement, here: Scope) -> tuple[tile.Statement, ...]:
        if not isinstance(s, tile.Loop):
            return (s,)
        before, counted = list[tile.Let](), s
        if by_loads:
            before, counted = _Counted(s, here.inside(s).names, unmasked, axes, edges).loop_masked(taken)
        return (*before, replace(counted, body=_separated(_early(counted.body, taken), taken)))

    return replace(kernel, body=live(rewritten(kernel.body, separated, Scope(scope(kernel)))))


def _early(body: tuple[tile.Statement, ...], taken: set[str]) -> tuple[tile.Statement, ...]:
    """The body with masks of loads that no dot in it decides; the others choose what was loaded."""
    late: set[str] = set()
    made: list[tile.Statement] = []

    def is_late(v: Value) -> bool:
        return any(isinstance(x, tile.Dot) or (isinstance(x, Ref) and x.name in late) for x in walk_values(v))

    for s in body:
        if isinstance(s, tile.Let) and is_late(s.value):
            late.update(s.names)
        match s:
            case tile.Let(names=(name,), types=(type_,), value=tile.Load(mask=mask) as load) if name in late:
                terms = conjuncts(mask)
                decided = conjunction([t for t in terms if is_late(t)])
                if decided is None or any(map(is_late, load.index)):
                    made.append(s)
                    continue
                whole = unused(f"{name}_all", taken)
                taken.add(whole)
                kept = replace(load, mask=conjunction([t for t in terms if not is_late(t)]))
                made.append(replace(s, names=(whole,), value=kept))
                made.append(replace(s, value=Elem("where", (decided, Ref(whole), _zero(type_.dtype)))))
            case _:
                made.append(s)
    return tuple(made)


class _Counted:
    """The body of a loop whose dots count some of their positions: which loads may leave out what no dot counts."""

    def __init__(
        self,
        loop: tile.Loop,
        names: dict[str, TileType],
        unmasked: Collection[str],
        axes: Mapping[str, tile.TileAxis],
        edges: Mapping[str, str],
    ) -> None:
        self.loop, self.unmasked, self.axes, self.edges = loop, unmasked, axes, edges
        self.lets = {s.names[0]: s for s in loop.body if isinstance(s, tile.Let) and len(s.names) == 1}
        self.names = {**names, **{n: s.types[0] for n, s in self.lets.items()}}
        dots = [v for v in values_in(loop.body) if isinstance(v, Dot)]
        self.multiplied = Counter(x.name for d in dots for x in (d.left, d.right) if isinstance(x, Ref))
        self.single = all(isinstance(s, tile.Let) and len(s.names) == 1 for s in loop.body)

    def loop_masked(self, taken: set[str]) -> tuple[list[tile.Let], tile.Loop]:
        """The loop with its masks, and what has to be bound before it."""
        found = {name: at for name, at in self.found() if not self.matters(name, at[1])} if self.single else {}
        names: dict[tuple[str, Value], str] = {}
        before: list[tile.Let] = []

        def bind(wanted: str, dtype: DType, value: Value) -> Ref:
            made = next((x for x in before if x.value == value), None)
            if made is None:
                made = tile.Let((unused(wanted, taken),), (TileType(dtype),), value)
                taken.add(made.names[0])
                before.append(made)
            return Ref(made.names[0])

        made: list[tile.Statement] = []
        for s in self.loop.body:
            if isinstance(s, tile.Let) and s.names[0] in found and isinstance(s.value, tile.Load):
                axis, p, inner = found[s.names[0]]
                if (axis, p) not in names:
                    made += [x for x in self.ahead(p) if x not in made]
                    names[axis, p] = unused("counted", taken)
                    taken.add(names[axis, p])
                    value = self.somewhere(p, axis, bind)
                    made.append(tile.Let((names[axis, p],), (TileType(BOOL, (inner,)),), value))
                mask = conjunction([*conjuncts(s.value.mask), Ref(names[axis, p])])
                s = replace(s, value=replace(s.value, mask=mask))
            if s not in made:
                made.append(over_values(s, lambda v: self.without(v, found)))
        full = self.loop.full
        if full is not None:
            held = {x for h in full.holds for x in conjuncts(self.spelled(h))}
            sure = (n for (_, p), n in names.items() if set(conjuncts(p)) <= held)
            full = replace(full, holds=(*full.holds, *map(Ref, sure)))
        return before, replace(self.loop, body=tuple(made), full=full)

    def somewhere(self, p: Value, axis: str, bind: Callable[[str, DType, Value], Ref]) -> Value:
        """Whether any row that exists has a condition; what is bound is there before the loop."""
        told = self.told(p, axis)
        assert told is not None
        bounds, others = told
        least, most = self.ends(axis, axis, INT, bind) if bounds else (Ref(axis), Ref(axis))
        terms = [] if not bounds else conjuncts(_of_interval(bounds, axis, least, most, self.names))
        if not others:
            found = conjunction(terms)
            assert found is not None
            return found
        rows = dict.fromkeys(x for term in others for x in self.of_rows(term, axis))
        ends = {x: self.ends(x.name, axis, self.names[x.name].dtype, bind) for x in rows}
        same = conjunction([Elem("eq", (low, high)) for low, high in ends.values()])
        assert same is not None
        one = conjunction([*terms, *(_replaced(term, {x: low for x, (low, _) in ends.items()}) for term in others)])
        each = tile.Fold(MONOIDS["any"], axis, (Elem("and", (inside(self.axes[axis]), p)),))
        assert one is not None
        return Elem("where", (bind(f"{axis}_same", BOOL, same), one, each))

    def ends(self, name: str, axis: str, dtype: DType, bind: Callable[[str, DType, Value], Ref]) -> tuple[Ref, Ref]:
        """The least and the greatest value of a name at the positions of a block that exist."""
        exists = inside(self.axes[axis])

        def end(word: str, monoid: str) -> Ref:
            unit = Lit(MONOIDS[monoid].identity[0], dtype)
            kept = Elem("where", (exists, Ref(name), unit))
            return bind(f"{name}_{word}", dtype, tile.Fold(MONOIDS[monoid], axis, (kept,)))

        return end("least", "min"), end("most", "max")

    def told(self, p: Value, axis: str) -> tuple[list[Value], list[Value]] | None:
        """The terms of a condition that bound rows, and the others, if all that rows decide of these are integers that
        are there before the loop; else None."""
        terms = conjuncts(p)
        bounds = [t for t in terms if _of_interval([t], axis, Ref(axis), Ref(axis), self.names) is not None]
        others = [t for t in terms if t not in bounds]
        for t in others:
            still: dict[Value, Value] = dict.fromkeys(self.of_rows(t, axis), _NONE)
            if not still or axis in axes_of(_replaced(t, still), self.names):
                return None
        return bounds, others

    def of_rows(self, v: Value, axis: str) -> Iterator[Ref]:
        """The names of integers that rows decide, and the loop does not, in a condition."""
        moving = {axis, *self.lets, *(c.name for c in self.loop.carried)}
        names = (x for x in walk_values(v) if isinstance(x, Ref) and x.name not in moving)
        return (x for x in names if self.names[x.name].axes == (axis,) and self.names[x.name].dtype.is_int)

    def without(self, v: Value, found: Collection[str]) -> Value:
        """The value with dots without the conditions that the loads of their sides have."""
        made = rebuild(v, lambda below: self.without(below, found))
        if not isinstance(made, Dot):
            return made
        left_in = None if isinstance(made.right, Ref) and made.right.name in found else made.left_in
        right_in = None if isinstance(made.left, Ref) and made.left.name in found else made.right_in
        return replace(made, left_in=left_in, right_in=right_in)

    def found(self) -> Iterator[tuple[str, tuple[str, Value, str]]]:
        """Loads that are sides of dots, with the axis, the condition and the inner axis of what the other side counts.

        The condition has to be there before the dots.
        """
        for d in (v for v in values_in(self.loop.body) if isinstance(v, Dot) and v.inner == self.loop.axis.name):
            for side, p, axis in ((d.right, d.left_in, d.row), (d.left, d.right_in, d.column)):
                if p is None or not isinstance(side, Ref) or side.name not in self.lets or d.batch:
                    continue
                load, ahead = self.lets[side.name].value, self.ahead(p)
                if not isinstance(load, tile.Load) or load.tensor in self.unmasked:
                    continue
                late = self.lets[side.name] in ahead or any(isinstance(v, Dot) for v in values_in(tuple(ahead)))
                p = conjunction(self.bounds(self.spelled(p), axis))
                told = None if p is None else self.told(p, axis)
                if told is not None and told[1] and self.multiplied[side.name] > 1:
                    continue  # another dot would have to wait for what data decides
                if not late and p is not None and told is not None and set(axes_of(p, self.names)) == {axis, d.inner}:
                    yield side.name, (axis, p, d.inner)

    def bounds(self, p: Value, axis: str) -> list[Value]:
        """The terms of a condition, but that positions of an axis exist: what others compute is never kept."""
        return [t for t in conjuncts(p) if not (isinstance(t, Ref) and self.edges.get(t.name) == axis)]

    def ahead(self, p: Value) -> list[tile.Let]:
        """The statements that a condition needs, in order."""
        needed = {v.name for v in walk_values(p) if isinstance(v, Ref)}
        for s in reversed(self.loop.body):
            if isinstance(s, tile.Let) and s.names[0] in needed:
                needed |= {v.name for v in walk_values(s.value) if isinstance(v, Ref)}
        return [s for s in self.lets.values() if s.names[0] in needed]

    def matters(self, name: str, p: Value) -> bool:
        """Does it matter what a name is at positions where a condition fails?"""
        terms = set(conjuncts(p))
        if name in {c.after for c in self.loop.carried}:
            return True
        return any(self.reaches(s, name, terms, p) for s in self.lets.values())

    def reaches(self, s: tile.Let, name: str, terms: AbstractSet[Value], p: Value) -> bool:
        spread = False
        stack = [s.value]
        while stack:
            v = stack.pop()
            match v:
                case Ref(name=own) if own == name:
                    spread = True
                case Elem(op="where", args=(c, _, y)) if terms <= set(conjuncts(self.spelled(c))):
                    stack += [c, y]
                case Dot(left_in=own) if own is not None and v.right == Ref(name) and self.implies(own, terms):
                    stack += [v.left, v.acc]
                case Dot(right_in=own) if own is not None and v.left == Ref(name) and self.implies(own, terms):
                    stack += [v.right, v.acc]
                case Dot(inner=inner) if inner == self.loop.axis.name and Ref(name) in (v.left, v.right):
                    return True
                case tile.Fold() | tile.Scan() | tile.Load() if any(x == Ref(name) for x in walk_values(v)):
                    return True
                case _:
                    stack += values_of(v)
        return spread and self.matters(s.names[0], p)

    def implies(self, own: Value, terms: AbstractSet[Value]) -> bool:
        return terms <= set(conjuncts(self.spelled(own)))

    def spelled(self, v: Value) -> Value:
        """A condition without the names of conditions in it."""
        if isinstance(v, Ref) and v.name in self.lets and self.lets[v.name].types[0].dtype == BOOL:
            value = self.lets[v.name].value
            return v if isinstance(value, tile.Fold | tile.Load) else self.spelled(value)
        return rebuild(v, self.spelled) if isinstance(v, Elem) else v


def _replaced(v: Value, others: Mapping[Value, Value]) -> Value:
    return others[v] if v in others else rebuild(v, lambda below: _replaced(below, others))


def _of_interval(terms: list[Value], axis: str, least: Value, most: Value, names: dict[str, TileType]) -> Value | None:
    """Whether any position of an axis from `least` to `most` has all terms, if these are bounds of it; else None."""
    lowest: list[Value] = []
    beyond: list[Value] = []
    for term in terms:
        if not (isinstance(term, Elem) and term.op in ("lt", "le", "gt", "ge")):
            return None
        a, b = (_linear(x, axis, names) for x in term.args)
        if a is None or b is None or abs(a[0] - b[0]) != 1:
            return None
        op = term.op if a[0] > b[0] else MIRRORED[term.op]
        sides = (b[1], a[1]) if a[0] > b[0] else (a[1], b[1])
        bound = sides[0] if sides[1] == _NONE else Elem("sub", sides)
        bound = Elem("add", (bound, Lit(1, INT))) if op in ("gt", "le") else bound
        (lowest if op in ("gt", "ge") else beyond).append(bound)
    found = [Elem("le", (x, most)) for x in lowest] + [Elem("lt", (least, y)) for y in beyond]
    return conjunction([*found, *(Elem("lt", (x, y)) for x in lowest for y in beyond)])


def _linear(v: Value, axis: str, names: dict[str, TileType]) -> tuple[int, Value] | None:
    """An index as a multiple of the position along an axis and what is free of it; None for anything else."""
    match v:
        case Ref(name=name) if name == axis:
            return 1, _NONE
        case Elem(op="add" | "sub" as op, args=args):
            a, b = (_linear(x, axis, names) for x in args)
            if a is None or b is None:
                return None
            rest = Elem(op, (a[1], b[1])) if b[1] != _NONE else a[1]
            rest = b[1] if a[1] == _NONE and op == "add" else rest
            return (a[0] + b[0] if op == "add" else a[0] - b[0]), rest
        case Elem(op="neg", args=(x,)):
            a = _linear(x, axis, names)
            return None if a is None else (-a[0], _NONE if a[1] == _NONE else Elem("neg", (a[1],)))
        case _ if axis not in axes_of(v, names) and dtype_of(v, names) == INT:
            return 0, v
        case _:
            return None


def _zero(t: DType) -> tile.Lit:
    return tile.Lit(False if t.is_bool else 0.0 if t.is_float else 0, t)


def _separated(body: tuple[tile.Statement, ...], taken: set[str]) -> tuple[tile.Statement, ...]:
    uses = Counter(v.name for v in values_in(body) if isinstance(v, Ref))
    dots = [v for v in values_in(body) if isinstance(v, tile.Dot)]
    multiplied = Counter(side.name for d in dots for side in (d.left, d.right) if isinstance(side, Ref))
    split: list[tile.Statement] = []
    own: dict[Value, Value] = {}
    for s in body:
        match s:
            case tile.Let(names=(name,), value=tile.Load() as load) if 0 < multiplied[name] < uses[name]:
                again = unused(f"{name}_dot", taken)
                taken.add(again)
                own[Ref(name)] = Ref(again)
                split += [replace(s, names=(again,)), replace(s, value=replace(load, apart=True))]
            case tile.Let(value=value):
                split.append(replace(s, value=_over_own(value, own)))
            case _:
                split.append(s)
    return tuple(split)


def _over_own(v: Value, own: dict[Value, Value]) -> Value:
    made = rebuild(v, lambda below: _over_own(below, own))
    if isinstance(made, tile.Dot):
        return replace(made, left=own.get(made.left, made.left), right=own.get(made.right, made.right))
    return made
