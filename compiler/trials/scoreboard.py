"""Rows of measurements as lines on a terminal, as JSON, and as a section of a Markdown file, with their summaries."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from einc.base.files import read_text, write
from einc.present.curves import Point
from einc.present.report import LIMITS, duration
from einc.runtime.timing import Spread
from einc.trials.bench import ITSELF, Row, Time
from einc.trials.contests import Contest

_HEAD = (
    "program", "einc", "host", "error", "peer", "its time", "its error", "ratio", "95%", "TFLOP/s", "GB/s", "predicted",
    "limit",
)  # fmt: skip
_WIDTHS = (52, 9, 9, 8, 8, 9, 9, 6, 11, 8, 9, 9, 0)
THRESHOLDS = (0.5, 0.8, 0.95)
_LISTED = 40  # rows of a suite that are listed; of more, the worst
_WORST = 10


def lines(row: Row) -> str:
    """A row as it is printed: a line for each peer, one for itself, and one for each peer that failed."""
    if row.error:
        return f"{row.name:{_WIDTHS[0]}} {row.error}"
    return "\n".join([*(_aligned(cells) for cells in _cells(row)), *problems(row)])


def heading() -> str:
    """The names of the columns."""
    return _aligned(_HEAD)


def _aligned(cells: Sequence[str]) -> str:
    first, *rest = cells
    return " ".join([f"{first:{_WIDTHS[0]}}", *(f"{c:>{n}}" for c, n in zip(rest, _WIDTHS[1:], strict=True))]).rstrip()


def _cells(row: Row) -> list[tuple[str, ...]]:
    """The cells of a row, a line for each peer and one for itself; einc's own figures are in the first."""
    rate = f"{row.tflops:.3g}" if row.flops else ""
    predicted = "" if row.predicted is None else duration(1e6 * row.predicted)
    own = (row.name, duration(1e6 * row.seconds), duration(1e6 * row.host), _error(row.exact))
    last = (rate, f"{row.gbps:.3g}", predicted, LIMITS.get(row.limit, row.limit))
    theirs = [_peer(t) for t in row.times]
    if row.times:
        theirs.append((ITSELF, "", "", f"{row.noise.median:.2f}", _interval(row.noise)))
    found = []
    for k, cells in enumerate(theirs or [("",) * 5]):
        found.append((*own, *cells, *last) if k == 0 else ("",) * len(own) + cells + ("",) * len(last))
    return found


def _peer(t: Time) -> tuple[str, ...]:
    if t.error:
        return (t.peer, "failed", "", "", "")
    return (t.peer, duration(1e6 * t.seconds), _error(t.exact), f"{t.ratio.median:.2f}", _interval(t.ratio))


def _error(x: float | None) -> str:
    return "" if x is None else f"{x:.1e}"


def _interval(s: Spread) -> str:
    return f"{s.low:.2f}–{s.high:.2f}"


def problems(row: Row) -> list[str]:
    """The errors of peers, one line for each."""
    return [f"{row.name}: {t.peer}: {t.error}" for t in row.times if t.error]


# ---------------------------------------------------------------------------------------------------------------------
# Summaries


def by_suite(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their suite, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.suite, []).append(row)
    return found


def summary(rows: Sequence[Row]) -> str:
    """The ratio to each row's fastest peer: median, worst, and the shares of rows below thresholds."""
    found = [(t.ratio.median, row.name) for row in rows if (t := row.best) is not None]
    if not found:
        return "no row has a peer that could be timed"
    ratios = [x for x, _ in found]
    least, name = min(found)
    below = ", ".join(f"{sum(x < t for x in ratios) / len(ratios):.0%} below {t:g}" for t in THRESHOLDS)
    return (
        f"{len(ratios)} rows against their fastest peers: median {statistics.median(ratios):.2f}, worst {least:.2f} "
        f"({name}), {below}"
    )


def panels(rows: Sequence[Row]) -> dict[str, dict[str, list[Point]]]:
    """The ratios of a plot by suite and peer, over the bytes of operands and results."""
    found: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        for t in row.times:
            if not t.error and row.bytes:
                point = Point(float(row.bytes), t.ratio.median, t.ratio.low, t.ratio.high)
                found.setdefault(row.suite or row.name, {}).setdefault(t.peer, []).append(point)
    return found


