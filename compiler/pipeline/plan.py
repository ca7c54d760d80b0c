"""Which equations share a kernel, and what each axis is to it."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass, field, fields
from typing import Any

from einc.ein import Equation, Program, Read
from einc.ein.components import components


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What axes and tensors are to a kernel.

    `batch` axes have one position a program; `rows` and `columns` are blocked over the grid, each group flattened into
    one tile axis; `walked` is the group that the kernel walks block by block; each of `whole` is held in one block.
    Each group of `inner` is walked by the reductions over it themselves, within a block of the walk or outside of it.
    `stores` names the tensors written to memory. A reduction goes over walked and whole axes, or over a group of
    `inner` ones.
    A walk is in `splits` parts, counted by the axis `split`, whose states a second kernel merges; one part is the walk.
    `scanned` are axes that run along with the walked one, position by position: those of the prefixes over it.
    """

    stores: tuple[str, ...]
    batch: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    walked: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    inner: tuple[tuple[str, ...], ...] = ()
    split: str = ""
    splits: int = 1
    scanned: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the kernel is called: the last tensor that it stores."""
        return self.stores[-1]

    @property
    def along(self) -> frozenset[str]:
        """The axes that a walk runs along."""
        return frozenset((*self.walked, *self.scanned))

    def walks_within(self, eq: Equation) -> bool:
        """Is the equation a reduction that walks its axes itself, in one block of the kernel's walk after another?"""
        return eq.over in self.inner

    def writes(self, eq: Equation) -> bool:
        """Is any tensor of the equation written to memory?"""
        return any(t.name in self.stores for t in eq.outputs)

    def is_scan(self, eq: Equation) -> bool:
        """Is the equation a reduction over the walked axis with a value at every position of it?"""
        return not self.along.isdisjoint(eq.axes) and not self.along.isdisjoint(eq.over)


@dataclass(frozen=True, slots=True)
class Plan(Roles):
    """The equations of a program that share a kernel, by name, in its order."""

    equations: tuple[str, ...]

    def of(self, program: Program) -> Planned:
        """The plan beside its equations, as they are in a program whose bodies are real."""
        named = {eq.name: eq for eq in program.equations}
        return Planned(tuple(components(named[name]) for name in self.equations), **_roles(self))


@dataclass(frozen=True, slots=True)
class Planned(Roles):
    """Equations that share a kernel, each after those it reads; what is complex is a body for each part.

    `sheltered` reads are in range wherever their guards hold: these say that the call has checked them.
    """

    equations: tuple[Equation, ...]
    sheltered: frozenset[Read] = frozenset()
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.equations, self.sheltered, *_roles(self).values())))

    def __hash__(self) -> int:
        return self._hash  # computed once: a search looks plans up all the time

    @property
    def plan(self) -> Plan:
        """The same by the names of the equations."""
        return Plan(tuple(eq.name for eq in self.equations), **_roles(self))


@dataclass(frozen=True, slots=True)
class Join:
    """Kernels that were looked at together, and the one that they would be, or why not; whether it was taken."""

    kernels: tuple[Planned, ...]
    made: Planned | str
    taken: bool = False


_ROLES = tuple(f.name for f in fields(Roles))


def _roles(r: Roles) -> dict[str, Any]:
    return {name: getattr(r, name) for name in _ROLES}


Groups = Collection[Set[str]]  # names of equations that share a kernel


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another program of the same meaning, and the groups of equations that share a kernel to begin with.

    It is taken if its predicted time is less than the share `most` of that of the original program. One that `leads` to
    others is compared with what these make of it: by itself it may gain nothing. One that `divides` is taken only if
    the groups that it makes stay apart, since joined again they could be divided again.
    """

    program: Program
    begin: Groups = ()
    most: float = 1.0
    leads: bool = False
    divides: bool = False
