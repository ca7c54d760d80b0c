"""Where roles pay: where dots leave room for what is computed between them, and no more has to be done beside it.

Two consumers on a processor hide what one computes under the dots of the other. Where that takes longer than the dots,
more and smaller programs, as Triton's are, hide more of it: their warps wait for each other less. The exception is what
is read at places that rows and positions decide together: larger tiles wait for fewer of such loads at a time.
"""

from __future__ import annotations

from einc.codegen.gluon.fit import Unfit, walked
from einc.codegen.gluon.ledger import Ledger
from einc.codegen.gluon.name_dots import name_dots
from einc.codegen.gluon.specialise_warps import specialise_warps
from einc.codegen.gluon.specialise_warps import why_not as unfit
from einc.pipeline import Context
from einc.tile import Dot, Kernel, Let, Load
from einc.tile.asked import PLAN
from einc.tile.typing import axes_of, scope
from einc.tile.walk import Scope, lets, walk

_EARLY = (PLAN, "parts")  # choices that do not say how a kernel is written


def pays(kernel: Kernel, context: Context) -> bool:
    """Are the roles that the warps of a kernel have predicted to take less time than none?"""
    return kernel.roles is not None and not (_before(kernel, context) or _behind(kernel))


def why_not(kernel: Kernel, context: Context) -> str:
    """Why the warps of a kernel get no roles, or should not have them; empty if they do."""
    try:
        named = name_dots(kernel)
        walked(named)
    except Unfit as reason:
        return str(reason)
    return _before(named, context) or unfit(kernel, context) or _behind(specialise_warps(kernel, context))


def _before(kernel: Kernel, context: Context) -> str:
    """What speaks against roles in a kernel that may have them."""
    asked = sorted({c.name for c in context.choices if c.name not in _EARLY and c.is_of(kernel.name, kernel.plan)})
    if asked:
        return f"{', '.join(asked)} is chosen for kernels without them"
    loop, row = walked(kernel)
    rates, ledger = context.target.rates, Ledger(kernel, row, 1)
    if loop.start is not None:
        return "its walk begins and ends with blocks that are masked"
    loads = [s.value for s in lets(loop.body) if isinstance(s.value, Load)]
    picked = any(ledger.is_mixed(i) for v in loads for i in v.index)
    if not picked and ledger.functions / rates.special >= ledger.flops / rates.matrix:
        return "special functions take as long as dots"
    return ""


def _behind(kernel: Kernel) -> str:
    """What speaks against the roles that a kernel has."""
    assert kernel.roles is not None
    steps = list(kernel.roles.dots.values())
    if max(steps) == min(steps):
        return "it computes nothing between dots"
    if steps.count(0) > 1:
        return "what it computes waits for several dots"
    for s, here in walk(kernel.body, Scope(scope(kernel))):
        counted = s.value.left_in if isinstance(s, Let) and isinstance(s.value, Dot) else None
        if counted is not None and kernel.roles.axis in axes_of(counted, here.names):
            return "each row decides which positions count"
    return ""
