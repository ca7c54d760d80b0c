"""What a consumer clears of a block in shared memory: what no row counts must not be multiplied, whatever it is.

dot(p in c, v)   -->   where no row has c at j: v[j] = 0; dot(p, v)
"""

from __future__ import annotations

from collections.abc import Iterator

from einc.codegen.emit.layout import wrapped
from einc.codegen.emit.text import ATOM
from einc.codegen.gluon.frame import Part
from einc.codegen.gluon.producer import phase, slot
from einc.tile import Dot, Let, Ref
from einc.tile.roles import ROWS

_PART = 16  # positions of a block that are cleared at once


class Clearing(Part):
    """Writes it."""

    def clear(self, d: Dot, number: str) -> Iterator[str]:
        """Zeros in the right side's block where no row of any consumer counts; all consumers write the same."""
        assert isinstance(d.right, Ref)
        assert d.left_in is not None
        s, ring = self.frame.slots[d.right.name], next(r for r in self.roles.rings if d.right.name in r.loads)
        sizes = [self.python["block", a] for a in s.axes]
        at, each, wide = s.axes.index(d.inner), 16 // s.size, sizes[1]
        if not self.write.axes(d.left_in):
            return
        found, rows = (self.names.fresh(n) for n in ("counts", f"{d.right.name}_rows"))
        layout = self.names.fresh(f"ROWS_{d.right.name.upper()}", ascii_only=True)
        lanes = f"{wide} // {each}"
        there = self.frame.barriers[ring.name, "there"]
        if self.roles.axis in self.write.axes(d.left_in):
            yield from self.votes(d, found)
        else:
            yield from wrapped(f"{found} = {self.write.value(d.left_in, (d.inner,)).code}")
        yield f"if {self.file.helper('agreed')}(tl.min({found}.to(tl.int32), 0) == 0):"
        yield f"    {layout}: gl.constexpr = gl.BlockedLayout([1, {each}], [32 // ({lanes}), {lanes}], [4, 1], [1, 0])"
        place = self.at(number)
        yield f"    mbarrier.wait({there}.index({slot(place, ring.depth)}), {phase(place, ring.depth)})"
        yield f"    {rows} = {s.name}.index({slot(place, ring.depth)}).reshape([{', '.join(sizes)}])"
        spread, home = "[:, None]" if at == 0 else "[None, :]", f"gl.SliceLayout({1 - at}, {layout})"
        if self.roles.axis in self.write.axes(d.left_in):
            kept = f"gl.convert_layout({found}, {home}){spread}"
            yield f"    {rows}.store(tl.where({kept}, {rows}.load({layout}), 0.0))"
        else:  # part by part, since registers are full
            block, own, some = self.python["block", d.inner], self.python["value", d.inner], self.names.fresh("some")
            place = self.python["value", d.inner] = self.names.fresh(f"{d.inner}_part")
            yield f"    for part in gl.static_range(0, {block}, {_PART}):"
            yield f"        {place} = {self.place(number)} + part + gl.arange(0, {_PART}, layout={home}).to(INT)"
            yield f"        {some} = {rows}.slice(part, {_PART}, {at})"
            kept = f"({self.write.value(d.left_in, (d.inner,)).code}){spread}"
            yield f"        {some}.store(tl.where({kept}, {some}.load({layout}), 0.0))"
            self.python["value", d.inner] = own
        yield "    hopper.fence_async_shared()"

    def votes(self, d: Dot, found: str) -> Iterator[str]:
        """Which positions count for a row of any consumer, where rows and positions decide that together."""
        assert d.left_in is not None
        kept, home, names = dict(self.python), self.write.homes[self.roles.axis], self.needed([d.left_in])
        loaded = tuple(s for s in self.frame.before if isinstance(s, Let) and self.roles.axis in s.types[0].axes)
        for c in range(self.roles.consumers):
            rows = self.python["value", self.roles.axis] = self.names.fresh(f"{self.roles.axis}_{c}")
            yield f"{rows} = {self.frame.origin} + {c * ROWS} + gl.arange(0, {ROWS}, layout={home}).to(INT)"
            for s in loaded:
                if s.names[0] in names:
                    yield from wrapped(self.let(s, {n: self.names.fresh(f"{n}_{c}") for n in s.names}))
            some = self.write.full(d.left_in, (d.row, d.inner)).at(ATOM)
            vote = f"tl.max({some}.to(tl.int32), 0) > 0"
            yield from wrapped(f"{found} = {f'{found} | ({vote})' if c else vote}")
            self.python.clear()
            self.python.update(kept)

    # Steps ---------------------------------------------------------------------------------------------------------

    def place(self, number: str) -> str:
        axis = self.frame.walked.axis
        start = self.frame.start if self.frame.walked.start is not None else ""
        if not axis.blocked:
            return f"{start} + {number}" if start else number
        block = self.python["block", axis.name]
        if number == "0":
            return start or "0"
        return f"{start} + {number} * {block}" if start else f"{number} * {block}"

    def at(self, number: str, step: int = 0) -> str:
        """How many steps, those of earlier programs too, come before one that is so many after another."""
        past = self.frame.past
        own = past if number == "0" else self.frame.at if number == "step" else f"{past} + {number}"
        return f"{own} {'-' if step < 0 else '+'} {abs(step)}" if step else own
