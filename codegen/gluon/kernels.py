"""A kernel whose warps have roles as Gluon: a function for each role and one for what they share, and the kernel, which
starts them."""

from __future__ import annotations

from collections.abc import Iterator

from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.text import SUM, File
from einc.codegen.gluon.consumer import Consumer
from einc.codegen.gluon.frame import AHEAD, Frame, Part
from einc.codegen.gluon.producer import LANES, Producer
from einc.codegen.triton import kernels
from einc.codegen.triton.writer import TYPES
from einc.pipeline.emitted import Signature
from einc.tile import Kernel, TileAxis, Value
from einc.tile.blocks import power
from einc.tile.roles import WARPGROUP
from einc.tile.walk import loop_position


def kernel_source(file: File, kernel: Kernel) -> tuple[Signature, list[str]]:
    """The kernel's signature, and its lines."""
    if kernel.roles is None:
        return kernels.kernel_source(file, kernel)
    frame = Frame(file, kernel)
    head = [f"# {line}" for title in kernel.title for line in title.splitlines()]
    produce, consume = (file.names.fresh(f"{kernel.name}_{role}", ascii_only=True) for role in ("produce", "consume"))
    shared = _Place(frame).lines()
    frame.placed = ["program", *(n for n in frame.taken(shared) if n not in frame.passed())]
    written: list[str] = frame.function(frame.place, frame.placed, shared, frame.warps)
    consumer = Consumer(frame).lines()  # which says what it is to be told
    producer = Producer(frame).lines()
    produced, consumed = frame.taken(producer), frame.taken(consumer)
    written += ["", "", *frame.function(produce, produced, producer)]
    written += ["", "", *frame.function(consume, consumed, consumer, frame.consumer)]
    header = [line.replace("@triton.jit", "@gluon.jit") for line in frame.header()]
    main = _Main(frame, produced, consumed, produce, consume).lines()
    return frame.signature, [*written, "", "", *head, *header, *indented(main)]


class _Place(Part):
    """Writes the function of what roles share: where the rows of a program lie, and the bounds of its walk."""

    def __init__(self, frame: Frame) -> None:
        blocks = {a.name: frame.python["block", a.name] for a in frame.kernel.grid if a.blocked}
        own = blocks[frame.roles.axis]
        self.along = {  # each warp has all of them
            a.name: f"gl.BlockedLayout([{blocks.get(a.name, own)} // 32], [32], [{frame.warps}], [0])"
            for a in frame.axes.values()
        }
        super().__init__(frame, {}, self.along, own)

    def lines(self) -> list[str]:
        """The body of the function."""
        loop = self.frame.walked
        full = (loop.full.start, loop.full.stop) if loop.full is not None else ()
        roots: list[Value] = [self.frame.lets[n].value for n in self.frame.shared]
        names = self.needed([*roots, *(v for v in (loop.start, loop.stop, *full) if v is not None)])
        names |= {*self.frame.shared}
        found = list(self.places())
        for axis in [a for a in self.frame.origins if a in names]:
            name, block = self.take("value", axis, axis), self.python["block", axis]
            found.append(
                f"{name} = {self.frame.origins[axis]} + gl.arange(0, {block}, layout={self.along[axis]}).to(INT)"
            )
        for s in self.frame.before:
            if s.names[0] in names and s.names[0] not in self.frame.slots:  # type: ignore[union-attr]
                found += wrapped(self.let(s, {}))  # type: ignore[arg-type]
        return [*found, *self.bounds(), f"return {', '.join([*self.frame.own, *self.frame.bounds()])}"]

    def position(self, a: TileAxis, place: str, count: str) -> Iterator[str]:
        name = self.take("value", a.name, a.name)
        self.write.types[a.name] = loop_position(a)
        if not a.blocked:
            yield f"{name} = {place}"
            return
        block = self.python["block", a.name]
        place = yield from self.in_order(a, place, count)
        yield f"{self.frame.origins[a.name]} = {place} * {block}"

    def bounds(self) -> Iterator[str]:
        """The steps of the walk, and which of them need no masks."""
        loop = self.frame.walked
        block = self.python["block", loop.axis.name] if loop.axis.blocked else "1"
        stop = self.stop(loop.axis) if loop.stop is None else self.write.value(loop.stop, ()).at(SUM)
        first, less = "", ""
        if loop.start is not None:
            first = self.frame.start
            yield f"{first} = {self.write.value(loop.start, ()).code}"
            less = f" - {first}"
        count = f"tl.cdiv({stop}{less}, {block})"
        yield f"{self.frame.total} = tl.cast(tl.maximum({count}, 0), tl.int32)"
        before, whole = self.frame.segmented
        full, masked = self.frame.ends
        if before:
            assert loop.full is not None
            assert loop.full.start is not None
            ahead = self.write.value(loop.full.start, ()).at(SUM)
            yield f"{full} = tl.cast(tl.cdiv({ahead}{less}, {block}), tl.int32)"
        if whole:
            assert loop.full is not None
            until = f"tl.cast(({self.write.value(loop.full.stop, ()).at(SUM)}{less}) // {block}, tl.int32)"
            yield f"{masked} = tl.maximum({until}, {full if before else 0})"


