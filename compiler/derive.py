"""The derivative of a program: what runs ahead of it, and what its gradients are.

    program  --differentiate, reassociate, save-->  ahead: results, saved tensors      behind: gradients

Both are programs like any other. Which tensors are saved depends on what the program writes to memory anyway, and so on
extents and the machine; all else follows from its equations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from einc import ein
from einc.base.errors import CallError, nearest
from einc.base.targets import Target
from einc.cache import find, keep
from einc.codegen import TRITON
from einc.driver import Compiled, compile_program
from einc.pipeline import Context, State
from einc.pipeline.emitted import Both, Emitted, Half, Source
from einc.pipeline.fates import Fate
from einc.pipeline.forms import verify
from einc.pipeline.parts import InOrder, InSlices, Parts, each, mapped
from einc.tile.blocks import size_class

if TYPE_CHECKING:
    from einc.stages import Stage


@dataclass(frozen=True, slots=True)
class Ahead:
    """A program that gives the results of another, and behind them tensors that its derivative reads.

    `operands` are those with gradients; `results` is how many of its own the program has, and `constants` are tensors
    that have no derivative. `fates` say why a tensor is saved or not.
    """

    program: ein.Program
    operands: tuple[str, ...]
    results: int
    constants: frozenset[str]
    fates: tuple[Fate, ...]

    @property
    def fixed(self) -> tuple[int, ...]:
        """Which of the outputs have no gradient."""
        dtypes = self.program.dtypes()
        return tuple(
            k
            for k, name in enumerate(self.program.results)
            if name in self.constants or not (dtypes[name].is_float or dtypes[name].is_complex)
        )


@dataclass(frozen=True, slots=True)
class Behind:
    """The program of gradients: `sources` says what each of its operands is to the call that ran ahead, `gradients`
    which result is the gradient of each operand of that, None where there is none."""

    program: ein.Program
    sources: tuple[Source, ...]
    gradients: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Together:
    """A program and its gradients, compiled for one target: what one file of both is made of."""

    whole: ein.Program
    run: Ahead
    half: Behind
    ahead: Compiled
    behind: Parts[Compiled]

    @cached_property
    def emitted(self) -> Emitted:
        """The complete file: kernels of both, and a function of the program's name that torch differentiates."""
        ahead, behind = _half(self.ahead), mapped(self.behind, _half)
        both = Both(self.whole, ahead, behind, self.run.fixed, self.half.sources, self.half.gradients)
        return self.ahead.request.backend.emit_both(both, self.target)

    @property
    def source(self) -> str:
        return self.emitted.source

    @property
    def target(self) -> Target:
        return self.ahead.context.target

    @property
    def sizes(self) -> dict[str, int]:
        """Extents by axis, as far as they are known."""
        found = dict(self.ahead.context.sizes)
        for compiled in each(self.behind):
            found |= compiled.context.sizes
        return found

    def tightened(self) -> Together | None:
        """The same in kernels that take less shared memory; None if none do."""
        ahead, behind = self.ahead.tightened(), mapped(self.behind, Compiled.tightened)
        if ahead is None and not any(each(behind)):
            return None
        smaller = mapped(self.behind, lambda c: c.tightened() or c)
        return replace(self, ahead=ahead or self.ahead, behind=smaller)


def in_parts(whole: Compiled) -> Parts[Compiled]:
    """How gradients are computed for the sizes that they are compiled for: in the order of sorted positions, slice by
    slice, or as the program is written; so where not all sizes are known."""
    from einc.passes.scatter.segments import segmented

    program, request = whole.program, whole.request
    sizes = {**whole.sizes, **dict(request.extents)}
    if not sizes.keys() >= {a.name for a in program.axes}:
        return whole
    found = segmented(program, sizes, always=True) if request.deterministic else None
    if found is None:
        return _in_slices(whole, sizes)
    indices = None if found.indices is None else _alike(whole, found.indices, sizes)
    main = _alike(whole, found.program, found.extents)
    return InOrder(program, found.segments, indices, _in_slices(main, found.extents))


