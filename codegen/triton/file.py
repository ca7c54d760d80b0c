"""A schedule as one Triton file: kernels, the functions they need, and a launcher on torch tensors.

The file needs triton and torch and nothing else. Every kernel is run by its function `launch`, which whoever loads the
file may replace.
"""

from __future__ import annotations

from einc import tile
from einc.base.targets import Target
from einc.codegen.emit import library
from einc.codegen.emit.launcher import launcher_name, launcher_source
from einc.codegen.emit.names import Names
from einc.codegen.emit.text import RESERVED, File
from einc.codegen.triton.kernels import kernel_source
from einc.codegen.triton.options import written
from einc.ein import Program
from einc.ein.printer import print_program
from einc.pipeline.emitted import Emitted

_LAUNCH = '''
def launch(kernel, programs, *args, **meta):
    """Run a kernel over a grid of so many programs, on the device of its first argument."""
    if programs:
        with torch.cuda.device_of(args[0]):
            kernel[(programs,)](*args, **meta)
'''


def emit(program: Program, schedule: tile.Schedule, target: Target) -> Emitted:
    """The complete Triton file of a scheduled program, with what a caller of its kernels needs to know."""
    file = File(Names((*RESERVED, launcher_name(program))))
    functions = [kernel_source(file, kernel) for kernel in schedule.kernels]
    signatures = tuple(signature for signature, _ in functions)
    launcher = launcher_source(file, program, schedule, signatures, written)
    parts = [_LAUNCH.strip("\n")]
    parts += library.definitions(file.library)
    parts += [source for _, source in file.made.values()]
    parts += ["\n".join(lines) for _, lines in functions]
    parts.append("\n".join(launcher))
    body = "\n\n\n".join(parts)
    header = "\n".join(f"# {line}".rstrip() for line in (*_title(target), *print_program(program).splitlines()))
    imports = ["import math\n"] if "math." in body else []
    imports += ["import torch", "import triton", "import triton.language as tl"]
    return Emitted("\n".join([header, "", *imports, "", "", body, ""]), launcher_name(program), signatures)


def _title(target: Target) -> tuple[str, ...]:
    return f"Compiled by einc for {target.name}:", ""
