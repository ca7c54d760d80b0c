"""What a user asks of the compiler, read and checked."""

from __future__ import annotations

from collections.abc import Mapping

from einc.base import targets
from einc.base.errors import CallError, nearest
from einc.codegen import BACKENDS
from einc.inspection import LEVELS
from einc.runtime.prepared import Options
from einc.tile.asked import MOST_PARTS, choice
from einc.tile.asked import precision as named_precision
from einc.tuning.modes import OFF, checked


def read_options(
    level: int,
    target: str | None,
    verify: bool,
    splits: int | None,
    choices: Mapping[str, int | str] | None,
    tune: str | None,
    generator: str,
    deterministic: bool,
    precision: str,
) -> Options:
    """The options of `einc.compile`. Raises `CallError` for values that there are none of, or that exclude others."""
    if level not in LEVELS or isinstance(level, bool):
        raise CallError(f"there is no optimisation level {level!r}", fact="levels are 0, 1 and 2", hint="level=2")
    if splits is not None and (type(splits) is not int or not 1 <= splits <= MOST_PARTS):
        raise CallError(f"a walk is not in {splits!r:.40} parts", fact=f"1 to {MOST_PARTS} are", hint="splits=8")
    if generator not in BACKENDS:
        raise CallError(
            f"no generator is called {generator!r:.40}",
            fact=f"there are {' and '.join(BACKENDS)}",
            hint=nearest(str(generator), BACKENDS) or "leave it out",
        )
    if not isinstance(deterministic, bool):
        given = f"deterministic={deterministic!r:.40}"
        raise CallError("a program is deterministic or not", fact=given, hint="deterministic=False")
    wanted = [*({"parts": splits} if splits else {}).items(), *(choices or {}).items()]
    asked = tuple(choice(key, value) for key, value in wanted)
    if tune not in (None, OFF) and (asked or target is not None):
        given = "choices are given" if asked else f"code is made for {target}"
        raise CallError("nothing is left to tune", fact=f"tune={tune!r:.40}, and {given}", hint="leave out one of both")
    machine, precise = None if target is None else targets.target(target), named_precision(precision)
    if machine is not None:
        BACKENDS[generator].check(machine)
    return Options(
        level,
        machine,
        verify,
        asked,
        generator=BACKENDS[generator],
        tune=None if tune is None else checked(tune),
        deterministic=deterministic,
        precision=precise,
    )
