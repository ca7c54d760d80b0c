"""Functions of a program's operands that call others: for positions in the order of their places, or slice by slice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from einc.base.types import DType, compute
from einc.codegen.emit.bound import TORCH, Bound, called, launcher_name
from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.text import File
from einc.pipeline.emitted import Half
from einc.pipeline.parts import InOrder, InSlices

_IN_ORDER = '''
def {name}(index, kept, places):
    """Positions in ascending order of their index, where each place begins among them, and how many it has.

    The index is sorted along all but so many first dimensions as one.
    """
    shape = index.shape[:kept]
    known, order = torch.sort(index.to(torch.int64).reshape(*shape, -1), stable=True)
    numbers = torch.arange(math.prod(places) + 1, device=index.device).expand(*shape, -1).contiguous()
    bounds = torch.searchsorted(known, numbers)
    return order, bounds[..., :-1].reshape(*shape, *places), bounds.diff().reshape(*shape, *places)
'''


def in_order_source(file: File, part: InOrder[Half]) -> list[str]:
    """The lines of the function that sorts, after those of what it calls."""
    return _InOrder(file, part).lines()


def in_slices_source(file: File, part: InSlices[Half]) -> list[str]:
    """The lines of the function that goes over slices, after those of what it calls for each."""
    return _InSlices(file, part).lines()


class _Calling(Bound, ABC):
    """A function of a program's operands that calls other launchers."""

    how = ""

    def lines(self) -> list[str]:
        self.name_axes()
        said = [f'"""{self.said()}', "", self.how, *self.renamed(), '"""']
        body = [*self.extents(), *self.checks(), *self.body()]
        head = f"def {launcher_name(self.program)}({', '.join(self.shown())}):"
        return [head, *indented([*said, *(line for code in body for line in wrapped(code))])]

    @abstractmethod
    def body(self) -> Iterator[str]:
        """The statements that call them."""

    def values(self) -> dict[str, str]:
        """What is given to launchers, by name."""
        return {**self.tensor, **{n: code for n, code in self.known.items() if not n.startswith("|")}}


class _InOrder(_Calling):
    how = "Positions are sorted by their places, and terms added place by place."

    def __init__(self, file: File, part: InOrder[Half]) -> None:
        super().__init__(file, part.program)
        self.part = part

    def body(self) -> Iterator[str]:
        part = self.part
        sort = self.file.function("in_order", "in_order", lambda name: _IN_ORDER.strip("\n").format(name=name))
        if part.indices is not None:
            yield f"{self.given(part.computed)} = {called(part.indices.program, self.values())}"
        for s in part.segments:
            places = self.shape(tuple((v,) for v in s.places))
            index = self.tensor[s.index]
            yield f"{self.given((s.order, s.start, s.count))} = {sort}({index}, {s.kept}, {places})"
        yield f"return {called(part.main.program, self.values())}"

    def given(self, names: Sequence[str]) -> str:
        """New variables for tensors of these names."""
        self.tensor |= {n: self.names.fresh(n) for n in names}
        return ", ".join(self.tensor[n] for n in names)


class _InSlices(_Calling):
    def __init__(self, file: File, part: InSlices[Half]) -> None:
        super().__init__(file, part.program)
        self.part = part
        self.how = f"It is computed for one slice of {part.axis} after the other."
        self.results = {n: self.names.fresh(n) for n in part.program.results}

    def body(self) -> Iterator[str]:
        part, values, sliced = self.part, self.values(), self.part.sliced
        dtypes = part.program.dtypes()
        for n in self.results:
            made, dtype = ("zeros", compute(dtypes[n])) if n in sliced.sums else ("empty", dtypes[n])
            yield self.memory(n, made, dtype)
        whole = self.known[f"|{part.axis}|"]
        step, first, count = map(self.names.fresh, ("step", "first", "count"))
        yield f"{step} = max(-(-{whole} // {part.most * part.unit}), 1) * {part.unit}"
        yield f"for {first} in range(0, {whole}, {step}):"
        inside = [f"{count} = min({step}, {whole} - {first})"]
        values = {n: self.slice(n, code, first, count) for n, code in values.items()}
        values |= {before: self.results[n] for n, before in sliced.sums.items()}
        values |= {} if sliced.first is None else {sliced.first: first}
        into = [self.slice(n, code, first, count) for n, code in self.results.items()]
        inside.append(called(part.one.program, values, into[0] if len(into) == 1 else f"({', '.join(into)})"))
        yield from indented(line for code in inside for line in wrapped(code))
        given = [
            f"{code}.to({TORCH[dtypes[n].name]})" if n in sliced.sums and compute(dtypes[n]) != dtypes[n] else code
            for n, code in self.results.items()
        ]
        yield f"return {', '.join(given)}"

    def memory(self, name: str, made: str, dtype: DType) -> str:
        device = f"{self.tensor[self.program.operands[0].name]}.device"
        shape = self.shape(self.program.shapes()[name])
        return f"{self.results[name]} = torch.{made}({shape}, dtype={TORCH[dtype.name]}, device={device})"

    def slice(self, name: str, code: str, first: str, count: str) -> str:
        k = self.part.sliced.along.get(name)
        return code if k is None else f"{code}.narrow({k}, {first}, {count})"
