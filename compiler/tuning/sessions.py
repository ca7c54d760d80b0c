"""What is tuned by an explicit request: in which mode, for how long, by which clock, and what came of it.

Calls inside of a session are tuned again whether something is known of them or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from einc.tuning.modes import MODES, OFF, Mode, checked

if TYPE_CHECKING:
    from einc.tuning.search import Outcome

Said = Callable[[str, int, int, int], None]  # what is done with how many, how many are done of how many


@dataclass(eq=False)
class Session:
    """A request to tune, and its outcomes in the order of calls; `said` is told what happens."""

    mode: Mode
    deadline: float
    said: Said | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(self.deadline - time.monotonic(), 0.0)


_CURRENT: ContextVar[Session | None] = ContextVar("einc_tuning", default=None)


def current() -> Session | None:
    """The session that calls of this thread are made in, if they are."""
    return _CURRENT.get()


def begun(mode: str, budget: float | None = None, said: Said | None = None) -> Session:
    """A session of a mode, for so many seconds."""
    chosen = MODES[mode]
    return Session(chosen, time.monotonic() + (chosen.budget if budget is None else budget), said)


@contextmanager
def session(mode: str, budget: float | None = None, said: Said | None = None) -> Iterator[Session]:
    """Calls inside of the context are tuned. Raises `CallError` for a mode that is none."""
    found = begun("quick" if checked(mode) == OFF else mode, budget, said)
    token = _CURRENT.set(found)
    try:
        yield found
    finally:
        _CURRENT.reset(token)
