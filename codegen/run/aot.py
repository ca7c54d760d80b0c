"""Kernels compiled ahead of time, for machines other than this one: no GPU, CUDA or tensors needed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, prod
from pathlib import Path
from typing import Any

from einc import tile
from einc.base.errors import RoomError, TargetError
from einc.base.targets import Target
from einc.base.types import DType
from einc.codegen.emit.signature import extents_of, in_parts, static_extents
from einc.codegen.run.compiling import check_compilable, quietly
from einc.codegen.run.load import load
from einc.codegen.triton.options import options, rows_of_chains
from einc.pipeline.emitted import Emitted, Signature
from einc.tile.blocks import block_size
from einc.tile.windows import by_descriptor

FORMATS = {
    "cuda": ("ttir", "ttgir", "llir", "ptx", "cubin"),
    "hip": ("ttir", "ttgir", "llir", "amdgcn", "hsaco"),
}
_WHOLE = 128  # positions of an axis that is held whole, if its extent is not given
_POINTERS = {
    "bool": "*i1", "bf16": "*bf16", "f16": "*fp16", "f32": "*fp32", "f64": "*fp64",
    "f8e4m3": "*fp8e4nv", "f8e5m2": "*fp8e5",
}  # fmt: skip

_GLUON = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """One kernel for one target: `stages` by format, and the resources that one program of it takes.

    `registers` and `spills` count 32-bit registers a thread (an AMD lane); spilled ones live in slow memory.
    """

    name: str
    stages: Mapping[str, str | bytes]
    registers: int
    spills: int
    shared: int
    warps: int


def compile_ahead(
    emitted: Emitted, target: Target, sizes: Mapping[str, int] | None = None
) -> tuple[CompiledKernel, ...]:
    """Every kernel of an emitted file, compiled for the target.

    Operands are taken to be aligned to 16 bytes and contiguous. `sizes` are extents, from which tile sizes and strides
    follow as at a launch; without an extent, tiles have their largest size and the extent is a multiple of 16.
    Raises `TargetError` for a kernel that cannot be compiled for the target, `RoomError` for one that needs more shared
    memory than the target has.
    """
    if target.vendor not in FORMATS:
        raise TargetError(
            f"kernels are not compiled ahead for '{target.name}'",
            fact="it interprets",
            hint="name a GPU: sm_90, for example",
        )
    module = load(emitted.source, emitted.launcher)
    return tuple(_compiled(getattr(module, s.name), s, target, sizes or {}, emitted.source) for s in emitted.kernels)


def artifact(kernel: CompiledKernel, form: str) -> str | bytes:
    """One stage of a compiled kernel: text, or bytes of `cubin` and `hsaco`. Raises `TargetError` for another form."""
    if form in kernel.stages:
        return kernel.stages[form]
    raise TargetError(
        f"there is no '{form}' for this target", fact=f"it has {', '.join(kernel.stages)}", hint="one of these"
    )


def _compiled(kernel: Any, s: Signature, target: Target, sizes: Mapping[str, int], source: str) -> CompiledKernel:
    result = quietly(_through_triton, s.name, target.name, source)(kernel, s, target, sizes)
    shared = int(result.metadata.shared)
    if shared > target.shared:
        raise RoomError(
            f"kernel '{s.name}' needs more shared memory than {target.name} has",
            fact=f"{shared} bytes of {target.shared}",
            hint="smaller tiles, or narrower types",
        )
    stages = {form: result.asm[form] for form in FORMATS[target.vendor] if form in result.asm}
    count = _cuda_registers if target.vendor == "cuda" else _hip_registers
    registers, spills = count(stages["cubin" if target.vendor == "cuda" else "amdgcn"])
    return CompiledKernel(s.name, stages, registers, spills, shared, int(result.metadata.num_warps))


def _through_triton(kernel: Any, s: Signature, target: Target, sizes: Mapping[str, int]) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from triton.experimental.gluon._runtime import GluonASTSource

    check_compilable(kernel)
    types, constants, attributes = _arguments(s, sizes)
    rows = [_tile_size(s, axis, sizes) for _, axis in s.blocks if axis.name in rows_of_chains(s.kernel)]
    source = ASTSource if s.kernel.roles is None else GluonASTSource
    return compile(
        source(kernel, signature=types, constexprs=constants, attrs=attributes),
        target=GPUTarget(target.vendor, target.arch, target.warp),
        options={**options(s.kernel, min(rows, default=None)), "enable_fp_fusion": True},
    )


def _arguments(
    s: Signature, sizes: Mapping[str, int]
) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Triton's signature, compile-time constants, and the divisibility of arguments, by their positions."""
    import triton.language as tl

    types: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned: list[str] = []
    windows = by_descriptor(s.kernel)
    tiled = {axis.name: axis for _, axis in s.blocks}
    for pointer, b in zip(s.pointers, s.kernel.buffers, strict=True):
        types[pointer] = _POINTERS.get(b.dtype.part.name, f"*{b.dtype.name}")
        if b.name in windows:
            sides = [1 if axis is None else _side(s, tiled[axis], sizes) for axis, _ in windows[b.name]]
            types[pointer] = f"tensordesc<{types[pointer][1:]}{sides}{_swizzle(s, sides, b.dtype)}>"
        else:
            aligned.append(pointer)
    types |= {s.counter: "*i32"} if s.counter else {}
    parts = in_parts(s.kernel)
    for names, b in zip(s.strides, s.kernel.buffers, strict=True):
        for n, name in enumerate(names):
            if n == len(names) - 1 and b.name not in parts:
                types[name], constants[name] = "constexpr", 1
            else:
                types[name] = "i32"
                within = prod(sizes.get(a, 16) for dim in b.dims[n + 1 :] for a in dim)
                aligned += [name] if n < len(names) - 1 and within % 16 == 0 else []
    still = static_extents(s.kernel)
    for name, axis in zip(s.extents, extents_of(s.kernel), strict=True):
        if axis in still:
            types[name], constants[name] = "constexpr", sizes.get(axis, _WHOLE)
        else:
            types[name] = "i32"
            aligned += [name] if not sizes.get(axis, 0) % 16 else []
    types |= {
        name: f"fp{dtype.bits}" if dtype.is_float else "i32"
        for name, (_, dtype) in zip(s.scalars, s.kernel.scalars, strict=True)
    }
    for block, axis_of in s.blocks:
        types[block], constants[block] = "constexpr", _tile_size(s, axis_of, sizes)
    for unit, rows in s.units:
        own = next(names for names, b in zip(s.strides, s.kernel.buffers, strict=True) if b.name == rows.tensor)
        aligned = [name for name in aligned if name not in own or not rows.padded]
        width = next(b.dtype.size for b in s.kernel.buffers if b.name == rows.tensor)
        types[unit], constants[unit] = "constexpr", gcd(16 // width, sizes.get(rows.axis, 16))
    types["INT"], constants["INT"] = "constexpr", tl.int32
    place = {name: n for n, name in enumerate(types)}
    return types, constants, {(place[name],): [["tt.divisibility", 16]] for name in aligned}


def _tile_size(s: Signature, axis: tile.TileAxis, sizes: Mapping[str, int]) -> int:
    """The launcher's tile size; if the extent is not given, the largest, or `_WHOLE` for an axis held whole."""
    block = s.kernel.choices.tile(axis.name)
    assert block is not None
    if any(a not in sizes for a in axis.axes):
        return max(block.least, _WHOLE) if block.cap == tile.WHOLE else block.cap
    return block_size(block, prod(sizes[a] for a in axis.axes))


def _side(s: Signature, axis: tile.TileAxis, sizes: Mapping[str, int]) -> int:
    """The positions that a descriptor's block has along an axis: of rows that consumers share, those of one."""
    size, roles = _tile_size(s, axis, sizes), s.kernel.roles
    return size if roles is None or roles.axis != axis.name else size // roles.consumers


def _swizzle(s: Signature, sides: list[int], dtype: DType) -> str:
    """How blocks lie in shared memory, where the signature has that."""
    if s.kernel.roles is None:
        return ""
    from triton.experimental.gluon import language as gl

    return f",{gl.NVMMASharedLayout.get_default_for(sides, getattr(gl, _GLUON[dtype.name]))!r}"


def _cuda_registers(cubin: str | bytes) -> tuple[int, int]:
    """Registers and spilled registers, as `cuobjdump` reports them; its STACK is bytes."""
    import triton.backends.nvidia as nvidia

    assert isinstance(cubin, bytes)
    tool = Path(str(nvidia.__path__[0])) / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    used = re.search(r"REG:(\d+) STACK:(\d+)", shown.stdout)
    return (int(used[1]), int(used[2]) // 4) if used else (0, 0)


def _hip_registers(amdgcn: str | bytes) -> tuple[int, int]:
    found = [re.search(rf"\.{name}:\s+(\d+)", str(amdgcn)) for name in ("vgpr_count", "vgpr_spill_count")]
    registers, spills = (int(m[1]) if m else 0 for m in found)
    return registers, spills
