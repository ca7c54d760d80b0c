"""A schedule as one Triton file: kernels, the functions they need, and a launcher on torch tensors.

The file needs triton and torch and nothing else. Every kernel is run by its function `launch`, which whoever loads the
file may replace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from einc import tile
from einc.base.targets import Target
from einc.codegen.emit import library
from einc.codegen.emit.autograd import tied
from einc.codegen.emit.bound import launcher_name
from einc.codegen.emit.launcher import launcher_source
from einc.codegen.emit.names import Names
from einc.codegen.emit.parts import in_order_source, in_slices_source
from einc.codegen.emit.text import RESERVED, File
from einc.codegen.triton.kernels import kernel_source
from einc.codegen.triton.options import written
from einc.ein import Program
from einc.ein.printer import print_program
from einc.pipeline.emitted import Both, Emitted, Half, Signature
from einc.pipeline.parts import InOrder, Parts

_GLUON = (
    ("gluon.", "from triton.experimental import gluon"),
    ("gl.", "from triton.experimental.gluon import language as gl"),
    ("hopper.", "from triton.experimental.gluon.language.nvidia import hopper"),
    ("async_copy.", "from triton.experimental.gluon.language.nvidia.ampere import async_copy"),
    ("mbarrier.", "from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma"),
    (
        "SwizzledDescriptor",
        "from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as SwizzledDescriptor",
    ),
)

_NARROW = 2  # bytes of an element of tensors whose rows begin at whole lines between kernels

KernelSource = Callable[[File, tile.Kernel], tuple[Signature, list[str]]]

_LAUNCH = '''
def launch(kernel, programs, *args, **meta):
    """Run a kernel over a grid of so many programs, on the device of its first argument."""
    if programs:
        with torch.cuda.device_of(args[0]):
            kernel[(programs,)](*args, **meta)
'''


def emit(
    program: Program, schedule: tile.Schedule, target: Target, written_by: KernelSource = kernel_source
) -> Emitted:
    """The complete Triton file of a scheduled program, with what a caller of its kernels needs to know."""
    file = File(Names((*RESERVED, launcher_name(program))))
    functions, signatures = _functions(file, Half(program, schedule), written_by)
    return Emitted(_written(file, [program], functions, target), launcher_name(program), signatures)


def emit_both(both: Both, target: Target, written_by: KernelSource = kernel_source) -> Emitted:
    """The complete Triton file of a program with its gradients: what runs ahead, what runs behind, and a function of
    the program's name that torch differentiates."""
    ahead = replace(both.ahead, program=replace(both.ahead.program, name=f"{both.whole.name}_ahead"))
    both = replace(both, ahead=ahead)
    programs = [both.ahead.program, *_programs(both.behind)]
    file = File(Names((*RESERVED, *(launcher_name(p) for p in (both.whole, *programs)))))
    halves = [_of_parts(file, half, written_by) for half in (both.ahead, both.behind)]
    functions = [f for own, _ in halves for f in own] + ["\n".join(lines) for lines in tied(file, both)]
    signatures = tuple(s for _, own in halves for s in own)
    return Emitted(_written(file, programs, functions, target), launcher_name(both.whole), signatures)


def _programs(parts: Parts[Half]) -> list[Program]:
    """A program, and those that it is computed by."""
    below = [] if isinstance(parts, Half) else [p for part in parts.parts for p in _programs(part)]
    return [parts.program, *below]


def _of_parts(file: File, parts: Parts[Half], written_by: KernelSource) -> tuple[list[str], tuple[Signature, ...]]:
    """What computes a program: the functions that it is computed by, before the one of its name."""
    if isinstance(parts, Half):
        return _functions(file, parts, written_by)
    below = [_of_parts(file, part, written_by) for part in parts.parts]
    own = in_order_source(file, parts) if isinstance(parts, InOrder) else in_slices_source(file, parts)
    functions = [f for found, _ in below for f in found]
    return [*functions, "\n".join(own)], tuple(s for _, found in below for s in found)


def _functions(file: File, half: Half, written_by: KernelSource) -> tuple[list[str], tuple[Signature, ...]]:
    """Kernels and their launcher."""
    file.lined |= {b.name for b in half.schedule.intermediates if b.dtype.size == _NARROW and len(b.dims) > 1}
    kernels = [written_by(file, kernel) for kernel in half.schedule.kernels]
    signatures = tuple(signature for signature, _ in kernels)
    launcher = launcher_source(file, half.program, half.schedule, signatures, written)
    return ["\n".join(lines) for lines in (*(lines for _, lines in kernels), launcher)], signatures


def _written(file: File, programs: Sequence[Program], functions: Sequence[str], target: Target) -> str:
    """The file: what it is of, and its functions after those that they call."""
    descriptors, swizzled = "described" in file.library, "swizzled" in file.library
    of = 'of(getattr(args[0], "base", args[0]))'
    launch = _LAUNCH.replace("of(args[0])", of) if descriptors or swizzled else _LAUNCH
    parts = [launch.strip("\n"), *library.definitions(file.library), *(source for _, source in file.made.values())]
    body = "\n\n\n".join([*parts, *functions])
    texts = "\n".join(print_program(p) for p in programs)
    header = "\n".join(f"# {line}".rstrip() for line in (*_title(target), *texts.splitlines()))
    imports = ["import math\n"] if "math." in body else []
    imports += ["import torch", "import triton", "import triton.language as tl"]
    imports += ["from triton.language.extra import libdevice"] if "libdevice." in body else []
    imports += ["from triton.tools.tensor_descriptor import TensorDescriptor"] if descriptors else []
    imports += [line for used, line in _GLUON if used in body]
    return "\n".join([header, "", *imports, "", "", body, ""])


def _title(target: Target) -> tuple[str, ...]:
    return f"Compiled by einc for {target.name}:", ""
