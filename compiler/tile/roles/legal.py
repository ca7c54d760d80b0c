"""Whether the roles of a kernel's warps are legal: that nothing is read before it is there, or after it is given up.

Every load of a ring is read by dots between the wait for its block and its release, in each step, and so are the rows
that arrive with it, by what is made; every dot is begun once, and finished once; all that the loop's body binds is
made; and there are registers for all threads.
"""

from __future__ import annotations

from typing import NoReturn

from einc import tile
from einc.base.errors import Error
from einc.tile.faults import Fault
from einc.tile.roles import WARPGROUP, Begin, Event, Finish, Keep, Make, Release, Ring, Roles, Wait
from einc.tile.walk import lets, loops, walk_values

_REGISTERS, _GRANULE = 65_536, 8  # of a multiprocessor, and what a thread's are a multiple of
_LANES = 32


def check_roles(kernel: tile.Kernel) -> None:
    """Raise `IllegalIR` naming the first event, or ring, that breaks the protocol."""
    if kernel.roles is not None:
        _Protocol(kernel, kernel.roles).run()


class _Protocol:
    def __init__(self, kernel: tile.Kernel, roles: Roles) -> None:
        self.kernel, self.roles = kernel, roles
        walks = list(loops(kernel.body))
        if len(walks) != 1:
            self.fail("roles are for a kernel with one loop", kernel)
        self.walk = walks[0]
        self.inside = {s.names[0]: s.value for s in lets(self.walk.body)}
        self.lets = {s.names[0]: s.value for s in lets(kernel.body)}
        self.dots = {n: v for n, v in self.inside.items() if isinstance(v, tile.Dot)}

    def fail(self, what: str, at: object, fact: str = "") -> NoReturn:
        raise Fault(at, what, Error, fact=fact, kernel=self.kernel.name)

    def run(self) -> None:
        self.warps()
        types = {s.names[0]: s.types[0] for s in lets(self.walk.body)}
        for r in self.roles.rings:
            for n in r.loads:
                if not isinstance(self.lets.get(n), tile.Load) or (n in self.inside) == r.held:
                    self.fail(f"'{n}' is no load {'before' if r.held else 'of'} the loop", r)
        for n in self.roles.rows:
            if not isinstance(self.inside.get(n), tile.Load) or types[n].axes != (self.walk.axis.name,):
                self.fail(f"'{n}' is no row of numbers that the loop loads", self.roles.rows[n])
        loads = [n for r in self.roles.rings for n in r.loads]
        if len(set(loads)) < len(loads):
            self.fail("a load is in two rings", self.roles.rings[-1])
        for n in self.dots:
            self.dot(n)
        for r in self.roles.walked:
            self.ring(r)
        made = [n for e in self.roles.events if isinstance(e, Make) for n in e.names]
        there = {*made, *self.dots, *loads}
        if len(set(made)) < len(made) or not set(made) <= set(self.inside) - set(self.dots) - set(loads):
            self.fail("what is made is not what the body binds, once each", self.kernel)
        read = {c.after for c in self.walk.carried}
        for n in {*made, *self.dots}:
            read |= {v.name for v in walk_values(self.inside[n]) if isinstance(v, tile.Ref)}
        if missing := sorted((read & set(self.inside)) - there):
            self.fail("what a step reads is not made", self.kernel, ", ".join(missing))

    def warps(self) -> None:
        many, few = self.roles.registers
        threads = WARPGROUP * _LANES
        if any(n % _GRANULE for n in (many, few)) or (self.roles.consumers * many + few) * threads > _REGISTERS:
            self.fail("there are not so many registers", self.kernel, f"{many} and {few} a thread")
        if self.roles.axis not in {a.name for a in self.kernel.grid if a.blocked}:
            self.fail(f"'{self.roles.axis}' is no blocked axis of the grid", self.kernel)

    def places(self, kind: type[Event], name: str) -> list[tuple[int, int]]:
        """When events of a kind are about a name: counted in events from the beginning of the step they are about."""
        count = len(self.roles.events)
        found = []
        for k, e in enumerate(self.roles.events):
            own = getattr(e, "ring", None) or getattr(e, "dot", None)
            if isinstance(e, kind) and own == name:
                found.append((k - e.step * count, e.step))
        return found

    def dot(self, n: str) -> None:
        begun, finished = self.places(Begin, n), self.places(Finish, n)
        if len(begun) != 1 or len(finished) != 1 or begun[0] >= finished[0]:
            self.fail(f"the dot '{n}' is not begun and then finished", self.kernel)
        if begun[0][1] < 0 and not self.places(Keep, n):
            self.fail(f"nothing keeps what the dot '{n}' begins with in a later step", self.kernel)

    def ring(self, r: Ring) -> None:
        """Its waits come before the dots that read it begin, its one release after they are finished, and what computes
        with it lies between these."""
        readers = [n for n, d in self.dots.items() if any(self.reads(x, r) for x in (d.left, d.right))]
        count = len(self.roles.events)
        computing = [k - e.step * count for k, e in enumerate(self.roles.events) if self.computes(e, r)]
        waits, releases = self.places(Wait, r.name), self.places(Release, r.name)
        if not (readers or computing) or len(releases) != 1 or not waits:
            self.fail(f"the ring '{r.name}' is not waited for, read and released", r)
        for n in readers:
            (begun,), (finished,) = self.places(Begin, n), self.places(Finish, n)
            if min(waits) > begun or releases[0] < finished:
                self.fail(f"the dot '{n}' reads '{r.name}' when its block may not be there", r)
        if any(at < min(waits)[0] or at > releases[0][0] for at in computing):
            self.fail(f"what arrives with '{r.name}' is read when it may not be there", r)

    def computes(self, e: Event, r: Ring) -> bool:
        """Does an event read what arrives with a ring, beside dots?"""
        if isinstance(e, Keep):
            return self.reads(self.dots[e.dot].left, r)
        rows = isinstance(e, Make) and not set(r.rows).isdisjoint(e.names)
        return rows or (isinstance(e, Make) and any(self.reads(self.inside[n], r) for n in e.names))

    def reads(self, side: tile.Value, r: Ring) -> bool:
        return any(isinstance(v, tile.Ref) and v.name in r.loads for v in walk_values(side))
