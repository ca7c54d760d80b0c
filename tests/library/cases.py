"""How a program of the library is tested: its operands at any sizes, the published operator, and what it becomes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.places import EXAMPLES

SEED = 20

EPSILON = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Draw:
    """Random operands of given sizes, the same ones for the same seed; floats are of `dtype`."""

    sizes: Sizes
    dtype: torch.dtype
    generator: torch.Generator

    def __getitem__(self, axis: str) -> int:
        return self.sizes[axis]

    def shape(self, axes: str) -> tuple[int, ...]:
        """Extents of `b (g r) i d`: a product where axes stand in parentheses, numbers for themselves."""
        groups = re.findall(r"\(([^)]*)\)|(\S+)", axes)
        return tuple(
            math.prod(int(a) if a.isdigit() else self.sizes[a] for a in (several or one).split())
            for several, one in groups
        )

    def normal(self, axes: str, scale: float = 1.0) -> Tensor:
        """Normal numbers, rounded to the type."""
        return (scale * torch.randn(self.shape(axes), generator=self.generator)).to(self.dtype)

    def uniform(self, axes: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers between the bounds, rounded to the type."""
        return (low + (high - low) * torch.rand(self.shape(axes), generator=self.generator)).to(self.dtype)

    def integers(self, axes: str, low: int, high: int, dtype: torch.dtype = torch.int32) -> Tensor:
        """Integers in [low, high)."""
        return torch.randint(low, high, self.shape(axes), generator=self.generator).to(dtype)

    def order(self, n: int) -> Tensor:
        """A permutation of the first n integers."""
        return torch.randperm(n, generator=self.generator)


Maker = str | Callable[[Draw], Tensor]
Result = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A program in `examples/NAME.ein`, and what is expected of it.

    `operands` gives each operand as its axes (normal numbers) or as a function that draws it. `reference` takes
    operands in double precision and scalars by name and gives the results in order, by torch alone. `sizes` divide no
    tile; `tiny` ones are for Triton's interpreter; schedules are looked at for `long` ones, where an axis of 1024
    positions or more is long. Axes that `tiny` and `long` do not name are as in `sizes`. `terms` are the axes that the
    longest sum goes over.
    """

    name: str
    operands: Mapping[str, Maker]
    reference: Callable[..., Result]
    sizes: Sizes
    terms: tuple[str, ...]
    tiny: Sizes = field(default_factory=dict)
    long: Sizes = field(default_factory=dict)
    scalars: Mapping[str, int | float] = field(default_factory=dict)
    kernels: int = 1  # at level 2 and long sizes, not counting those that merge parts of a walk
    unfused: tuple[str, ...] = ()  # intermediates with two long axes that are there nevertheless
    wish: str = ""  # how it should be scheduled and is not, and what the compiler would need
    dtypes: tuple[torch.dtype, ...] = FLOATS
    why_dtypes: str = ""  # why only those

    @property
    def path(self) -> Path:
        return EXAMPLES / f"{self.name}.ein"

    @property
    def floats(self) -> torch.dtype:
        """The type that it runs in where one is enough: f32, if it can."""
        return torch.float32 if torch.float32 in self.dtypes else self.dtypes[0]

    def given(self, sizes: Sizes, dtype: torch.dtype) -> dict[str, Tensor]:
        """The operands, of these sizes and this type."""
        draw = Draw(dict(self.sizes) | dict(sizes), dtype, torch.Generator().manual_seed(SEED))
        return {name: draw.normal(m) if isinstance(m, str) else m(draw) for name, m in self.operands.items()}

    def wanted(self, operands: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the published operator gives, in double precision."""
        doubles = {n: t.double() if t.is_floating_point() else t for n, t in operands.items()}
        found = self.reference(**doubles, **self.scalars)
        return found if isinstance(found, tuple) else (found,)

    def count(self, sizes: Sizes) -> int:
        """How many terms the longest sum has."""
        extents = dict(self.sizes) | dict(sizes)
        return math.prod(extents[axis] for axis in self.terms)


def agree(case: Case, sizes: Sizes, dtype: torch.dtype, found: Any, wanted: tuple[Tensor, ...]) -> None:
    """Results are as near as rounding allows; integers and truth values are equal.

    Rounding an operand or a weight moves each term of a sum by one unit in its last place, eps. Such errors add up like
    a random walk: n terms of one size err by eps * sqrt(n) of a term, and the largest result is not smaller than a
    term. Four times that is allowed: for both factors, the exponential (whose argument errs too), and the store.
    """
    results = found if isinstance(found, tuple) else (found,)
    assert len(results) == len(wanted)
    bound = 4 * EPSILON[dtype] * case.count(sizes) ** 0.5
    for got, exact in zip(results, wanted, strict=True):
        assert got.shape == exact.shape
        if not exact.is_floating_point():
            assert torch.equal(got.cpu(), exact.to(got.dtype).cpu())
            continue
        near, exact = got.double().cpu(), exact.cpu()
        finite = exact.isfinite()
        assert torch.equal(near[~finite], exact[~finite])
        if finite.any():
            error = (near[finite] - exact[finite]).abs().max().item()
            assert error <= bound * exact[finite].abs().max().item()
