"""A request for operands: sizes of axes, types, values; operands that are not given are random tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from einc.base.errors import CallError, nearest
from einc.base.facts import Fact
from einc.binding import FromDefault, FromDimension, FromFormula, plan
from einc.ein import Expr, Operand, Program, Read, Scalar, reads, walk
from einc.ein.arithmetic import ScalarValue, evaluate_formula
from einc.ein.ranges import extent_of
from einc.explain.sizes import USUAL_BATCH, usual
from einc.runtime.tensors import fact, torch_dtype

if TYPE_CHECKING:
    import torch

    from einc.base.types import DType


@dataclass(frozen=True, slots=True)
class Request:
    """Extents by axis, element types by operand (under the empty name, that of all floats whose type the text leaves
    open), scalars and tensors."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    dtypes: Mapping[str, DType] = field(default_factory=dict)
    scalars: Mapping[str, ScalarValue] = field(default_factory=dict)
    tensors: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def check(self, program: Program) -> None:
        """Raise `CallError` for a name that the program does not have."""
        operands = [p.name for p in program.operands]
        for what, given, known in (
            ("axis", self.sizes, [a.name for a in program.axes]),
            ("operand", [n for n in self.dtypes if n], operands),
            ("operand", self.tensors, operands),
            ("scalar", self.scalars, [p.name for p in program.scalars]),
        ):
            for name in given:
                if name not in known:
                    raise CallError(
                        f"the program has no {what} '{name}'",
                        fact=f"it has {', '.join(known) or 'none'}",
                        hint=nearest(name, known) or "leave it out",
                    )

    def extents(self, program: Program) -> dict[str, int]:
        """The extent of every axis: the given one, that of a given tensor, that of the program's formula, or the usual
        one, also where the formula needs a scalar without a value."""
        extents: dict[str, int] = {}
        scalars = dict(self.scalars)
        unsaid = usual(program)
        for step in plan(program):
            match step:
                case FromDimension(axis, operand, dimension, known):
                    extents[axis] = self.sizes.get(axis, unsaid[axis])
                    if operand in self.tensors and dimension < self.tensors[operand].ndim:
                        extents[axis] = self.tensors[operand].shape[dimension] // max(extent_of(known, extents), 1)
                case FromFormula(axis, formula) if _has_value(formula, scalars):
                    extents[axis] = max(int(evaluate_formula(formula, extents, scalars)), 0)
                case FromFormula(axis):
                    extents[axis] = USUAL_BATCH
                case FromDefault(name, formula):
                    if name not in scalars and _has_value(formula, scalars):
                        scalars[name] = evaluate_formula(formula, extents, scalars)
        return extents

    def complete(self, program: Program) -> bool:
        """Has every scalar a value?"""
        return all(p.name in self.scalars or p.default is not None for p in program.scalars)

    def facts(self, program: Program) -> dict[str, Fact]:
        """The shape and type of every operand."""
        extents = self.extents(program)
        return {p.name: self._fact(p, extents) for p in program.operands}

    def _fact(self, p: Operand, extents: Mapping[str, int]) -> Fact:
        if p.name in self.tensors:
            return fact(self.tensors[p.name], p.name)
        usual = self.dtypes.get("", p.dtype) if p.dtype.is_float and not p.declared else p.dtype
        dtype = self.dtypes.get(p.name, usual)
        return Fact(tuple(extent_of(d, extents) for d in p.dims), dtype)

    def operands(self, program: Program, seed: int = 0) -> dict[str, torch.Tensor | np.ndarray[Any, Any]]:
        """Every operand as a tensor: the given ones, and random ones, which are the same for the same seed."""
        generator = np.random.default_rng(seed)
        extents = self.extents(program)
        found: dict[str, torch.Tensor | np.ndarray[Any, Any]] = {}
        for p in program.operands:
            f = self._fact(p, extents)
            limit = index_limit(program, p.name, extents)
            found[p.name] = self.tensors[p.name] if p.name in self.tensors else draw(generator, f, limit)
        return found


def _has_value(formula: Expr, scalars: Mapping[str, ScalarValue]) -> bool:
    return all(n.name in scalars for n in walk(formula) if isinstance(n, Scalar))


def index_limit(program: Program, operand: str, extents: Mapping[str, int]) -> int:
    """The limit of random integers: the least extent that values of the operand are subscripts for, or 10."""
    dims = program.shapes()
    limits = [
        extent_of(dims[r.tensor][k], extents)
        for e in program.equations
        for x in e.expressions()
        for r in reads(x)
        for k, index in enumerate(r.index)
        if any(isinstance(n, Read) and n.tensor == operand for n in reads(index))
    ]
    return max(min(limits, default=10), 1)


def draw(generator: np.random.Generator, f: Fact, limit: int) -> torch.Tensor:
    """A tensor of normal numbers, of integers in [0, limit), or of truth values."""
    import torch

    array: np.ndarray[Any, Any]
    if f.dtype.is_bool:
        array = generator.random(f.shape) < 0.5
    elif f.dtype.is_int:
        array = generator.integers(0, min(limit, 1 << (f.dtype.bits - 1)), f.shape)
    elif f.dtype.is_complex:
        array = generator.standard_normal(f.shape) + 1j * generator.standard_normal(f.shape)
    else:
        array = generator.standard_normal(f.shape)
    return torch.from_numpy(np.asarray(array)).to(torch_dtype(f.dtype))


# ---------------------------------------------------------------------------------------------------------------------
# Words of a command line
