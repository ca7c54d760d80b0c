"""Halves of derivatives, run as other programs where that saves work or memory.

    program(token, x)  -->  order, start, count = sorted(token);    segmented(x, order, start, count)
    program(X, W)      -->  for each slice of W:  sums, Y[slice] = sliced(X, W[slice], first, sums)

Terms that data sends to their places are summed over segments, which torch sorts for, so that runs are equal to the
last bit; kernels add them where that need not be. What would be passed on between
kernels, and is huge and larger than all that a call is given and gives, is made slice by slice (`streaming/slicing`).
The meaning is that of the program as it is written, which transformations and derivatives are made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from einc.base.facts import Fact
from einc.base.types import compute
from einc.base.written import written
from einc.binding import bind
from einc.ein import Program
from einc.ein.printer import print_program
from einc.runtime.callee import DECODERS, Called, Callee, Computed, callee, described, of_program
from einc.runtime.execution import ON_CPU, Place
from einc.runtime.prepared import Options, Prepared
from einc.runtime.tensors import fact, torch_dtype

if TYPE_CHECKING:
    import torch

    from einc.pipeline.parts import Segments, Sliced

_MOST_KEPT = 256  # shapes of operands of one program


def called(program: Program, options: Options) -> Callee:
    """The callee of a program, compiled with these options but for its choices."""
    return callee(_described(half_of(program, options).kind, program, options))


def half_of(program: Program, options: Options) -> type[Callee]:
    """The class of the callee of a program that gives gradients, or what they are made of."""
    from einc.passes.scatter.places import scatters

    return Scattering if options.deterministic and scatters(program) else Slicing


def _described(kind: str, program: Program, options: Options) -> str:
    return described(kind, [print_program(program), None, written(replace(options, choices=()))])


@dataclass(frozen=True, slots=True)
class _Sorting:
    """A program of segments with its operands in terms of those `given`; some of the indices are computed first."""

    given: tuple[str, ...]
    segments: tuple[Segments, ...]
    indices: Callee | None
    main: Callee
    extents: Mapping[str, int]

    def run(
        self, tensors: Sequence[torch.Tensor], scalars: Mapping[str, Any], backend: str | None = None
    ) -> Sequence[torch.Tensor]:
        """The results for operands in memory, apart from gradients."""
        values = dict(zip(self.given, (t.detach() for t in tensors), strict=True))
        if self.indices is not None:
            found = _results(self.indices, values, scalars, backend)
            values |= {s.index: t for s, t in zip(self._computed(), found, strict=True)}
        for s in self.segments:
            values |= _in_order(s, values[s.index], [self.extents[v] for v in s.places])
        return _results(self.main, values, scalars, backend)

    def _computed(self) -> list[Segments]:
        """What is sorted by an index that is no operand."""
        return [s for s in self.segments if s.index not in self.given]


def _results(
    found: Callee, values: Mapping[str, torch.Tensor], scalars: Mapping[str, Any], backend: str | None
) -> Sequence[torch.Tensor]:
    named = {n: v for n, v in scalars.items() if n in found.scalars}
    return found.computed([values[n] for n in found.operands], named, backend)


def _in_order(s: Segments, index: torch.Tensor, lengths: Sequence[int]) -> dict[str, torch.Tensor]:
    """The positions of an index in ascending order, where each number begins among them, and how many there are."""
    import torch

    kept = index.shape[: s.kept]
    flat = index.to(torch.int64).reshape(*kept, -1)
    known, order = torch.sort(flat, stable=True)
    numbers = torch.arange(prod(lengths) + 1, device=index.device).expand(*kept, -1).contiguous()
    bounds = torch.searchsorted(known, numbers)
    start = bounds[..., :-1]
    return {
        s.order: order,
        s.start: start.reshape(*kept, *lengths),
        s.count: (bounds[..., 1:] - start).reshape(*kept, *lengths),
    }


class Scattering(Callee):
    """A program that runs as one over segments wherever that saves work."""

    kind = "scattering"

    def otherwise(self, call: Called, /) -> Computed | None:
        """What sorts, and then sums over segments."""
        found = self._sorting(call.facts, call.scalars, call.where.backend == ON_CPU and self.options.level >= 2)
        return None if found is None else partial(found.run, backend=call.backend)

    def _sorting(self, facts: tuple[Fact, ...], scalars: Mapping[str, Any], by_torch: bool) -> _Sorting | None:
        """How calls with such operands run; None if as the program is written, which may be an operation of torch."""
        from einc.codegen.operation import scattered
        from einc.passes.scatter.segments import segmented

        decide = self.deciding.always
        key = facts, by_torch, tuple((n, v) for n, v in sorted(scalars.items()) if n in decide)
        kept = self.__dict__.setdefault("_sortings", {})
        if key not in kept:
            program, bindings = self.bound(facts, scalars)
            single = by_torch and scattered(program) is not None
            made = None if single else segmented(program, bindings.extents)
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            if made is None:
                kept[key] = None
            else:
                indices = None if made.indices is None else callee(_described(Callee.kind, made.indices, self.options))
                main = callee(_described(Slicing.kind, made.program, self.options))
                kept[key] = _Sorting(self.operands, made.segments, indices, main, bindings.extents)
        found: _Sorting | None = kept[key]
        return found


@dataclass(frozen=True, slots=True)
class _InSlices:
    """A program over slices of an axis, of `length` positions each but the last; `callee` runs one of them."""

    sliced: Sliced
    callee: Callee
    axis: str
    length: int
    whole: Program
    where: Place

    def run(self, tensors: Sequence[torch.Tensor], scalars: Mapping[str, Any]) -> Sequence[torch.Tensor]:
        """The results for operands in memory, apart from gradients."""
        home = tensors[0].device
        values = dict(zip((p.name for p in self.whole.operands), tensors, strict=True))
        values = {n: t.detach().to(self.where.device) for n, t in values.items()}
        extents = self._extents(values, scalars)
        results, sums = self._results(extents)
        values |= {before: sums[name] for name, before in self.sliced.sums.items()}
        whole = {**results, **sums}
        calls: dict[int, Prepared] = {}
        for first in range(0, extents[self.axis], self.length):
            count = min(self.length, extents[self.axis] - first)
            given = {n: self._slice(n, values[n], first, count) for n in self.callee.operands}
            into = tuple(self._slice(n, whole[n], first, count) for n in self.whole.results)
            named = dict(scalars) if self.sliced.first is None else {**scalars, self.sliced.first: first}
            if count not in calls:
                facts = tuple(fact(t, n) for n, t in given.items())
                calls[count] = self.callee.prepared(facts, named, self.where, list(given.values()))
            calls[count].run(given, named, into)
        for name, total in sums.items():
            results[name].copy_(total)
        return tuple(results[n].to(home) for n in self.whole.results)

    def _extents(self, values: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> Mapping[str, int]:
        shapes = {p.name: tuple(values[p.name].shape) for p in self.whole.operands}
        return bind(self.whole, shapes, scalars).extents

    def _results(self, extents: Mapping[str, int]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Memory for the results, and for the sums among them."""
        import torch

        dims, dtypes = self.whole.shapes(), self.whole.dtypes()
        shapes = {n: [prod(extents[a] for a in dim) for dim in dims[n]] for n in self.whole.results}
        device = self.where.device
        results = {n: torch.empty(s, dtype=torch_dtype(dtypes[n]), device=device) for n, s in shapes.items()}
        types = {n: torch_dtype(compute(dtypes[n])) for n in self.sliced.sums}
        return results, {n: torch.zeros(shapes[n], dtype=t, device=device) for n, t in types.items()}

    def _slice(self, name: str, t: torch.Tensor, first: int, count: int) -> torch.Tensor:
        return t.narrow(self.sliced.along[name], first, count) if name in self.sliced.along else t


