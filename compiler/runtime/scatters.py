"""Programs whose terms data sends to their places, run as sums over segments that torch sorts for.

    program(token, x)  -->  order, start, count = sorted(token);    segmented(x, order, start, count)

The meaning is that of the program as it is written, which transformations and derivatives are made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from einc.base.facts import Fact
from einc.ein import Program
from einc.ein.printer import print_program
from einc.runtime.callee import DECODERS, Callee, callee, described, of_program
from einc.runtime.execution import ON_CPU, Place
from einc.runtime.prepared import Options

if TYPE_CHECKING:
    import torch

    from einc.passes.adjoint.segments import Segments

_MOST_KEPT = 256  # shapes of operands of one program


def called(program: Program, options: Options) -> Callee:
    """The callee of a program, compiled with these options but for its choices."""
    from einc.passes.adjoint.segments import scatters

    return callee(_described((Scattering if scatters(program) else Callee).kind, program, options))


def _described(kind: str, program: Program, options: Options) -> str:
    target = None if options.target is None else options.target.name
    return described(kind, [print_program(program), None, options.level, target, options.verify, []])


@dataclass(frozen=True, slots=True)
class _Sorting:
    """A program of segments with its operands in terms of those `given`; some of the indices are computed first."""

    given: tuple[str, ...]
    segments: tuple[Segments, ...]
    indices: Callee | None
    main: Callee

    def run(
        self, tensors: Sequence[torch.Tensor], scalars: Mapping[str, Any], backend: str | None = None
    ) -> Sequence[torch.Tensor]:
        """The results for operands in memory, apart from gradients."""
        values = dict(zip(self.given, (t.detach() for t in tensors), strict=True))
        if self.indices is not None:
            found = _results(self.indices, values, scalars, backend)
            values |= {s.index: t for s, t in zip(self._computed(), found, strict=True)}
        for s in self.segments:
            values |= _in_order(s, values[s.index])
        return _results(self.main, values, scalars, backend)

    def _computed(self) -> list[Segments]:
        """What is sorted by an index that is no operand."""
        return [s for s in self.segments if s.index not in self.given]


def _results(
    found: Callee, values: Mapping[str, torch.Tensor], scalars: Mapping[str, Any], backend: str | None
) -> Sequence[torch.Tensor]:
    named = {n: v for n, v in scalars.items() if n in found.scalars}
    return found.computed([values[n] for n in found.operands], named, backend)


def _in_order(s: Segments, index: torch.Tensor) -> dict[str, torch.Tensor]:
    """The positions of an index in ascending order, where each number begins among them, and how many there are."""
    import torch

    kept = index.shape[: s.kept]
    flat = index.to(torch.int64).reshape(*kept, -1)
    known, order = torch.sort(flat, stable=True)
    numbers = torch.arange(prod(s.lengths) + 1, device=index.device).expand(*kept, -1).contiguous()
    bounds = torch.searchsorted(known, numbers)
    start = bounds[..., :-1]
    return {
        s.order: order,
        s.start: start.reshape(*kept, *s.lengths),
        s.count: (bounds[..., 1:] - start).reshape(*kept, *s.lengths),
    }


class Scattering(Callee):
    """A program that runs as one over segments wherever that saves work."""

    kind = "scattering"

    def anew(
        self,
        tensors: Sequence[torch.Tensor],
        facts: tuple[Fact, ...],
        scalars: Mapping[str, Any],
        where: Place,
        backend: str | None,
    ) -> Sequence[torch.Tensor]:
        """The results of a call that was not made before."""
        found = self._sorting(facts, scalars, where.backend == ON_CPU and self.options.level >= 2)
        if found is None:
            return super().anew(tensors, facts, scalars, where, backend)
        if backend is None:
            self.keep_for(tensors, scalars, found.run)
        return found.run(tensors, scalars, backend)

    def _sorting(self, facts: tuple[Fact, ...], scalars: Mapping[str, Any], by_torch: bool) -> _Sorting | None:
        """How calls with such operands run; None if as the program is written, which may be an operation of torch."""
        from einc.codegen.operation import scattered
        from einc.passes.adjoint.segments import segmented

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
                main = callee(_described(Callee.kind, made.program, self.options))
                kept[key] = _Sorting(self.operands, made.segments, indices, main)
        found: _Sorting | None = kept[key]
        return found


DECODERS[Scattering.kind] = lambda rest: of_program(rest, Scattering)
