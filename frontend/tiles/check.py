"""Whether the kernels of a text are legal and compute the program above them; if not, the error is the writer's."""

from __future__ import annotations

from einc.base.errors import Error
from einc.ein import Program
from einc.frontend.tiles.kernels import Kernels
from einc.tile.faults import Fault
from einc.tile.verifier import verify, verify_for


def check_kernels(kernels: Kernels, program: Program) -> None:
    """Raises `Error` at the first kernel or statement that is not legal."""
    try:
        verify(kernels.schedule)
        verify_for(program, kernels.schedule)
    except Fault as fault:
        raise as_error(fault, kernels) from None


def as_error(fault: Fault, kernels: Kernels) -> Error:
    """A fault of kernels as an error at its place in their text."""
    return fault.kind(fault.message, kernels.place_of(fault.at), fact=fault.fact, hint=fault.hint)
