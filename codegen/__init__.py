"""From kernels over tiles to Triton source, and to what runs it.

Torch and Triton are imported by `run`, `interpret` and `aot` when they are first needed.
"""

from einc.codegen.emit.launcher import launcher_name
from einc.codegen.triton.file import Emitted, emit, emit_file

__all__ = ["Emitted", "emit", "emit_file", "launcher_name"]
