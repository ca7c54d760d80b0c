"""What became of a kernel, for people: the roles of its warps, or the fact that stands in their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from einc.codegen.gluon.roles.ledger import Ledger
from einc.codegen.gluon.roles.specialise_warps import why_not
from einc.pipeline import Context
from einc.tile import Kernel
from einc.tile.roles import ROWS, Finish, Roles

_LEVEL = 2  # the least at which warps get roles


def account(kernel: Kernel, context: Context, why: Callable[[Kernel, Context], str] = why_not) -> tuple[str, ...]:
    """The roles of a kernel's warps, what lies between them, and when its dots run; or why it has none."""
    if context.level < _LEVEL:
        return ()
    if kernel.roles is None:
        return (f"its warps have no roles, and it is written as Triton's: {why(kernel, context)}",)
    return tuple(_lines(kernel, kernel.roles))


def _lines(kernel: Kernel, roles: Roles) -> Iterator[str]:
    many, few = roles.registers
    who = "a consumer has" if roles.consumers == 1 else f"{roles.consumers} consumers have"
    each = "" if roles.consumers == 1 else " each"
    yield f"{who} {ROWS} rows of {roles.axis}{each} and {many} registers a thread, a producer {few}"
    rings = [f"{', '.join(r.loads)} in {r.depth} slot{'s' * (r.depth > 1)}" for r in roles.walked]
    held = [", ".join(r.loads) + " once" for r in roles.held]
    taken = Ledger(kernel, roles.axis, roles.consumers).shared(roles.rings)
    yield f"copies {'; '.join((*held, *rings))}: {taken >> 10} KiB of shared memory"
    late = [n for n, step in roles.dots.items() if step < 0]
    adding = [e.dot for e in roles.events if isinstance(e, Finish) and e.step < 0 and e.dot not in late]
    own = [n for n in roles.kept if n not in late]
    early = [n for n in roles.dots if n not in (*late, *adding, *own)]
    turns = ", which consumers begin in turn" * roles.in_turn
    if late:
        yield f"computes a block between the dots {', '.join(early)} of it and {', '.join(late)} of the last one{turns}"
    if own or (len(early) > 1 and not late and not adding):
        then = f", then {', '.join(own)}" if own else ""
        yield f"computes what one of the dots {', '.join(early)} decides under the others{then}"
    if adding:
        yield f"begins the dots {', '.join(adding)} of a block before those of the last one are finished"
    if roles.onward:
        yield f"goes on with further blocks of {roles.axis}, which are copied while the last one is computed and stored"
    if kernel.choices.backwards:
        yield f"begins with the last blocks of {kernel.choices.backwards}, which take longest"