def missing(contests: Sequence[Contest], rows: Sequence[Row]) -> list[str]:
    """What was not reached in time, by suite."""
    left: dict[str, int] = {}
    for contest in contests[len(rows) :]:
        left[contest.suite] = left.get(contest.suite, 0) + 1
    return [f"{n} rows of {suite or 'the table'} were not reached in time" for suite, n in left.items()]


def data(facts: Mapping[str, str], rows: Sequence[Row], left: Sequence[str] = ()) -> dict[str, Any]:
    """A table as data for JSON."""
    summaries = {suite: summary(found) for suite, found in by_suite(rows).items()}
    return {"facts": dict(facts), "rows": [r.data() for r in rows], "summaries": summaries, "missing": list(left)}


# ---------------------------------------------------------------------------------------------------------------------
# Markdown

_OPENING = """# Benchmarks

Each section is one run of `einc bench` on one machine: einc and what a user would call instead, in one process.
Contestants take turns, in rounds of one order and then the reverse (ABBA), seven at least; every run finds its
operands in memory, since sets of them are used in turn that together are three times what the last cache holds. Times
are of the device, medians over rounds; *host* is what the call takes the host. A ratio is the median over rounds of
the peer's time over einc's, with the interval that holds it with 95% confidence: 2.00 means that einc is twice as
fast. *itself* is einc against itself: how far the ratios of a row can be trusted. Values are compared before anything
is timed; *error* is the greatest difference from double precision in parts of the greatest value. TFLOP/s count the
positions that a mask leaves; GB/s the bytes of operands and results. *Predicted* is the cost model's time, and *limit*
what that time is spent on.
"""


def section(facts: Mapping[str, str], rows: Sequence[Row], command: str, left: Sequence[str] = ()) -> str:
    """A table for each suite, with the machine as the heading."""
    named = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("device", "date"))
    found = [f"## {facts['device']}", "", f"{facts['date']}; {named}{_clocks(rows)}. `{command}`"]
    for suite, of_suite in by_suite(rows).items():
        shown = [*([f"### {suite}", ""] if suite else [])]
        shown += [f"{summary(of_suite)}.", ""] if any(r.times for r in of_suite) and suite else []
        kept = sorted(of_suite, key=_ratio)[:_WORST] if len(of_suite) > _LISTED else of_suite
        shown += [f"The {len(kept)} worst of {len(of_suite)}:", ""] if len(kept) < len(of_suite) else []
        found += ["", *shown, *_table(kept)]
    if left:
        found += ["", *(f"- {line}" for line in left)]
    return "\n".join(found) + "\n"


def _ratio(row: Row) -> float:
    return float("-inf") if row.error else float("inf") if row.best is None else row.best.ratio.median


def _clocks(rows: Sequence[Row]) -> str:
    known = [row.clock for row in rows if row.clock is not None]
    if not known:
        return ""
    low, high = (round(f(known) * 1e-6) for f in (min, max))
    return f", clock {low} MHz" if low == high else f", clock {low} to {high} MHz"


def _table(rows: Sequence[Row]) -> list[str]:
    found = ["| " + " | ".join(_HEAD) + " |", "|---" + "|---:" * (len(_HEAD) - 2) + "|---|"]
    for row in rows:
        if row.error:
            found.append(f"| {row.name} | {row.error.replace('|', '/')} " + "| " * (len(_HEAD) - 2) + "|")
        else:
            found += ["| " + " | ".join(cells) + " |" for cells in _cells(row)]
    notes = [note for row in rows for note in problems(row)]
    return [*found, *(["", *(f"- {note}" for note in notes)] if notes else [])]


def inserted(document: str, part: str) -> str:
    """The document with a section in place of the one of the same heading, or at the end."""
    title = part.partition("\n")[0]
    sections = re.split(r"(?m)^(?=## )", document or _OPENING)
    if not any(s.partition("\n")[0] == title for s in sections):
        sections.append(part)
    return "\n\n".join((part if s.partition("\n")[0] == title else s).strip() for s in sections) + "\n"


def save(path: Path, part: str) -> None:
    """Put a section into a file, which need not exist."""
    write(path, inserted(read_text(path) if path.exists() else "", part))