def _in_slices(whole: Compiled, sizes: Mapping[str, int]) -> Compiled | InSlices[Compiled]:
    from einc.passes.streaming.slicing import MOST, UNIT, slicing

    assert whole.state.schedule is not None
    found = slicing(whole.program, sizes, whole.state.schedule.intermediates)
    if found is None:
        return whole
    one = _alike(whole, found.sliced.program, {**sizes, found.axis: found.length})
    return InSlices(whole.program, found.sliced, found.axis, MOST, UNIT, one)


def _alike(whole: Compiled, program: ein.Program, sizes: Mapping[str, int]) -> Compiled:
    """Another program, compiled as a program was."""
    own = whole.request
    names = {p.name for p in program.operands}
    layouts = {n: lying for n, lying in own.layouts if n in names}
    extents = {a.name: sizes[a.name] for a in program.axes}
    return compile_program(
        program, own.level, own.target, extents, whole.verify, (), None, own.backend, layouts, own.deterministic
    )


def _half(compiled: Compiled) -> Half:
    assert compiled.state.schedule is not None
    return Half(compiled.state.program, compiled.state.schedule)


def asked(program: ein.Program, names: Sequence[str]) -> tuple[str, ...]:
    """The operands that gradients are asked for: those named, or all of floats and complex numbers.

    Raises `CallError` for a name that is no operand, and for an operand of integers or truth values.
    """
    have = [p.name for p in program.operands if p.dtype.is_float or p.dtype.is_complex]
    for name in names:
        if name in have:
            continue
        other = next((p for p in program.params if p.name == name), None)
        if other is None:
            what, why = "is no operand", f"operands with gradients: {', '.join(have) or 'none'}"
        elif isinstance(other, ein.Operand):
            what, why = "has no gradient", f"its values are {other.dtype}"
        else:
            what, why = "has no gradient", "a scalar is a constant of the program"
        instead = f"a tensor without axes, {name}[]" if isinstance(other, ein.Param) else f"one of {', '.join(have)}"
        hint = nearest(name, have) or (instead if have else "an operand of floats")
        raise CallError(f"'{name}' {what}", fact=why, hint=hint)
    return tuple(n for n in have if n in names) if names else tuple(have)


def backward(run: Ahead, named: Sequence[str] = ()) -> Behind:
    """The gradients, given cotangents of all results of the program that have one.

    Raises `CallError` where one of the operands `named` has no gradient, since no such result depends on it; without
    names, where none has.
    """
    found = behind(run, _differentiable(run))
    there = dict(zip((p.name for p in run.program.operands), found.gradients, strict=True))
    without = [name for name in named or run.operands if there[name] is None]
    if named and without:
        raise CallError(
            f"'{without[0]}' has no gradient",
            fact="no result with a derivative depends on it",
            hint=", ".join(n for n in named if n not in without) or "another operand",
        )
    if len(without) == len(run.operands):
        raise CallError(
            "the program has no gradient",
            fact="no result with a derivative depends on an operand of floats",
            hint="results that vary with operands",
        )
    return found


def derivation(run: Ahead) -> tuple[Stage, ...]:
    """What runs ahead, and what each law that gradients are found by makes of it."""
    from einc.passes.adjoint.differentiate import steps
    from einc.stages import Stage

    programs = [(law.name, d.whole) for law, d in steps(run.program, run.operands, _differentiable(run), run.constants)]
    before = [run.program, *(p for _, p in programs)]
    own = [Stage(name, State(p), p != last) for (name, p), last in zip(programs, before, strict=False)]
    return (Stage("ahead", State(run.program), True), *own)


