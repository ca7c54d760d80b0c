"""A program on the way to its gradients: what the laws of differentiation take and give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from einc.ein import AxisDecl, Equation, Operand, Program
from einc.ein.rewriting import drop_dead


@dataclass(frozen=True, slots=True)
class Adjoint:
    """A program with its derivatives.

    `program` takes the operands of `forward` and a cotangent for each result that has one, and gives gradients.
    `forward` has, beside the program's own equations, those that only the derivative reads. `cotangents` and
    `gradients` are their names, by result and by operand; an operand that no result depends on has no gradient.
    """

    forward: Program
    program: Program
    cotangents: Mapping[str, str]
    gradients: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Derivation:
    """A program whose gradients by the operands `wanted` are found, given cotangents of `results`.

    `program` is what runs ahead, `forward` its equations as they are differentiated and computed again. Once it is
    `differentiated`, there are equations of gradients, `backward`, and the names of cotangents and gradients.
    `constants` are tensors that are known to have no derivative, and `axes` those that only gradients have.
    """

    program: Program
    wanted: frozenset[str]
    results: tuple[str, ...]
    constants: frozenset[str]
    forward: tuple[Equation, ...]
    differentiated: bool = False
    backward: tuple[Equation, ...] = ()
    axes: tuple[AxisDecl, ...] = ()
    cotangents: Mapping[str, str] = field(default_factory=dict)
    gradients: Mapping[str, str] = field(default_factory=dict)

    def of(self, program: Program) -> Derivation:
        """The same of another program."""
        return replace(self, program=program, forward=program.equations)

    @property
    def whole(self) -> Program:
        """The program as it will be differentiated; afterwards, that of its gradients."""
        own = replace(self.program, equations=self.forward)
        if not self.differentiated:
            return own
        dims, dtypes = own.shapes(), own.dtypes()
        given = tuple(Operand(name, dims[r], dtypes[r]) for r, name in self.cotangents.items())
        return replace(
            own,
            name=f"{own.name}_gradient",
            params=(*own.operands, *given, *own.scalars),
            axes=(*own.axes, *self.axes),
            equations=(*self.forward, *self.backward),
            results=tuple(self.gradients.values()),
        )

    @property
    def adjoint(self) -> Adjoint:
        """The program with its gradients, and what of its own equations runs ahead."""
        own = {e.name: e for e in self.program.equations}
        kept = tuple(own.get(e.name, e) for e in self.forward)
        return Adjoint(replace(self.program, equations=kept), drop_dead(self.whole), self.cotangents, self.gradients)
