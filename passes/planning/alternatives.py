"""What a program may be turned into for the sake of its kernels, to be compared by predicted time (`partition`)."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass

from einc.ein import Program

Groups = Collection[Set[str]]  # names of equations that share a kernel


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another program of the same meaning, and the groups of equations that share a kernel to begin with.

    It is taken where it is predicted to take less than the share `most` of the time that the program takes as it is.
    """

    program: Program
    begin: Groups = ()
    most: float = 1.0
