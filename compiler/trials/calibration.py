"""The cost model against the clock: predicted and measured times of programs of many kinds on one machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from einc.present.report import LIMITS, duration
from einc.trials import draws
from einc.trials.bench import Row
from einc.trials.contests import Contest
from einc.trials.suites import SUITES, interleaved

CLOSE = (0.7, 1.4)  # of what is measured, a prediction that is trusted
_LIBRARY = ("matmul", "attention", "decode", "rows", "fused", "convolutions")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How good predictions of a kind are: rows, the share of them that is close, and the median of predicted over
    measured."""

    kind: str
    rows: int
    close: float
    median: float


def contests(device: str, seed: int, count: int) -> list[Contest]:
    """The suites, and so many random contractions, reductions and cascades, in turns; without their peers."""
    within = draws.bounds(device)
    several = (
        list(chain.from_iterable(SUITES[name](device) for name in _LIBRARY)),
        draws.contractions(count, seed, within),
        draws.reductions(count, seed, within),
        draws.cascades(count, seed, within),
    )
    return [replace(c, peers={}) for c in interleaved(several)]


def accuracy(rows: Iterable[Row]) -> list[Accuracy]:
    """By kind, and of all together."""
    kinds: dict[str, list[float]] = {}
    for row in rows:
        if row.model is not None:
            kinds.setdefault(row.kind, []).append(row.model)
    every = [x for values in kinds.values() for x in values]
    return [_accuracy(kind, values) for kind, values in [*sorted(kinds.items()), ("all", every)] if values]


def _accuracy(kind: str, values: Sequence[float]) -> Accuracy:
    close = sum(CLOSE[0] <= x <= CLOSE[1] for x in values) / len(values)
    return Accuracy(kind, len(values), close, statistics.median(values))


def worst(rows: Iterable[Row], count: int) -> list[Row]:
    """The rows whose prediction is furthest from the clock, either way."""
    known = [(max(r.model, 1 / r.model), r) for r in rows if r.model]
    return [r for _, r in sorted(known, key=lambda x: x[0], reverse=True)[:count]]


def data(rows: Sequence[Row]) -> dict[str, Any]:
    """How close predictions are, by kind, as data for JSON."""
    return {a.kind: {"rows": a.rows, "close": a.close, "median": a.median} for a in accuracy(rows)}


def report(rows: Sequence[Row], count: int = 20) -> str:
    """How close predictions are by kind, and the worst of them, with what the model says the time is spent on."""
    low, high = CLOSE
    found = [f"{'kind':14} {'rows':>5} {f'{low:g}..{high:g}':>9} {'median':>7}"]
    found += [f"{a.kind:14} {a.rows:>5} {a.close:>9.0%} {a.median:>7.2f}" for a in accuracy(rows)]
    found += ["", f"{'predicted over measured, worst':60} {'predicted':>10} {'measured':>10} {'ratio':>6}  limit"]
    for r in worst(rows, count):
        predicted, measured = (duration(1e6 * t) for t in (r.predicted or 0.0, r.least))
        found.append(
            f"{r.name:60} {predicted:>10} {measured:>10} {r.model or 0.0:>6.2f}  {LIMITS.get(r.limit, r.limit)}"
        )
    found += [f"{r.name}: {r.error}" for r in rows if r.error]
    return "\n".join(found) + "\n"
