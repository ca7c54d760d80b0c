"""What goes on while a program is tuned, on one line of a terminal; nothing where standard error is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from einc.tuning.sessions import Said


@contextmanager
def shown(name: str) -> Iterator[Said | None]:
    """What is told of what happens to a program of this name, inside of the context."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(f"tuning {name}") as status:

        def said(what: str, count: int, tried: int, most: int) -> None:
            status.update(f"tuning {name}: {what} {count}, {tried} of {most} done")

        yield said