def stages(run: Ahead, behind: Compiled) -> tuple[Stage, ...]:
    """A program on the way to its gradients, and their program on the way to kernels: after what computes it in parts,
    if anything does, and after every pass."""
    from einc.stages import Stage

    found = [behind.stages[0]]
    parts = in_parts(behind)
    while not isinstance(parts, Compiled):
        name = "sort-places" if isinstance(parts, InOrder) else "slice"
        parts = parts.parts[-1]
        found.append(Stage(name, State(parts.program), True))
    return (*derivation(run), *found, *parts.stages[1:])


def _differentiable(run: Ahead) -> tuple[str, ...]:
    """The results of the program that have a derivative."""
    results = run.program.results[: run.results]
    return tuple(dict.fromkeys(n for k, n in enumerate(results) if k not in run.fixed))


def ahead(
    program: ein.Program,
    operands: Iterable[str],
    level: int,
    target: Target,
    extents: Mapping[str, int] | None = None,
) -> Ahead:
    """What runs in place of a program whose gradients by some operands will be asked for."""
    from einc.passes.algebra.grouping import exactly

    program = exactly(program, extents)
    sizes = tuple(sorted((axis, size_class(n)) for axis, n in (extents or {}).items()))
    return _ahead(program, tuple(operands), level, target, sizes)


@lru_cache(maxsize=1024)
def _ahead(
    program: ein.Program, operands: tuple[str, ...], level: int, target: Target, sizes: tuple[tuple[str, int], ...]
) -> Ahead:
    key = (program, operands, level, target, sizes)
    known = find("derivatives", key, Ahead)
    if known is None:
        known = _differentiated(program, operands, level, target, sizes)
        keep("derivatives", key, known)
    return known


def _differentiated(
    program: ein.Program, operands: tuple[str, ...], level: int, target: Target, sizes: tuple[tuple[str, int], ...]
) -> Ahead:
    from einc.passes.adjoint.differentiate import differentiate
    from einc.passes.adjoint.saving import Budget, halves
    from einc.passes.adjoint.shifts import shifts

    adjoint = differentiate(program, operands)
    names = frozenset(t.name for e in program.equations for t in e.outputs)
    least, most = (halves(adjoint, Budget(w, dict(sizes), target)) for w in (frozenset[str](), names))
    if least.saved == most.saved:
        found = least
    else:
        found = halves(adjoint, Budget(_written(program, level, target, sizes), dict(sizes), target))
    verify(found.forward)
    return Ahead(found.forward, operands, len(program.results), shifts(adjoint.forward), found.fates)


def _written(program: ein.Program, level: int, target: Target, sizes: tuple[tuple[str, int], ...]) -> frozenset[str]:
    """The tensors that kernels of a program pass on in memory."""
    from einc.stages import planned

    state = planned(program, Context(TRITON, level, target, dict(sizes)))
    return frozenset(name for plan in state.plans for name in plan.stores) - {*state.program.results}


@lru_cache(maxsize=1024)
def behind(run: Ahead, cotangents: tuple[str, ...]) -> Behind:
    """The gradients, given cotangents of some of the outputs."""
    known = find("derivatives", (run, cotangents), Behind)
    if known is None:
        known = _behind(run, cotangents)
        keep("derivatives", (run, cotangents), known)
    return known


def _behind(run: Ahead, cotangents: tuple[str, ...]) -> Behind:
    from einc.passes.adjoint.differentiate import differentiate
    from einc.passes.adjoint.saving import halves

    found = halves(differentiate(run.program, run.operands, cotangents, run.constants), None)
    if found.backward.results:
        verify(found.backward)
    of = {name: r for r, name in found.cotangents.items()}
    operands = [p.name for p in run.program.operands]
    sources: list[Source] = []
    for p in found.backward.operands:
        if p.name in of:
            sources.append(("cotangent", run.program.results.index(of[p.name])))
        elif p.name in operands:
            sources.append(("operand", operands.index(p.name)))
        else:
            sources.append(("output", run.program.results.index(p.name)))
    places = {name: k for k, name in enumerate(found.backward.results)}
    gradients = tuple(places.get(found.gradients.get(name, "")) for name in operands)
    return Behind(found.backward, tuple(sources), gradients)
