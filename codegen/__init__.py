"""From kernels over tiles to source, by one generator or another, and to what runs it.

Torch and Triton are imported by `run`, `interpret` and `aot` when they are first needed.
"""

from einc.codegen.gluon.backend import AUTO, GLUON
from einc.codegen.triton.backend import TRITON

__all__ = ["AUTO", "BACKENDS", "GLUON", "TRITON"]

BACKENDS = {b.name: b for b in (AUTO, TRITON, GLUON)}
