"""Texts as programs, each compiled once."""

from __future__ import annotations

from functools import lru_cache

from einc.api import Program, compile


@lru_cache(maxsize=4096)
def compiled(text: str, name: str) -> Program:
    """The program of a text, which diagnostics call `name`."""
    return compile(text, name=name)
