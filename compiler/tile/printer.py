"""Kernels as text that a person can read and that reads back to equal kernels: one statement a line.

    kernel M                                      its equations follow, each after `--`
      reads X[i, j]: f32                          buffers, with their dimensions as groups of axes
      writes M[i]: f32
      takes |i|, |j|                              extents and scalars
      grid row i[1..16]                           tile axes with their roles and blocks
        m[i]: f32 = lowest                        a state of the loop before its first block
        loop j[1..16]
          x[i, j]: f32 = load X[i, j]
          top[i]: f32 = max[j](x)
          m_next[i]: f32 = max(m, top)
          m = m_next                              the state after a block
        store M[i] = m as f32[i]                  `+=` where it adds to what is there

Defaults are not written: the role of an axis by its place, four warps, three stages, no sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import assert_never

from einc import tile
from einc.base.types import INT
from einc.ein import Monoid
from einc.ein.monoids import MONOIDS
from einc.ein.printer import print_dims, print_expr
from einc.tile import Choices, TileAxis, TileType, Value, roles
from einc.tile.choices import STAGES, WARPS
from einc.tile.notation import Notation, part
from einc.tile.typing import scope
from einc.tile.walk import loop_position, values_in

ROLES = {"grid": "row", "whole": "whole", "loop": "reduced"}  # the default role of a blocked axis, by its place
UNBLOCKED = "batch"  # the role of a grid's axis without a block
ROLE_WORDS = ("batch", "row", "column", "whole", "reduced", "inner")
BEHIND = ("from", "to", "exactly", "backwards", "in")  # words that may follow an axis; one so named shows its role


def print_schedule(schedule: tile.Schedule) -> str:
    """The monoids that only the kernels have, the kernels, then the tensors in memory between them."""
    parts = [_monoid(m) for m in _own_monoids(schedule)]
    parts += [print_kernel(k) for k in schedule.kernels]
    if schedule.intermediates:
        parts.append("between kernels: " + _buffers(schedule.intermediates))
    return "\n".join(parts)


def print_kernel(kernel: tile.Kernel) -> str:
    """The kernel's equations, its arguments, its grid, and its statements."""
    chosen = kernel.choices
    lines = [f"kernel {kernel.name}{_role(kernel)}"]
    lines += [f"  -- {line}" for line in kernel.title]
    for written, some in groupby(kernel.buffers, lambda b: b.written):
        lines.append(f"  {'writes' if written else 'reads'} {_buffers(some)}")
    if kernel.extents or kernel.scalars:
        arguments = [f"|{a}|" for a in kernel.extents] + [f"{name}: {t}" for name, t in kernel.scalars]
        lines.append(f"  takes {', '.join(arguments)}")
    sections = f" in sections of {chosen.section}" if chosen.section != 1 else ""
    lines.append("  grid " + (", ".join(_axis(a, "grid", chosen) for a in kernel.grid) or "1") + sections)
    if kernel.whole:
        lines.append("  whole " + ", ".join(_axis(a, "whole", chosen) for a in kernel.whole))
    if chosen.warps != WARPS:
        lines.append(f"  warps {chosen.warps}")
    if chosen.stages != STAGES:
        lines.append(f"  stages {chosen.stages}")
    lines += [f"  {name} {n}" for name, n in (("box", chosen.box), ("workers", chosen.workers)) if n]
    if chosen.folds:
        lines.append(f"  folds {chosen.folds}")
    elements = {b.name: b.dtype.part for b in kernel.buffers}
    body = _Body(Notation(scope(kernel), elements, dict(chosen.ways)), chosen)
    lines += [f"    {line}" for line in body.statements(kernel.body)]
    if kernel.roles is not None:
        lines += [f"  {line}" for line in roles.lines(kernel.roles)]
    return "\n".join(lines)


def _role(kernel: tile.Kernel) -> str:
    parts = kernel.choices.parts
    if kernel.parts_of:
        return f" for the {parts} parts of {kernel.parts_of}"
    return f" from its {parts} parts" if kernel.merges else ""


def _own_monoids(schedule: tile.Schedule) -> list[Monoid]:
    values = (v for k in schedule.kernels for v in values_in(k.body))
    monoids = (v.monoid for v in values if isinstance(v, tile.Fold | tile.Scan))
    return [m for m in dict.fromkeys(monoids) if MONOIDS.get(m.name) != m]


