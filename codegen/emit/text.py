"""Pieces of emitted code: expressions with their precedence, names of types, literals, and what a file collects."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from einc import tile
from einc.base.types import I32, ranged
from einc.codegen.emit import library
from einc.codegen.emit.names import OWN, Names

Axes = tuple[str, ...]  # tile axes in the order of a tile's dimensions

# How tightly Python's operators bind, loosest first.
COMPARE, OR, AND, SUM, PRODUCT, SIGN, ATOM = range(7)

_FLIPPED = {"lowest": -math.inf, "highest": math.inf}


@dataclass(frozen=True, slots=True)
class Text:
    """An expression and how tightly its outermost operator binds.

    A `constant` is made of literals and extents alone. If Triton knows the extents when it compiles, it is a Python
    number and not a tensor: `~` of a truth value is then -2 or -1, and there is no `.to`.
    """

    code: str
    level: int = ATOM
    constant: bool = False

    def at(self, level: int) -> str:
        """The code, in parentheses if it binds more loosely than this."""
        return self.code if self.level >= level else f"({self.code})"


# Names that no kernel, launcher or variable takes: Python's and the file's own, used or not.
RESERVED = OWN | library.NAMES | {"square", "cube", *(f"power_{n}" for n in range(65))}


@dataclass(slots=True)
class File:
    """What the kernels of one file share: its names, the library functions that it uses, and the functions made for it,
    whose names and sources are kept by what they compute. Tensors between kernels with `lined` rows have these begin at
    whole lines of a cache."""

    names: Names
    library: set[str] = field(default_factory=set)
    made: dict[Hashable, tuple[str, str]] = field(default_factory=dict)
    lined: set[str] = field(default_factory=set)

    def helper(self, name: str) -> str:
        """The name of a library function, which the file then contains."""
        self.library |= {name, *library.needs(name)}
        return name

    def function(self, key: Hashable, wanted: str, source: Callable[[str], str]) -> str:
        """The name of a function made for the file; `source` writes it under this name, once."""
        if key not in self.made:
            name = self.names.fresh(wanted, ascii_only=True)
            self.made[key] = name, source(name)
        return self.made[key][0]


def literal(v: tile.Lit) -> Text:
    """A literal as Python writes it, in the range of its type."""
    value = _bounded(v)
    if isinstance(value, bool):
        return Text(str(value), constant=True)
    if isinstance(value, int):
        return Text(str(value), ATOM if value >= 0 else SIGN, constant=True)
    if math.isfinite(value):
        return Text(repr(value), ATOM if value >= 0 else SIGN, constant=True)
    return Text(f'float("{value}")', constant=True)


def _bounded(v: tile.Lit) -> bool | int | float:
    t = v.dtype
    if isinstance(v.value, str):
        if t.is_float:
            return _FLIPPED[v.value]
        if t.is_bool:
            return v.value == "highest"
        low, high = (t if t.bits else I32).limits
        return low if v.value == "lowest" else high
    if t.is_bool:
        return bool(v.value)
    if t.is_float:
        return ranged(float(v.value), t)
    low, value = t.limits[0], int(v.value)
    return (value - low) % (1 << (t.bits or 64)) + low
