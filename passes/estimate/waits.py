"""What programs wait for, beside arithmetic and memory.

    seconds of what multiplies = max(arithmetic, memory, port) * rounds / programs of a processor
                                 + (start + steps * loads) * programs of a processor
    seconds of all others >= steps * latency * rounds, loads / their rate

A processor takes operands from the cache through its port, again for every block of rows and of columns. Copies in
flight hide that, as long as sides of dots are what was read: what is computed of it goes through registers, and each
step waits for its loads. The first loads and the last stores of a program hide behind nothing, and a processor with one
program waits for that one's own latencies. What is read at each position of a dot's result is read element by element;
what is stored between elements of other programs' blocks is far slower than any other store.

A walk without dots waits in each step for what it loads, and only programs beside it fill the time. What does not lie
at multiples of 16 bytes takes a thread's load for as many bytes as it does lie at.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from math import ceil, prod

from einc import ein
from einc.base.types import DType
from einc.ein import AxisValue, Read
from einc.passes.algebra.contraction import contraction
from einc.passes.algebra.exposure import Dims
from einc.passes.estimate.sides import stepped
from einc.passes.streaming.walks import walks
from einc.pipeline import APART, ENGINE, GATHERED, Context, positions
from einc.pipeline.plan import Planned

_PORT = 83e9  # bytes a second that a processor receives from the cache, where all of them ask for as much
_ELEMENTS = 6e9  # elements a second that a processor reads one by one where threads hold a dot's result
_LOADS = 6e9  # loads and stores a second of a processor's threads
_APART = 4.7e8  # elements a second that a processor stores beside those of other programs
_ALONE = 2e-6  # seconds until the first loads of a program have arrived, and its last results are stored
_WAIT = 7e-7  # seconds of a step until what it computes a side of has arrived
_LATENCY = 1.2e-6  # seconds of a step without dots: until its loads have arrived, and threads have exchanged results
_TOGETHER = 8  # programs without dots that a processor runs at once
_LONE = 1.6  # times as long as its share of a processor's time a program that multiplies takes by itself
_FEW = 4  # programs of a processor, of which the last one leaves others idle
_STEP = 64  # positions of a walked axis that dots take at once
_MASKING = 10  # instructions for each result of a dot in blocks that a mask cuts, and for the sides that it excludes

Shapes = Mapping[str, Dims]
DTypes = Mapping[str, DType]


# ---------------------------------------------------------------------------------------------------------------------
# What multiplies


def multiplying(
    plan: Planned,
    programs: int,
    splits: int,
    busy: float,
    chained: bool,
    waits: float,
    begun: float,
    context: Context,
) -> float:
    """The time of programs whose arithmetic, loads and memory keep all processors busy for so long.

    They wait for their loads in the share `waits` of all steps, and the share `begun` of them for the first.
    """
    each = programs * splits / context.target.rates.processors
    rounds = max(ceil(each) if each < _FEW else each, _LONE if chained else 1.0)
    steps = positions(plan.walked, context) * waits / splits / _STEP if plan.walked else 0.0
    return busy * rounds / each + (_ALONE * begun + _WAIT * steps) * max(each, 1.0)


def is_hidden(plan: Planned, context: Context) -> bool:
    """Are operands on their way while programs multiply: in a walk, by dots whose sides are what is read?"""
    made = {t.name: eq for eq in plan.equations for t in eq.outputs}

    @cache
    def is_computed(name: str) -> bool:
        """Is it made position by position of what is read alone?"""
        eq = made.get(name)
        read = () if eq is None else {r.tensor for e in eq.expressions() for r in ein.reads(e)}
        return eq is not None and eq.monoid is None and all(n not in made or is_computed(n) for n in read)

    for eq in plan.equations:
        found = contraction(eq, eq.body, context.size) if eq.monoid is not None and eq.monoid.adds else None
        for side in () if found is None else (s for term in found.terms for s in (term.left, term.right)):
            names = {r.tensor for f in side for r in ein.reads(f)}
            alone = len(side) == 1 and isinstance(side[0], Read)
            if any(map(is_computed, names)) or (names - made.keys() and not alone):
                return False
    return bool(plan.walked)


def port(plan: Planned, chained: bool, share: float, context: Context, shapes: Shapes, dtypes: DTypes) -> float:
    """Seconds in which all processors take what a plan reads through their ports."""
    block, taken = context.block(chained), 0.0
    for name in _read(plan):
        axes = _axes(name, shapes)
        size = float(positions(axes, context) * dtypes[name].size)
        for group in (plan.rows, plan.columns):
            if group and set(axes).isdisjoint(group):
                size *= -(-positions(group, context) // block)
        taken += size * (share if plan.along & set(axes) else 1.0)
    return taken / (_PORT * context.target.rates.processors)


def elements(plan: Planned, dots: frozenset[str], share: float, context: Context) -> float:
    """Seconds in which all processors read what goes over both sides of dots' results, element by element."""
    known = _read(plan)
    sides = [{*plan.rows}, {*plan.columns}, plan.along.difference(stepped(plan, context))]
    results = [{*eq.axes} for eq in plan.equations if eq.name in dots and plan.along & set(eq.axes)]
    count = 0
    for eq in (eq for eq in plan.equations if eq.name not in dots and any(r <= set(eq.axes) for r in results)):
        read = {r for e in eq.expressions() for r in ein.reads(e) if r.tensor in known}
        moving = [axes for r in read if plan.along & (axes := set(ein.axes_of(r)))]
        crossing = [axes for axes in moving if sum(not side.isdisjoint(axes) for side in sides) > 1]
        count += len(crossing) * positions(eq.axes, context)
    return count * share / (_ELEMENTS * context.target.rates.processors)