class _Main(Part):
    """Writes the kernel itself: how many programs there are, slots and barriers, and the roles."""

    def __init__(self, frame: Frame, produced: list[str], consumed: list[str], produce: str, consume: str) -> None:
        super().__init__(frame, {}, {}, frame.python["block", frame.roles.axis])
        self.produced, self.consumed, self.produce, self.consume = produced, consumed, produce, consume

    def lines(self) -> list[str]:
        """The body of the kernel."""
        first, *others = map(self.places_along, self.kernel.grid)
        programs = f"{self.frame.programs} = {' * '.join([f'tl.cast({first}, INT)', *others])}"
        program = "program = tl.program_id(0).to(INT)"
        begun = [programs] if self.roles.onward else [program, *self.frame.placing(WARPGROUP)]
        return [*begun, *self.memory(), *self.start()]

    def memory(self) -> Iterator[str]:
        """Slots, and the barriers that say what is there, and what is free."""
        for r in self.roles.rings:
            for name in r.loads:
                s, tensor = self.frame.slots[name], self.python["tensor", self.frame.slots[name].load.tensor]
                sides = ", ".join([str(self.frame.count(r, name)), *s.sides])
                yield f"{s.name} = gl.allocate_shared_memory({tensor}.dtype, [{sides}], {tensor}.layout)"
        for name, (r, slots) in self.frame.rows_of.items():
            row, block = self.frame.lets[name], self.python["block", self.frame.walked.axis.name]
            layout = "gl.SwizzledSharedLayout(1, 1, 1, order=[0])"
            dtype = TYPES[row.types[0].dtype.name]
            yield f"{slots} = gl.allocate_shared_memory({dtype}, [{r.depth}, {block}], {layout})"
        barriers = [(self.frame.turn, self.roles.consumers, 1)] * self.roles.in_turn
        for (ring, kind), name in self.frame.barriers.items():
            r = next(r for r in self.roles.rings if r.name == ring)
            count = self.frame.count(r, r.loads[0]) if r.held else r.depth
            own = r.held and self.frame.slots[r.name].sliced
            arriving = 1 + LANES * bool(r.rows) if kind == "there" else 1 if own else self.roles.consumers
            barriers.append((name, count, arriving))
        if self.roles.onward:
            slots, there, free = self.frame.told.values()
            room = AHEAD * power(len(self.frame.heard))
            yield f"{slots} = gl.allocate_shared_memory(INT, [{room}, 1], gl.SwizzledSharedLayout(1, 1, 1, order=[0]))"
            barriers += [(there, AHEAD, 1), (free, AHEAD, self.roles.consumers)]
        for name, count, arriving in barriers:
            yield f"{name} = gl.allocate_shared_memory(gl.int64, [{count}, 1], mbarrier.MBarrierLayout())"
            yield f"for n in gl.static_range({count}):"
            yield f"    mbarrier.init({name}.index(n), count={arriving})"
        yield "hopper.fence_async_shared()"

    def start(self) -> Iterator[str]:
        """The roles, each with its warps and registers."""
        many, few = self.roles.registers
        consumers = self.roles.consumers
        yield "gl.warp_specialize("
        yield "    ["
        for c in range(consumers):
            yield f"        ({self.consume}, ("
            yield from (f"            {line}" for line in kernels.in_lines([*self.consumed, str(c)]))
            yield "        )),"
        yield f"        ({self.produce}, ("
        yield from (f"            {line}" for line in kernels.in_lines(self.produced))
        yield "        )),"
        yield "    ],"
        yield f"    {[4] * (consumers - 1) + [1]},"
        yield f"    {[many] * (consumers - 1) + [few]},"
        yield ")"
