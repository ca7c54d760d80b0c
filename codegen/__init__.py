"""From kernels over tiles to source, by one generator or another, and to what runs it.

Torch and Triton are imported by `run`, `interpret` and `aot` when they are first needed.
"""

from einc.codegen.gluon.backend import GLUON
from einc.codegen.triton.backend import TRITON

__all__ = ["BACKENDS", "GLUON", "TRITON"]

BACKENDS = {b.name: b for b in (TRITON, GLUON)}
