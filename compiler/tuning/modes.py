"""How much is measured: nothing, what is closest to the model's choice, or more and other plans as well.

`EINC_TUNE` is `quick`, `full` or `off` for all calls that do not say it themselves. Without it, what was measured
before is used, and nothing is measured; `off` uses the model alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from einc.base.errors import CallError, nearest

OFF = "off"
VARIABLE = "EINC_TUNE"


@dataclass(frozen=True, slots=True)
class Mode:
    """The most candidates that are timed, whether other plans are among them, and the seconds that it may take."""

    candidates: int
    plans: bool
    budget: float


MODES = {"quick": Mode(8, False, 20.0), "full": Mode(40, True, 120.0)}


def checked(mode: object, hint: str = 'tune="quick"') -> str:
    """The name of a mode, or `off`; raises `CallError` for any other."""
    known = (*MODES, OFF)
    if isinstance(mode, str) and mode in known:
        return mode
    fact = f"it is one of {', '.join(known)}"
    raise CallError(f"there is no way to tune called {mode!r:.40}", fact=fact, hint=nearest(str(mode), known) or hint)


def effective(asked: str | None) -> str | None:
    """What is asked for, else what the environment says; None where neither says anything."""
    if asked is not None:
        return asked
    named = os.environ.get(VARIABLE, "").strip().lower()
    return checked(named, f"{VARIABLE}=quick") if named else None
