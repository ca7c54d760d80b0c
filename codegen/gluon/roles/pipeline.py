"""The rings of a kernel, and the events of a step, from which dots of its loop wait for which others.

A tile that steps compute with, and no dot reads, arrives with the ring that is given up last, where that is behind all
that reads it; else in one slot of its own, which is filled again as soon as it is read.
"""

from __future__ import annotations

from dataclasses import replace

from einc import tile
from einc.base.types import F32
from einc.codegen.gluon.roles.fit import Unfit, parts
from einc.codegen.triton.load_ahead import rows
from einc.tile import Dot, Kernel, Load, Ref
from einc.tile.roles import Begin, Event, Finish, Keep, Make, Release, Ring, Wait
from einc.tile.walk import lets, walk_values

_LANE = 4  # bytes that a lane copies at once


class Pipeline:
    """The rings of a kernel, and the events of a step, from which dots of its loop wait for which others; `copied` are
    the tensors that descriptors load."""

    def __init__(self, kernel: Kernel, copied: frozenset[str]) -> None:
        self.copied = copied
        self.before, self.loop, self.after = parts(kernel)
        self.lets = {s.names[0]: s for s in lets(self.loop.body)}
        self.loads = {n for n, s in self.lets.items() if isinstance(s.value, Load) and s.value.tensor in self.copied}
        self.held = [
            s.names[0] for s in lets(self.before) if isinstance(s.value, Load) and s.value.tensor in self.copied
        ]
        self.dots = {n: s.value for n, s in self.lets.items() if isinstance(s.value, Dot)}
        self.late = [n for n, d in self.dots.items() if self.depends(d.left) or self.depends(d.right)]
        self.adding = [n for n in self.dots if n not in self.late and self.adds(n)]
        self.early = [n for n in self.dots if n not in (*self.late, *self.adding)]
        sides = [x for d in self.dots.values() for x in (d.left, d.right)]
        self.tiles = [n for n in self.loads if Ref(n) not in sides]
        self.rows = [n for n, v in rows(self.loop) if v.tensor not in copied and _by_lanes(v, kernel)]

    def depends(self, v: tile.Value, on: frozenset[str] | None = None) -> bool:
        """Does a value depend on a dot of the loop, or on one of some?"""
        wanted = self.dots.keys() if on is None else on
        return any(
            x.name in wanted or (x.name in self.lets and self.depends(self.lets[x.name].value, on))
            for x in walk_values(v)
            if isinstance(x, Ref)
        )

    def adds(self, n: str) -> bool:
        """Does a dot add to a state that nothing else of a step reads or changes?"""
        state = next((c.name for c in self.loop.carried if c.after == n), None)
        others = [x for other, s in self.lets.items() if other != n for x in walk_values(s.value)]
        alone = not any(isinstance(x, Ref) and x.name in (n, state) for x in others)
        return state is not None and self.dots[n].acc == Ref(state) and alone

    def made(self) -> tuple[tuple[Ring, ...], tuple[Event, ...]]:
        """The rings, each of one slot as yet, and the events."""
        self.check()
        others = [s for s in self.after if isinstance(s, tile.Let) and isinstance(s.value, Load)]
        if other := next((s.names[0] for s in others if s.value.tensor in self.copied), None):  # type: ignore[union-attr]
            raise Unfit(f"{other} is another block of what dots read")
        readers = {n: tuple(d for d, v in self.dots.items() if Ref(n) in (v.left, v.right)) for n in self.loads}
        groups: dict[tuple[str, ...], list[str]] = {}
        for n in self.lets:
            if n in self.loads and n not in self.tiles:
                groups.setdefault(readers[n], []).append(n)
        rings = [Ring(names[0], tuple(names), 1) for names in groups.values()]
        of = {r.name: group for r, group in zip(rings, groups, strict=True)}
        held = [Ring(n, (n,), 1, True) for n in self.held]
        within = len(self.early) > 1 if self.late else not self.adding
        events = tuple(self.within(of) if within else self.ahead(of))
        first = min(rings, key=lambda r: _begin(events, r))
        rings[rings.index(first)] = replace(first, rows=tuple(self.rows))
        for n in self.tiles:
            rings, events = self.bringing(n, rings, events)
        return (*held, *sorted(rings, key=lambda r: _begin(events, r))), events

    def bringing(self, n: str, rings: list[Ring], events: tuple[Event, ...]) -> tuple[list[Ring], tuple[Event, ...]]:
        """The rings and events with a tile that steps compute with."""
        last, reading = max(rings, key=lambda r: _end(events, r)), self.reading(n, events)
        if not reading:
            raise Unfit(f"{n} decides what dots count")
        first, end = reading[0], reading[-1] + 1
        if _begin(events, last) < first and end <= _end(events, last):
            return [replace(r, loads=(*r.loads, n)) if r == last else r for r in rings], events
        return [*rings, Ring(n, (n,), 1)], (*events[:first], Wait(n), *events[first:end], Release(n), *events[end:])

    def reading(self, n: str, events: tuple[Event, ...]) -> list[int]:
        """The events of a step that compute with a tile of it."""

        def reads(e: Event) -> bool:
            values = [self.lets[x].value for x in e.names] if isinstance(e, Make) else []
            values += [self.dots[e.dot].left] if isinstance(e, Keep) else []
            return any(x == Ref(n) for x in walk_values(*values))

        return [k for k, e in enumerate(events) if reads(e)]

    def within(self, of: dict[str, tuple[str, ...]]) -> list[Event]:
        """The events where several dots are waited for, given which dots read each ring: all in their own step."""
        free, bound = self.others()
        alone = {d: [n for n in bound if self.depends(Ref(n), frozenset({d}))] for d in self.early}
        alone = {d: [n for n in alone[d] if not self.depends(Ref(n), frozenset({*self.early} - {d}))] for d in alone}
        early = sorted(self.early, key=lambda d: -sum(map(self.operations, alone[d])))
        found: list[Event] = []
        waited = set[str]()
        for d in early:
            found += [Wait(r) for r, dots in of.items() if d in dots and r not in waited]
            waited |= {r for r, dots in of.items() if d in dots}
            found.append(Begin(d))
        found += [Wait(r) for r in of if r not in waited]
        found += [Make(free)] if free else []
        made, there = set[str](), set[str]()
        for d in early:
            found.append(Finish(d))
            there.add(d)
            found += [Release(r) for r, dots in of.items() if d in dots and {*dots} <= there]
            rest = frozenset({*self.early} - there)
            ready = tuple(n for n in bound if n not in made and not self.depends(Ref(n), rest))
            found += [Make(ready)] if ready else []
            made |= {*ready}
        found += [Keep(d) for d in self.late]
        found += [Begin(d) for d in self.late]
        found += [Finish(d) for d in self.late]
        found += [Release(r) for r, dots in of.items() if not set(dots) <= {*early}]
        return found

    def operations(self, n: str) -> int:
        """How many operations a value of the body takes."""
        return sum(isinstance(v, tile.Elem) for v in walk_values(self.lets[n].value))

    def ahead(self, of: dict[str, tuple[str, ...]]) -> list[Event]:
        """The events where what is computed of a block hides under dots of the last one, given which dots read each
        ring."""
        early = [r for r, dots in of.items() if any(d in self.early for d in dots)]
        adding = [r for r, dots in of.items() if r not in early and any(d in self.adding for d in dots)]
        late = [r for r, dots in of.items() if r not in (*early, *adding)]
        last = {r: -1 if any(d in (*self.late, *self.adding) for d in dots) else 0 for r, dots in of.items()}
        found: list[Event] = [Begin(d) for d in self.early]
        found += [Wait(r) for r in adding]
        found += [Begin(d) for d in self.adding]
        found += [Wait(r, -1) for r in late]
        found += [Begin(d, -1) for d in self.late]
        free, bound = self.others()
        found += [Make(free)] if free else []
        found += [Finish(d) for d in self.early]
        found += [Release(r) for r in early if last[r] == 0]
        found += [Make(bound)] if bound else []
        found += [Wait(r, 1) for r in early]
        found += [Finish(d, -1) for d in (*self.adding, *self.late)]
        found += [Release(r, -1) for r in of if last[r] == -1]
        found += [Keep(d) for d in self.late]
        return found

    def others(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What is computed in a step beside dots: what depends on none, and what does."""
        names = [n for n in self.lets if n not in self.dots and n not in self.loads]
        bound = [n for n in names if self.depends(self.lets[n].value)]
        return tuple(n for n in names if n not in bound), tuple(bound)

    def check(self) -> None:
        """Raise `Unfit` where what a late dot gives is needed before it is there."""
        if not self.late and not self.adding and self.loop.axis.blocked:
            raise Unfit("no dot reads what another one gives, or adds up by itself")
        sides = [x for n in (*self.early, *self.adding) for x in (self.dots[n].left, self.dots[n].right)]
        if any(not isinstance(x, Ref) or x.name not in {*self.loads, *self.held} for x in sides):
            raise Unfit("a side of a dot is computed from what is loaded")
        if any(self.dots[n].left_in is not None or self.dots[n].right_in is not None for n in self.adding):
            raise Unfit("a dot that adds up by itself counts only some positions")
        states = {c.after: c.name for c in self.loop.carried}
        moving = frozenset((*self.late, *(states[n] for n in self.late if n in states)))
        for n in self.late:
            if n not in states:
                raise Unfit(f"the dot {n} gives no state")
        for n, s in self.lets.items():
            inside = self.dots[n].acc if n in self.late else None
            for v in (s.value,) if inside is None else (self.dots[n].left, self.dots[n].right):
                if any(isinstance(x, Ref) and x.name in moving for x in walk_values(v)):
                    raise Unfit(f"{n} waits for what a dot adds up")
        for n, s in self.lets.items():
            own = (s.value.acc, s.value.left_in) if n in self.dots and isinstance(s.value, Dot) else (s.value,)
            if n in self.late:
                own = (*own, self.dots[n].left)
            read = {x.name for v in own if v is not None for x in walk_values(v) if isinstance(x, Ref)}
            multiplied = {x.name for d in self.dots.values() for x in (d.left, d.right) if isinstance(x, Ref)}
            if found := sorted(read & {*self.loads, *self.held} & multiplied):
                raise Unfit(f"{n} computes with {found[0]}, which is copied for dots")
        for n in self.early:
            if self.dots[n].acc not in (tile.Fill(tile.Lit(0, F32)), tile.Lit(0, F32)):
                raise Unfit(f"the dot {n} is added to something")
        for n in self.late:
            right = self.dots[n].right
            if not isinstance(right, Ref) or right.name not in {*self.loads, *self.held}:
                raise Unfit(f"the right side of the dot {n} is computed")


def _begin(events: tuple[Event, ...], r: Ring) -> int:
    """When a ring is waited for first, counted in events from the beginning of a step."""
    return min(k - e.step * len(events) for k, e in enumerate(events) if isinstance(e, Wait) and e.ring == r.name)


def _end(events: tuple[Event, ...], r: Ring) -> int:
    """When a ring is given up, counted in the same way."""
    return next(k - e.step * len(events) for k, e in enumerate(events) if isinstance(e, Release) and e.ring == r.name)


def _by_lanes(v: Load, kernel: Kernel) -> bool:
    """Can lanes copy a row of numbers as it lies in memory?"""
    stored = next(b.dtype for b in kernel.buffers if b.name == v.tensor)
    return stored == v.dtype and v.part is None and v.dtype.size == _LANE
