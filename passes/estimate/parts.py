"""In how many parts a walk takes least time.

    seconds in n parts = launches + states written and read + max(a part's work * rounds / the processors' share, waits)

Parts come in rounds of as many as there is room for, each of which has to wait for its first loads.
"""

from __future__ import annotations

from math import ceil

from einc.passes.estimate.again import overhang, repeated
from einc.passes.estimate.cost import WALKING, Model
from einc.passes.estimate.sides import steps
from einc.passes.estimate.units import arithmetic, overlapped, reached
from einc.passes.streaming.sweep import Accumulator
from einc.passes.streaming.walks import can_split, walks
from einc.pipeline import positions
from einc.pipeline.plan import Planned

_LEAST = 64  # positions of a walked axis that are worth a program
_RESIDENT = 2  # programs that a processor needs at once to keep memory busy
_STARTING = 1e-6  # seconds until the first loads of a program have arrived
_WORTH = 0.9  # of the time without parts, above which parts are not worth another kernel
_MOST = 128
_MOST_PLAIN = 256  # where there are no dots


def parts(model: Model, plan: Planned, share: float = 1.0) -> tuple[int, float]:
    """The number of parts that a plan's walk takes least time in, and the seconds that all of it takes.

    The walk visits this share of its blocks.
    """
    alone, context = model.cost(plan, share), model.context
    rates, plain = context.target.rates, model.is_plain(plan)
    least = 1 if steps(plan, context) else _LEAST  # a step is a dot
    most = min(positions(plan.walked, context) // least, _MOST_PLAIN if plain else _MOST) if plan.walked else 1
    filled = model.utilisation(plan, 1) >= 1
    if most < 2 or filled or not can_split(plan) or not can_merge(plan):
        return 1, alone.seconds
    computing, _ = arithmetic(rates, alone.dots + model.waiting(plan, 1, share), alone.vector, alone.special)
    again = model.again(plan)
    once = alone.bytes - again(1) * share
    state, dots = _state(model, plan), model.contracted(plan)
    computes = alone.limit in ("matrix", "vector", "special") or (dots and not model.hides(plan))
    programs, within, hangs = model.programs(plan), bool(repeated(plan)), overhang(plan, context)

    def seconds(n: int) -> float:
        moving = (once + again(n) * share) / reached(rates)
        merging = 2 * rates.launch + 2 * n * state / rates.memory
        if computes:
            return merging + model.spent(plan, n, computing, moving, share)
        rounds = programs * n / (rates.processors * (WALKING if plain else _RESIDENT))
        work = overlapped(rates, computing, moving, again=within) * hangs(n)
        loaded = 0.0 if dots else model.loading(plan, n, share)
        return merging + max(work * ceil(rounds) / rounds + ceil(rounds) * _STARTING, loaded)

    best = min(range(2, most + 1), key=seconds)
    return (best, seconds(best)) if seconds(best) < _WORTH * alone.seconds else (1, alone.seconds)


def can_merge(plan: Planned) -> bool:
    """Do parts of a plan's one walk store states over axes of what it stores alone, each over those of one tensor?"""
    stored = [{*eq.axes} for eq in plan.equations if any(t.name in plan.stores for t in eq.outputs)]
    return all(any(axes.issuperset(a.axes) for axes in stored) for a in _accumulators(plan))


def _state(model: Model, plan: Planned) -> float:
    """Bytes of the states of a plan's one walk, over all of the grid."""
    return sum(4.0 * a.monoid.components * positions(a.axes, model.context) for a in _accumulators(plan))


def _accumulators(plan: Planned) -> list[Accumulator]:
    """What a plan's one walk carries, equal ones once."""
    (walk,) = walks(plan)
    found = ((link.equation.over, a) for link in walk.links for a in link.accumulators)
    return list({(frozenset(over), a.monoid, a.bodies, a.domain, a.axes): a for over, a in found}.values())
