"""What one kernel computes, and what each axis is to it."""

from __future__ import annotations

from dataclasses import dataclass

from einc.ein import Equation, Read


@dataclass(frozen=True, slots=True)
class Plan:
    """Equations that share a kernel, each after those it reads, and the roles of their axes.

    `batch` axes have one position a program; `rows` and `columns` are blocked over the grid, each group flattened into
    one tile axis; `walked` is the group that the kernel walks block by block; each of `whole` is held in one block.
    `stores` names the tensors written to memory. A reduction goes over walked and whole axes; the equations are real.
    A walk is in `splits` parts, counted by the axis `split`, whose states a second kernel merges; one part is the walk.
    `scanned` are axes that run along with the walked one, position by position: those of the prefixes over it.
    `sheltered` reads are in range wherever their guards hold: these say that the call has checked them.
    """

    equations: tuple[Equation, ...]
    stores: tuple[str, ...]
    batch: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    walked: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    split: str = ""
    splits: int = 1
    scanned: tuple[str, ...] = ()
    sheltered: frozenset[Read] = frozenset()

    @property
    def along(self) -> frozenset[str]:
        """The axes that a walk runs along."""
        return frozenset((*self.walked, *self.scanned))

    def writes(self, eq: Equation) -> bool:
        """Is any tensor of the equation written to memory?"""
        return any(t.name in self.stores for t in eq.outputs)

    def is_scan(self, eq: Equation) -> bool:
        """Is the equation a reduction over the walked axis with a value at every position of it?"""
        return not self.along.isdisjoint(eq.axes) and not self.along.isdisjoint(eq.over)