def scattering(plan: Planned, context: Context, shapes: Shapes) -> float:
    """Seconds in which all processors store what has its neighbours in memory in other programs' blocks."""
    stored = (_axes(name, shapes) for name in plan.stores if _is_scattered(name, plan, context, shapes))
    count = sum(prod(map(context.extent, axes)) for axes in stored)
    return count / (_APART * context.target.rates.processors)


def _is_scattered(name: str, plan: Planned, context: Context, shapes: Shapes) -> bool:
    """Are the neighbours in memory of what a plan stores of a tensor at other positions of its batch axes?"""
    long = [dim for dim in shapes[name] if positions(dim, context) > 1]
    return bool(long) and set(long[-1]) <= set(plan.batch)


def masking(plan: Planned, dots: frozenset[str], masked: float, context: Context) -> float:
    """Vector operations in blocks that a mask cuts, which are such a share of all."""
    results = (eq for eq in plan.equations if eq.name in dots and plan.along & set(eq.axes))
    return masked * _MASKING * sum(positions(eq.axes, context) for eq in results)


# ---------------------------------------------------------------------------------------------------------------------
# What does not


def walking(programs: int, steps: float, context: Context) -> float:
    """Seconds in which programs take steps one after the other, each waiting for memory, a few of them at once."""
    return ceil(programs / (_TOGETHER * context.target.rates.processors)) * steps * _LATENCY


def loading(plan: Planned, context: Context, shapes: Shapes, dtypes: DTypes) -> float:
    """Seconds that threads take to load what a plan reads in all of its walks, and to store what it writes."""
    count, narrowest = 0.0, float(ENGINE)
    for name, read in _read(plan).items():
        width = max(access(read, plan, context), dtypes[name].size)
        narrowest = min(narrowest, width / dtypes[name].size)
        axes = _axes(name, shapes)
        again = max(len(walks(plan)), 1) if plan.along & set(axes) else 1
        count += again * positions(axes, context) * dtypes[name].size / width
    for name in plan.stores:
        size = dtypes[name].size
        count += positions(_axes(name, shapes), context) * size / min(ENGINE, narrowest * size)
    return count / (_LOADS * context.target.rates.processors)


def access(read: Read, plan: Planned, context: Context) -> int:
    """The bytes that are read at once of a tensor."""
    layout = context.layouts.get(read.tensor)
    if layout is None or not layout.order:
        return best(read)
    fastest = layout.fastest(read.index)
    one = (*plan.batch, *stepped(plan, context))  # of which a block has a position
    lies = layout.packed and isinstance(fastest, AxisValue) and fastest.axis not in one
    return min(layout.aligned, best(read)) if lies else APART


def best(read: Read) -> int:
    """The bytes that are read at once of a tensor that lies best: copy engines find no blocks at sums of axes."""
    return ENGINE if all(isinstance(e, AxisValue) for e in read.index) else GATHERED


# ---------------------------------------------------------------------------------------------------------------------
# What is read


@lru_cache(maxsize=1024)
def _read(plan: Planned) -> dict[str, Read]:
    """A read of each tensor from outside, by name."""
    made = {t.name for eq in plan.equations for t in eq.outputs}
    found = (r for eq in plan.equations for e in eq.expressions() for r in ein.reads(e))
    return {r.tensor: r for r in found if r.tensor not in made}


def _axes(name: str, shapes: Shapes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(a for dim in shapes[name] for a in dim))
