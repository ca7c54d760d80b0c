"""What the functions of a kernel whose warps have roles share: its arguments, its parts, and how each is written.

Where roles go onward, a processor runs one such program, which stands for many of the grid: each role goes on with the
next as soon as it is done with its part of one, so that blocks are copied while the last rows are computed and stored.
The producer finds which one that is, and where it lies, and tells consumers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from einc import tile
from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.names import Names
from einc.codegen.emit.text import File
from einc.codegen.gluon.expressions import Layouts
from einc.codegen.gluon.roles.fit import parts, shared
from einc.codegen.gluon.roles.ledger import parted
from einc.codegen.triton.kernels import KernelWriter, in_lines
from einc.tile import Dot, Kernel, Let, Load, Ref, Value
from einc.tile.roles import ROWS, Ring, Roles
from einc.tile.typing import scope
from einc.tile.walk import bindings, loop_position, values_of

AHEAD = 2  # programs whose places consumers have not seen yet, at most


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of one load of a ring: their name, the sides and axes of each, and the bytes of an element; `sliced` if
    each consumer has its own rows of it."""

    load: Load
    name: str
    sides: tuple[str, ...]
    axes: tuple[str, ...]
    sliced: bool
    size: int

    @property
    def bytes(self) -> str:
        """Those of a slot."""
        return " * ".join([*(s for s in self.sides if s != "1"), str(self.size)])


class Frame(KernelWriter):
    """What they share. The function `place` gives where a program's rows lie, the bounds of its walk, and `shared`,
    scalars that the rows of all consumers decide."""

    expressions = Layouts
    write: Layouts

    def __init__(self, file: File, kernel: Kernel) -> None:
        super().__init__(file, kernel)
        assert kernel.roles is not None
        self.roles: Roles = kernel.roles
        self.before, self.walked, self.after = parts(self.kernel)
        differ = self.walked.start is not None or self.walked.stop is not None  # in how far they walk
        if differ and self.roles.onward:
            self.signature = replace(self.signature, counter=self.names.fresh("begun"))
        self.lets = {s.names[0]: s for s in bindings(self.kernel)}
        self.shared = shared(self.kernel)
        self.rows = next(a for a in self.kernel.grid if a.name == self.roles.axis)
        blocked = [a.name for a in self.kernel.grid if a.blocked]
        self.origins = {a: self.take("position", a, f"{a}0") for a in blocked}
        self.origin = self.origins[self.rows.name]
        self.parted = parted(self.kernel, self.rows.name)
        self.ends = self.names.fresh("full"), self.names.fresh("masked")
        self.start, self.total = self.names.fresh("first"), self.names.fresh("steps")
        self.programs = self.names.fresh("programs")
        self.past, self.nth, self.at = (self.names.fresh(n) for n in ("past", "nth", "at"))
        self.placed: list[str] = []  # what that function takes
        self.heard: list[str] = []  # what consumers are told of what it gives
        self.place = file.names.fresh(f"{kernel.name}_place", ascii_only=True)
        self.consumer = self.names.fresh("c")
        self.own = [*self.singles(), *(self.take("value", n, n) for n in self.shared)]
        self.slots = {name: self.slot(name) for r in self.roles.rings for name in r.loads}
        self.rows_of = {n: (r, self.names.fresh(f"{n}_slots")) for n, r in self.roles.rows.items()}
        self.turn = self.names.fresh("turn")
        self.warps = self.names.fresh("WARPS")
        self.told = {kind: self.names.fresh(f"place_{kind}") for kind in ("slots", "there", "free")}
        self.barriers = {
            (r.name, kind): self.names.fresh(f"{r.name}_{kind}") for r in self.roles.rings for kind in ("there", "free")
        }

    def slot(self, name: str) -> Slots:
        load = self.lets[name].value
        assert isinstance(load, Load)
        box = self.windows[load.tensor]
        blocks = {a.name: block for block, a in self.signature.blocks} | {self.roles.axis: str(ROWS)}
        axes = tuple(axis for axis, _ in box if axis is not None)
        return Slots(
            load,
            self.names.fresh(f"{name}_slots"),
            tuple("1" if axis is None else blocks[axis] for axis, _ in box),
            axes,
            self.roles.axis in axes,
            load.dtype.size,
        )

    def count(self, ring: Ring, name: str) -> int:
        """The slots of a load."""
        return ring.depth * (self.roles.consumers if self.slots[name].sliced else 1)

    # Functions -------------------------------------------------------------------------------------------------------

    def singles(self) -> list[str]:
        """The places along axes of the grid that are not blocked, and where blocks begin along those that are."""
        return [self.take("value", a.name, a.name) for a in self.kernel.grid if not a.blocked] + [
            *self.origins.values()
        ]

    def bounds(self) -> list[str]:
        """What the function of places gives of the walk of a program."""
        found = [self.total] if self.walked.start is None else [self.start, self.total]
        return found + [n for n, used in zip(self.ends, self.segmented, strict=True) if used]

    def passed(self) -> list[str]:
        """What the kernel's own function makes for those of roles."""
        slots = [*(s.name for s in self.slots.values()), *(name for _, name in self.rows_of.values())]
        turns = [self.turn] * self.roles.in_turn
        if not self.roles.onward:
            return [*self.own, *self.bounds(), *slots, *self.barriers.values(), *turns]
        return [self.programs, *slots, *self.barriers.values(), *self.told.values(), *turns]

    def placing(self, warps: int) -> Iterator[str]:
        """The call of the function of places, by so many warps."""
        yield f"{', '.join([*self.own, *self.bounds()])} = {self.place}("
        yield from indented(in_lines([*self.placed, str(warps)]))
        yield ")"

    @property
    def segmented(self) -> tuple[bool, bool]:
        """Are there masked steps before the full ones, and full ones at all?"""
        full = self.walked.full
        if full is None or not full.body or full.body == self.walked.body:
            return False, False
        return full.start is not None, True

    def arguments(self) -> list[str]:
        """The names of the kernel's arguments."""
        s = self.signature
        strides = [x for row in s.strides for x in row]
        constants = [*(block for block, _ in s.blocks), *(unit for unit, _ in s.units), "INT"]
        return [*s.pointers, *([s.counter] if s.counter else []), *strides, *s.extents, *s.scalars, *constants]

    def taken(self, body: Iterable[str]) -> list[str]:
        """The arguments that a function of these lines takes."""
        read = set(re.findall(r"\w+", "\n".join(body)))
        return [n for n in (*self.arguments(), *self.passed()) if n in read]

    def function(self, name: str, taken: list[str], body: list[str], constant: str = "") -> list[str]:
        """A function of a role, or of what they share; the last argument is a constant, if there is such a one."""
        known = {*(block for block, _ in self.signature.blocks), *(unit for unit, _ in self.signature.units), "INT"}
        known |= {
            line.split(":")[0].strip() for line in self.header() for line in line.split(",") if "constexpr" in line
        }
        typed = [f"{n}: gl.constexpr" if n in {*known, constant} else n for n in (*taken, constant) if n]
        return ["@gluon.jit", f"def {name}(", *indented(list(in_lines(typed))), "):", *indented(body)]


