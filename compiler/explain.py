"""The story of a program, computed from its IR: what it is, what each level adds to it, and what that costs.

Data first: `story` gives a `Story`, which turns into JSON as it is; `einc.render` makes tables of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from einc.arithmetic import ScalarValue
from einc.character import character
from einc.derivation import Derivation, Open, open_reductions
from einc.driver import Compiled
from einc.ein import Apply, AxisValue, Cast, Equation, Expr, Program, Read, axes_of, reads
from einc.figures import KernelFigures, Level, level
from einc.visits import Visits


@dataclass(frozen=True, slots=True)
class Step:
    """One equation in the data flow: what it gives, from what."""

    gives: tuple[str, ...]
    reads: tuple[str, ...]
    reduces: str
    over: tuple[str, ...]
    einsum: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What a level adds to what the program says."""

    level: int
    stage: str
    says: str
    adds: str


@dataclass(frozen=True, slots=True)
class Story:
    """A program as a system: its boundary, its mathematics, its state, its parallelism, and figures by level.

    `chosen` is the level it was asked for; `not_closed` names the reductions that need a walk of their own wherever
    their equations end up.
    """

    name: str
    text: str
    boundary: str
    kind: str
    einsums: tuple[str, ...]
    dependences: int
    optimised: str
    parallel: str
    tested: str
    steps: tuple[Step, ...]
    reuse: dict[str, int]
    sizes: dict[str, int]
    stages: tuple[Stage, ...]
    not_closed: tuple[Open, ...]
    levels: tuple[Level, ...]
    chosen: int

    @property
    def level(self) -> Level:
        """The figures of the level that was asked for."""
        return next(f for f in self.levels if f.level == self.chosen)

    def data(self) -> dict[str, object]:
        """The story as JSON can hold it; `Program.explain` says what is in it."""
        own = {
            "name": self.name,
            "text": self.text,
            "boundary": self.boundary,
            "kind": self.kind,
            "einsums": list(self.einsums),
            "dependences": self.dependences,
            "optimised": self.optimised,
            "parallel": self.parallel,
            "tested": self.tested,
            "steps": [asdict(s) for s in self.steps],
            "reuse": self.reuse,
            "sizes": self.sizes,
            "story": [asdict(s) for s in self.stages],
        }
        found = own | level_data(self.level) | {"levels": [level_data(f) for f in self.levels]}
        return found | {"not_closed": [asdict(o) for o in self.not_closed]}


def level_data(f: Level) -> dict[str, object]:
    return {
        "level": f.level,
        "target": f.target,
        "equations": f.equations,
        "kernels": [_kernel_data(k) for k in f.kernels],
        "sweeps": f.sweeps,
        "intermediates": [asdict(t) for t in f.intermediates],
        "intermediate_bytes": f.intermediate_bytes,
        "flops": f.flops,
        "bytes": f.bytes,
        "intensity": f.intensity,
        "predicted_us": f.predicted_us,
        "not_closed": [asdict(o) for o in f.not_closed],
    }


def _kernel_data(k: KernelFigures) -> dict[str, object]:
    return {
        "name": k.name,
        "equations": list(k.equations),
        "grid": list(k.grid),
        "streamed": list(k.streamed),
        "held": list(k.held),
        "accumulators": {d.reduction: _accumulators(d) for d in k.derivations},
        "state": [asdict(s) for s in k.state],
        "state_bytes_per_row": k.state_bytes_per_row,
        "tiles": {axis: _tiles(v) for axis, v in k.tiles.items()},
        "splits": k.splits,
        "reads": list(k.reads),
        "writes": list(k.writes),
        "flops": k.flops,
        "bytes": k.bytes,
        "intensity": k.flops / k.bytes if k.bytes else 0.0,
        "predicted_us": k.predicted_us,
        "limit": k.limit,
        "derivation": [asdict(d) for d in k.derivations],
    }


def _accumulators(d: Derivation) -> list[dict[str, object]]:
    return [{"name": a.name, "body": a.body, "axes": list(a.axes), "moves": a.moves} for a in d.accumulators]


def _tiles(v: Visits) -> dict[str, int]:
    return {"visited": v.visited, "full": v.full, "mixed": v.mixed, "total": v.total}


def story(
    text: str,
    compiled: Sequence[Compiled],
    sizes: Mapping[str, int],
    chosen: int | None = None,
    scalars: Mapping[str, ScalarValue] | None = None,
    operands: Mapping[str, Any] | None = None,
) -> Story:
    """The story of a program compiled at one or more levels (in order), with figures for axes of these sizes.

    `operands` are values, as NumPy arrays, that the bounds of loops may read.
    """
    program = compiled[-1].state.program
    kind = character(program)
    steps = tuple(_step(e) for e in program.equations)
    reuse = {
        p.name: math.prod(sizes[a] for a in _walked(program, p.name) if all(a not in d for d in p.dims))
        for p in program.operands
    }
    figures = tuple(level(c, sizes, scalars or {}, operands) for c in compiled)
    pipeline = len(steps) > 1
    waiting = {o.reduction: o for f in figures for o in f.not_closed}
    waiting = {o.reduction: o for o in open_reductions(program)} | waiting
    return Story(
        name=program.name,
        text=text,
        boundary=_boundary(program, steps),
        kind=kind.kind,
        einsums=tuple(s.einsum for s in steps if s.einsum),
        dependences=sum(1 for s in steps for name in s.reads if name not in {p.name for p in program.operands}),
        optimised=_optimised(pipeline, reuse),
        parallel=_parallel(program),
        tested="accuracy, throughput and latency" if pipeline else "numerical accuracy",
        steps=steps,
        reuse=reuse,
        sizes={a.name: sizes[a.name] for a in program.axes if a.name in sizes},
        stages=tuple(_stages(text, figures)),
        not_closed=tuple(waiting.values()),
        levels=figures,
        chosen=figures[-1].level if chosen is None else chosen,
    )


