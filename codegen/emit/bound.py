"""How functions of a program's operands begin: with names of parameters, every extent, and checks of shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from einc.base.types import DType
from einc.binding import FromDefault, FromDimension, FromFormula, plan
from einc.codegen.emit.formulas import formula
from einc.codegen.emit.names import OF_LAUNCHERS, Names
from einc.codegen.emit.text import RESERVED, File
from einc.ein import Const, Operand, Param, Program
from einc.ein.printer import print_dims

TORCH = {
    "bool": "torch.bool", "i8": "torch.int8", "i16": "torch.int16", "i32": "torch.int32", "i64": "torch.int64",
    "u8": "torch.uint8", "u16": "torch.uint16", "u32": "torch.uint32", "u64": "torch.uint64",
    "f16": "torch.float16", "bf16": "torch.bfloat16", "f32": "torch.float32", "f64": "torch.float64",
    "f8e4m3": "torch.float8_e4m3fn", "f8e5m2": "torch.float8_e5m2",
    "c64": "torch.complex64", "c128": "torch.complex128",
}  # fmt: skip


class Bound:
    """A program's parameters and extents by their names in a function of an emitted file."""

    def __init__(self, file: File, program: Program) -> None:
        self.file, self.program = file, program
        self.names = Names(OF_LAUNCHERS, around=file.names)
        self.tensor: dict[str, str] = {}
        self.known: dict[str, str] = {}  # extents as `|i|`, and scalars
        self.parameter = {p.name: self._named(p) for p in program.params}

    def _named(self, p: Operand | Param) -> str:
        name = self.names.fresh(p.name)
        (self.tensor if isinstance(p, Operand) else self.known)[p.name] = name
        return name

    def name_axes(self) -> None:
        """Give extents their names, after those that come before them."""
        for axis in self.program.axes:
            self.known[f"|{axis.name}|"] = self.names.fresh(axis.name)

    def shown(self) -> list[str]:
        """The parameters, those with a default last."""
        return [self.parameter[p.name] + ("=None" if is_optional(p) else "") for p in defaults_last(self.program)]

    def said(self) -> str:
        """What gives what, in words."""
        results = ", ".join(self.declared(name) for name in self.program.results)
        operands = ", ".join(self.declared(p.name) for p in self.program.operands)
        return results + (f" from {operands}." if operands else ".")

    def declared(self, name: str) -> str:
        dims, dtypes = self.program.shapes(), self.program.dtypes()
        return f"{name}{print_dims(dims[name])}: {dtypes[name]}"

    def renamed(self) -> Iterator[str]:
        """What a docstring says of parameters that are called otherwise in the program."""
        for p in self.program.params:
            if self.parameter[p.name] != p.name:
                yield f"`{self.parameter[p.name]}` is the program's {p.name}."

    def extents(self) -> Iterator[str]:
        """Every extent and default, in the order of `binding.order.plan`; dimensions of one operand on one line."""
        steps = list(plan(self.program))
        while steps:
            match steps[0]:
                case FromDimension(operand=operand, known=()):
                    taken = [s for s in steps if isinstance(s, FromDimension) and s.operand == operand and not s.known]
                    steps = [s for s in steps if s not in taken]
                    yield self.unpacked(operand, {s.dimension: s.axis for s in taken})
                    continue
                case FromDimension(axis=axis, operand=operand, dimension=k, known=known):
                    divisor = " * ".join(self.known[f"|{a}|"] for a in known)
                    exact = self.file.helper("exact_quotient")
                    yield f"{self.known[f'|{axis}|']} = {exact}({self.tensor[operand]}.shape[{k}], {divisor})"
                case FromFormula(axis=axis, formula=Const(value=value)) if value >= 0:
                    yield f"{self.known[f'|{axis}|']} = {value}"
                case FromFormula(axis=axis, formula=e):
                    called = self.file.helper("checked_extent")
                    yield f'{self.known[f"|{axis}|"]} = {called}("{axis}", {formula(e, self.known, self.file).code})'
                case FromDefault(name=name, formula=e):
                    scalar = self.known[name]
                    yield f"if {scalar} is None:"
                    yield f"    {scalar} = {formula(e, self.known, self.file).code}"
            steps.pop(0)

    def unpacked(self, operand: str, axes: dict[int, str]) -> str:
        """`b, _, d = Q.shape`, or one dimension of it."""
        rank = len(self.program.shapes()[operand])
        tensor = self.tensor[operand]
        if len(axes) == 1 and rank > 1:
            ((k, axis),) = axes.items()
            return f"{self.known[f'|{axis}|']} = {tensor}.shape[{k}]"
        names = [self.known[f"|{axes[k]}|"] if k in axes else "_" for k in range(rank)]
        return f"{', '.join(names)}{',' if rank == 1 else ''} = {tensor}.shape"

    def checks(self) -> Iterator[str]:
        for p in self.program.operands:
            yield self.expected(self.tensor[p.name], p.name, p.dims, p.dtype)

    def expected(self, tensor: str, name: str, dims: tuple[tuple[str, ...], ...], dtype: DType) -> str:
        return f'{self.file.helper("expect")}("{name}", {tensor}, {self.shape(dims)}, {TORCH[dtype.name]})'

    def shape(self, dims: tuple[tuple[str, ...], ...]) -> str:
        extents = [self.extent(dim) for dim in dims]
        return f"({', '.join(extents)}{',' if len(extents) == 1 else ''})"

    def extent(self, axes: tuple[str, ...]) -> str:
        return " * ".join(self.known[f"|{a}|"] for a in axes) or "1"


def defaults_last(program: Program) -> list[Operand | Param]:
    """The parameters in the caller's order, those with a default last, as Python requires."""
    return sorted(program.params, key=is_optional)


def is_optional(p: Operand | Param) -> bool:
    """Has a parameter a default?"""
    return isinstance(p, Param) and p.default is not None


def launcher_name(program: Program) -> str:
    """The name of a program's launcher in its emitted file."""
    return Names(RESERVED).fresh(program.name)


def called(program: Program, known: Mapping[str, str], out: str = "") -> str:
    """The call of a program's launcher with the values of parameters by their names."""
    given = [known[p.name] for p in defaults_last(program)] + ([f"out={out}"] if out else [])
    return f"{launcher_name(program)}({', '.join(given)})"
