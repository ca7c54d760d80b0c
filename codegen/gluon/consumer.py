"""The function of a consumer: its rows of a block, step by step, as the events of the roles say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import assert_never

from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.text import Axes
from einc.codegen.gluon.clearing import Clearing
from einc.codegen.gluon.epilogue import Epilogue
from einc.codegen.gluon.frame import AHEAD, Frame
from einc.codegen.gluon.producer import phase, slot
from einc.tile import Carried, Dot, Fill, Fold, Let, Lit, Ref, Statement, Store, TileType, Value
from einc.tile.roles import ROWS, Begin, Event, Finish, Keep, Make, Release, Turn, Wait, in_flight
from einc.tile.walk import own_values, values_in, walk_values

_BITS = 32  # of what a register holds


class Consumer(Epilogue, Clearing):
    """Writes it: steps with masks, steps without, and the dots that the last step leaves."""

    def __init__(self, frame: Frame) -> None:
        row = frame.roles.axis
        dots = [s.value for s in frame.lets.values() if isinstance(s.value, Dot)]
        columns = list(dict.fromkeys([*(d.column for d in dots), *(a.name for a in frame.kernel.whole)]))
        tiles: dict[Axes, str] = {(row, x): frame.names.fresh(f"TILE_{x.upper()}", ascii_only=True) for x in columns}
        homes = {x: f"gl.SliceLayout(0, {tiles[row, x]})" for x in columns}
        super().__init__(frame, tiles, {**homes, row: f"gl.SliceLayout(1, {tiles[row, columns[0]]})"}, str(ROWS))
        self.tiles = tiles
        self.dots = {n: s.value for n, s in frame.lets.items() if isinstance(s.value, Dot)}
        self.states = {c.after: c for c in frame.walked.carried}
        self.stepping: dict[tuple[str, str], str] = {}
        self.flying = {n: self.names.fresh(f"{n}_begun") for n in self.dots}
        self.adding = {e.dot for e in self.roles.events if isinstance(e, Finish) and e.step < 0} - {*self.roles.kept}
        self.sides = {n: self.names.fresh(f"{n}_side") for n in self.roles.kept}
        self.bodies = [{s.names[0]: s for s in frame.walked.body if isinstance(s, Let)}]
        if frame.segmented[1]:
            assert frame.walked.full is not None
            self.bodies.append({s.names[0]: s for s in frame.walked.full.body if isinstance(s, Let)})

    def lines(self) -> list[str]:
        """The body of the function."""
        loop = self.frame.walked
        inside = [s.value for b in self.bodies for n, s in b.items() if n not in self.frame.slots]
        rest = [v for s in self.frame.after for v in own_values(s)]
        names = self.needed([*inside, *rest, *(c.init for c in loop.carried)])
        head = [*self.units(), *self.layouts()]
        early = {x.name for s in self.frame.before for x in self.computing(s, names)}
        late = {x.name for s in self.frame.after for x in self.computing(s)}
        places = {r.name: self.frame.consumer if self.frame.slots[r.name].sliced else "0" for r in self.roles.held}
        waits = {
            n: f"mbarrier.wait({self.frame.barriers[n, 'there']}.index({p}), {phase(self.frame.nth, 1)})"
            for n, p in places.items()
        }
        found = [*self.positions(names), *(w for n, w in waits.items() if n in early)]
        found += self.bind((names - self.frame.slots.keys()) | early, self.frame.before)
        for c in loop.carried:
            found += self.state(c)
        found += [w for n, w in waits.items() if n not in early]
        found.append(f"if {self.frame.total} > 0:")
        given_up = [self.given_up(n, p) for n, p in places.items()]
        free = [*self.fence([*places]), *given_up]
        left = {x.name for n in (*self.sides, *self.adding) for x in walk_values(self.dots[n]) if isinstance(x, Ref)}
        if late or any(isinstance(s, Store) and self.rests(s) for s in self.frame.after):  # copies come after these
            found += [*indented(self.every([])), *self.ending()]
            found += ["hopper.fence_async_shared()", "tl.debug_barrier()", *given_up]
        elif free and left.isdisjoint(places):
            found += [*indented(self.every(free)), "else:", *indented(free), *self.ending()]
        else:
            found += [*indented(self.every([])), *free, *self.ending()]
        return [*head, *self.each(found)]

    def each(self, body: list[str]) -> Iterator[str]:
        """What it does for one program of the grid after another, at the places that the producer tells."""
        f = self.frame
        read = set(re.findall(r"\w+", "\n".join(body)))
        f.heard = [n for n in (*f.own, *f.bounds()) if n in read]
        yield f"{f.past} = 0"
        yield f"{f.nth} = 0"
        if not self.roles.onward:
            yield from body
            return
        yield from self.told()
        yield f"while {f.total} >= 0:"
        yield from indented(body)
        yield f"    {f.past} += {f.total}"
        yield f"    {f.nth} += 1"
        yield from indented(self.told())

    def told(self) -> Iterator[str]:
        """The place of a program, and the bounds of its walk."""
        (slots, there, free), nth = self.frame.told.values(), self.frame.nth
        at, told = slot(nth, AHEAD), self.file.helper("told")
        steps = {self.frame.total, *self.frame.ends}
        yield f"mbarrier.wait({there}.index({at}), {phase(nth, AHEAD)})"
        blocks = {first: self.python["block", axis] for axis, first in self.frame.origins.items()}
        for k, name in enumerate(self.frame.heard):
            known = f" // {blocks[name]} * {blocks[name]}" if name in blocks else ""  # of which it is a multiple
            as_steps = ".to(tl.int32)" * (name in steps)
            yield f"{name} = {told}({slots}, ({at}) + {AHEAD * k}){as_steps}{known}"
        yield "tl.debug_barrier()"
        yield f"mbarrier.arrive({free}.index({at}), count=1)"

    def bind(self, names: set[str], statements: tuple[Statement, ...]) -> Iterator[str]:
        """The bindings of these names, what is held in slots among them: it is read from there."""
        for s in statements:
            if isinstance(s, Let) and s.names[0] in names & self.frame.slots.keys():
                yield self.from_slots(s)
            else:
                yield from super().bind(names, (s,))

    def layouts(self) -> Iterator[str]:
        for (_, x), name in self.tiles.items():
            block = self.python["block", x]
            yield f"{name}: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {block}, 16])"

    def positions(self, names: set[str]) -> Iterator[str]:
        """Its rows, its columns, and the positions along axes that are held whole."""
        blocked = [a for a in self.frame.kernel.grid if a.blocked]
        for a in (*blocked, *self.frame.kernel.whole):
            if a.name in names:
                size = str(ROWS) if a.name == self.roles.axis else self.python["block", a.name]
                name = self.take("value", a.name, a.name)
                first = f"{self.frame.origins[a.name]} + " if a in blocked else ""
                first += f"{self.frame.consumer} * {ROWS} + " if a.name == self.roles.axis else ""
                yield f"{name} = {first}gl.arange(0, {size}, layout={self.write.homes[a.name]}).to(INT)"

    def state(self, c: Carried) -> list[str]:
        code = self.value(c.init, c.type)
        self.take("value", c.name, c.name)
        self.write.types[c.name] = c.type
        return wrapped(f"{self.python['value', c.name]} = {code}")

    # Steps -----------------------------------------------------------------------------------------------------------

    def every(self, free: list[str]) -> Iterator[str]:
        """All steps: the first with masks, whatever it is. What is held is `free` before the dots that it leaves."""
        loop, steps = self.frame.walked, self.frame.total
        before, whole = self.frame.segmented
        full, masked = self.frame.ends
        apart = any(e.step for e in self.roles.events)  # has the first step no dots of one before it?
        if apart:
            yield "# the first step"
            yield from self.step(self.roles.first, self.bodies[0], "0")
        at = "1" if apart else "0"
        if before:
            yield from self.walk(self.bodies[0], at, full, f"blocks of {loop.axis.name} that are masked")
            at = f"tl.maximum({full}, 1)" if apart else full
        if whole:
            counting = f"blocks of {loop.axis.name} of which every position counts"
            yield from self.walk(self.bodies[1], at, masked, counting)
            at = f"tl.maximum({masked}, 1)" if apart else masked
        rest = f"the {'other ' * apart}{'blocks' if loop.axis.blocked else 'positions'} of {loop.axis.name}"
        masks = f"blocks of {loop.axis.name} that are masked"
        yield from self.walk(self.bodies[0], at, steps, masks if whole else rest)
        yield from free
        if apart:
            yield "# what the last step leaves"
            yield from self.step(self.roles.last, {}, steps)

    def walk(self, body: dict[str, Let], start: str, stop: str, what: str) -> Iterator[str]:
        yield f"# {what}"
        yield f"for step in range({start}, {stop}):"
        yield from indented(self.step(self.roles.events, body, "step"))

    def step(self, events: Iterable[Event], body: dict[str, Let], number: str) -> Iterator[str]:
        """The events of a step. Names that the first one binds are its own, since loops carry what is bound before."""
        kept = dict(self.python)
        if number == "step":
            yield f"{self.frame.at} = {self.frame.past} + step"
        axis = self.frame.walked.axis
        if body:
            own = tuple(s for n, s in body.items() if n not in self.frame.slots)
            names = {v.name for v in values_in(own) if isinstance(v, Ref)}
            place = self.place(number)
            if axis.name in names:
                name = self.python["value", axis.name] = self.named(axis.name, number)
                if axis.blocked:
                    block, home = self.python["block", axis.name], self.write.homes[axis.name]
                    yield f"{name} = {place} + gl.arange(0, {block}, layout={home}).to(INT)"
                else:
                    yield f"{name} = tl.cast({place}, INT)"
        self.loaded = set[str]()
        for e in events:
            yield from self.event(e, body, number)
        self.python.clear()
        self.python.update(kept)

    def named(self, name: str, number: str) -> str:
        """A variable of a step."""
        if (name, number) not in self.stepping:
            self.stepping[name, number] = self.names.fresh(f"first_{name}" if number == "0" else name)
        return self.stepping[name, number]

    def event(self, e: Event, body: dict[str, Let], number: str) -> Iterator[str]:
        match e:
            case Wait(ring=name, step=step):
                there, depth = self.frame.barriers[name, "there"], self.depth(name)
                at = self.at(number, step)
                there = f"{there}.index({slot(at, depth)}), {phase(at, depth)}"
                later = f"{number} + {step}" if number == "step" else str(step)
                early = f", pred={later} < {self.frame.total}" if step > 0 else ""
                yield f"mbarrier.wait({there}{early})"
            case Release(ring=name, step=step):
                yield from self.fence([name])
                yield self.given_up(name, slot(self.at(number, step), self.depth(name)))
            case Turn(ends=False):
                own = self.frame.consumer
                yield f"mbarrier.wait({self.frame.turn}.index({own}), {phase(self.at(number), 1)} ^ {own})"
            case Turn():
                yield f"mbarrier.arrive({self.frame.turn}.index(1 - {self.frame.consumer}), count=1)"
            case Begin(dot=name, step=step):
                yield from wrapped(self.begin(name, self.at(number, step)))
            case Finish(dot=name):
                last = number == self.frame.total
                steps = range(0 if number == "0" else -len(self.dots), 0 if last else 1)
                yield from wrapped(self.finish(name, in_flight(self.roles.events, e, steps), number))
            case Make(names=names):
                yield from self.make(names, body, number)
            case Keep(dot=name):
                yield from self.keep(name, body, number)
            case _:
                assert_never(e)

    def begin(self, name: str, at: str) -> str:
        d = self.dots[name]
        left = self.sides.get(name) or self.in_slot(d.left, (d.row, d.inner), at)
        right = self.in_slot(d.right, (d.inner, d.column), at)
        if name in self.sides:
            added = self.python["value", self.states[name].name]
            return f"{self.flying[name]} = hopper.warpgroup_mma({left}, {right}, {added}, is_async=True)"
        if name in self.adding:
            added = self.python["value", self.states[name].name]
            return f"{added} = hopper.warpgroup_mma({left}, {right}, {added}, is_async=True)"
        zeros = self.write.filled(Lit(0, self.write.dtype(d.acc)), d.sides.result).code
        return f"{self.flying[name]} = hopper.warpgroup_mma({left}, {right}, {zeros}, use_acc=False, is_async=True)"

    def finish(self, name: str, flying: int, number: str) -> str:
        if name in self.sides:
            state, side = self.python["value", self.states[name].name], self.sides[name]
            return f"{state}, {side} = hopper.warpgroup_mma_wait({flying}, deps=({self.flying[name]}, {side}))"
        if name in self.adding:
            state = self.python["value", self.states[name].name]
            found = f"hopper.warpgroup_mma_wait({flying}, deps=({state},))"
            again = number != self.frame.total  # the next step adds to it
            return f"{state} = " + (f"hopper.warpgroup_mma_init({found})" if flying and again else found)
        d = self.dots[name]
        found = self.python["value", name] = self.named(name, number)
        self.write.types[name] = TileType(self.write.dtype(d.acc), d.sides.result)
        return f"{found} = hopper.warpgroup_mma_wait({flying}, deps=({self.flying[name]},))"

    def make(self, names: tuple[str, ...], body: dict[str, Let], number: str) -> Iterator[str]:
        made = [body[n] for n in names if n in body]
        self.write.bound = {n: s.value for n, s in body.items()}
        later: dict[str, Let] = {}  # products that only a maximum has read so far: an addition takes them with it
        yield from self.arrived([s.value for s in made], number)
        for s in made:
            scaled = self.write.is_scaled(s.value)
            if not scaled or not isinstance(s.value, Fold):
                read = {v.name for v in walk_values(s.value) if isinstance(v, Ref)}
                for n in [n for n in later if n in read]:
                    yield from self.bound(later.pop(n), number)
            if scaled and not isinstance(s.value, Fold):
                later[s.names[0]] = s
            else:
                yield from self.bound(s, number)
        for s in later.values():
            yield from self.bound(s, number)
        own = {s.names[0] for s in made}
        moved = [c for c in self.frame.walked.carried if c.after in own]
        pairs = [(self.python["value", c.name], self.python["value", c.after]) for c in moved]
        if {a for a, _ in pairs} & {b for _, b in pairs}:
            yield f"{', '.join(a for a, _ in pairs)} = {', '.join(b for _, b in pairs)}"
        else:
            yield from (f"{a} = {b}" for a, b in pairs)

    def arrived(self, values: list[Value], number: str) -> Iterator[str]:
        """The bindings of what these values read of slots."""
        for n, code in self.brought(values, self.at(number)):
            name = self.python["value", n] = self.named(n, number)
            yield f"{name} = {code}"

    def bound(self, s: Let, number: str) -> list[str]:
        """A binding of a step."""
        for n in s.names:
            self.python["value", n] = self.named(n, number)
        if s.names[0] not in self.frame.rows_of:
            return wrapped(self.let(s, {}))
        (name,), (type_,) = s.names, s.types
        self.write.types[name] = type_
        r, slots = self.frame.rows_of[name]
        found = f"{slots}.index({slot(self.at(number), r.depth)})"
        return [f"{self.python['value', name]} = {found}.load({self.write.homes[type_.axes[0]]})"]

    def keep(self, name: str, body: dict[str, Let], number: str) -> Iterator[str]:
        d = body[name].value
        assert isinstance(d, Dot)
        yield from self.arrived([d.left], number)
        width = _BITS // 8 // self.write.dtype(d.left).size
        layout = f"gl.DotOperandLayout(0, {self.tiles[d.row, d.column]}, {width})"
        left = self.write.full(d.left, (d.row, d.inner)).code
        yield from wrapped(f"{self.sides[name]} = gl.convert_layout({left}, {layout})")
        if d.left_in is not None:
            yield from self.clear(d, number)
        state = self.states[name]
        if d.acc not in (Ref(state.name), Fill(Lit(0, state.type.dtype))):
            code = self.write.full(d.acc, d.sides.result).code
            yield from wrapped(f"{self.python['value', state.name]} = {code}")
