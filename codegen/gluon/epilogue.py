"""What a consumer does after its last step: with columns of wide tiles part by part, as registers are full of these.

C = f(c, r)   -->   for parts of the columns: C = f(part of c, r)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.gluon.roles.ledger import PART, Ledger
from einc.codegen.gluon.slots import Reading
from einc.tile import Let, Ref, Store, TileType, Value
from einc.tile.roles import ROWS
from einc.tile.walk import own_values, walk_values


class Epilogue(Reading):
    """Writes it."""

    tiles: dict[tuple[str, ...], str]

    def ending(self) -> Iterator[str]:
        """The statements behind the loop."""
        column = self.frame.parted
        again = {x.name for s in self.frame.after for x in walk_values(*own_values(s)) if isinstance(x, Ref)}
        again &= self.frame.slots.keys()
        if column is None:
            yield from self.bind(again, self.frame.before)
            yield from self.statements()
            return
        apart = [s for s in self.frame.before if isinstance(s, Let) and column not in s.types[0].axes]
        yield from self.bind(again, tuple(apart))
        states = [c for c in self.frame.walked.carried if column in c.type.axes]
        row, count = self.roles.axis, self.columns(column) // PART
        parts = {c.name: [self.names.fresh(f"{c.name}_{n}") for n in range(count)] for c in states}
        for c in states:
            yield from self.split(self.python["value", c.name], parts[c.name])
        block = self.names.fresh(f"PART_{column.upper()}", ascii_only=True)
        tile = self.names.fresh(f"TILE_PART_{column.upper()}", ascii_only=True)
        yield f"{block}: gl.constexpr = {PART}"
        yield f"{tile}: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {PART}, 16])"
        kept, homes, tiles = dict(self.python), dict(self.write.homes), dict(self.write.tiles)
        self.write.homes[column], self.write.tiles[row, column] = f"gl.SliceLayout(0, {tile})", tile
        self.write.blocks[column] = self.python["block", column] = block
        before = [s for s in self.frame.before if isinstance(s, Let) and column in s.types[0].axes]
        names = self.needed([v.value for v in self.frame.after if isinstance(v, Let | Store)])
        names |= self.needed([v for s in self.frame.after if isinstance(s, Store) for v in (*s.index, s.mask) if v])
        for n in range(count):
            self.part = column, n * PART
            yield f"# columns {n * PART} to {(n + 1) * PART - 1}"
            for c in states:
                self.python["value", c.name] = parts[c.name][n]
                yield f"{parts[c.name][n]} = gl.convert_layout({parts[c.name][n]}, {tile})"
            home = self.write.homes[column]
            position = self.python["value", column] = self.names.fresh(f"{column}_part")
            first = f"{self.frame.origins[column]} + {n * PART}" if n else self.frame.origins[column]
            yield f"{position} = {first} + gl.arange(0, {PART}, layout={home}).to(INT)"
            yield from self.bind(names, tuple(before))
            yield from self.statements()
        self.python.clear()
        self.python.update(kept)
        self.part = "", 0
        self.write.homes, self.write.tiles = homes, tiles

    def columns(self, axis: str) -> int:
        """The columns of a block."""
        block = self.frame.kernel.choices.tile(axis)
        assert block is not None
        return block.cap

    def split(self, whole: str, parts: list[str]) -> Iterator[str]:
        """A tile in parts of its columns, halved until these are as wide."""
        if len(parts) == 1:
            yield f"{parts[0]} = {whole}"
            return
        half = len(parts) // 2
        left, right = parts[0], parts[half]
        yield f"{left}, {right} = gl.split({whole}.reshape([{ROWS}, 2, {half * PART}]).permute((0, 2, 1)))"
        for found, own in ((left, parts[:half]), (right, parts[half:])):
            if len(own) > 1:
                yield from self.split(found, own)

    def statements(self) -> Iterator[str]:
        """The statements once."""
        for s in self.frame.after:
            if isinstance(s, Let):
                yield from wrapped(self.let(s, {}))
            elif isinstance(s, Store):
                yield from self.stored(s)

    def stored(self, s: Store) -> Iterator[str]:
        """A store: of a tile, by 16 bytes of a row at once, after its elements have changed threads."""
        value, axes = self.write.quotients(s), s.type.axes
        if len(axes) < 2 or s.part is not None:
            yield from wrapped(self.write.store(replace(s, value=value)))
            return
        tiles, each = self.write.tiles, 16 // s.type.dtype.size
        block, name = self.python["block", axes[1]], self.names.fresh(f"ROWS_{axes[1].upper()}", ascii_only=True)
        size = self.frame.kernel.choices.tile(axes[1])
        wide = PART if self.frame.parted == axes[1] else size.cap if size is not None and size.least == size.cap else 0
        lanes = str(min(wide // each, 32)) if wide else f"({block} // {each})"
        layout = f"gl.BlockedLayout([1, {each}], [32 // {lanes}, {lanes}], [4, 1], [1, 0])"
        found, types = self.names.fresh(f"{s.tensor}_rows"), self.write.types
        yield f"{name}: gl.constexpr = {layout}"
        yield from self.rearranged(s, value, found, name)
        self.write.tiles, self.python["value", found] = {**tiles, axes: name}, found
        types[found] = TileType(s.type.dtype, axes)
        yield from wrapped(self.write.store(replace(s, value=Ref(found))))
        self.write.tiles = tiles

    def rests(self, s: Store) -> str | None:
        """What was held in slots that a stored tile goes through, if it goes through any."""
        if len(s.type.axes) < 2 or s.part is not None:
            return None
        return Ledger(self.frame.kernel, self.roles.axis, self.roles.consumers).resting(s, self.roles.rings)

    def rearranged(self, s: Store, value: Value, found: str, layout: str) -> Iterator[str]:
        """What is stored in another layout: through slots of what was held as long, if these have room for it."""
        held = self.rests(s)
        code = self.write.full(value, s.type.axes).code
        if held is None:
            yield from wrapped(f"{found} = gl.convert_layout({code}, {layout})")
            return
        slots, wide = self.frame.slots[held], self.python["block", s.type.axes[1]]
        own = self.python["block", slots.axes[1]]
        yield f"if {own} == {wide}:"
        yield f"    {found}_slot = {slots.name}.index({self.frame.consumer}).reshape([{ROWS}, {wide}])"
        yield from indented(list(wrapped(f"{found}_slot.store({code})")))
        yield f"    {found} = {found}_slot.load({layout})"
        yield "else:"
        yield from indented(list(wrapped(f"{found} = gl.convert_layout({code}, {layout})")))
