"""Other programs of the same meaning with other kernels, to be compared by predicted time (`partition`)."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass

from einc.ein import Program

Groups = Collection[Set[str]]  # names of equations that share a kernel


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another program of the same meaning, and the groups of equations that share a kernel to begin with.

    It is taken if its predicted time is less than the share `most` of that of the original program. One that `leads` to
    others is compared with what these make of it: by itself it may gain nothing.
    """

    program: Program
    begin: Groups = ()
    most: float = 1.0
    leads: bool = False
