"""Rows of measurements as lines on a terminal, as JSON, and as a section of a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einc.base.files import read_text, write
from einc.present.report import LIMITS, duration
from einc.trials.bench import Row, bench
from einc.trials.contests import Contest

if TYPE_CHECKING:
    import torch

_HEAD = ("program", "einc", "peer", "its time", "ratio", "TFLOP/s", "GB/s", "predicted", "limit")
_WIDTHS = (44, 10, 8, 10, 6, 8, 7, 10, 0)


def lines(row: Row) -> str:
    """A row as it is printed: a line for each peer, and for each that failed."""
    if row.error:
        return f"{row.name:{_WIDTHS[0]}} {row.error}"
    return "\n".join([*(_aligned(cells) for cells in _cells(row)), *problems(row)])


def heading() -> str:
    return _aligned(_HEAD)


def _aligned(cells: Sequence[str]) -> str:
    first, *rest = cells
    return " ".join([f"{first:{_WIDTHS[0]}}", *(f"{c:>{n}}" for c, n in zip(rest, _WIDTHS[1:], strict=True))]).rstrip()


def _cells(row: Row) -> list[tuple[str, ...]]:
    """The cells of a row, a line for each peer, with einc's own figures in the first line."""
    rate = f"{row.tflops:.3g}" if row.flops else ""
    predicted = "" if row.predicted is None else duration(1e6 * row.predicted)
    last = (rate, f"{row.gbps:.3g}", predicted, LIMITS.get(row.limit, row.limit))
    found = []
    for k, t in enumerate(row.times or (None,)):
        own = (row.name, duration(1e6 * row.seconds)) if k == 0 else ("", "")
        if t is None:
            theirs = ("", "", "")
        else:
            theirs = (t.peer, "failed" if t.error else duration(1e6 * t.seconds), "" if t.error else f"{t.ratio:.2f}")
        found.append((*own, *theirs, *(last if k == 0 else ("",) * len(last))))
    return found


def rows(
    contests: Sequence[Contest], device: torch.device, budget: float, keep: Callable[[list[Row]], None]
) -> list[Row]:
    """The rows of a table; after each new row, all so far are handed over."""
    found: list[Row] = []
    for row in bench(contests, device, budget):
        found.append(row)
        keep(found)
    return found


def problems(row: Row) -> list[str]:
    """The errors of peers, one line for each."""
    return [f"{row.name}: {t.peer}: {t.error}" for t in row.times if t.error]


def data(facts: Mapping[str, str], rows: Sequence[Row]) -> dict[str, Any]:
    """A table as data for JSON."""
    return {"facts": dict(facts), "rows": [r.data() for r in rows]}


# ---------------------------------------------------------------------------------------------------------------------
# Markdown

_OPENING = """# Benchmarks

Each table is one run of `einc bench` on one machine: einc and what a user would call instead, in one process and in
turns. Values are compared before anything is timed. A ratio is the peer's time over einc's: 2.00 means that einc is
twice as fast. On a GPU times are medians with a cold L2 cache; on a processor the least of several. TFLOP/s count the
positions that a mask leaves; GB/s the bytes of operands and results. *Predicted* is the cost model's time, and *limit*
what that time is spent on.
"""


def section(facts: Mapping[str, str], rows: Sequence[Row], command: str) -> str:
    """A table with its machine as the heading."""
    named = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("device", "date"))
    found = [f"## {facts['device']}", "", f"{facts['date']}; {named}. `{command}`", ""]
    found += ["| " + " | ".join(_HEAD) + " |", "|---" + "|---:" * (len(_HEAD) - 2) + "|---|"]
    for row in rows:
        if row.error:
            found.append(f"| {row.name} | {row.error.replace('|', '/')} " + "| " * (len(_HEAD) - 2) + "|")
        else:
            found += ["| " + " | ".join(cells) + " |" for cells in _cells(row)]
    notes = [note for row in rows for note in problems(row)]
    if notes:
        found += ["", *(f"- {note}" for note in notes)]
    return "\n".join(found) + "\n"


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
