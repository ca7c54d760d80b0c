"""The function of the producer: it fills the slots of rings, as far ahead as these are free, for one program of the
grid after another."""

from __future__ import annotations

from collections.abc import Iterator

from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.gluon.frame import AHEAD, Frame, Part, Slots
from einc.codegen.gluon.roles.fit import beside_loop
from einc.tile import Let, Load, Ref
from einc.tile.roles import ROWS, Ring
from einc.tile.walk import values_of

LANES = 32  # of a warp, which the producer is


class Producer(Part):
    """Writes it; it has no tiles but rows of numbers, which its lanes copy."""

    def __init__(self, frame: Frame) -> None:
        axis = frame.walked.axis.name
        homes = {}
        if frame.walked.axis.blocked:
            homes[axis] = f"gl.BlockedLayout([{frame.python['block', axis]} // {LANES}], [{LANES}], [1], [0])"
        super().__init__(frame, {}, homes, str(ROWS))
        self.rows = [frame.lets[n] for n in frame.rows_of]

    def lines(self) -> list[str]:
        """The body of the function."""
        fetched = self.file.helper("fetch")
        loads = [s.load for s in self.frame.slots.values()]
        axes = {a.name for a in self.frame.axes.values()}
        roots = [i for v in loads for i in v.index if not (isinstance(i, Ref) and i.name in axes)]
        roots += [v for s in self.rows for v in values_of(s.value)]
        names = self.needed(roots)
        found = list(self.bind(names, self.frame.before))
        for r in self.roles.held:
            found += self.fill(r, r.name, fetched)
        found.append(f"for step in range({self.frame.total}):")
        at = self.frame.at
        inside = [*self.walk(names), f"{at} = {self.frame.past} + step"]
        for r in self.roles.walked:
            free = self.frame.barriers[r.name, "free"]
            inside.append(f"mbarrier.wait({free}.index({slot(at, r.depth)}), {phase(at, r.depth)} ^ 1)")
            inside += self.fill(r, "", fetched)
        return list(self.each(found + indented(inside)))

    def each(self, body: list[str]) -> Iterator[str]:
        """What it does for its program, or for one of the grid after another: with a step between them that is the
        same for all where they walk equally far; else for the first that no processor has begun."""
        f, counter = self.frame, self.frame.signature.counter
        yield f"{f.past} = 0"
        yield f"{f.nth} = 0"
        if not self.roles.onward:
            yield from body
            return
        yield "program = tl.program_id(0).to(INT)"
        yield f"while program < {f.programs}:"
        yield from indented([*f.placing(1), *self.tell(dict(enumerate(f.heard))), *body])
        yield f"    {f.past} += {f.total}"
        yield f"    {f.nth} += 1"
        later = f'tl.num_programs(0) + tl.atomic_add({counter}, 1, sem="relaxed")' if counter else ""
        yield f"    program = ({later}).to(INT)" if later else "    program += tl.num_programs(0)"
        yield "# no further one"
        yield from self.tell({f.heard.index(f.total): "-1"})

    def tell(self, values: dict[int, str]) -> Iterator[str]:
        """Numbers for consumers, by their places."""
        (slots, there, free), nth = self.frame.told.values(), self.frame.nth
        at, tell = slot(nth, AHEAD), self.file.helper("tell")
        yield f"mbarrier.wait({free}.index({at}), {phase(nth, AHEAD)} ^ 1)"
        yield from (f"{tell}({slots}, ({at}) + {AHEAD * k}, {x}, INT)" for k, x in values.items())
        yield f"mbarrier.arrive({there}.index({at}), count=1)"

    def walk(self, names: set[str]) -> Iterator[str]:
        """Where the block of a step begins."""
        axis = self.frame.walked.axis.name
        first = self.take("position", axis, f"{axis}0")
        self.write.wide.add(axis)
        start = "" if self.frame.walked.start is None else f"{self.frame.start} + "
        if not self.frame.walked.axis.blocked:
            yield f"{self.take('value', axis, axis)} = tl.cast({start}step, INT)"
            yield from self.bind(names, self.frame.walked.body)
            return
        yield f"{first} = {start}step * {self.python['block', axis]}"
        if self.rows:
            block, name = self.python["block", axis], self.take("value", axis, axis)
            yield f"{name} = {first} + gl.arange(0, {block}, layout={self.write.homes[axis]}).to(INT)"
        yield from self.bind(names, self.frame.walked.body)

    def fill(self, ring: Ring, held: str, fetched: str) -> Iterator[str]:
        """The copies of a ring: of one that is held, for each consumer apart."""
        there = self.frame.barriers[ring.name, "there"]
        own = [self.frame.slots[n] for n in ring.loads]
        consumers = self.roles.consumers
        if held:
            (s,) = own
            free, nth = self.frame.barriers[ring.name, "free"], self.frame.nth
            by_steps = ring.name not in beside_loop(self.kernel)
            rare = by_steps and not self.frame.walked.axis.blocked  # are there often no steps, which alone read it?
            for c in range(consumers if s.sliced else 1):
                yield f"mbarrier.wait({free}.index({c}), {phase(nth, 1)} ^ 1)"
                copied = [f"mbarrier.expect({there}.index({c}), {s.bytes})"]
                copied += self.copy(s, f"{there}.index({c})", str(c), c, fetched)
                if rare:
                    yield from (f"if {self.frame.total} > 0:", *indented(copied), "else:")
                    yield f"    mbarrier.arrive({there}.index({c}), count=1)"
                else:
                    yield from copied
            return
        at = slot(self.frame.at, ring.depth)
        counts = [f"{consumers} * {s.bytes}" if s.sliced and consumers > 1 else s.bytes for s in own]
        yield f"mbarrier.expect({there}.index({at}), {' + '.join(counts)})"
        for s in own:
            for c in range(consumers if s.sliced else 1):
                place = f"({at}) * {consumers} + {c}" if s.sliced and consumers > 1 else at
                yield from self.copy(s, f"{there}.index({at})", place, c, fetched)
        for row in self.rows:
            if row.names[0] in ring.rows:
                yield from self.row(row, at)
        if ring.rows:
            yield f"async_copy.mbarrier_arrive({there}.index({at}), increment_count=False)"

    def row(self, s: Let, at: str) -> list[str]:
        """The copy of a row of numbers by lanes."""
        assert isinstance(s.value, Load)
        axes, (_, slots) = s.types[0].axes, self.frame.rows_of[s.names[0]]
        pointer = self.write.pointer(s.value.tensor, s.value.index, s.value.part, axes).code
        mask = "" if s.value.mask is None else f", mask={self.write.over(s.value.mask, axes).code}"
        return wrapped(f"async_copy.async_copy_global_to_shared({slots}.index({at}), {pointer}{mask})")

    def copy(self, s: Slots, there: str, place: str, c: int, fetched: str) -> list[str]:
        """One copy."""
        sides = self.frame.windows[s.load.tensor]
        places = ", ".join(self.coordinate(s, axis, dims[0], c) for axis, dims in sides)
        tensor = self.python["tensor", s.load.tensor]
        return wrapped(f"{fetched}({tensor}, [{places}], {there}, {s.name}.index({place}))")

    def coordinate(self, s: Slots, axis: str | None, dim: int, c: int) -> str:
        if axis is None:
            return self.write.coordinate(s.load.index[dim], None)
        if axis in self.frame.origins:
            later = f" + {c * ROWS}" if c and axis == self.roles.axis else ""
            return f"tl.cast({self.frame.origins[axis]}{later}, tl.int32)"
        if axis == self.frame.walked.axis.name:
            return f"tl.cast({self.python['position', axis]}, tl.int32)"
        return "0"  # all of an axis that is held whole


def slot(step: str, depth: int) -> str:
    """The slot of a step, of so many."""
    inner = f"({step})" if " " in step else step
    return "0" if depth == 1 else f"{inner} & {depth - 1}" if depth & (depth - 1) == 0 else f"{inner} % {depth}"


def phase(step: str, depth: int) -> str:
    """How often the slots have been filled before a step, modulo 2."""
    inner = f"({step})" if " " in step else step
    if depth == 1:
        return f"({inner} & 1)"
    return f"({inner} // {depth} & 1)" if depth & (depth - 1) else f"({inner} >> {depth.bit_length() - 1} & 1)"
