"""How large integers of the index type grow in a schedule: the launcher compares this with 2**31 to choose the type.

A bound is a polynomial in extents and scalar arguments: a position along i is at most |i| - 1, a sum of two positions
at most the sum of their bounds, and so on. Bounds that another one exceeds for all extents are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import assert_never

from einc import tile
from einc.base.polynomials import Polynomial, add, times
from einc.base.types import INT
from einc.ein.arithmetic import ScalarValue
from einc.tile import Value
from einc.tile.walk import tile_axes, values_of

Atom = tuple[str, str]  # ("extent", axis) or ("scalar", name)
Bound = Polynomial[Atom]

LIMIT = 2**31 - 2**20  # least bound that takes the wider type


def largest(schedule: tile.Schedule) -> list[Bound]:
    """Bounds on every integer of the index type, without those that another one covers."""
    found: list[Bound] = []
    for kernel in schedule.kernels:
        for p in _Kernel(kernel).bounds():
            if any(_covers(q, p) for q in found):
                continue
            found = [q for q in found if not _covers(p, q)] + [p]
    return found


def written(p: Bound, names: Mapping[Atom, str]) -> str:
    """The polynomial as Python, without its negative terms."""
    terms = []
    for atoms, n in _terms(p):
        factors = [f"abs({names[a]})" if a[0] == "scalar" else names[a] for a in atoms]
        terms.append(" * ".join([str(n), *factors] if n > 1 or not factors else factors))
    return " + ".join(terms) or "0"


def _terms(p: Bound) -> Iterator[tuple[tuple[Atom, ...], int]]:
    """The terms that are compared: those that are not negative, and no constant beside others."""
    return ((atoms, n) for atoms, n in p.items() if n > 0 and (atoms or len(p) == 1))


def digits(x: int) -> int:
    """The binary digits of an integer: x is in [-2**n, 2**n), and fits n + 1 bits."""
    return (x if x >= 0 else ~x).bit_length()


def is_steady(
    schedule: tile.Schedule, extents: Mapping[str, int], scalars: Mapping[str, ScalarValue], varying: Iterable[str]
) -> bool:
    """Does the index type that a launcher chooses suit all calls whose varying integers have as many digits as these?

    The wider type suits all calls; the other one must still do for the greatest integers.
    """
    bounds = largest(schedule)
    sizes = {("extent", axis): n for axis, n in extents.items()}
    given = {name: abs(x) for name, x in scalars.items() if isinstance(x, int)}
    most = given | {name: 1 << digits(int(scalars[name])) for name in varying if name in given}

    def reach(integers: Mapping[str, int]) -> int:
        atoms = sizes | {("scalar", name): n for name, n in integers.items()}
        return max((sum(n * prod(atoms[a] for a in factors) for factors, n in _terms(p)) for p in bounds), default=0)

    return reach(most) < LIMIT or reach(given) >= LIMIT


class _Kernel:
    def __init__(self, kernel: tile.Kernel) -> None:
        self.kernel = kernel
        self.known: dict[str, Bound] = {}
        self.found: list[Bound] = []

    def bounds(self) -> list[Bound]:
        for axis in tile_axes(self.kernel).values():
            extent: Bound = {tuple(sorted(("extent", a) for a in axis.axes)): 1}
            self.known[axis.name] = add(extent, {(): -1})
            self.found.append(extent)
        self.body(self.kernel.body)
        return self.found

    def body(self, statements: tuple[tile.Statement, ...]) -> None:
        for s in statements:
            match s:
                case tile.Let(names=(name,), types=(type_,), value=value):
                    if type_.dtype == INT:
                        self.known[name] = self.bound(value)
                    self.visit((value,))
                case tile.Let(value=value):
                    self.visit((value,))
                case tile.Store(index=index, value=value, mask=mask):
                    self.visit((*index, value, *(() if mask is None else (mask,))))
                case tile.Loop(carried=carried, body=inner):
                    self.visit((*(c.init for c in carried), *s.bounds))
                    self.body(inner)
                case _:
                    assert_never(s)

    def visit(self, roots: tuple[Value, ...]) -> None:
        """Note the bounds of sums and products that are not part of a larger one."""
        for v in roots:
            if isinstance(v, tile.Elem) and v.op in ("add", "sub", "mul"):
                self.found += [self.bound(v)] if v.op != "sub" else [self.bound(x) for x in v.args]
                self.visit(tuple(self.inner(v)))
            else:
                self.visit(values_of(v))

    def inner(self, v: Value) -> Iterator[Value]:
        """The operands of a sum of products that are neither sums nor products."""
        for x in values_of(v):
            if isinstance(x, tile.Elem) and x.op in ("add", "sub", "mul"):
                yield from self.inner(x)
            else:
                yield from values_of(x)

    def bound(self, v: Value) -> Bound:
        """A bound on the size of an integer; 0 for one that is not of the index type."""
        match v:
            case tile.Ref(name=name):
                return self.known.get(name, {})
            case tile.Lit(value=int(value), dtype=dtype) if dtype == INT:
                return {(): abs(value)}
            case tile.ExtentOf(axis=axis):
                return {(("extent", axis),): 1}
            case tile.ScalarArg(name=name) if (name, INT) in self.kernel.scalars:
                return {(("scalar", name),): 1}
            case tile.Elem(
                op="mul", args=(tile.Elem(op="floordiv", args=(a, tile.Lit(value=n))), tile.Lit(value=m))
            ) if isinstance(n, int) and isinstance(m, int) and 0 < m <= n:
                return self.bound(a)
            case tile.Elem(op="mul", args=(a, b)):
                return times(self.bound(a), self.bound(b))
            case tile.Elem(op="floordiv" | "exactdiv" | "neg" | "abs", args=(a, *_)):
                return self.bound(a)
            case tile.Elem(op="mod", args=(_, b)):
                return self.bound(b)
            case tile.Elem(op="add" | "sub" | "max" | "min", args=(a, b)) | tile.Elem(op="where", args=(_, a, b)):
                return add(self.bound(a), self.bound(b))
            case _:
                return {}


def _covers(q: Bound, p: Bound) -> bool:
    """Is q at least p, but for small constants, if no extent is 0? Each term of p must find a term of q above it."""
    room = {atoms: n for atoms, n in q.items() if atoms}
    if any(n < 0 for n in room.values()):
        return False
    for atoms, n in p.items():
        above = next((m for m, left in room.items() if left >= n and not Counter(atoms) - Counter(m)), None)
        if atoms and n > 0:
            if above is None:
                return False
            room[above] -= n
    return True
