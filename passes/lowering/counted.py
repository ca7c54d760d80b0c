"""Which positions of a reduction count, as one kernel can tell: guards for its terms, and for the sides of its dots.

    dot(left, right)   -->   dot(left in p, right where q)      left is 0 where p or q fails; q is about right's axes

A side is masked where its own axes tell what counts. A condition that also depends on rows, or columns, stays with the
side that is 0 there: a position of the other side counts for some of them and not for others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from einc.ein import Equation, Expr, Read, axes_of, reads
from einc.ein.domains import Domain, conjunction
from einc.ein.exclusion import Exclusion
from einc.passes.algebra.domain import ordered
from einc.passes.streaming.walks import unfolded


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a dot as it is multiplied, and the condition where it counts, if that is not everywhere."""

    value: Expr
    inside: Expr | None


@dataclass(frozen=True, slots=True)
class Counted:
    """The sides of a dot over some axes, by their tile axes."""

    exclusion: Exclusion
    tiles: Callable[[Iterable[str]], Collection[str]]
    is_int: Callable[[Expr], bool]

    def sides(self, left: Expr, right: Expr, rows: Collection[str], columns: Collection[str]) -> tuple[Side, Side]:
        """Both sides of a dot, which extend over these tile axes."""
        on_left, on_right = (self.exclusion.zero(e) for e in (left, right))
        lesser, left_in = self.of(right, on_left, on_right, columns, rows)
        greater, right_in = self.of(left, on_right, on_left, rows, columns)
        return Side(greater, left_in), Side(lesser, right_in)

    def of(
        self, e: Expr, needed: Domain, own: Domain, here: Collection[str], there: Collection[str]
    ) -> tuple[Expr, Expr | None]:
        """A side under what the other needs of its own axes, and the conditions that are left, on the other's axes."""
        found = self.exclusion.relevant(e, needed, own)
        direct = [p for p in found if set(self.tiles(axes_of(p))) <= set(here)]
        rest = [p for p in found if p not in direct and set(self.tiles(axes_of(p))) <= set(there)]
        value = self.exclusion.under(self.exclusion.guarded(e), map(self.ordered, direct))
        return value, conjunction(map(self.ordered, rest))

    def ordered(self, p: Expr) -> Expr:
        return ordered(p, self.is_int)


def telling(
    named: dict[str, Equation], made: dict[str, Equation], along: Collection[str], known: Collection[str]
) -> Callable[[Expr], Expr | None]:
    """Writes a predicate so that a kernel can evaluate it during a walk, from tensors in memory; None if it cannot."""

    def told(r: Read) -> bool:
        source = made.get(r.tensor)
        if source is None:
            return r.tensor in known
        return set(source.over).isdisjoint(along) and all(told(s) for e in source.computed() for s in reads(e))

    def telling(p: Expr) -> Expr | None:
        return next((q for q in (p, unfolded(p, named)) if all(map(told, reads(q)))), None)

    return telling
