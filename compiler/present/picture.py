"""The cascade at one level as a picture: tensors in memory on the left, kernels as frames of equations on the right.

Each kernel has a port for every tensor that it reads or writes, with the bytes on its arrow; a tensor in memory is
drawn at its first port, and a lane leads from there to the ports further down. Within a frame, lanes on the right lead
from an equation to those that read it in registers.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from einc.explain.figures import KernelFigures, Level
from einc.present.lettering import Line, shortened, svg_text, wrapped
from einc.present.report import duration, quantity

SIZE, SMALL = 12.0, 11.0
WIDTH = 520.0
_PILL, _PILL_HEIGHT = 98.0, 20.0
_LANE, _LABEL = 9.0, 68.0
_LINE, _PAD, _GAP = 17.0, 8.0, 22.0
_PORT = 26.0
_WIRE = 8.0


@dataclass(slots=True)
class _Port:
    """Where a tensor enters or leaves a kernel."""

    tensor: str
    y: float
    writes: bool
    bytes: int


@dataclass(slots=True)
class _Wire:
    """A vertical line from the place where a value is made down to its readers, in a lane of its own there."""

    name: str
    top: float
    ends: list[float]
    lane: int = 0


def cascade(f: Level, operands: Sequence[str], results: Sequence[str], title: str, ident: str) -> str:
    """The picture of a level as an SVG element."""
    return _Picture(f, operands, results).svg(title, ident)


class _Picture:
    def __init__(self, f: Level, operands: Sequence[str], results: Sequence[str]) -> None:
        self.level, self.operands, self.results = f, set(operands), set(results)
        self.parts: list[str] = []
        self.ports: list[_Port] = []
        self.pills: dict[str, float] = {}
        # lanes need room before the frames are drawn: at most one for each tensor with several ports
        names = [n for k in f.kernels for n in k.moved]
        self.lanes = len({n for n in names if names.count(n) > 1})
        self.left = 4 + _PILL + 10 + min(self.lanes, 12) * _LANE + _LABEL
        self.width = max(WIDTH, self.left + 300)

    def svg(self, title: str, ident: str) -> str:
        y = 8.0
        for k in self.level.kernels:
            y = self.frame(k, y) + _GAP
        self.memory()
        height = y - _GAP + 8
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {height:.0f}" role="img" aria-labelledby="{ident}-t {ident}-d" '
            f'class="cascade" id="{ident}"><title id="{ident}-t">{html.escape(title)}</title>'
            f'<desc id="{ident}-d">{html.escape(self.described())}</desc>'
            f"<defs>{''.join(_marker(ident, kind) for kind in ('operand', 'between', 'result', 'wire'))}</defs>"
            f"{''.join(self.parts).replace('@@', ident)}</svg>"
        )

    def described(self) -> str:
        """The picture in words."""
        said = []
        for k in self.level.kernels:
            moved = ", ".join(f"{n} {quantity(b)}B" for n, b in k.moved.items())
            said.append(f"kernel {k.name} computes {', '.join(e.name for e in k.equations)} and moves {moved}")
        return "; ".join(said) + "."

    # ---------------------------------------------------------------------------------------------------------- frames

    def frame(self, k: KernelFigures, top: float) -> float:
        """Draw a kernel with its equations and ports; returns the y below it."""
        right = self.width - 4
        inner = right - self.left
        y = top + 18
        head = [svg_text([(shortened(k.name, 22), 0)], self.left + 10, y, SIZE, "name")]
        head.append(svg_text([(duration(k.predicted_us), 0)], right - 10, y, SMALL, "time", "end"))
        for line in wrapped(_shape(k), inner - 20, SMALL):
            y += 15
            head.append(svg_text(line, self.left + 10, y, SMALL, "muted"))
        y += 8
        wires = _wires(k)
        room = inner - 20 - _WIRE * (1 + max((w.lane for w in wires), default=-1))
        boxes = ""
        spots: list[float] = []
        for e in k.equations:
            lines = wrapped(e.text, room - 16, SIZE)
            height = len(lines) * _LINE + _PAD + (4 if any(level for line in lines for _, level in line) else 0)
            boxes += _box(lines, self.left + 10, y, room, height)
            spots.append(y + height / 2)
            y += height + 6
        y = max(y, top + 30 + _PORT * len(k.moved))
        self.parts.append(
            f'<rect class="frame" x="{self.left:.1f}" y="{top:.1f}" width="{inner:.1f}" height="{y - top:.1f}" rx="8"/>'
            + "".join(head)
            + boxes
            + _wiring(wires, spots, self.left + 10 + room)
        )
        self.attach(k, top + 18)
        return y

    def attach(self, k: KernelFigures, y: float) -> None:
        """A port for each tensor that the kernel reads or writes."""
        written = set(k.writes)
        for name in sorted(k.moved, key=lambda n: n in written):
            self.ports.append(_Port(name, y + 8, name in written, k.moved[name]))
            y += _PORT

    # ---------------------------------------------------------------------------------------------------------- memory

    def memory(self) -> None:
        """The tensors in memory, and the lanes from them to their ports."""
        first = {p.tensor: p for p in reversed(self.ports)}
        wires = []
        for name, p in first.items():
            self.pill(name, p.y)
            later = [q.y for q in self.ports if q.tensor == name and q is not p]
            if later:
                wires.append(_Wire(name, p.y, later))
        _assign(wires)
        lane = {w.name: 4 + _PILL + 8 + _LANE * min(w.lane, 11) for w in wires}
        for w in wires:
            kind = self.kind(w.name)
            x = lane[w.name]
            self.parts.append(f'<path class="lane {kind}" d="M{x:.1f},{w.top:.1f}V{max(w.ends):.1f}"/>')
            self.parts.append(f'<circle class="dot {kind}" cx="{x:.1f}" cy="{w.top:.1f}" r="2.5"/>')
        for p in self.ports:
            start = 4 + _PILL if first[p.tensor] is p else lane[p.tensor]
            self.arrow(p, start)

    def arrow(self, p: _Port, start: float) -> None:
        kind = self.kind(p.tensor)
        end = self.left - 1
        a, b = (end, start + 1) if p.writes else (start, end)
        self.parts.append(
            f'<path class="lane {kind}" marker-end="url(#@@-{kind})" d="M{a:.1f},{p.y:.1f}H{b:.1f}"/>'
            + svg_text([(f"{quantity(p.bytes)}B", 0)], self.left - 11, p.y - 4, SMALL, "bytes", "end")
        )

    def pill(self, name: str, y: float) -> None:
        kind = self.kind(name)
        self.parts.append(
            f'<g class="fit"><title>{html.escape(name)}</title><rect class="pill {kind}" x="4" '
            f'y="{y - _PILL_HEIGHT / 2:.1f}" width="{_PILL}" height="{_PILL_HEIGHT}" rx="10"/>'
            + svg_text([(shortened(name, 11), 0)], 4 + _PILL / 2, y + 4, SIZE, "", "middle")
            + "</g>"
        )

    def kind(self, name: str) -> str:
        if name in self.results:
            return "result"
        return "operand" if name in self.operands else "between"


def _shape(k: KernelFigures) -> str:
    parts = [f"blocks of {', '.join(k.grid)}"] if k.grid else ["one program"]
    parts += [f"walks {', '.join(k.streamed)}"] if k.streamed else []
    parts += [f"within it {', '.join(k.within)}"] if k.within else []
    parts += [f"holds {', '.join(k.held)}"] if k.held else []
    return " · ".join(parts)


def _box(lines: Sequence[Line], x: float, y: float, width: float, height: float) -> str:
    below = y + height - _PAD / 2 - 4 - _LINE * (len(lines) - 1)
    texts = [svg_text(line, x + 8, below + _LINE * n, SIZE) for n, line in enumerate(lines)]
    rect = f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'
    return f'<g class="fit">{rect}{"".join(texts)}</g>'


def _wires(k: KernelFigures) -> list[_Wire]:
    """The reads of the equations of a kernel from each other, by their places in it."""
    place = {e.name: n for n, e in enumerate(k.equations)}
    found = []
    for name, n in place.items():
        ends = [float(m) for m, e in enumerate(k.equations) if name in e.reads and m != n]
        if ends:
            found.append(_Wire(name, float(n), ends))
    _assign(found)
    return found


def _wiring(wires: Sequence[_Wire], spots: Sequence[float], x: float) -> str:
    """Lines at the right of the boxes from an equation to those that read it."""
    drawn = []
    for w in wires:
        at = x + 5 + _WIRE * w.lane
        readers = [spots[int(n)] + 4 for n in w.ends]
        drawn.append(f'<path class="wire" d="M{x:.1f},{spots[int(w.top)] - 4:.1f}H{at:.1f}V{max(readers):.1f}"/>')
        drawn += [f'<path class="wire" marker-end="url(#@@-wire)" d="M{at:.1f},{r:.1f}H{x + 1:.1f}"/>' for r in readers]
    return "".join(drawn)


def _assign(wires: Iterable[_Wire]) -> None:
    """Give each wire the first lane that is free along it."""
    taken: list[list[tuple[float, float]]] = []
    for w in wires:
        span = (w.top, max(w.ends))
        free = (n for n, lane in enumerate(taken) if all(span[0] > b or span[1] < a for a, b in lane))
        w.lane = next(free, len(taken))
        if w.lane == len(taken):
            taken.append([])
        taken[w.lane].append(span)


def _marker(ident: str, kind: str) -> str:
    return (
        f'<marker id="{ident}-{kind}" class="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0.5L8,4L0,7.5Z"/></marker>'
    )
