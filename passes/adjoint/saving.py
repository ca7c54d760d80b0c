"""What the forward program keeps for the backward one, and what that computes again.

    results                         are there anyway
    O_max[i] of A[i, j]             a reduction no larger than what the forward program writes: kept, at little cost
    exp(S - O_max)                  pointwise: computed again where it is read
    S[i, j] = sum[d](Q * K)         larger than all that the forward program writes: computed again
    H[b, f] = sum[d](x * W)         as large as something it writes: kept if writing and reading takes less time

So the backward program of a program that holds no large tensor in memory holds none either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

from einc.base.targets import Target
from einc.base.types import DType
from einc.ein import Equation, Operand, Program, tensors_of
from einc.ein.rewriting import drop_dead, taking
from einc.passes.adjoint.derivation import Adjoint
from einc.pipeline.fates import Fate


@dataclass(frozen=True, slots=True)
class Halves:
    """A program that keeps what its derivative needs, and the derivative that reads it.

    `forward` gives the program's results and then those `saved`. `backward` takes operands of the program, saved
    tensors and cotangents, as far as it reads them, and gives the `gradients` of operands, by name. `fates` say of each
    tensor of the program that the derivative reads whether it is saved, and why.
    """

    forward: Program
    backward: Program
    saved: tuple[str, ...]
    cotangents: Mapping[str, str]
    gradients: Mapping[str, str]
    fates: tuple[Fate, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """What decides: the tensors that the forward program writes, extents as far as they are known, and a machine."""

    written: frozenset[str]
    extents: Mapping[str, int]
    target: Target


def halves(adjoint: Adjoint, budget: Budget | None) -> Halves:
    """The two programs of a derivative; without a budget nothing is kept but results."""
    names = {t.name for e in adjoint.forward.equations for t in e.outputs}
    forward = {t.name: e for e in adjoint.program.equations for t in e.outputs if t.name in names}
    own = [e for e in adjoint.program.equations if e.name not in names]
    fates = _fates(adjoint.forward, forward, own, budget)
    kept = {f.tensor for f in fates if f.saved}
    again = {forward[f.tensor].name for f in fates if not f.saved}
    dims, dtypes, results = adjoint.forward.shapes(), adjoint.forward.dtypes(), adjoint.forward.results
    saved = tuple(t.name for e in adjoint.forward.equations for t in e.outputs if t.name in kept)
    extra = tuple(name for name in saved if name not in results)
    ahead = drop_dead(replace(adjoint.forward, results=(*results, *extra)))
    given = [Operand(name, dims[name], dtypes[name]) for name in saved]
    equations = (*(e for e in adjoint.program.equations if e.name in again), *own)
    backward = taking(drop_dead(replace(adjoint.program, equations=equations)), given, adjoint.cotangents.values())
    return Halves(ahead, backward, saved, adjoint.cotangents, adjoint.gradients, fates)


def _fates(
    program: Program, forward: Mapping[str, Equation], own: Iterable[Equation], budget: Budget | None
) -> tuple[Fate, ...]:
    """What becomes of each tensor of the forward program that the derivative reads, in the program's order."""
    found: dict[str, Fate] = {}
    again: dict[str, Fate] = {}  # by equation
    wanted = [t for e in own for x in e.expressions() for t in tensors_of(x)]
    dtypes = program.dtypes()
    written = {*program.results, *(budget.written if budget else ())}
    spaces = {e.name: frozenset(e.axes) for e in program.equations if any(t.name in written for t in e.outputs)}
    while wanted:
        name = wanted.pop()
        e = forward.get(name)
        if e is None or name in found or e.name in again:
            continue
        fate = _fate(name, e, program.results, forward, dtypes[name], spaces, budget)
        if fate.saved:
            found[name] = fate
        else:
            again[e.name] = fate
            wanted += [t for x in e.expressions() for t in tensors_of(x)]
    for name, e in forward.items():
        if e.name in again and (name in found or name == again[e.name].tensor):
            found[name] = replace(again[e.name], tensor=name)
    return tuple(found[name] for name in forward if name in found)


def _fate(
    name: str,
    e: Equation,
    results: Collection[str],
    forward: Mapping[str, Equation],
    dtype: DType,
    spaces: Mapping[str, frozenset[str]],
    budget: Budget | None,
) -> Fate:
    if name in results:
        return Fate(name, True, "result")
    if budget is None:
        return Fate(name, False, "cheaper")
    fate = _by_size(name, e, forward, dtype, spaces, budget)
    if not fate.saved:  # as large as what is there anyway, and not to be had without making that again
        beside = next((t.name for t in e.outputs if t.name in results), None)
        return fate if beside is None else Fate(name, True, "beside", beside)
    return fate


def _by_size(
    name: str,
    e: Equation,
    forward: Mapping[str, Equation],
    dtype: DType,
    spaces: Mapping[str, frozenset[str]],
    budget: Budget,
) -> Fate:
    """Is a tensor kept? Where it is smaller than something written, always, unless operands alone decide it."""
    axes = frozenset(e.axes)
    larger = next((n for n, space in spaces.items() if axes < space), None)
    if larger is not None and (e.monoid or any(tensors_of(b) & forward.keys() for b in e.bodies)):
        return Fate(name, True, "smaller", larger)
    if e.monoid is None:
        return Fate(name, False, "pointwise")
    if e.name in budget.written:
        return Fate(name, True, "written")
    equal = next((n for n, space in spaces.items() if axes == space), None)
    if equal is None:
        return Fate(name, False, "larger")
    terms = _terms(e, forward, budget.extents)
    rates = budget.target.rates
    dearer = 2 * terms / rates.matrix >= 2 * dtype.size / rates.memory
    return Fate(name, dearer, "dearer" if dearer else "cheaper", equal)


def _terms(e: Equation, forward: Mapping[str, Equation], extents: Mapping[str, int]) -> int:
    """The terms that go into one element of a tensor, with those of what it is computed from."""
    below = {t for b in e.bodies for t in tensors_of(b)} & forward.keys()
    inner = sum(_terms(forward[t], forward, extents) for t in below if forward[t].monoid is not None)
    return prod(extents.get(axis, 1) for axis in e.over) * (1 + inner)
