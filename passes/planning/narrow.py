"""Store between kernels no more of a number than those that read it multiply.

    kernel P: T = f                   -->   kernel P: T: bf16 = f
    kernel Q: U = sum[k](T * W)             kernel Q: U = sum[k](T * W)      multiplied in bf16

T is no result, and whoever reads it from memory has it as one side of a contraction that rounds its sides to that type:
so every value is the same to the last bit. It takes half the room and half the time to move, and is multiplied as it
lies in memory. The gradient of a layer's outputs, which two products read, and what is between two products are such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from einc.base.types import DType
from einc.ein import Equation, Program, Read, walk
from einc.ein.origins import Products
from einc.passes.algebra.contraction import contraction, operand_type
from einc.pipeline import Context
from einc.pipeline.plan import Plan


def narrowed(program: Program, plans: Sequence[Plan], context: Context) -> Program:
    """The program with the tensors that pass between kernels in the types that all their readers multiply in."""
    narrow = _Narrowing(program, plans, context)
    equations = tuple(narrow.stored(eq) for eq in program.equations)
    return replace(program, equations=equations) if equations != program.equations else program


class _Narrowing:
    """What reads each tensor of a program from memory, and the type in which it multiplies."""

    def __init__(self, program: Program, plans: Sequence[Plan], context: Context) -> None:
        self.program, self.context = program, context
        self.dtypes, self.products = program.dtypes(), Products(program)
        self.own = {name: frozenset(p.equations) for p in plans for name in p.equations}
        self.passed = {name for p in plans for name in p.stores} - set(program.results)

    def stored(self, eq: Equation) -> Equation:
        """The equation with its tensor in the type that it is read in."""
        (first, *others), own = eq.outputs, self.own[eq.name]
        if others or first.name not in self.passed or not first.dtype.is_float:
            return eq
        readers = [e for e in self.program.equations if any(r.tensor == first.name for r in _reads(e))]
        beside = [e for e in readers if e.name in own]
        if eq.monoid is not None and beside:  # in its own kernel a reduction has the value that it is stored as
            return eq
        types = {self.type_of(e, first.name) for e in readers if e.name not in own}
        t = types.pop() if len(types) == 1 else None
        narrower = t is not None and t.is_float and t.bits < first.dtype.bits
        return replace(eq, outputs=(replace(first, dtype=t),)) if t is not None and narrower else eq

    def type_of(self, eq: Equation, name: str) -> DType | None:
        """The type in which an equation multiplies a tensor; None if it reads it otherwise."""
        if eq.monoid is None or not eq.monoid.adds or len(eq.bodies) > 1:
            return None
        found = contraction(eq, eq.body, self.context.size)
        if found is None:
            return None
        sides = [(side, term) for term in found.terms for side in (term.left, term.right)]
        alone = [term for side, term in sides if len(side) == 1 and _is_of(side[0], name)]
        if len(alone) != sum(r.tensor == name for r in _reads(eq)):
            return None
        types = {operand_type(term, self.products.product(eq), self.dtypes) for term in alone}
        return types.pop() if len(types) == 1 else None


def _reads(eq: Equation) -> list[Read]:
    """Every read in an equation, equal ones as often as they are there."""
    return [n for e in eq.expressions() for n in walk(e) if isinstance(n, Read)]


def _is_of(e: object, name: str) -> bool:
    return isinstance(e, Read) and e.tensor == name