class Part(KernelWriter):
    """Writes the function of a role, with names of its own."""

    write: Layouts

    def __init__(self, frame: Frame, tiles: dict[tuple[str, ...], str], homes: dict[str, str], rows: str) -> None:
        self.frame, self.python = frame, dict(frame.python)
        self.file, self.roles, self.origin = frame.file, frame.roles, frame.origin
        self.names = Names(frame.names.taken, around=frame.file.names)
        self.whole, self.kernel, self.windows = frame.whole, frame.kernel, frame.windows
        self.axes, self.read, self.signature = frame.axes, frame.read, frame.signature
        self.write = Layouts(frame.file, {b.name: b for b in frame.kernel.buffers}, self.python)
        self.write.types.update(scope(frame.kernel))
        self.write.types.update({n: s.types[0] for n, s in frame.lets.items() if n in frame.shared})
        self.write.blocks = {**frame.write.blocks, frame.roles.axis: rows}
        self.write.natural |= set(frame.axes)
        self.write.windows = frame.windows
        self.write.tiles, self.write.homes, self.write.bound = tiles, homes, {}
        self.copied = frozenset(map(Ref, frame.slots))
        for a in (*frame.kernel.grid, *frame.kernel.whole, frame.walked.axis):
            self.write.types[a.name] = loop_position(a)

    def needed(self, roots: list[Value]) -> set[str]:
        """The names that values read, through those that statements bind, but for what is shared or loaded to slots;
        of slots, those that something else than a dot reads."""
        found, stack = set[str](), list(roots)
        while stack:
            v = stack.pop()
            if isinstance(v, Ref) and v.name not in found:
                found.add(v.name)
                brought = v.name in self.frame.slots or v.name in self.frame.rows_of
                if v.name in self.frame.lets and v.name not in self.frame.shared and not brought:
                    stack.append(self.frame.lets[v.name].value)
            slots = [x for x in (v.left, v.right) if x in self.copied] if isinstance(v, Dot) else []
            stack += [x for x in values_of(v) if x not in slots]
        return found

    def bind(self, names: set[str], statements: tuple[tile.Statement, ...]) -> Iterator[str]:
        """The bindings of these names among some statements, but for what is shared or loaded to slots."""
        for s in statements:
            if isinstance(s, Let) and s.names[0] in names and s.names[0] not in (*self.frame.shared, *self.frame.slots):
                yield from wrapped(self.let(s, {}))
