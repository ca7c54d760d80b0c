"""The launcher of an emitted file: a function of the program's operands that finds extents and runs the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from einc import tile
from einc.codegen.emit import index_width
from einc.codegen.emit.bound import TORCH, Bound, launcher_name
from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.signature import extents_of, in_parts
from einc.codegen.emit.text import File
from einc.ein import Program
from einc.pipeline.emitted import Signature
from einc.tile.walk import repeated_axes
from einc.tile.windows import Box, by_descriptor

Options = Callable[[Signature, Callable[[str], str]], Mapping[str, str]]  # of a launch, given the names of tile sizes


def launcher_source(
    file: File, program: Program, schedule: tile.Schedule, signatures: tuple[Signature, ...], options: Options
) -> list[str]:
    """The lines of the launcher, after those of the kernels."""
    return _Launcher(file, program, schedule, signatures, options).lines()


class _Launcher(Bound):
    def __init__(
        self, file: File, program: Program, schedule: tile.Schedule, signatures: tuple[Signature, ...], options: Options
    ) -> None:
        super().__init__(file, program)
        self.schedule, self.signatures, self.options = schedule, signatures, options
        dims = program.shapes()
        self.outputs = {t.name: (t.dtype, dims[t.name]) for e in program.equations for t in e.outputs}
        self.outputs |= {b.name: (b.dtype, b.dims) for b in schedule.intermediates}
        self.results = [name for name in program.results if name in self.outputs]
        for name in self.outputs:
            self.tensor[name] = self.names.fresh(name)
        self.name_axes()
        self.address = dict(self.tensor)  # a complex tensor is addressed as a real one
        self.sizes: dict[str, str] = {}
        self.blocks: dict[str, str] = {}  # variables that hold tile sizes, by their names in kernels

    def lines(self) -> list[str]:
        body = list(
            chain(
                self.docstring(),
                self.extents(),
                self.checks(),
                self.allocations(),
                self.complex_views(),
                self.index_type(),
                *(self.launch(s) for s in self.signatures),
            )
        )
        returned = ", ".join(self.tensor[name] for name in self.program.results)
        return [f"def {launcher_name(self.program)}({self.parameters()}):", *indented([*body, f"return {returned}"])]

    def parameters(self) -> str:
        shown = self.shown()
        extra = ["*", "out=None"] + ([] if self.program.operands else ["device=None"])
        return ", ".join(shown + extra)

    def docstring(self) -> Iterator[str]:
        yield f'"""{self.said()}'
        yield ""
        taken = (
            "the tensor to write it to" if len(self.program.results) == 1 else "the tuple of tensors to write them to"
        )
        yield f"`out` is {taken}, with any strides."
        yield from self.renamed()
        yield '"""'

    # Memory ----------------------------------------------------------------------------------------------------------

    def allocations(self) -> Iterator[str]:
        device = f"{self.tensor[self.program.operands[0].name]}.device" if self.program.operands else "device"
        for b in self.schedule.intermediates:
            yield from wrapped(self.empty(b.name, device))
        written = list(dict.fromkeys(self.results))
        if not written:
            return
        yield "if out is None:"
        yield from indented(line for name in written for line in wrapped(self.empty(name, device)))
        yield "else:"
        into = (self.tensor[name] if name in self.outputs else "_" for name in self.program.results)
        yield f"    {', '.join(into)} = out"
        for name in written:
            dtype, dims = self.outputs[name]
            yield f"    {self.expected(self.tensor[name], name, dims, dtype)}"

    def empty(self, name: str, device: str) -> str:
        dtype, dims = self.outputs[name]
        if name in self.file.lined:
            lined = self.file.helper("lined")
            return f"{self.tensor[name]} = {lined}({self.shape(dims)}, {TORCH[dtype.name]}, {device})"
        return f"{self.tensor[name]} = torch.empty({self.shape(dims)}, dtype={TORCH[dtype.name]}, device={device})"

    def complex_views(self) -> Iterator[str]:
        dtypes = {b.name: b.dtype for k in self.schedule.kernels for b in k.buffers}
        for name, dtype in dtypes.items():
            if dtype.is_complex:
                self.address[name] = self.names.fresh(f"{name}_parts")
                yield f"{self.address[name]} = torch.view_as_real({self.tensor[name]})"

    def used(self) -> list[str]:
        """The tensors that kernels touch, in order of appearance."""
        return list(dict.fromkeys(b.name for k in self.schedule.kernels for b in k.buffers))

    def index_type(self) -> Iterator[str]:
        atoms = {("extent", a.name): self.known[f"|{a.name}|"] for a in self.program.axes}
        atoms |= {("scalar", p.name): self.known[p.name] for p in self.program.scalars}
        positions = [index_width.written(p, atoms) for p in index_width.largest(self.schedule)]
        tensors = [self.address.get(name, self.tensor[name]) for name in self.used()]
        inside = ", ".join([f"({', '.join(positions)}{',' if len(positions) == 1 else ''})", *tensors])
        yield from wrapped(f"INT = {self.file.helper('index_type')}({inside})")

    # Launches --------------------------------------------------------------------------------------------------------

    def launch(self, s: Signature) -> Iterator[str]:
        yield from self.tile_sizes(s)
        tensors = [self.address.get(b.name, self.tensor[b.name]) for b in s.kernel.buffers]
        windows, parts = by_descriptor(s.kernel), in_parts(s.kernel)
        strides = [
            f"*{t}.stride()[:-1]" if b.name in parts else f"*{t}.stride()"
            for t, b in zip(tensors, s.kernel.buffers, strict=True)
            if b.dims and b.name not in windows
        ]
        blocks, roles = {axis.name: self.block(name) for name, axis in s.blocks}, s.kernel.roles
        if roles is not None:
            blocks[roles.axis] = f"{blocks[roles.axis]} // {roles.consumers}"
        helper = "described" if roles is None else "swizzled"
        tensors = [
            self.described(helper, t, windows[b.name], blocks) if b.name in windows else t
            for t, b in zip(tensors, s.kernel.buffers, strict=True)
        ]
        dtypes = dict(s.kernel.scalars)
        extents = [self.known[f"|{a}|"] for a in extents_of(s.kernel)]
        scalars = [f"int({self.known[n]})" if dtypes[n].is_bool else self.known[n] for n in dtypes]
        named = [f"{block}={self.block(block)}" for block, _ in s.blocks]
        named += [f"{unit}={self.file.helper('unit')}({self.in_order(r.tensor, r.order)})" for unit, r in s.units]
        if s.counter:
            tensors.append(f"{self.file.helper('zero')}({self.tensor[s.kernel.buffers[0].name]}.device)")
        lines = [
            [self.programs(s)],
            tensors,
            strides,
            extents + scalars,
            [*named, "INT=INT", *(f"{k}={n}" for k, n in self.options(s, self.block).items())],
        ]
        yield f"launch({s.name}, {lines[0][0]},"
        yield from (f"       {', '.join(line)}," for line in lines[1:-1] if line)
        yield f"       {', '.join(lines[-1])})"

    def described(self, helper: str, tensor: str, box: Box, blocks: Mapping[str, str]) -> str:
        """The descriptor of a tensor: its dimensions as they lie in memory, and the sides of its blocks."""
        order = tuple(k for _, dims in box for k in dims)
        own = self.permuted(tensor, order)
        for n, (_, dims) in enumerate(box):
            own += f".flatten({n}, {n + len(dims) - 1})" if len(dims) > 1 else ""
        sides = ", ".join("1" if axis is None else blocks[axis] for axis, _ in box)
        return f"{self.file.helper(helper)}({own}, {sides})"

    def in_order(self, tensor: str, order: tuple[int, ...]) -> str:
        """A tensor with its dimensions as they lie in memory."""
        return self.permuted(self.tensor[tensor], order)

    def permuted(self, code: str, order: tuple[int, ...]) -> str:
        return code if list(order) == sorted(order) else f"{code}.permute{order}"

    def block(self, name: str) -> str:
        """The variable for a tile size of this name in kernels."""
        if name not in self.blocks:
            self.blocks[name] = self.names.fresh(name)
        return self.blocks[name]

    def tile_sizes(self, s: Signature) -> Iterator[str]:
        """Tile sizes, unless the variables still hold those of an earlier kernel."""
        for block, axis in ((self.block(name), axis) for name, axis in s.blocks):
            size_of = s.kernel.choices.tile(axis.name)
            assert size_of is not None
            least, cap = size_of.least, size_of.cap
            size = str(cap)
            if least < cap:
                limits = f"{least}" if cap == tile.WHOLE else f"{least}, {cap}"
                size = f"{self.file.helper('tile_size')}({self.extent(axis.axes)}, {limits})"
            if self.sizes.get(block) != size:
                yield f"{block} = {size}"
            self.sizes[block] = size

    def programs(self, s: Signature) -> str:
        """The number of programs of the grid."""
        counts = []
        names = {axis.name: self.block(block) for block, axis in s.blocks}
        repeated = repeated_axes(s.kernel)
        for a in s.kernel.grid:
            extent = self.extent(a.axes)
            count = f"{self.file.helper('blocks')}({extent}, {names[a.name]})" if a.blocked else extent
            counts.append(f"max({count}, 1)" if a.name in repeated else count)
        found = " * ".join(counts) or "1"
        if s.kernel.roles is None or not s.kernel.roles.onward:
            return found
        first = self.tensor[s.kernel.buffers[0].name]
        return f"min({found}, {self.file.helper('processors')}({first}))"
