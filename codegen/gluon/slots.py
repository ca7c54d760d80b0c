"""How a consumer reads what lies in slots: dots from where it is, all else in registers; and how it gives a slot up."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from einc.codegen.gluon.frame import Frame, Part
from einc.codegen.gluon.producer import slot
from einc.codegen.gluon.roles.fit import beside_dots, beside_loop
from einc.codegen.gluon.roles.ledger import PART
from einc.tile import Let, Ref, Statement, Value
from einc.tile.walk import own_values, walk_values


class Reading(Part):
    """Writes it."""

    part: tuple[str, int] = "", 0  # the columns that are done with, by where they begin
    loaded: set[str]  # what a step has read of slots so far

    def __init__(self, frame: Frame, tiles: dict[tuple[str, ...], str], homes: dict[str, str], rows: str) -> None:
        super().__init__(frame, tiles, homes, rows)
        self.computed = (beside_dots(frame.kernel) | beside_loop(frame.kernel)) & frame.slots.keys()

    def computing(self, s: Statement, names: AbstractSet[str] | None = None) -> Iterator[Ref]:
        """What is held in slots and computed with by a statement, if that binds one of these names."""
        if names is None or (isinstance(s, Let) and s.names[0] in names - self.frame.slots.keys()):
            yield from (x for x in walk_values(*own_values(s)) if isinstance(x, Ref) and x.name in self.frame.slots)

    def from_slots(self, s: Let) -> str:
        name, axes = s.names[0], s.types[0].axes
        found = self.take("value", name, name)
        self.write.types[name] = s.types[0]
        code = self.in_slot(Ref(name), (axes[0], axes[1]), "0")
        column, start = self.part
        if column in axes:
            code += f".slice({start}, {PART}, {axes.index(column)})"
        return f"{found} = {code}.load({self.write.tiles[axes]})"

    def depth(self, ring: str) -> int:
        return next(r.depth for r in self.roles.rings if r.name == ring)

    def in_slot(self, v: object, wanted: tuple[str, str], at: str) -> str:
        """A block in shared memory, as a tile over these axes."""
        assert isinstance(v, Ref)
        s = self.frame.slots[v.name]
        ring = next(r for r in self.roles.rings if v.name in r.loads)
        place = "0" if ring.held else slot(at, ring.depth)
        if s.sliced:
            consumers = self.roles.consumers
            place = self.frame.consumer if ring.held else f"({place}) * {consumers} + {self.frame.consumer}"
        code = f"{s.name}.index({place})"
        if len(s.axes) < len(s.sides):
            sizes = (side for side, (axis, _) in zip(s.sides, self.frame.windows[s.load.tensor], strict=True) if axis)
            code += f".reshape([{', '.join(sizes)}])"
        return code if s.axes == wanted else f"{code}.permute((1, 0))"

    def brought(self, values: list[Value], at: str) -> Iterator[tuple[str, str]]:
        """What these values read of the slots of a step, beside dots, new in it: names, and the tiles."""
        read = {v.name for v in walk_values(*values) if isinstance(v, Ref)}
        for n in [n for n in self.frame.slots if n in read - self.loaded]:
            self.loaded.add(n)
            self.write.types[n] = self.frame.lets[n].types[0]
            rows, columns = self.write.types[n].axes
            yield n, f"{self.in_slot(Ref(n), (rows, columns), at)}.load({self.write.tiles[rows, columns]})"

    def fence(self, rings: list[str]) -> list[str]:
        """What comes before slots of these rings are given up: copies may not overtake what threads have read there."""
        loads = {n for r in self.roles.rings if r.name in rings for n in r.loads}
        return [] if self.computed.isdisjoint(loads) else ["hopper.fence_async_shared()"]

    def given_up(self, ring: str, place: str) -> str:
        """That a consumer reads a slot no more."""
        return f"mbarrier.arrive({self.frame.barriers[ring, 'free']}.index({place}), count=1)"
