"""Where roles pay: where dots leave room for what is computed between them, and no more has to be done beside it.

Two consumers on a processor hide what one computes under the dots of the other. Where that takes longer than the dots,
or half as long where it waits for several of them, more and smaller programs, as Triton's are, hide more of it: their
warps wait for each other less. There are exceptions: what is read at places that rows and positions decide together,
since larger tiles wait for fewer of such loads at a time; wide results, of which registers hold those of one program
alone; tiles that are copied for steps whose dots are all their own, where threads of others would wait for them; and
walks of single positions, whose tiles the cache bounds: larger ones read less.
"""

from __future__ import annotations

from math import prod

from einc.base.targets import Rates
from einc.codegen.gluon.roles.fit import Unfit, walked
from einc.codegen.gluon.roles.ledger import Ledger
from einc.codegen.gluon.roles.name_dots import name_dots
from einc.codegen.gluon.roles.specialise_warps import specialise_warps
from einc.codegen.gluon.roles.specialise_warps import why_not as unfit
from einc.pipeline import Context
from einc.tile import WHOLE, Block, Dot, Kernel, Let, Load, TileAxis
from einc.tile.asked import PLAN
from einc.tile.blocks import power
from einc.tile.roles import ROWS
from einc.tile.typing import axes_of, multiplied, scope
from einc.tile.walk import Scope, bindings, loops, walk

_EARLY = (PLAN, "parts")  # choices that do not say how a kernel is written
_STEPS = 6  # of a walk, by which a program makes up for the others that it leaves no room beside it
_SHORT = 96 * 256  # products of a row and a step, that of 96 positions of two dots of 128: less is a short step
_UNDER_ONE = 0.6  # of the time of a step's dots, where what is computed between them waits for several
_FEW = 2  # dots of a step, under which masks at both ends of a walk do not hide
_WIDE = 128  # columns of a result, of which registers hold two programs


def pays(kernel: Kernel, context: Context) -> bool:
    """Are the roles that the warps of a kernel have predicted to take less time than none?"""
    return kernel.roles is not None and not (_before(kernel, context) or _behind(kernel, context.target.rates))


def why_not(kernel: Kernel, context: Context) -> str:
    """Why the warps of a kernel get no roles, or should not have them; empty if they do."""
    try:
        named = name_dots(kernel)
        walked(named)
    except Unfit as reason:
        return str(reason)
    held = {a.name: Block(power(prod(map(context.size, a.axes))), WHOLE) for a in kernel.whole}
    sized = named.choosing(named.choices.sized(held))
    return (
        _before(sized, context)
        or unfit(kernel, context)
        or _behind(specialise_warps(kernel, context), context.target.rates)
    )


def _blocks(a: TileAxis, context: Context) -> int:
    """The blocks of as many positions of an axis as two consumers have rows."""
    return -(-prod(map(context.extent, a.axes)) // (2 * ROWS if a.blocked else 1))


def _is_alone(kernel: Kernel) -> bool:
    """Do registers hold the results of one program alone?"""
    whole = {a.name for a in kernel.whole}
    columns = {s.value.column for s in bindings(kernel) if isinstance(s.value, Dot)} & whole
    blocks = [kernel.choices.tile(a) for a in columns]
    return any(b is not None and b.least > _WIDE for b in blocks)


def _picks(kernel: Kernel, row: str) -> bool:
    """Is anything read at places that rows and positions of the walk decide together?"""
    loads = [s.value for s in bindings(kernel) if isinstance(s.value, Load)]
    return any(Ledger(kernel, row, 1).is_mixed(i) for v in loads for i in v.index)


def _before(kernel: Kernel, context: Context) -> str:
    """What speaks against roles in a kernel that may have them."""
    asked = sorted({c.name for c in context.choices if c.name not in _EARLY and c.is_of(kernel.name, kernel.plan)})
    if asked:
        return f"{', '.join(asked)} is chosen for kernels without them"
    loop, row = walked(kernel)
    rates = context.target.rates
    if prod(_blocks(a, context) for a in kernel.grid) < rates.processors:
        return "programs of so many rows are fewer than processors"
    alone = _is_alone(kernel)
    ledger = Ledger(kernel, row, 1)
    both = loop.start is not None and loop.stop is not None and not alone
    few = len(multiplied(kernel)) <= _FEW or ledger.functions_of_dots(rates, converting=True) >= _UNDER_ONE
    if both and few:
        return "its walk begins and ends with blocks that are masked, and its dots hide little"
    if loop.axis.blocked and _blocks(loop.axis, context) < _STEPS * (1 if loop.stop is None else 2):
        return "its walk is short, and programs begin and end one after the other"
    if loop.axis.blocked and not alone and not _picks(kernel, row) and ledger.waits_for_functions(rates):
        return "special functions take as long as dots"
    return ""


def _behind(kernel: Kernel, rates: Rates) -> str:
    """What speaks against the roles that a kernel has."""
    assert kernel.roles is not None
    ledger = Ledger(kernel, kernel.roles.axis, kernel.roles.consumers)
    (loop,) = loops(kernel.body)
    if not kernel.roles.kept and loop.axis.blocked:
        return "it computes nothing between dots"
    if all(e.step == 0 for e in kernel.roles.events):
        if ledger.own:
            return "consumers would wait for tiles that they load by themselves"
        slow = ledger.functions_of_dots(rates, converting=True) >= _UNDER_ONE
        if slow and loop.axis.blocked and not ledger.brought:
            return "special functions take more than half as long as dots, and hide under one of them alone"
    elif not _picks(kernel, kernel.roles.axis) and ledger.flops // (2 * ROWS) < _SHORT:
        return "registers have room for short steps alone"
    for s, here in walk(kernel.body, Scope(scope(kernel))):
        counted = s.value.left_in if isinstance(s, Let) and isinstance(s.value, Dot) else None
        if counted is not None and kernel.roles.axis in axes_of(counted, here.names):
            return "each row decides which positions count"
    return ""