# ---------------------------------------------------------------------------------------------------------------------
# What each level adds

_STAGES = ("one kernel an equation", "fused and streamed", "scheduled")


def _stages(text: str, figures: Sequence[Level]) -> Iterator[Stage]:
    before: Level | None = None
    for f in figures:
        added = _first(f) if before is None else _added(before, f)
        says = text.strip() if before is None else "the same text"
        yield Stage(f.level, _STAGES[f.level], says, "; ".join(added) or "nothing more")
        before = f


def _first(f: Level) -> list[str]:
    if f.equations == 1:
        return ["nothing but tiling: one equation is the whole meaning; stateless"]
    if f.intermediates:
        return [f"nothing: {_listed([t.name for t in f.intermediates])} written to memory"]
    return ["nothing but tiling"]


def _added(before: Level, f: Level) -> list[str]:
    """What sets a level apart from the one below: what it no longer writes, carries, visits."""
    found = []
    for k in f.kernels:
        old = {s.name for other in before.kernels for s in other.running}
        if k.running and not old.issuperset(s.name for s in k.running):
            names = ", ".join(s.name for s in k.running)
            found.append(f"streaming over {', '.join(k.streamed)}: running state ({names})")
        for axis, v in k.tiles.items():
            if v.visited < v.total and not any(axis in o.tiles and o.tiles[axis].visited < o.tiles[axis].total for o in before.kernels):
                found.append(f"domain pruning: {100 * v.share:.0f}% of the blocks of {axis} are visited")
        if k.splits > 1 and all(o.splits == 1 for o in before.kernels):
            found.append(f"{', '.join(k.streamed)} split in {k.splits}, merged by the transition")
    gone = [t.name for t in before.intermediates if t.name not in {x.name for x in f.intermediates}]
    if gone:
        found.append(f"no {' or '.join(gone)} in memory")
    if len(f.kernels) != len(before.kernels):
        found.append(f"{len(before.kernels)} kernels become {len(f.kernels)}")
    return found


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"


# ---------------------------------------------------------------------------------------------------------------------
# What it is


def _step(e: Equation) -> Step:
    sources = dict.fromkeys(r.tensor for x in e.expressions() for r in reads(x))
    reduction = "" if e.monoid is None else e.monoid.name
    return Step(tuple(t.name for t in e.outputs), tuple(sources), reduction, e.over, _einsum(e))


def _einsum(e: Equation) -> str:
    """The equation's contraction as an einsum string, if its body is a product of two tensors or more.

    A factor that is computed on the way stands for a tensor with the axes it depends on; numbers do not count.
    """
    if e.monoid is None or e.monoid.name != "sum":
        return ""
    terms = [_term(f) for f in _factors(e.body) if reads(f)]
    if len(terms) < 2:
        return ""
    result = [f"({' '.join(d)})" if len(d) > 1 else "".join(d) or "1" for d in e.dims]
    if all(len(s) == 1 for term in (*terms, result) for s in term):
        return f"{','.join(map(''.join, terms))}->{''.join(result)}"
    return f"{', '.join(map(' '.join, terms))} -> {' '.join(result)}"


def _term(e: Expr) -> list[str]:
    """The subscripts of a factor; one that is no plain axis is shown by the axes it is made of."""
    if not isinstance(e, Read):
        return list(axes_of(e))
    return [i.axis if isinstance(i, AxisValue) else f"({' '.join(axes_of(i)) or '·'})" for i in e.index]


def _factors(e: Expr) -> list[Expr]:
    match e:
        case Apply("mul", (a, b)):
            return _factors(a) + _factors(b)
        case Apply("neg", (a,)) | Cast(arg=a):
            return _factors(a)
        case Apply("div", (a, b)) if not axes_of(b) and not reads(b):
            return _factors(a)
        case _:
            return [e]


def _boundary(program: Program, steps: Sequence[Step]) -> str:
    inputs, results = ", ".join(p.name for p in program.operands), ", ".join(program.results)
    if len(steps) <= 1:
        return f"one closed module: {inputs} → {results}"
    flow = " → ".join(", ".join(s.gives) for s in steps)
    return f"a pipeline of {len(steps)} equations: {inputs} → {flow}"


def _optimised(pipeline: bool, reuse: Mapping[str, int]) -> str:
    if pipeline:
        return "data movement and latency: what lies between the equations"
    if max(reuse.values(), default=1) > 1:
        most = ", ".join(f"{name} {n}×" for name, n in reuse.items() if n > 1)
        return f"FLOPs, reuse (each element is used: {most})"
    return "data movement: each element is used once"


def _walked(program: Program, operand: str) -> tuple[str, ...]:
    """The axes of the equations that read an operand."""
    found = [a for e in program.equations if operand in _step(e).reads for a in (*e.axes, *e.over)]
    return tuple(dict.fromkeys(found))


def _parallel(program: Program) -> str:
    """Axes that every equation has on its left run in parallel throughout; reduced ones tie positions together."""
    everywhere = [a for a in program.equations[0].axes if all(a in e.axes for e in program.equations)]
    reduced = [a for a in dict.fromkeys(a for e in program.equations for a in e.over) if a not in everywhere]
    free = f"data parallel over {', '.join(everywhere)}" if everywhere else "nothing parallel throughout"
    if not reduced:
        return free
    uses = "; ".join(f"{a} reduced by {', '.join(_reductions(program, a))}" for a in reduced)
    return f"{free}; {uses}"


def _reductions(program: Program, axis: str) -> list[str]:
    return [e.monoid.name for e in program.equations if e.monoid is not None and axis in e.over]