class Slicing(Callee):
    """A program that runs in slices where it would pass on what is huge."""

    kind = "slicing"

    def otherwise(self, call: Called, /) -> Computed | None:
        """What computes one slice after the other."""
        if call.where.backend == ON_CPU:
            return None
        found = self._slices(call.tensors, call.facts, call.scalars, call.where)
        return None if found is None else found.run

    def _slices(
        self, tensors: Sequence[torch.Tensor], facts: tuple[Fact, ...], scalars: Mapping[str, Any], where: Place
    ) -> _InSlices | None:
        """How calls with such operands run in slices; None if they do not."""
        decide = self.deciding.always
        key = facts, where, tuple((n, v) for n, v in sorted(scalars.items()) if n in decide)
        kept = self.__dict__.setdefault("_sliced", {})
        if key not in kept:
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            kept[key] = self._decided(tensors, facts, scalars, where)
        found: _InSlices | None = kept[key]
        return found

    def _decided(
        self, tensors: Sequence[torch.Tensor], facts: tuple[Fact, ...], scalars: Mapping[str, Any], where: Place
    ) -> _InSlices | None:
        from einc.passes.streaming.slicing import is_large, slicing

        program, bindings = self.bound(facts, scalars)
        if not is_large(program, bindings.extents):
            return None
        schedule = self.prepared(facts, scalars, where, tensors).compiled.state.schedule
        assert schedule is not None
        found = slicing(program, bindings.extents, schedule.intermediates)
        if found is None:
            return None
        one = callee(_described(Callee.kind, found.sliced.program, self.options))
        return _InSlices(found.sliced, one, found.axis, found.length, program, where)


DECODERS[Scattering.kind] = lambda rest: of_program(rest, Scattering)
DECODERS[Slicing.kind] = lambda rest: of_program(rest, Slicing)
