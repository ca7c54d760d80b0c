"""How the reductions of a kernel are carried along their axes, derived from their bodies.

The derivation does not depend on how the axis is walked: the same transition carries partial results from block to
block and merges those of two parts, and it is not needed where the axis is held in one block.
"""

from __future__ import annotations

from dataclasses import replace

from einc.ein import Program, axes_of, reads
from einc.explain.notation import Shapes, expression
from einc.explain.transition import Derivation, Open, Writer
from einc.passes.planning.roles import misread
from einc.passes.streaming.sweep import NotClosed
from einc.passes.streaming.walks import walks
from einc.pipeline.plan import Planned


def derivations(plan: Planned, shapes: Shapes) -> tuple[Derivation, ...]:
    """Every reduction of a plan, in the order of its equations."""
    order = [eq.name for eq in plan.equations]
    found: dict[str, Derivation] = {}
    for chain in chains(plan):
        waited: dict[str, NotClosed] = {}  # in the walk before its own; one that waits longer waits for others that do
        for n, walk in enumerate(walks(chain), 1):
            for link in walk.links:
                name = link.equation.name
                last = waited.get(name)
                found[name] = Writer(link, shapes).derivation(n, None if last is None else opened(last, shapes))
            waited |= {w.equation.name: w for w in walk.waiting}
    return tuple(sorted(found.values(), key=lambda d: order.index(d.reduction)))


def opened(n: NotClosed, shapes: Shapes) -> Open:
    """A reduction that is not closed, in words."""
    still = dict.fromkeys(r.tensor for r in reads(n.part) if not set(n.equation.over) & set(axes_of(r)))
    return Open(n.equation.name, expression(n.part, shapes), tuple(still), n.reason)


def chains(plan: Planned) -> list[Planned]:
    """The reductions over each group of axes, with the equations between them, as plans that walk these axes."""
    walked = [plan] if plan.walked else []
    held = dict.fromkeys(eq.over for eq in plan.equations if eq.over and not set(plan.walked) & set(eq.over))
    return walked + [_walking(plan, over) for over in held]


def _walking(plan: Planned, over: tuple[str, ...]) -> Planned:
    chain = tuple(eq for eq in plan.equations if eq.monoid is None or eq.over == over)
    return replace(plan, equations=chain, walked=over, stores=())


def open_reductions(program: Program) -> list[Open]:
    """The reductions that are not closed, whichever equations share a kernel: those over one group of axes at a time,
    if they read each other in place."""
    if any(t.dtype.is_complex for eq in program.equations for t in eq.outputs):
        return []
    found: dict[str, NotClosed] = {}
    for over in dict.fromkeys(eq.over for eq in program.equations if eq.over):
        chain = tuple(eq for eq in program.equations if eq.monoid is None or eq.over == over)
        if misread(chain, {}) is None:
            found |= {
                w.equation.name: w for walk in walks(Planned(chain, stores=(), walked=over)) for w in walk.waiting
            }
    return [opened(w, program.shapes()) for w in found.values()]
