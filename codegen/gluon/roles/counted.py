"""Say, as far as that is possible, by position of the walk alone which positions count for some row of a block.

    left counting i + a <= j, right   -->   m = min[i](i + a);  left counting m <= j, right

Where nothing counts, a dot may not see what its right side holds, which may be anything. A program leaves such
positions out for all of its rows at once. In a comparison of sums the least or the greatest of what depends on the row
decides; a conjunction holds for some row if each comparison does, where these leave every position an interval of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from einc import tile
from einc.base.types import INT
from einc.codegen.gluon.roles.fit import Unfit
from einc.ein.monoids import MONOIDS
from einc.tile import Dot, Elem, Fold, Kernel, Let, Lit, Loop, Ref, TileType, Value
from einc.tile.live import live
from einc.tile.masks import conjunction, conjuncts, inside
from einc.tile.typing import bound_names
from einc.tile.walk import rebuild, tile_axes, walk_values

_LEAST = {"lt": True, "le": True, "gt": False, "ge": False}  # does the least sum, or the greatest, decide?


def count_by_position(kernel: Kernel, row: str) -> Kernel:
    """The kernel with what its dots count told by position. Raises `Unfit` where rows and positions mix otherwise."""
    return _Counting(kernel, row).kernel_of()


class _Counting:
    def __init__(self, kernel: Kernel, row: str) -> None:
        self.kernel, self.row = kernel, row
        self.outer = {s.names[0]: s.value for s in kernel.body if isinstance(s, Let)}
        self.made = self.outer
        self.taken = bound_names(kernel)
        self.still = {row, *(n for n, _ in kernel.scalars), *(a.name for a in kernel.grid)}
        self.still |= {s.names[0] for s in kernel.body if isinstance(s, Let)}
        self.bound: dict[Value, Let] = {}

    def kernel_of(self) -> Kernel:
        body = list[tile.Statement]()
        for s in self.kernel.body:
            if isinstance(s, Loop):
                full = s.full if s.full is None else replace(s.full, body=self.statements(s.full.body))
                s = replace(s, body=self.statements(s.body), full=full)
                body += self.bound.values()
            body.append(s)
        return replace(self.kernel, body=live(tuple(body)))

    def statements(self, body: tuple[tile.Statement, ...]) -> tuple[tile.Statement, ...]:
        """Those of one body of a loop: what names are bound to in it counts, and not what the other binds them to."""
        self.made = self.outer | {s.names[0]: s.value for s in body if isinstance(s, Let)}
        return tuple(replace(s, value=self.value(s.value)) if isinstance(s, Let) else s for s in body)

    def value(self, v: Value) -> Value:
        if not isinstance(v, Dot):
            return rebuild(v, self.value)
        if v.right_in is not None:
            raise Unfit("a dot counts only some positions of its right side")
        if v.left_in is None:
            return v
        terms = list(conjuncts(self.whole(v.left_in)))
        mixed = any(map(self.is_mixed, terms))
        return replace(v, left_in=conjunction([self.by_rows(t) if mixed else self.term(t) for t in terms]))

    def whole(self, v: Value) -> Value:
        """A mask with names replaced by what they are bound to."""
        if isinstance(v, Ref) and isinstance(self.made.get(v.name), Elem):
            return self.whole(self.made[v.name])
        return rebuild(v, self.whole)

    def term(self, t: Value) -> Value:
        if not self.depends(t):
            return t
        assert isinstance(t, Elem)
        own, rest = list[Value](), list[Value]()
        for plus, x in (*_terms(t.args[0], True), *_terms(t.args[1], False)):
            signed = x if plus else Elem("neg", (x,))
            (own if self.depends(x) else rest).append(signed)
        total = self.extreme(_sum(own), _LEAST[t.op])
        return Elem(t.op, (Elem("add", (total, _sum(rest))) if rest else total, Lit(0, INT)))

    def is_mixed(self, t: Value) -> bool:
        """Do rows and positions decide a term together, and not by a sum of what each of them gives?"""
        if not self.depends(t):
            return False
        if not isinstance(t, Elem) or t.op not in _LEAST:
            return True
        return any(self.depends(x) and self.is_walked(x) for side in t.args for _, x in _terms(side, True))

    def by_rows(self, t: Value) -> Value:
        """A term to be evaluated for all rows, together with the others: then nobody needs to know more of it."""
        if any(isinstance(x, Ref) and x.name not in self.still and self.depends(x) for x in walk_values(t)):
            raise Unfit("which positions count depends on what a step computes for each row")
        return t

    def is_walked(self, v: Value) -> bool:
        """Does a value differ between positions of the walk?"""
        return any(isinstance(x, Ref) and x.name not in self.still for x in walk_values(v))

    def depends(self, v: Value) -> bool:
        """Does a value depend on the row?"""
        return any(
            isinstance(x, Ref) and (x.name == self.row or (x.name in self.made and self.depends(self.made[x.name])))
            for x in walk_values(v)
        )

    def extreme(self, v: Value, least: bool) -> Value:
        """The name of the least, or the greatest, value of the rows of a block."""
        if not all(isinstance(x, Ref | Lit | Elem | tile.ExtentOf | tile.ScalarArg) for x in walk_values(v)):
            raise Unfit("which positions count depends on what is loaded for each row")
        there = inside(tile_axes(self.kernel)[self.row])
        masked = Elem("where", (there, v, Lit("highest" if least else "lowest", INT)))
        fold = Fold(MONOIDS["min" if least else "max"], self.row, (masked,))
        if fold not in self.bound:
            name = "row_least" if least else "row_most"
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            self.bound[fold] = Let((name,), (TileType(INT),), fold)
        return Ref(self.bound[fold].names[0])


def _terms(v: Value, plus: bool) -> Iterator[tuple[bool, Value]]:
    """The terms of a sum, each added or subtracted."""
    sides: dict[str, Callable[[], tuple[bool, ...]]] = {
        "add": lambda: (plus, plus), "sub": lambda: (plus, not plus), "neg": lambda: (not plus,),
    }  # fmt: skip
    if isinstance(v, Elem) and v.op in sides:
        for x, sign in zip(v.args, sides[v.op](), strict=True):
            yield from _terms(x, sign)
    else:
        yield plus, v


def _sum(values: list[Value]) -> Value:
    total = values[0]
    for v in values[1:]:
        total = Elem("add", (total, v))
    return total
