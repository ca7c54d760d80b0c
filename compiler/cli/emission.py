"""Emitted files, and what they compile to without a GPU, written where the command line wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from einc.api import Program
from einc.base.errors import CallError, RoomError
from einc.base.files import STANDARD, folder, write
from einc.driver import Compiled
from einc.trials.request import Request
from einc.trials.running import compile_for, gradient_for

if TYPE_CHECKING:
    from einc.codegen.run.aot import CompiledKernel
    from einc.derive import Together

FORMATS = ("triton", "ttir", "ttgir", "llir", "ptx", "cubin", "amdgcn", "hsaco")
Parts = Mapping[str, str | bytes]


def aot(
    program: Program, request: Request, form: str, gradient: Sequence[str] | None = None
) -> tuple[Parts, list[dict[str, object]]]:
    """The file, or one artifact a kernel, by file name; and what each kernel uses of the machine.

    With operands named by `gradient`, of the program and its gradients by them, or by all of floats if it names none.
    """
    whole: Compiled | Together
    if gradient is None:
        whole = compile_for(program, request)
        name, target = whole.program.name, whole.target
    else:
        whole = gradient_for(program, request, gradient).together
        name, target = whole.whole.name, whole.target
    if form == "triton":
        return {f"{name}.py": whole.source}, []
    from einc.codegen.run.aot import artifact

    kernels = compiled_ahead(whole)
    parts = {f"{k.name}.{form}": artifact(k, form) for k in kernels}
    notes: list[dict[str, object]] = [
        {
            "kernel": k.name,
            "target": target.name,
            "registers": k.registers,
            "spills": k.spills,
            "shared": k.shared,
            "warps": k.warps,
            "resources": f"{k.registers} registers, {k.spills} spilled, {k.shared} bytes shared, {k.warps} warps",
        }
        for k in kernels
    ]
    return parts, notes


def compiled_ahead(whole: Compiled | Together) -> tuple[CompiledKernel, ...]:
    """The kernels of a file compiled for its target, with smaller tiles where they need more than it has."""
    from einc.codegen.run.aot import compile_ahead

    while True:
        try:
            return compile_ahead(whole.emitted, whole.target, whole.sizes)
        except RoomError:
            smaller = whole.tightened()
            if smaller is None:
                raise
            whole = smaller


def place(parts: Parts, output: str | None) -> None:
    """Write the parts: into a folder one file each, else one after the other to a file or standard output.

    A path that ends in a slash is a folder, which is made if it is not there.
    """
    output = output or STANDARD
    if output != STANDARD and (output.endswith("/") or Path(output).is_dir()):
        for name, part in parts.items():
            write(folder(output) / name, part)
        return
    texts = [p for p in parts.values() if isinstance(p, str)]
    if len(texts) == len(parts):
        whole: str | bytes = "\n".join(texts)
    elif len(parts) == 1:
        (whole,) = parts.values()
    else:
        raise CallError("several binary kernels do not fit one file", fact=", ".join(parts), hint="-o FOLDER")
    write(Path(output), whole)
