"""Points with intervals over sizes, in panels: as an SVG file, or by matplotlib as a PNG.

Both axes are logarithmic. A line marks the ratio 1.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from einc.base.errors import CallError
from einc.present.lettering import svg_text
from einc.present.report import quantity
from einc.present.style import PALETTE

_SIZE, _SMALL = 12.0, 11.0
_WIDTH, _HEIGHT = 360.0, 220.0  # of a panel's field
_LEFT, _TOP, _BELOW, _GAP = 48.0, 30.0, 40.0, 26.0
_ACROSS = 2  # panels
_KINDS = ("result", "between", "operand", "good", "full")  # classes of colours, by series
_CSS = """
svg { background: var(--back); font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
text { fill: var(--text); } text.muted { fill: var(--muted); } text.name { font-weight: 700; }
.field { fill: var(--card); stroke: var(--rule); } .rule { stroke: var(--rule); stroke-width: .7; }
.one { stroke: var(--text); stroke-width: 1.2; } .point { stroke: none; } .range { stroke-width: 1.2; }
"""
_COLOURS = "".join(f".{kind} {{ fill: var(--{kind}); stroke: var(--{kind}); }}\n" for kind in _KINDS)


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a size, and the interval that it is in."""

    size: float
    value: float
    low: float
    high: float


Series = Mapping[str, Sequence[Point]]


@dataclass(frozen=True, slots=True)
class _Scale:
    """A logarithmic axis of whole parts of decades, so many units long."""

    low: float
    high: float
    length: float

    def at(self, x: float) -> float:
        return (log10(x) - self.low) / (self.high - self.low) * self.length


def _scale(values: Sequence[float], length: float, step: float) -> _Scale:
    low, high = (floor(log10(min(values)) / step) * step, ceil(log10(max(values)) / step) * step)
    return _Scale(low, high if high > low else low + step, length)


def svg(panels: Mapping[str, Series], title: str) -> str:
    """The panels as a file, in the colours of light and of dark pages."""
    shown = {name: s for name, s in panels.items() if any(s.values())}
    parts = []
    for k, (name, series) in enumerate(shown.items()):
        x = (k % _ACROSS) * (_LEFT + _WIDTH + _GAP) + 8
        y = (k // _ACROSS) * (_TOP + _HEIGHT + _BELOW + _GAP) + 8
        parts.append(f'<g transform="translate({x:.0f} {y:.0f})">{"".join(_panel(name, series))}</g>')
    rows = ceil(len(shown) / _ACROSS)
    width = min(_ACROSS, max(len(shown), 1)) * (_LEFT + _WIDTH + _GAP) + 16
    height = max(rows, 1) * (_TOP + _HEIGHT + _BELOW + _GAP) + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
        f"<title>{html.escape(title)}</title><style>{PALETTE}{_CSS}{_COLOURS}</style>{''.join(parts)}</svg>\n"
    )


def _panel(name: str, series: Series) -> Iterator[str]:
    points = [p for several in series.values() for p in several]
    across = _scale([p.size for p in points], _WIDTH, 1.0)
    up = _scale([1.0, *(v for p in points for v in (p.low, p.high))], _HEIGHT, 0.5)

    def y(value: float) -> float:
        return _TOP + _HEIGHT - up.at(value)

    yield svg_text([(name, 0)], _LEFT, 14, _SIZE, "name")
    yield f'<rect class="field" x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/>'
    for n in range(round(across.low), round(across.high) + 1):
        at = _LEFT + across.at(10.0**n)
        yield f'<line class="rule" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_TOP + _HEIGHT}"/>'
        yield svg_text([(f"{quantity(10.0**n)}B", 0)], at, _TOP + _HEIGHT + 16, _SMALL, "muted", "middle")
    for n in range(round(2 * up.low), round(2 * up.high) + 1):
        value = 10 ** (n / 2)
        line = f'x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"'
        yield f'<line class="{"one" if n == 0 else "rule"}" {line}/>'
        yield svg_text([(f"{value:.2g}", 0)], _LEFT - 6, y(value) + 4, _SMALL, "muted", "end")
    for k, (peer, several) in enumerate(series.items()):
        kind = _KINDS[k % len(_KINDS)]
        for p in several:
            x = _LEFT + across.at(p.size)
            ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{y(p.low):.1f}" y2="{y(p.high):.1f}"'
            yield f'<line class="range {kind}" {ends}/>'
            yield f'<circle class="point {kind}" cx="{x:.1f}" cy="{y(p.value):.1f}" r="3"/>'
        left = _LEFT + k * _WIDTH / max(len(series), 1)
        yield f'<circle class="point {kind}" cx="{left + 4:.1f}" cy="{_TOP + _HEIGHT + 30}" r="3"/>'
        yield svg_text([(peer, 0)], left + 12, _TOP + _HEIGHT + 34, _SMALL)


def png(panels: Mapping[str, Series], title: str) -> bytes:
    """The same by matplotlib; raises `CallError` if that is not installed."""
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]  # optional
    except ImportError:
        raise CallError(
            "a PNG is drawn by matplotlib",
            fact="it is not installed",
            hint="pip install matplotlib, or --plot FILE.svg",
        ) from None
    shown = {name: s for name, s in panels.items() if any(s.values())}
    rows = max(ceil(len(shown) / _ACROSS), 1)
    figure = Figure(figsize=(5.5 * _ACROSS, 3.6 * rows), layout="constrained")
    figure.suptitle(title)
    for k, (name, series) in enumerate(shown.items()):
        field = figure.add_subplot(rows, _ACROSS, k + 1, title=name, xscale="log", yscale="log", xlabel="bytes")
        field.axhline(1.0, color="black", linewidth=0.8)
        for peer, points in series.items():
            values = [p.value for p in points]
            ranges = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
            field.errorbar([p.size for p in points], values, ranges, fmt="o", markersize=4, label=peer)
        field.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
