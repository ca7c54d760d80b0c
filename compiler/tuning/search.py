"""The fastest of the candidates: compiled at once, compared with the model's choice, timed in turns.

    model's choice  --its neighbours, the best first-->  timed  --neighbours of the fastest-->  ...  -->  a duel

Whatever fails is left out, and said by name: a candidate that does not compile, that needs more than the machine has,
or whose results differ from those of the model's choice by more than rounding. Before the fastest is kept, it and the
model's choice are timed again in turns, several times; it has to be faster every time, and by more than these differ.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from einc.base.errors import Error
from einc.driver import Compiled
from einc.tuning.candidates import Candidate, around, plans
from einc.tuning.entries import Entry, Measured, pinned
from einc.tuning.keys import Key
from einc.tuning.sessions import Session

Way = Callable[[], object]

_LONGEST = 200  # characters of a reason
_BATCH = 8  # candidates that are compiled and timed together
_DUELS = 5  # times that the fastest and the model's choice are timed again
_LEAST = 1.01  # times as fast as the model's choice, to be kept
_OTHER_PLANS = 4
_SHARE = 0.02  # of what is left of the budget, that a candidate is timed for
_MOST_TIMED = 0.05  # seconds, of the same


class Trials(Protocol):
    """How candidates are tried on a device."""

    def ready(self, wanted: Sequence[Compiled], seconds: float) -> list[Error | None]:
        """Compile all of them at once, as far as so many seconds go; for each the error, if it cannot be run."""
        ...

    def way(self, compiled: Compiled) -> Way:
        """What computes the results."""
        ...

    def difference(self, expected: object, found: object) -> str:
        """Why results differ by more than rounding; nothing if they do not."""
        ...

    def race(self, ways: Mapping[str, Way], seconds: float) -> dict[str, float]:
        """The seconds of each way, timed in turns for so many seconds each."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one call on a machine: the entry, each candidate that was left out with its reason, and each
    that was timed."""

    machine: str
    key: Key
    entry: Entry
    compiled: Compiled
    skipped: tuple[tuple[str, str], ...] = ()
    timed: tuple[Measured, ...] = ()


@dataclass(frozen=True, slots=True)
class _Timed:
    candidate: Candidate
    way: Way
    seconds: float


def tuned(model: Compiled, machine: str, key: Key, trials: Trials, session: Session) -> Outcome:
    """The fastest way to compute a program. Raises what the model's own choice raises."""
    run = _Tuning(model, trials, session)
    best, others = run.search()
    first, kept = run.first, run.first
    if best is not first:
        best, first, is_faster = run.duel(best, first)
        kept = best if is_faster else first
    again = {id(t.candidate): t for t in (best, first)}
    others = [again.get(id(t.candidate), t) for t in others]
    following = min((t for t in others if t is not kept), key=lambda t: t.seconds, default=None)
    entry = Entry(
        plan=next((c.value for c in kept.candidate.chosen if c.name == "plan" and isinstance(c.value, int)), 1),
        kernels=() if kept is first else pinned(kept.candidate.compiled),
        best=_measured(kept),
        model=_measured(first),
        next=None if following is None else _measured(following),
        of=key.reads,
        tried=len(others),
    )
    timed = tuple(sorted(map(_measured, others), key=lambda m: m.seconds))
    return Outcome(machine, key, entry, kept.candidate.compiled, tuple(run.skipped), timed)


def _measured(t: _Timed) -> Measured:
    return Measured(t.candidate.words, t.seconds, t.candidate.predicted)


class _Tuning:
    """One program while it is tuned: what has been tried, and what was left out."""

    def __init__(self, model: Compiled, trials: Trials, session: Session) -> None:
        self.model, self.trials, self.session = model, trials, session
        self.tried: list[Compiled] = []
        self.skipped: list[tuple[str, str]] = []
        own = Candidate(model)
        way = trials.way(model)
        self.expected = way()
        self.first = _Timed(own, way, self.race({"model": way})["model"])

    def race(self, ways: Mapping[str, Way]) -> dict[str, float]:
        return self.trials.race(ways, min(_SHARE * self.session.left, _MOST_TIMED))

    def search(self) -> tuple[_Timed, list[_Timed]]:
        """The fastest, and all that were timed."""
        mode = self.session.mode
        found, best = [self.first], self.first
        if mode.plans:
            found += self.timed(list(plans(self.model, _OTHER_PLANS)))
            best = min(found, key=lambda t: t.seconds)
        around_best = self.left_around(best)
        while self.session.left > 0 and len(found) + len(self.skipped) <= mode.candidates:
            room = mode.candidates + 1 - len(found) - len(self.skipped)
            batch = list(islice(around_best, min(_BATCH, room)))
            if not batch:
                break
            found += self.timed(batch)
            faster = min(found, key=lambda t: t.seconds)
            if faster is not best:
                best, around_best = faster, self.left_around(faster)
        return best, found

    def left_around(self, best: _Timed) -> Iterator[Candidate]:
        """What is near the fastest and was not tried yet."""
        for c in around(best.candidate, self.session.mode.plans):
            if all(c.compiled.state != t.state for t in (self.model, *self.tried)):
                yield c

    def timed(self, batch: Sequence[Candidate]) -> list[_Timed]:
        """Those of some candidates that compute the same, with their times."""
        self.tried += [c.compiled for c in batch]
        self.say("compiling", len(batch))
        errors = self.trials.ready([c.compiled for c in batch], self.session.left)
        ways: dict[str, tuple[Candidate, Way]] = {}
        for c, error in zip(batch, errors, strict=True):
            reason = _reason(error) if error is not None else ""
            if not reason:
                try:
                    way = self.trials.way(c.compiled)
                    reason = self.trials.difference(self.expected, way())
                except Exception as wrong:  # a driver or a compiler may raise anything
                    reason = _reason(wrong)
            if reason:
                self.skipped.append((c.words, reason))
            else:
                ways[c.words] = c, way
        self.say("timing", len(ways))
        times = self.race({name: way for name, (_, way) in ways.items()}) if ways else {}
        return [_Timed(c, way, times[name]) for name, (c, way) in ways.items()]

    def duel(self, best: _Timed, first: _Timed) -> tuple[_Timed, _Timed, bool]:
        """Both with the times that they take in turns, and whether the fastest is faster by more than noise."""
        names = ("best", "model")
        times: dict[str, list[float]] = {name: [] for name in names}
        for n in range(_DUELS):
            self.say("comparing", 2)
            ways = {name: (best if name == "best" else first).way for name in (names if n % 2 else names[::-1])}
            for name, seconds in self.race(ways).items():
                times[name].append(seconds)
        gains = [b / a for a, b in zip(times["best"], times["model"], strict=True)]
        own, other = (statistics.median(times[name]) for name in names)
        is_faster = min(gains) > 1.0 and statistics.median(gains) >= _LEAST
        return replace(best, seconds=own), replace(first, seconds=other), is_faster

    def say(self, what: str, count: int) -> None:
        if self.session.said is not None:
            self.session.said(what, count, len(self.tried) - count, self.session.mode.candidates)


def _reason(error: BaseException) -> str:
    """What an error says on one line, and the last of its facts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    facts = error.fact.strip().splitlines() if isinstance(error, Error) and error.fact else []
    return ": ".join([lines[0], *(f.strip() for f in facts[-1:])])[:_LONGEST]
