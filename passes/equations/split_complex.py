"""Complex arithmetic as arithmetic of real and imaginary parts.

    T[i] = sum[k](A * B)   -->   T[i] = sum[k](complex(re(A) * re(B) - im(A) * im(B), re(A) * im(B) + im(A) * re(B)))

From here on a complex number is made only at the root of a body and taken apart only where an operand is read: all in
between is real, and contractions are products of real matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from einc.base.errors import DTypeError
from einc.base.types import DType
from einc.ein import Apply, Equation, Program
from einc.ein.components import COMPLEX
from einc.ein.inference import dtype_of
from einc.passes.algebra.complex_parts import parts, real


def split_complex(program: Program) -> Program:
    """The program over real numbers.

    Raises `DTypeError` for an operation or a reduction that complex numbers do not have (max, argmin, ...).
    """
    dtypes = program.dtypes()
    return replace(program, equations=tuple(_split(eq, dtypes) for eq in program.equations))


def _split(eq: Equation, dtypes: Mapping[str, DType]) -> Equation:
    if not eq.outputs[0].dtype.is_complex and not any(dtype_of(e, dtypes).is_complex for e in eq.bodies):
        return eq.map(lambda e: real(e, dtypes))
    if eq.monoid is not None and eq.monoid.op not in COMPLEX:
        raise DTypeError(
            f"'{eq.monoid.name}' does not take complex numbers",
            eq.span,
            fact=f"'{eq.name}' is {eq.outputs[0].dtype}",
            hint="reduce abs(x), re(x) or im(x)",
        )
    done = eq.map(lambda e: e if dtype_of(e, dtypes).is_complex else real(e, dtypes))
    return replace(done, bodies=(Apply("complex", parts(eq.body, dtypes)),))
