"""Who does what in a kernel whose warps have roles: one copies, others compute, and rings of blocks lie between them.

A **producer** of one warp copies blocks to **rings** in shared memory, ahead of their use. **Consumers**, warpgroups of
four warps, share the rows of a tile, and take the steps of the walk: dots that are begun go on while the consumer does
other things, until it finishes them. An event of a step may be about the step before (`step` = -1), which is how what
is computed of one block hides under the dots of another, or about the next one (1).

    wait k              the block of k is there                        release k       it may be overwritten
    begin s             a dot is begun                                 finish s        its result is there
    make s, p           values of the loop's body are computed         keep o          what `o` will be begun with
    take turn           no other consumer begins dots until            pass turn       this

A kernel's body remains its meaning, and roles are an order to compute it in. Nodes are frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

WARPGROUP = 4  # warps
ROWS = 64  # rows of a tile that a warpgroup multiplies


@dataclass(frozen=True, slots=True)
class Ring:
    """Slots in shared memory for blocks of what is loaded: `loads` are names of the kernel's that arrive together.

    One that is `held` is filled once; any other by each step of the walk, in turn. `rows` are those of numbers, one a
    position of the walk, that arrive with them: lanes of the producer copy these, and the engine the others.
    """

    name: str
    loads: tuple[str, ...]
    depth: int
    held: bool = False
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until a ring's block of a step is there; what is waited for ahead is there before the first step."""

    ring: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    """A ring's block of a step is read no more."""

    ring: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a dot, by the name it is bound to."""

    dot: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """Wait for a dot that was begun; those begun after it may go on."""

    dot: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Make:
    """Compute values of the body, and then the states that they are."""

    names: tuple[str, ...]
    step: int = 0


@dataclass(frozen=True, slots=True)
class Keep:
    """Compute what a dot will begin with: its side in registers, and what it is added to."""

    dot: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """Wait until the other consumer has begun its dots of a step, or, if it `ends`, let it begin: so what one computes
    lies under the dots of the other. In the first step, and after the last one, nobody waits."""

    ends: bool = False
    step: int = 0


Event = Wait | Release | Begin | Finish | Make | Keep | Turn


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of a kernel's warps: a producer, and `consumers`, each with `ROWS` positions of a block of `axis`.

    A thread of a consumer has the first, one of the producer the second number of `registers`. `events` are a step of
    the consumers. If they go `onward`, a processor does one block of the grid after another, and copies for the next
    while the last is computed and stored.
    """

    axis: str
    consumers: int
    registers: tuple[int, int]
    rings: tuple[Ring, ...]
    events: tuple[Event, ...]
    onward: bool = False

    @property
    def in_turn(self) -> bool:
        """Do consumers begin their dots in turn?"""
        return any(isinstance(e, Turn) for e in self.events)

    @property
    def held(self) -> tuple[Ring, ...]:
        """What is filled once."""
        return tuple(r for r in self.rings if r.held)

    @property
    def walked(self) -> tuple[Ring, ...]:
        """What each step fills."""
        return tuple(r for r in self.rings if not r.held)

    @property
    def loads(self) -> frozenset[str]:
        """The names of all that the producer loads."""
        return frozenset(name for r in self.rings for name in r.loads)

    @property
    def rows(self) -> dict[str, Ring]:
        """The rows of numbers that the producer copies, with the rings that these arrive with."""
        return {n: r for r in self.rings for n in r.rows}

    @property
    def dots(self) -> dict[str, int]:
        """The dots, and the step that they are begun for."""
        return {e.dot: e.step for e in self.events if isinstance(e, Begin)}

    @property
    def kept(self) -> tuple[str, ...]:
        """The dots that begin with sides in registers."""
        return tuple(e.dot for e in self.events if isinstance(e, Keep))

    @property
    def first(self) -> tuple[Event, ...]:
        """The events of the first step: those of the step before it are missing, and nothing was waited for ahead."""
        ahead = tuple(Wait(e.ring) for e in self.events if isinstance(e, Wait) and e.step == 1)
        return ahead + tuple(e for e in self.events if e.step >= 0 and not isinstance(e, Turn))

    @property
    def last(self) -> tuple[Event, ...]:
        """The events after the last step: those that were left to the step after it."""
        return tuple(e for e in self.events if e.step < 0)


def in_flight(events: tuple[Event, ...], finish: Finish, steps: range) -> int:
    """How many dots may go on when one is finished in a step: those begun after it, and finished after it.

    `events` are those of every step, and `steps` the ones that there are, counted from this one.
    """
    count = len(events)
    begins = {e.dot: k - e.step * count for k, e in enumerate(events) if isinstance(e, Begin)}
    ends = {e.dot: k - e.step * count for k, e in enumerate(events) if isinstance(e, Finish)}
    begun, now = begins[finish.dot] + finish.step * count, events.index(finish)
    return sum(begun < begins[d] + n * count < now < ends[d] + n * count for d in begins for n in steps)


def subject(e: Event) -> tuple[str, tuple[str, ...]]:
    """An event as its verb, and what it is about."""
    match e:
        case Wait(ring=name):
            return "wait", (name,)
        case Release(ring=name):
            return "release", (name,)
        case Begin(dot=name):
            return "begin", (name,)
        case Finish(dot=name):
            return "finish", (name,)
        case Keep(dot=name):
            return "keep", (name,)
        case Make(names=names):
            return "make", names
        case Turn(ends=ends):
            return "pass" if ends else "take", ("turn",)
        case _:
            assert_never(e)


VERBS: dict[str, Callable[[str, int], Event]] = {  # of one thing
    "wait": Wait, "release": Release, "begin": Begin, "finish": Finish, "keep": Keep,
}  # fmt: skip
STEPS = {-1: " of the step before", 0: "", 1: " of the next step"}


def lines(roles: Roles) -> list[str]:
    """Roles as text, which `einc.frontend.tiles` reads back."""
    many, few = roles.registers
    found = [
        f"roles of blocks of {roles.axis}" + ", one after another" * roles.onward,
        f"  {roles.consumers} consumers with {many} registers, a producer with {few}",
    ]
    for r in roles.rings:
        loads = "" if r.loads == (r.name,) else f" of {', '.join(r.loads)}"
        rows = f" with {', '.join(r.rows)}" if r.rows else ""
        found.append(f"  held {r.name}{loads}" if r.held else f"  ring {r.name}{loads}{rows} in {r.depth} slots")
    found.append("  step")
    for e in roles.events:
        verb, names = subject(e)
        found.append(f"    {verb} {', '.join(names)}{STEPS[e.step]}")
    return found