def _monoid(m: Monoid) -> str:
    units = ", ".join(str(u).lower() for u in m.identity)
    gives = ", ".join(map(str, m.results))
    ordered = "" if m.commutative else " in order"
    undone = "" if m.inverse is None else f" undone by {print_expr(m.inverse)}"
    combine = ", ".join(map(print_expr, m.combine))
    return f"monoid {m.name} from {units} combines {combine} gives {gives}{ordered}{undone}"


def _buffers(buffers: Iterable[tile.Buffer]) -> str:
    return ", ".join(f"{b.name}{print_dims(b.dims)}: {b.dtype}" for b in buffers)


def _axis(a: TileAxis, place: str, chosen: Choices) -> str:
    usual = UNBLOCKED if place == "grid" and not a.blocked else ROLES[place]
    role = "" if a.role == usual and a.name not in (*ROLE_WORDS, *BEHIND) else f"{a.role} "
    group = "" if a.axes == (a.name,) else f"={print_dims((a.axes,))[1:-1]}"
    size = f"[{chosen.tile(a.name) or '?'}]" if a.blocked else ""
    order = " backwards" if place == "grid" and a.name == chosen.backwards else ""
    return f"{role}{a.name}{group}{size}{order}"


@dataclass(frozen=True, slots=True)
class _Body:
    """Writes the statements of a block, given these names, of a kernel with these choices."""

    write: Notation
    chosen: Choices

    def where(self, names: Mapping[str, TileType]) -> _Body:
        """The same where these names hold."""
        return replace(self, write=replace(self.write, names=names))

    def statements(self, body: tuple[tile.Statement, ...]) -> Iterator[str]:
        names = dict(self.write.names)
        here = self.where(names)
        for s in body:
            match s:
                case tile.Let():
                    yield f"{', '.join(map(_typed, s.names, s.types))} = {here.write.bound(s.value, s.types)}"
                    names |= zip(s.names, s.types, strict=True)
                case tile.Store():
                    yield here.store(s)
                case tile.Loop():
                    yield from here.loop(s)
                    names |= {c.name: c.type for c in s.carried}
                case _:
                    assert_never(s)

    def store(self, s: tile.Store) -> str:
        index = ", ".join(self.write.text(i, INT) for i in s.index)
        value = self.write.text(s.value, s.type.dtype)
        masked = "" if s.mask is None else f" where {self.write.text(s.mask)}"
        how = "+=" if s.adds else "="
        return f"store {s.tensor}{part(s.part)}[{index}] {how} {value} as {s.type.dtype}{_over(s.type)}{masked}"

    def loop(self, s: tile.Loop) -> Iterator[str]:
        for c in s.carried:
            yield f"{_typed(c.name, c.type)} = {self.write.bound(c.init, (c.type,))}"
        how = (" exactly" if s.exact else "") + (" backwards" if s.reverse else "")
        yield f"loop {_axis(s.axis, 'loop', self.chosen)}{self.span(s.start, s.stop)}{how}"
        names = {s.axis.name: loop_position(s.axis)} | {c.name: c.type for c in s.carried}
        inside = self.where({**self.write.names, **names})
        yield from (f"  {line}" for line in inside.statements(s.body))
        for c in s.carried:
            yield f"  {c.name} = {c.after}"
        if s.ahead:
            yield f"ahead {', '.join(s.ahead)}"
        if s.full is not None:
            bound = {n: t for x in s.body if isinstance(x, tile.Let) for n, t in zip(x.names, x.types, strict=True)}
            known = self.where({**inside.write.names, **bound}).write
            holds = f", where {', '.join(map(known.text, s.full.holds))}" if s.full.holds else ""
            how = " in any order" if s.full.free else ""
            yield f"full {s.axis.name}{self.span(s.full.start, s.full.stop)}{how}{holds}"
            yield from (f"  {line}" for line in inside.statements(s.full.body))

    def span(self, start: Value | None, stop: Value | None) -> str:
        begin = "" if start is None else f" from {self.write.text(start, INT)}"
        return begin + ("" if stop is None else f" to {self.write.text(stop, INT)}")


def _typed(name: str, t: TileType) -> str:
    return f"{name}{_over(t)}: {t.dtype}"


def _over(t: TileType) -> str:
    return f"[{', '.join(t.axes)}]" if t.axes else ""
