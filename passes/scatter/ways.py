"""How the terms of sums that data sends to their places are added up, and what decides that."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from einc.base.types import compute
from einc.ein import Equation, Program
from einc.passes.scatter.places import Scatter, hindrance, scatter

_INDEX = 8  # bytes of a place, a position or a count

Kind = Literal["sorted", "added", "compared"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a `sum` comes about: positions are `sorted` by their places, terms are `added` in memory, in no order that is
    fixed, or every place is `compared` with each position.

    There are so many `places` and `positions`; `bytes` are made in memory for it, beside the result. `fact` has decided
    that, and `hint` is one thing to try.
    """

    sum: str
    kind: Kind
    places: int
    positions: int
    bytes: int
    fact: str
    hint: str


def ways(program: Program, extents: Mapping[str, int], added: Collection[str], sorts: bool, ordered: bool) -> list[Way]:
    """How each such sum of a program comes about, for these extents.

    `added` are the tensors that kernels of the program add to. If it `sorts`, who calls it does so where that saves
    work; results that are `ordered` are those of programs whose runs have to agree in every bit.
    """
    return list(_ways(program, extents, added, sorts, ordered))


def _ways(
    program: Program, extents: Mapping[str, int], added: Collection[str], sorts: bool, ordered: bool
) -> Iterator[Way]:
    for e in program.equations:
        found = scatter(e)
        if found is None:
            continue
        places, positions = (prod(extents[a] for a in axes) for axes in (found.places, found.summed))
        kind, fact, hint = _decided(e, found, program, extents, added, sorts, ordered)
        yield Way(e.name, kind, places, positions, _bytes(e, found, extents, kind), fact, hint)


def _decided(
    e: Equation,
    found: Scatter,
    program: Program,
    extents: Mapping[str, int],
    added: Collection[str],
    sorts: bool,
    ordered: bool,
) -> tuple[Kind, str, str]:
    """How, what has decided that, and what to try."""
    if any(name == e.name or name.startswith(f"{e.name}_") for name in added):
        return (
            "added",
            "runs need not agree in every bit: deterministic=False",
            "deterministic=True, if they have to",
        )
    match hindrance(e, found, program, extents.__getitem__):
        case "few":
            return "compared", "there are few of one of them", "nothing else: it is the least work"
        case "large":
            fact = "a place for each position takes more memory than all that the program is given and gives"
            return "compared", fact, "an index of fewer axes, as one of each distance in place of one of each pair"
    if not ordered:
        fact = f"elements of {e.outputs[0].dtype} are not added to in memory"
        return "compared", fact, "another type, as f32"
    if sorts:
        return (
            "sorted",
            "runs have to agree in every bit: deterministic=True",
            "deterministic=False, if they need not",
        )
    fact = "runs have to agree in every bit, and only gradients are sorted for"
    return "compared", fact, "deterministic=False"


def _bytes(e: Equation, found: Scatter, extents: Mapping[str, int], kind: Kind) -> int:
    """What is made in memory for a sum."""
    if kind == "sorted":  # the order of positions; where each place begins among them, and how many it has
        return (
            _INDEX
            * prod(extents[a] for a in found.kept)
            * (prod(extents[a] for a in found.summed) + 2 * prod(extents[a] for a in found.places))
        )
    t = e.outputs[0].dtype
    wide = kind == "added" and compute(t) != t
    return compute(t).size * prod(extents[a] for a in e.axes) if wide else 0
