"""A loop of a tile kernel as lines: in segments with masks and without, or with the loop in it as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace

from einc import tile
from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.names import Names
from einc.codegen.emit.text import PRODUCT, SUM
from einc.codegen.triton.expressions import Expressions
from einc.codegen.triton.load_ahead import spelled
from einc.codegen.triton.nests import nested
from einc.tile import TileAxis, TileType
from einc.tile.masks import conjunction, conjuncts, inside
from einc.tile.walk import lets, loop_position, values_in
from einc.tile.windows import Box


class Loops(ABC):
    """Writes loops of a kernel, with what else is known of it: `windows` are the tensors that descriptors find, `read`
    the names that are read beside these, `python` the names in the file by kind."""

    kernel: tile.Kernel
    names: Names
    python: dict[tuple[str, str], str]
    read: set[str]
    windows: Mapping[str, Box]
    write: Expressions
    following = ""  # where the next block of a loop begins that loads ahead

    @abstractmethod
    def take(self, kind: str, key: str, wanted: str) -> str:
        """The name of something in the file, a fresh one where it has none."""

    @abstractmethod
    def body(self, statements: tuple[tile.Statement, ...], renamed: dict[str, str]) -> Iterator[str]:
        """Statements in order; what is renamed is bound to another name."""

    @abstractmethod
    def value(self, v: tile.Value, type_: TileType) -> str:
        """A value as a tile over exactly the axes of a type."""

    def loop(self, s: tile.Loop) -> Iterator[str]:
        """Carried states are variables; one that nothing reads after its next value is made is simply reassigned."""
        if (nest := nested(s)) is not None:
            yield from self.nest(*nest)
            return
        for c in s.carried:
            code = self.value(c.init, c.type)
            self.take("value", c.name, c.name)
            self.write.types[c.name] = c.type
            yield from wrapped(f"{self.python['value', c.name]} = {code}")
        start = "0" if s.start is None else self.write.value(s.start, ()).code
        stop = self.stop(s.axis) if s.stop is None else self.write.value(s.stop, ()).code
        if s.axis.blocked or s.stop is None:
            yield from self.between(s, start, stop)
            return
        yield f"if {start} < {stop}:"  # nothing is begun where masks leave no step
        yield from indented(self.between(s, start, stop))

    def between(self, s: tile.Loop, start: str, stop: str) -> Iterator[str]:
        """The loop from one end to the other, without masks as far as it can be."""
        if s.full is None or not s.full.body:
            if (s.start, s.stop) == (None, None) and self.is_described(s.axis.axes):
                yield f"tl.assume({stop} > 0)  # descriptors are of tensors that are not empty"
            yield from self.begun(s, s.ahead, start)
            yield from self.segment(s, s.body, start, stop)
        elif not s.axis.blocked:
            yield from self.steps(s, s.full, start, stop)
        else:
            yield from self.segments(s, s.full, start, stop)

    def nest(self, outer: tile.Loop, inner: tile.Loop) -> Iterator[str]:
        """A loop in the steps of another as one: blocks are loaded ahead from one step to the next."""
        for c in outer.carried:
            yield from wrapped(f"{self.take('value', c.name, c.name)} = {self.value(c.init, c.type)}")
            self.write.types[c.name] = c.type
        names = {c.init.name: c.name for c in inner.carried if isinstance(c.init, tile.Ref)}
        self.python.update({("value", own): self.python["value", name] for name, own in names.items()})
        self.write.types.update((c.name, c.type) for c in inner.carried)
        block, size = self.python["block", inner.axis.name], self.stop(inner.axis)
        count, step = self.names.fresh(f"blocks_{inner.axis.name}"), self.names.fresh("step")
        yield f"{count} = tl.cdiv({size}, {block})"
        start = None if outer.start is None else self.write.value(outer.start, ()).at(PRODUCT)
        stop = self.stop(outer.axis) if outer.stop is None else self.write.value(outer.stop, ()).at(PRODUCT)
        first, last = "0" if start is None else f"{start} * {count}", f"{stop} * {count}"
        if self.is_described((*outer.axis.axes, *inner.axis.axes)) and outer.start is outer.stop is None:
            yield f"tl.assume({last} > 0)  # descriptors are of tensors that are not empty"
        yield from wrapped(f"for {step} in tl.range({first}, {last}):")
        yield from indented(self.nested_body(outer, inner, step, count))

    def nested_body(self, outer: tile.Loop, inner: tile.Loop, step: str, count: str) -> Iterator[str]:
        """The positions of both loops at a step of the one that they are, and what they do there."""
        block, name = self.python["block", inner.axis.name], self.take("value", inner.axis.name, inner.axis.name)
        first = self.take("position", inner.axis.name, f"{name}0")
        self.write.types.update({a.name: loop_position(a) for a in (outer.axis, inner.axis)})
        self.write.wide.add(inner.axis.name)
        named = (n for s in lets(outer.body) for n in s.names)
        self.write.stepped |= {outer.axis.name, inner.axis.name, *named}
        yield f"{self.take('value', outer.axis.name, outer.axis.name)} = tl.cast({step} // {count}, INT)"
        yield f"{first} = tl.cast({step} % {count} * {block}, INT)"
        if inner.axis.name in self.read:
            yield f"{name} = {first} + tl.arange(0, {block}).to(INT)"
        yield from self.body(outer.body[:-1], {})
        yield from self.ended(inner, inner.body)

    def is_described(self, axes: tuple[str, ...]) -> bool:
        """Do descriptors reach a tensor that has all of these axes?"""
        dims = ({a for dim in b.dims for a in dim} for b in self.kernel.buffers if b.name in self.windows)
        return any(set(axes) <= own for own in dims)

    def segments(self, s: tile.Loop, full: tile.Full, start: str, stop: str) -> Iterator[str]:
        """The loop as several: whole blocks inside the full segment need no masks, those before and after do."""
        name, block = s.axis.name, self.python["block", s.axis.name]
        first, last = start, self.write.value(full.stop, ())
        if full.start is not None:
            first = self.names.fresh(f"{name}_full")
            ahead = self.write.value(full.start, ()).code
            blocks = f"tl.cdiv({ahead if start == '0' else f'{ahead} - {start}'}, {block}) * {block}"
            yield f"{first} = {blocks}" if start == "0" else f"{first} = {start} + {blocks}"
        mixed = self.names.fresh(f"{name}_mixed")
        if first == "0":
            yield f"{mixed} = {last.at(PRODUCT)} // {block} * {block}"
        else:
            yield f"{mixed} = {first} + tl.maximum({last.at(SUM)} - {first}, 0) // {block} * {block}"
        masked, whole = f"# blocks of {name} that are masked", f"# blocks of {name} of which every position counts"
        yield from self.apart(s, full, (start, first, mixed, stop), masked, whole)

    def steps(self, s: tile.Loop, full: tile.Full, start: str, stop: str) -> Iterator[str]:
        """The same of a loop that takes one position after another."""
        name, first, last = s.axis.name, start, self.write.value(full.stop, ()).code
        if full.start is not None:
            first = self.names.fresh(f"{name}_full")
            yield f"{first} = {self.write.value(full.start, ()).code}"
        mixed = last if first == "0" else self.names.fresh(f"{name}_mixed")
        if first != "0":
            yield f"{mixed} = tl.maximum({first}, {last})"
        masked, whole = f"# positions of {name} that are masked", f"# positions of {name} that count as a whole"
        yield from self.apart(s, full, (start, first, mixed, stop), masked, whole)

    def apart(
        self, s: tile.Loop, full: tile.Full, ends: tuple[str, str, str, str], masked: str, whole: str
    ) -> Iterator[str]:
        """The parts of a loop between these ends, each after a line that says so: the middle one has no masks."""
        start, first, mixed, stop = ends
        bound = {n for x in lets(full.body) for n in x.names}
        kept = tuple(n for n in s.ahead if n in bound)
        if full.start is not None and full.free and s.axis.blocked:
            yield whole
            yield from self.begun(s, kept, first)
            yield from self.segment(s, full.body, first, mixed)
            yield masked
            yield from self.around(s, ends)
            return
        if full.start is not None:
            yield masked
            yield from self.begun(s, s.ahead, start)
            yield from self.segment(s, s.body, start, first)
        yield whole
        yield from self.begun(s, () if full.start is not None else kept, first)
        yield from self.segment(s, full.body, first, mixed)
        yield masked
        yield from self.begun(s, tuple(n for n in s.ahead if n not in kept), mixed)
        yield from self.segment(s, s.body, mixed, stop)

    def around(self, s: tile.Loop, ends: tuple[str, str, str, str]) -> Iterator[str]:
        """One loop over the blocks before the unmasked segment and those after it: what fills and drains once, and is
        half as long."""
        start, first, mixed, stop = ends
        name = s.axis.name
        passed, at = self.names.fresh(f"{name}_whole"), self.names.fresh(f"{name}_at")
        block = self.python["block", name]
        yield f"{passed} = {mixed} - {first}"
        yield from self.begun(s, s.ahead, f"tl.where({start} < {first}, {start}, {start} + {passed})")
        self.following = f"tl.where({at} + {block} < {first}, {at}, {at} + {passed}) + {block}"
        yield from wrapped(f"for {at} in tl.range({start}, {stop} - {passed}, {self.python['block', name]}):")
        self.take("value", name, name)
        self.write.types[name] = loop_position(s.axis)
        place = self.take("position", name, f"{name}0")
        self.write.wide.add(name)
        yield f"    {place} = tl.where({at} < {first}, {at}, {at} + {passed})"
        if name in self.read:
            yield f"    {name} = {place} + tl.arange(0, {self.python['block', name]}).to(INT)"
        yield from indented(self.ended(s, s.body))
        self.following = ""

    def segment(self, s: tile.Loop, body: tuple[tile.Statement, ...], start: str, stop: str) -> Iterator[str]:
        """One loop over blocks. The states that the masked body reassigns are reassigned."""
        yield from self.loop_head(s, start, stop)
        yield from indented(self.ended(s, body))

    def begun(self, s: tile.Loop, names: tuple[str, ...], first: str) -> Iterator[str]:
        """What is loaded ahead of a loop, or one of its segments, that begins with this position."""
        if names:
            yield from self.positions_ahead(s, f"{first} + " if first != "0" else "")
            for x in lets(s.body):
                if x.names[0] in names:
                    yield from self.fetched(s, x)

    def positions_ahead(self, s: tile.Loop, first: str) -> Iterator[str]:
        """The positions of a block that is loaded ahead."""
        name = self.take("ahead", s.axis.name, f"{s.axis.name}_next")
        yield f"{name} = {first}tl.arange(0, {self.python['block', s.axis.name]}).to(INT)"

    def fetched(self, s: tile.Loop, x: tile.Let) -> Iterator[str]:
        """A load of a block ahead, of positions that exist."""
        assert isinstance(x.value, tile.Load)
        axis, load = s.axis.name, spelled(s, x.value)
        assert isinstance(load, tile.Load)
        if inside(s.axis) not in (terms := conjuncts(load.mask)):
            load = replace(load, mask=conjunction([*terms, inside(s.axis)]))
        own = self.python.get(("value", axis))
        self.python["value", axis] = self.python["ahead", axis]
        self.write.types[axis] = loop_position(s.axis)
        code = self.value(load, x.types[0])
        if own is None:
            del self.python["value", axis]
        else:
            self.python["value", axis] = own
        name = self.take("ahead", x.names[0], f"{x.names[0]}_next")
        yield from wrapped(f"{name} = {code}")

    def exchanged(self, s: tile.Loop, x: tile.Let) -> Iterator[str]:
        """What was loaded ahead, and the load for the block to come."""
        name = self.take("value", x.names[0], x.names[0])
        self.write.types[x.names[0]] = x.types[0]
        yield f"{name} = {self.python['ahead', x.names[0]]}"
        yield from self.fetched(s, x)

    def ended(self, s: tile.Loop, body: tuple[tile.Statement, ...]) -> Iterator[str]:
        """A loop's body, and its states as they go on to the next block."""
        renamed = {c.after: self.python["value", c.name] for c in s.carried if _is_last_use(s, c)}
        ahead = {x.names[0]: x for x in body if isinstance(x, tile.Let) and x.names[0] in s.ahead}
        if not ahead:
            yield from self.body(body, renamed)
        else:
            block, first = self.python["block", s.axis.name], self.python["position", s.axis.name]
            yield from self.positions_ahead(s, f"{self.following or f'{first} + {block}'} + ")
            whole = {x.names[0]: x for x in lets(s.body)}
            for x in body:
                if isinstance(x, tile.Let) and x.names[0] in ahead:
                    yield from self.exchanged(s, whole[x.names[0]])
                else:
                    yield from self.body((x,), renamed)
        pairs = [(self.python["value", c.name], self.python["value", c.after]) for c in s.carried]
        moved = [(state, after) for state, after in pairs if state != after]
        if {state for state, _ in moved} & {after for _, after in moved}:
            yield f"{', '.join(state for state, _ in moved)} = {', '.join(after for _, after in moved)}"
        else:
            yield from (f"{state} = {after}" for state, after in moved)

    def loop_head(self, s: tile.Loop, start: str, stop: str) -> Iterator[str]:
        a = s.axis
        name = self.take("value", a.name, a.name)
        self.write.types[a.name] = loop_position(a)
        first = self.take("position", a.name, f"{name}0")
        if a.blocked:
            block = self.python["block", a.name]
            yield from wrapped(f"for {first} in tl.range({start}, {stop}, {block}):")
            place = f"(tl.cdiv({stop}, {block}) - 1) * {block} - {first}" if s.reverse else first
            self.write.wide |= set() if f"{start}{stop}" == f"0{self.python['extent', a.axes[0]]}" else {a.name}
            if a.name in self.read:
                yield f"    {name} = {place} + tl.arange(0, {block}).to(INT)"
        else:
            yield from wrapped(f"for {first} in tl.range({start}, {stop}):")
            yield f"    {name} = tl.cast({first}, INT)"

    def stop(self, a: TileAxis) -> str:
        sizes = [self.python["extent", axis] for axis in a.axes]
        if len(sizes) == 1 and a.name not in self.read:  # only descriptors take where its blocks begin
            return sizes[0]
        return " * ".join([f"tl.cast({sizes[0]}, INT)", *sizes[1:]]) if sizes else "1"


def _is_last_use(loop: tile.Loop, c: tile.Carried) -> bool:
    """Is the state's old value read nowhere after the statement that makes the new one, and by no other state?"""
    for n, s in enumerate(loop.body):
        if isinstance(s, tile.Let) and c.after in s.names:
            later = _names_read(loop.body[n + 1 :])
            others = [x for x in loop.carried if x is not c]
            return len(s.names) == 1 and c.name not in later and all(x.after not in (c.name, c.after) for x in others)
    return False


def _names_read(body: tuple[tile.Statement, ...]) -> set[str]:
    read = {v.name for v in values_in(body) if isinstance(v, tile.Ref)}
    return read.union(*({c.after for c in s.carried} | _names_read(s.body) for s in body if isinstance(s, tile.Loop)))
